//! A syntax tree as JSON.

use serde_json::Value;

/// Whether `is_it` says so of a field somewhere in a tree: it is given the field's name, which is the kind of
/// a node, and what stands there.
pub(crate) fn any(value: &Value, is_it: &mut dyn FnMut(&str, &Value) -> bool) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| any(item, is_it)),
        Value::Object(fields) => fields.iter().any(|(key, inner)| is_it(key, inner) || any(inner, is_it)),
        _ => false,
    }
}
