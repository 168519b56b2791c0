//! Words and moments that several pages tell.

use axum::http::StatusCode;
use maud::{Markup, html};
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
