//! How wide letters of Helvetica are, which every PDF reader has: Adobe's font metrics of the standard 14 fonts, in thousandths of
//! the size, for the characters 32 to 126.

/// Helvetica.
const REGULAR: [u16; 95] = [
    278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278, 556, 556, 556, 556, 556,
    556, 556, 556, 556, 556, 278, 278, 584, 584, 584, 556, 1015, 667, 667, 722, 722, 667, 611, 778, 722, 278,
    500, 667, 556, 833, 722, 778, 667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611, 278, 278, 278, 469,
    556, 333, 556, 556, 500, 556, 556, 278, 556, 556, 222, 222, 500, 222, 833, 556, 556, 556, 556, 333, 500,
    278, 556, 500, 722, 500, 500, 500, 334, 260, 334, 584,
];
/// Helvetica-Bold.
const BOLD: [u16; 95] = [
    278, 333, 474, 556, 556, 889, 722, 238, 333, 333, 389, 584, 278, 333, 278, 278, 556, 556, 556, 556, 556,
    556, 556, 556, 556, 556, 333, 333, 584, 584, 584, 611, 975, 722, 722, 722, 722, 667, 611, 778, 722, 278,
    556, 722, 611, 833, 722, 778, 667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611, 333, 278, 333, 584,
    556, 333, 556, 611, 556, 611, 556, 333, 611, 611, 278, 278, 556, 278, 889, 611, 611, 611, 611, 389, 556,
    333, 611, 556, 778, 556, 556, 500, 389, 280, 389, 584,
];

/// A letter in WinAnsiEncoding (PDF 32000-1, annex D); what it has not is a question mark.
pub(super) fn encode(letter: char) -> u8 {
    match letter {
        ' '..='~' => u8::try_from(letter).unwrap_or(b'?'),
        '\u{a0}'..='\u{ff}' => u8::try_from(u32::from(letter)).unwrap_or(b'?'),
        '–' => 150,
        '—' => 151,
        '’' => 146,
        '“' => 147,
        '”' => 148,
        '…' => 133,
        '≤' => b'<',
        _ => b'?',
    }
}

/// How wide a text is at a size, in points. Letters outside ASCII are taken to be as wide as the widest usual one.
pub(super) fn width(text: &[u8], size: f32, is_bold: bool) -> f32 {
    let widths = if is_bold { &BOLD } else { &REGULAR };
    let of = |byte: &u8| widths.get(usize::from(byte.wrapping_sub(32))).copied().unwrap_or(722);
    let sum: f32 = text.iter().map(|byte| f32::from(of(byte))).sum();
    sum * size / 1000.0
}
