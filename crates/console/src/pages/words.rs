//! Words and moments that several pages tell.

use axum::http::StatusCode;
use maud::{Markup, html};
use ringfence_policy::Column;
use ringfence_policy::decision::Visibility;
use serde_json::Value;

/// A field of an answer, for people.
pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("-")
}

/// A moment: UTC here, and in the reader's own zone once the script has run.
pub(crate) fn moment(rfc3339: &str) -> Markup {
    html! { time datetime=(rfc3339) title=(rfc3339) { (rfc3339.replacen('T', " ", 1).replace('Z', " UTC")) } }
}

/// A heading for what went wrong.
pub(crate) fn of_status(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_FOUND => "Not here",
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "Not allowed",
        StatusCode::CONFLICT => "Not as it is now",
        _ => "Not possible at the moment",
    }
}

/// How much protected data a column holds, in a word.
pub(crate) fn holds(column: Option<&Column>) -> &str {
    match column {
        None => "unclassified",
        Some(column) if column.category().is_empty() => "public",
        Some(column) => column.category(),
    }
}

/// What somebody sees of a column.
pub(crate) fn seen_word(seen: Visibility) -> &'static str {
    match seen {
        Visibility::Absent => "absent",
        Visibility::Masked => "masked",
        Visibility::Clear => "clear",
    }
}

/// A length of time.
pub(crate) fn length(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds % 86_400 / 3600, seconds % 3600 / 60);
    let parts =
        [(days, if days == 1 { "day" } else { "days" }), (hours, "h"), (minutes, "min"), (seconds % 60, "s")];
    let told: Vec<String> =
        parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n} {unit}")).collect();
    if told.is_empty() { "0 s".to_owned() } else { told[..told.len().min(2)].join(" ") }
}

/// A number with its thousands apart (a narrow space, which does not break).
pub(crate) fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// Bytes in the unit that people would take.
pub(crate) fn bytes(n: u64) -> String {
    let units = [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1000)];
    match units.into_iter().find(|(_, size)| n >= *size) {
        Some((unit, size)) => format!("{}.{} {unit}", n / size, n % size * 10 / size),
        None => format!("{n} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_numbers_are_for_people() {
        assert_eq!(length(5400), "1 h 30 min");
        assert_eq!(length(604_800), "7 days");
        assert_eq!(length(86_461), "1 day 1 min");
        assert_eq!(length(0), "0 s");
        assert_eq!(number(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!((number(12), number(123)), ("12".to_owned(), "123".to_owned()));
        assert_eq!(
            (bytes(999), bytes(1500), bytes(2_340_000)),
            ("999 B".to_owned(), "1.5 kB".to_owned(), "2.3 MB".to_owned())
        );
    }
}
