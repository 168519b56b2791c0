//! Lines of `PostgreSQL`'s COPY text format (manual, "COPY", "Text Format").
//!
//! Values are written as `PostgreSQL` itself prints them under `TimeZone = UTC` and `DateStyle =
//! ISO`, so a `COPY … TO` of a loaded table gives back these bytes. Nothing here escapes: the words
//! of the demo hold no backslash, tab or line end, and a test says so.

/// Seconds in a day.
pub(super) const DAY: i64 = 86_400;

/// A buffer of COPY lines. Each value is followed by [`CopyText::tab`] or [`CopyText::end`].
#[derive(Debug, Default)]
pub(super) struct CopyText {
    bytes: Vec<u8>,
    rows: u64,
}

impl CopyText {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), rows: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn into_parts(self) -> (Vec<u8>, u64) {
        (self.bytes, self.rows)
    }

    pub(super) fn tab(&mut self) {
        self.bytes.push(b'\t');
    }

    /// Ends the line.
    pub(super) fn end(&mut self) {
        self.bytes.push(b'\n');
        self.rows += 1;
    }

    pub(super) fn text(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    pub(super) fn char(&mut self, char: char) {
        self.text(char.encode_utf8(&mut [0; 4]));
    }

    /// `text` with its first letter, if ASCII, in upper case.
    pub(super) fn capitalised(&mut self, text: &str) {
        let at = self.bytes.len();
        self.text(text);
        if let Some(first) = self.bytes.get_mut(at) {
            first.make_ascii_uppercase();
        }
    }

    /// `name` as it would stand in an address: lower case ASCII letters only.
    pub(super) fn folded(&mut self, name: &str) {
        for char in name.chars() {
            match fold(char) {
                Some(ascii) => self.text(ascii),
                None if char.is_ascii_alphabetic() => self.char(char.to_ascii_lowercase()),
                None => {}
            }
        }
    }

    pub(super) fn number(&mut self, number: u64) {
        self.padded(number, 1);
    }

    /// `number` in decimal, with zeros in front until it has `width` digits.
    pub(super) fn padded(&mut self, mut number: u64, width: usize) {
        let mut digits = [b'0'; 20];
        let mut at = digits.len();
        while number > 0 {
            at -= 1;
            digits[at] = b'0' + (number % 10) as u8;
            number /= 10;
        }
        self.bytes.extend_from_slice(&digits[at.min(digits.len() - width)..]);
    }

    /// The lowest `width` hexadecimal digits of `bits`.
    pub(super) fn hex(&mut self, bits: u64, width: u32) {
        for digit in (0..width).rev() {
            self.bytes.push(b"0123456789abcdef"[((bits >> (4 * digit)) & 15) as usize]);
        }
    }

    /// A random UUID (RFC 9562 section 5.4, version 4) made of 122 of these bits.
    pub(super) fn uuid(&mut self, high: u64, low: u64) {
        self.hex(high >> 32, 8);
        self.char('-');
        self.hex(high >> 16, 4);
        self.text("-4");
        self.hex(high, 3);
        self.char('-');
        self.hex((low >> 60) & 3 | 8, 1);
        self.hex(low >> 48, 3);
        self.char('-');
        self.hex(low, 12);
    }

    /// Hundred-thousandths of a degree as degrees with five decimals.
    pub(super) fn degrees(&mut self, e5: i32) {
        if e5 < 0 {
            self.char('-');
        }
        let e5 = u64::from(e5.unsigned_abs());
        self.number(e5 / 100_000);
        self.char('.');
        self.padded(e5 % 100_000, 5);
    }

    /// Days since 1970-01-01 as a date.
    pub(super) fn date(&mut self, days: i64) {
        let (year, month, day) = civil(days);
        self.padded(year, 4);
        self.char('-');
        self.padded(month, 2);
        self.char('-');
        self.padded(day, 2);
    }

    /// Seconds since 1970-01-01 00:00 UTC as a timestamp with time zone.
    pub(super) fn timestamp(&mut self, seconds: i64) {
        self.date(seconds.div_euclid(DAY));
        let of_day = seconds.rem_euclid(DAY).unsigned_abs();
        self.char(' ');
        self.padded(of_day / 3600, 2);
        self.char(':');
        self.padded(of_day / 60 % 60, 2);
        self.char(':');
        self.padded(of_day % 60, 2);
        self.text("+00");
    }
}

/// The ASCII spelling of the letters beyond ASCII that the name lists use.
fn fold(char: char) -> Option<&'static str> {
    Some(match char {
        'ä' | 'Ä' => "ae",
        'ö' | 'Ö' => "oe",
        'ü' | 'Ü' => "ue",
        'ß' => "ss",
        'á' | 'à' | 'â' | 'Á' | 'ą' => "a",
        'ç' | 'ć' => "c",
        'é' | 'è' | 'ê' | 'ë' | 'É' | 'ę' => "e",
        'í' | 'ï' | 'î' | 'ı' | 'Í' => "i",
        'ł' | 'Ł' => "l",
        'ñ' | 'ń' => "n",
        'ó' | 'ò' | 'ô' | 'Ó' => "o",
        'ś' | 'Ś' => "s",
        'ú' | 'Ú' => "u",
        'ź' | 'ż' | 'Ż' => "z",
        _ => return None,
    })
}

/// Days since 1970-01-01 of the first of January of `year`, in the Gregorian calendar.
pub(super) const fn new_year(year: i64) -> i64 {
    let past = year - 1;
    365 * past + past.div_euclid(4) - past.div_euclid(100) + past.div_euclid(400) - 719_162
}

/// Year, month and day of a day counted from 1970-01-01: `civil_from_days` of Hinnant's
/// "chrono-Compatible Low-Level Date Algorithms". Its year begins in March, so that the leap day
/// comes last.
fn civil(days: i64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let (month, carry) = if from_march < 10 { (from_march + 3, 0) } else { (from_march - 9, 1) };
    ((era * 400 + year + carry).unsigned_abs(), month.unsigned_abs(), day.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut CopyText)) -> String {
        let mut out = CopyText::default();
        write(&mut out);
        String::from_utf8(out.into_parts().0).unwrap()
    }

    #[test]
    fn dates_agree_with_the_calendar() {
        for (days, date) in [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (-7_305, "1950-01-01"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (20_453, "2025-12-31"),
            (20_634, "2026-06-30"),
        ] {
            assert_eq!(written(|out| out.date(days)), date);
        }
        assert_eq!(written(|out| out.timestamp(1_656_592_496)), "2022-06-30 12:34:56+00");
    }

    #[test]
    fn numbers_keep_zeros_and_signs() {
        assert_eq!(written(|out| out.number(0)), "0");
        assert_eq!(written(|out| out.number(u64::MAX)), "18446744073709551615");
        assert_eq!(written(|out| out.padded(42, 4)), "0042");
        assert_eq!(written(|out| out.padded(31_415, 4)), "31415");
        assert_eq!(written(|out| out.degrees(-37_005)), "-0.37005");
        assert_eq!(written(|out| out.degrees(10_385_201)), "103.85201");
    }

    #[test]
    fn names_fold_to_what_an_address_allows() {
        assert_eq!(written(|out| out.folded("Jörg Groß")), "joerggross");
        assert_eq!(written(|out| out.folded("Siobhán O'Brien")), "siobhanobrien");
    }

    #[test]
    fn uuids_are_version_4() {
        assert_eq!(written(|out| out.uuid(u64::MAX, u64::MAX)), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(written(|out| out.uuid(0, 0)), "00000000-0000-4000-8000-000000000000");
    }
}
