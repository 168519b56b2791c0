//! Quoting. Everything that is put into SQL text goes through here.

/// A quoted identifier.
pub fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A quoted literal, safe under either setting of `standard_conforming_strings`.
pub fn literal(text: &str) -> String {
    let quoted = format!("'{}'", text.replace('\'', "''"));
    if text.contains('\\') { format!(" E{}", quoted.replace('\\', "\\\\")) } else { quoted }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_cannot_be_left() {
        assert_eq!(ident(r#"a"; DROP"#), r#""a""; DROP""#);
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"\' OR"), r" E'\\'' OR'");
    }
}
