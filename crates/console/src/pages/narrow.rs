//! Giving less than was asked for: fewer columns, fewer rows, a shorter time. What comes of it is a request of its own, which is then
//! read and signed like any other.

use axum::extract::{Form, Path, State};
use axum::http::HeaderMap;
use axum::response::Redirect;
use maud::{Markup, html};
use ringfence_grants::Request;
use serde_json::json;

use super::ask::{Fields, limits_fields, rows_fields};
use super::{At, Person, Told};
use crate::Desk;

/// The form, for whoever decides.
pub(super) fn form(desk: &Desk, person: &Person, request: &Request) -> Markup {
    let policy = desk.gateway.policy();
    let columns =
        policy.store(&request.store).and_then(|(_, c)| c.tables.get(&request.table)).map(|t| &t.columns);
    html! {
        details {
            summary { "Give less than that" }
            form.ask method="post" action={ "/requests/" (request.id) "/narrow" } {
                input type="hidden" name="token" value=(person.session.csrf);
                fieldset {
                    legend { "Columns that stay" }
                    @for column in &request.columns {
                        label.tick { input type="checkbox" name="columns" value={ (request.table) "." (column) } checked; code { (column) } }
                    }
                }
                @if let Some(columns) = columns { (rows_fields(&columns.keys().collect::<Vec<_>>(), request.condition.as_deref())) }
                (limits_fields(request.seconds, request.seconds, request.max_rows))
                p.soft { "This turns " (request.id) " down and makes a new request of it, in the name of " (request.requester) ". You then read and sign that one." }
                button.quiet { "Narrow" }
            }
        }
    }
}

/// `POST /requests/{id}/narrow`
pub(crate) async fn send(
    State(desk): At,
    person: Person,
    Path(id): Path<String>,
    headers: HeaderMap,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Redirect, Told> {
    let fields = Fields(fields);
    person.must_be_ours(&desk, &headers, fields.one("token"))?;
    let less = json!({
        "columns": fields.all("columns"), "where": fields.condition()?, "seconds": fields.number("seconds")?,
        "max_rows": fields.number("max_rows")?,
    });
    let told = person.ask(&desk, &json!({ "do": "narrow", "id": id, "less": less })).await?;
    Ok(Redirect::to(&format!("/requests/{}", told["id"].as_str().unwrap_or_default())))
}
