//! What crosses the border: who is connected now, how much went where in the last thirty days, down to the single entry.

use std::collections::BTreeSet;

use axum::extract::{Form, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Redirect;
use maud::{Markup, PreEscaped, html};
use ringfence_ledger::witnessing;
use serde::Deserialize;
use serde_json::{Value, json};

use super::words::{bytes, length, number};
use super::{At, Page, Person, Told, page, text};
use crate::Desk;
use crate::log::{Line, lines};
use crate::traffic::{Seen, Sums, Way};

/// How many days the matrix is of.
const DAYS: u64 = 30;

/// `GET /border`
pub(crate) async fn show(State(desk): At, person: Person) -> Result<Page, Told> {
    let sessions = person.ask(&desk, &json!({ "do": "sessions" })).await?;
    let sessions: Vec<Value> = sessions.as_array().cloned().unwrap_or_default();
    let (crossing, inside): (Vec<Value>, Vec<Value>) =
        sessions.into_iter().partition(|s| s["crosses"] == true);
    let body = html! {
        h1 { "Border" }
        (state(&desk))
        (super::orders::switch(&desk, &person))
        section aria-labelledby="matrix" {
            h2 id="matrix" { "The last thirty days" }
            (matrix(&desk))
        }
        section aria-labelledby="now" {
            h2 id="now" { "Across the border now" }
            (live(&desk, &person, &crossing, "Nobody."))
        }
        @if !inside.is_empty() {
            details { summary { (inside.len()) " sessions inside the country" } (live(&desk, &person, &inside, "")) }
        }
    };
    Ok(page("Border", Some(&person), &body))
}

/// Whether data may cross now.
pub(super) fn state(desk: &Desk) -> Markup {
    match desk.gateway.border.is_open(&desk.gateway) {
        Ok(()) => {
            html! { p { span.state data-state="granted" { "open" } " Reads across the border are possible. "
            @match desk.gateway.ledger.witnessed() {
                witnessing::State::Confirmed(ago) => { "Witnesses confirmed the log that has them " (length(ago.as_secs())) " ago." },
                _ => "No witnesses are asked to confirm the log that has them.",
            } } }
        }
        Err(cut) => {
            html! { p.warn { span.state data-state="denied" { "closed" } " Nothing crosses: " (cut.reason()) "." } }
        }
    }
}

fn matrix(desk: &Desk) -> Markup {
    let now = desk.gateway.now();
    let ways = desk.traffic.ways();
    let (read, problem) = desk.traffic.progress();
    let mut jurisdictions: Vec<&str> = ways.iter().map(|(way, _)| way.jurisdiction.as_str()).collect();
    jurisdictions.sort_unstable();
    jurisdictions.dedup();
    let mut countries: Vec<&str> = ways.iter().map(|(way, _)| way.from.as_str()).collect();
    countries.sort_unstable();
    countries.dedup();
    let most = ways.iter().map(|(_, seen)| seen.total(now, DAYS).statements).max().unwrap_or(0);
    html! {
        @if let Some(problem) = problem { p.warn { "The log cannot be counted to its end: " (problem) } }
        @if ways.is_empty() { p.empty { "Nothing has crossed, in " (number(read)) " entries." } }
        @else {
            div.scroll tabindex="0" role="region" aria-label="Reads by country and jurisdiction" {
                table.matrix {
                    thead { tr { th scope="col" { "From" } @for to in &jurisdictions { th scope="col" { "Data of " (to) } } } }
                    tbody {
                        @for from in &countries {
                            tr {
                                th scope="row" { (from) }
                                @for to in &jurisdictions {
                                    @match ways.iter().find(|(way, _)| way.from == *from && way.jurisdiction == *to) {
                                        Some((_, seen)) => td { (cell(to, from, seen, now, most)) },
                                        None => td.soft { "nothing" },
                                    }
                                }
                            }
                        }
                    }
                }
            }
            p.soft { "Each bar is a day. Counted from " (number(read)) " entries of the log, which anybody can check." }
        }
    }
}

fn cell(to: &str, from: &str, seen: &Seen, now: u64, most: u64) -> Markup {
    let total = seen.total(now, DAYS);
    html! {
        a.cell href={ "/border/" (to) "/" (from) } data-heat=(heat(total.statements, most)) {
            strong { (number(total.statements)) " statements" }
            span { (number(total.rows)) " rows, " (bytes(total.bytes)) }
            @if total.covered > 0 { span.warn { (number(total.covered)) " by covered persons" } }
            @if total.refused > 0 { span.soft { (number(total.refused)) " refused" } }
            (bars(&seen.days(now, DAYS), "day"))
        }
    }
}

/// How much of the most it is, in five steps, on a scale of powers: small numbers stay visible.
fn heat(n: u64, most: u64) -> u8 {
    if n == 0 {
        return 0;
    }
    let step = |n: u64| u64::from(n.max(1).ilog2()) + 1;
    u8::try_from((step(n) * 5).div_ceil(step(most).max(1)).clamp(1, 5)).unwrap_or(5)
}

/// A row of bars; the numbers are in the text beside it.
fn bars(sums: &[Sums], unit: &str) -> Markup {
    let most = sums.iter().map(|s| s.statements).max().unwrap_or(0).max(1);
    let width = sums.len() * 4;
    let today = sums.last().map_or(0, |s| s.statements);
    html! {
        svg.bars viewBox={ "0 0 " (width) " 24" } preserveAspectRatio="none" role="img"
            aria-label={ "Statements by " (unit) ": at most " (most) ", in the last " (unit) " " (today) } {
            @for (i, sum) in sums.iter().enumerate() {
                @let height = if sum.statements == 0 { 0 } else { (sum.statements * 23).div_ceil(most) + 1 };
                (PreEscaped(format!("<rect x=\"{}\" y=\"{}\" width=\"3\" height=\"{height}\"/>", i * 4, 24 - height)))
            }
        }
    }
}

fn live(desk: &Desk, person: &Person, sessions: &[Value], nobody: &str) -> Markup {
    let policy = desk.gateway.policy();
    // Policy is asked once a store, not once a session.
    let stores: BTreeSet<&str> = sessions.iter().map(|one| text(one, "store")).collect();
    let cuts: BTreeSet<&str> = stores
        .into_iter()
        .filter(|store| matches!(policy.may_approve(&person.principal.name, store), Ok(Ok(()))))
        .collect();
    html! {
        @if sessions.is_empty() { p.empty { (nobody) } } @else {
            div.scroll tabindex="0" role="region" aria-label="Sessions" {
                table {
                    thead { tr { th scope="col" { "Who" } th scope="col" { "Store" } th scope="col" { "Sees" } th scope="col" { "Since" }
                        th.n scope="col" { "Statements" } th.n scope="col" { "Rows" } th.n scope="col" { "Bytes" } th scope="col" { "End it" } } }
                    tbody { @for one in sessions {
                        @let grants: Vec<&str> = one["grants"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                        tr {
                            th scope="row" { (text(one, "principal")) br; span.soft { (text(one, "location")) ", " (text(one, "application")) } }
                            td { (text(one, "store")) }
                            td { (text(one, "access")) @for grant in grants { br; a href={ "/requests/" (grant) } { (grant) } } }
                            td { (length(one["seconds"].as_u64().unwrap_or(0))) }
                            @for key in ["statements", "rows"] { td.n { (number(one[key].as_u64().unwrap_or(0))) } }
                            td.n { (bytes(one["bytes"].as_u64().unwrap_or(0))) }
                            td { @if cuts.contains(text(one, "store")) {
                                form.inline method="post" action="/border/cut" {
                                    input type="hidden" name="token" value=(person.session.csrf);
                                    input type="hidden" name="session" value=(text(one, "session"));
                                    input name="reason" required maxlength="500" autocomplete="off" placeholder="Why" aria-label={ "Why the session of " (text(one, "principal")) " is cut" };
                                    button.danger { "Cut" }
                                }
                            } @else { "\u{2013}" } }
                        }
                    } }
                }
            }
        }
    }
}

/// `GET /border/{jurisdiction}/{country}`: one way, by hour and by entry.
pub(crate) async fn way(
    State(desk): At,
    person: Person,
    Path((jurisdiction, from)): Path<(String, String)>,
) -> Result<Page, Told> {
    let way = Way { jurisdiction, from };
    let seen = desk.traffic.way(&way);
    let seen = seen.ok_or_else(|| Told::new(StatusCode::NOT_FOUND, "Nothing went this way."))?;
    let now = desk.gateway.now();
    let recent: Vec<u64> = seen.recent.iter().rev().take(50).copied().collect();
    let found: Vec<Line> = lines(&desk, &person, recent).await?;
    let (month, hours) = (seen.total(now, DAYS), seen.hours(now, 48));
    let body = html! {
        p.soft { a href="/border" { "Border" } " / " (way.from) " to " (way.jurisdiction) }
        h1 { "From " (way.from) " into data of " (way.jurisdiction) }
        dl.facts {
            dt { "Thirty days" } dd { (number(month.statements)) " statements, " (number(month.rows)) " rows, " (bytes(month.bytes)) ", " (number(month.refused)) " refused" }
            dt { "Covered persons" } dd { (number(month.covered)) " of the statements (28 CFR 202.211)" }
        }
        section aria-labelledby="hours" { h2 id="hours" { "The last two days, by hour" } div.wide { (bars(&hours, "hour")) } }
        section aria-labelledby="newest" { h2 id="newest" { "The newest" } (super::ledger::table(&found)) }
    };
    Ok(page("Border", Some(&person), &body))
}

#[derive(Deserialize)]
pub(crate) struct Cut {
    token: String,
    session: String,
    reason: String,
}

/// `POST /border/cut`
pub(crate) async fn cut(
    State(desk): At,
    person: Person,
    headers: HeaderMap,
    Form(form): Form<Cut>,
) -> Result<Redirect, Told> {
    person.must_be_ours(&desk, &headers, &form.token)?;
    person.ask(&desk, &json!({ "do": "cut", "session": form.session, "reason": form.reason })).await?;
    Ok(Redirect::to("/border"))
}

#[cfg(test)]
mod tests {
    use super::heat;

    #[test]
    fn little_is_seen_beside_much() {
        assert_eq!([heat(0, 10), heat(1, 1), heat(1, 1_000_000), heat(1_000_000, 1_000_000)], [0, 5, 1, 5]);
        assert!(heat(1000, 1_000_000) > heat(10, 1_000_000));
    }
}
