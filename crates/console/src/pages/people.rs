//! Who connects, for whom they work, who owns those companies, and why somebody is a covered person: the registry as a picture, and as
//! text for those who do not see one.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use maud::{Markup, PreEscaped, html};
use ringfence_policy::{Access, Device, Policy, Principal, Registry, Standing};

use super::{At, Page, Person, Told, page};

fn not_yours() -> Told {
    Told::new(
        StatusCode::FORBIDDEN,
        "What the registry says of others is for those who approve, audit or run a store.",
    )
}

/// `GET /people`
pub(crate) async fn show(State(desk): At, person: Person) -> Result<Page, Told> {
    if !person.is_insider {
        return Err(not_yours());
    }
    let policy = desk.gateway.policy();
    let registry = policy.registry();
    let body = html! {
        h1 { "People and companies" }
        section aria-labelledby="companies" {
            h2 id="companies" { "Companies" }
            p.soft { "An arrow leads from an owner to what it owns. Covered persons (28 CFR 202.211) own or control what is marked, at "
                (registry.ownership_threshold) " % or more together." }
            (picture(&policy))
            ul.plain { @for company in &registry.companies { li {
                strong { (company.name) } " (law of " (company.law) ")"
                @match policy.company_coverage(&company.name) {
                    Some(why) => span.warn { ": covered. " (why.because) " (" (paragraph(why.rule)) ")" },
                    None => span.soft { ": not covered" },
                }
                @if !company.owners.is_empty() {
                    span.soft { "; owned by " @for (n, share) in company.owners.iter().enumerate() { @if n > 0 { ", " } (share.owner) " (" (share.percent) " %)" } }
                }
            } } }
        }
        section aria-labelledby="people" {
            h2 id="people" { "People and programs" }
            div.scroll tabindex="0" role="region" aria-label="Who they are" { table {
                thead { tr { th scope="col" { "Who" } th scope="col" { "Where" } th scope="col" { "For" } th scope="col" { "Teams" } th scope="col" { "Covered person" } } }
                tbody { @for one in &registry.people { tr {
                    th scope="row" { a href={ "/people/" (one.name) } { (one.name) } @if !one.is_person() { span.soft { " program" } } }
                    td { (one.place()) }
                    td { (one.employer.as_deref().unwrap_or("\u{2013}")) }
                    td { (one.teams.iter().cloned().collect::<Vec<_>>().join(", ")) }
                    td { @if policy.coverage(one).is_some() { span.warn { "yes" } } @else { "no" } }
                } } }
            } }
        }
    };
    Ok(page("People and companies", Some(&person), &body))
}

fn paragraph(rule: ringfence_policy::Rule) -> &'static str {
    use ringfence_policy::Rule;
    match rule {
        Rule::CountryOfConcern => "28 CFR 202.211(a)(1)",
        Rule::OwnedByCovered => "28 CFR 202.211(a)(2)",
        Rule::Employment => "28 CFR 202.211(a)(3)",
        Rule::Residence => "28 CFR 202.211(a)(4)",
        Rule::Designated => "28 CFR 202.211(a)(5)",
    }
}

/// `GET /people/{name}`: where somebody may go, and why.
pub(crate) async fn one(State(desk): At, person: Person, Path(name): Path<String>) -> Result<Page, Told> {
    if !person.is_insider {
        return Err(not_yours());
    }
    let policy = desk.gateway.policy();
    let who = policy.registry().principal(&name);
    let who = who.ok_or_else(|| Told::new(StatusCode::NOT_FOUND, "The registry has nobody of this name."))?;
    let chain =
        who.employer.as_deref().map(|employer| owners_above(policy.registry(), employer)).unwrap_or_default();
    let body = html! {
        p.soft { a href="/people" { "People and companies" } " / " (who.name) }
        h1 { (who.name) }
        dl.facts {
            dt { "Where" } dd { (who.place()) @if let Some(home) = &who.residence { ", lives in " (home) } }
            dt { "For" } dd { (who.employer.as_deref().unwrap_or("nobody in the registry")) }
            dt { "Teams" } dd { (who.teams.iter().cloned().collect::<Vec<_>>().join(", ")) }
            dt { "Covered person" } dd { @match policy.coverage(who) { Some(why) => span.warn { (why.because) " (" (paragraph(why.rule)) ")" } None => "no" } }
        }
        @if !chain.is_empty() {
            section aria-labelledby="chain" { h2 id="chain" { "Whose company it is" }
                ol { @for (owner, percent, owned) in &chain { li { (owner) " owns " (percent) " % of " (owned)
                    @if let Some(why) = policy.company_coverage(owner) { span.warn { " (covered: " (why.because) ")" } } } } }
            }
        }
        section aria-labelledby="stores" {
            h2 id="stores" { "Stores" }
            div.scroll tabindex="0" role="region" aria-label="Access by store" { table {
                thead { tr { th scope="col" { "Store" } th scope="col" { "Standing" } th scope="col" { "Access" } } }
                tbody { @for (store, _) in policy.stores() { tr {
                    th scope="row" { (store.name) }
                    td { (standing(&policy.standing(who, store))) }
                    td { (access(&policy, who, &store.name)) }
                } } }
            } }
        }
    };
    Ok(page(&who.name, Some(&person), &body))
}

fn standing(standing: &Standing) -> Markup {
    html! { @match standing {
        Standing::InCountry => "in the country",
        Standing::Outside(place) => { "outside, in " (place) },
        Standing::Unknown => "nobody attested where they are",
        Standing::Covered(_) => span.warn { "covered person" },
    } }
}

fn access(policy: &Policy, who: &Principal, store: &str) -> Markup {
    let device = Device::presumed(who);
    html! { @match policy.access(&who.name, store, device.as_ref()) {
        Ok(Access::Full) => "full",
        Ok(Access::Face) => "a face: masked, and what grants open",
        Ok(Access::Refused(why)) => { "refused: " (why) },
        Err(_) => "cannot be decided, so refused",
    } }
}

/// The shares above a company: owner, per cent, owned; each once, however companies own each other.
fn owners_above(registry: &Registry, company: &str) -> Vec<(String, f64, String)> {
    let (mut next, mut seen, mut found) = (vec![company.to_owned()], BTreeSet::new(), Vec::new());
    while let Some(name) = next.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        for share in registry.companies.iter().filter(|c| c.name == name).flat_map(|c| &c.owners) {
            found.push((share.owner.clone(), share.percent, name.clone()));
            next.push(share.owner.clone());
        }
    }
    found
}

/// How far above the bottom each owner stands: an owner is above what it owns, as far as rings allow.
fn levels(registry: &Registry) -> BTreeMap<String, usize> {
    let mut level: BTreeMap<String, usize> = BTreeMap::new();
    for company in &registry.companies {
        level.entry(company.name.clone()).or_insert(0);
        for share in &company.owners {
            level.entry(share.owner.clone()).or_insert(0);
        }
    }
    // As often as there are names: a ring of owners stops rising then.
    for _ in 0..level.len() {
        let mut rose = false;
        for company in &registry.companies {
            let below = level.get(&company.name).copied().unwrap_or(0);
            for share in &company.owners {
                let above = level.entry(share.owner.clone()).or_insert(0);
                if *above <= below && below + 1 < registry.companies.len() + 2 {
                    *above = below + 1;
                    rose = true;
                }
            }
        }
        if !rose {
            break;
        }
    }
    level
}

/// The picture: rows of boxes, the owners above, an arrow for each share.
fn picture(policy: &Policy) -> Markup {
    let registry = policy.registry();
    let levels = levels(registry);
    if levels.is_empty() {
        return html! { p.empty { "The registry has no companies." } };
    }
    // Rings can rise far: only the order of the levels counts.
    let ranks: Vec<usize> = levels.values().copied().collect::<BTreeSet<_>>().into_iter().collect();
    let (wide, high, gap) = (190_usize, 46_usize, 60_usize);
    let mut places: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let most = ranks.iter().map(|r| levels.values().filter(|l| *l == r).count()).max().unwrap_or(1);
    let width = most * (wide + 20) + 20;
    for (row, rank) in ranks.iter().rev().enumerate() {
        let names: Vec<&String> = levels.iter().filter(|(_, l)| *l == rank).map(|(n, _)| n).collect();
        let left = 10 + (width - names.len() * (wide + 20)) / 2;
        for (i, name) in names.into_iter().enumerate() {
            places.insert(name, (left + i * (wide + 20), 12 + row * (high + gap)));
        }
    }
    let height = ranks.len() * (high + gap) - gap + 24;
    let is_covered = |name: &str| {
        let government = name.strip_prefix("government:");
        government.map_or_else(
            || policy.company_coverage(name).is_some(),
            |country| registry.countries_of_concern.contains(country),
        )
    };
    html! {
        div.scroll tabindex="0" role="region" aria-label="Who owns whom" {
            svg.owners width=(width) height=(height) viewBox={ "0 0 " (width) " " (height) } role="img" aria-label="Companies and their owners; the list below says the same" {
                defs { marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto" { path d="M0 0 L8 4 L0 8 z"; } }
                @for company in &registry.companies { @for share in &company.owners {
                    @if let (Some((x1, y1)), Some((x2, y2))) = (places.get(share.owner.as_str()), places.get(company.name.as_str())) {
                        (PreEscaped(format!("<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" marker-end=\"url(#arrow)\"/>", x1 + wide / 2, y1 + high, x2 + wide / 2, y2.saturating_sub(2))))
                        (PreEscaped(format!("<text class=\"share\" x=\"{}\" y=\"{}\">{} %</text>", (x1 + x2) / 2 + wide / 2 + 6, (y1 + high + y2) / 2 + 4, share.percent)))
                    }
                } }
                @for (name, (x, y)) in &places {
                    @let class = if is_covered(name) { "covered" } else { "free" };
                    (PreEscaped(format!("<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{wide}\" height=\"{high}\" rx=\"6\"/>")))
                    text.name x=(x + wide / 2) y=(y + 20) { (name.replace("government:", "Government of ")) }
                    text.what x=(x + wide / 2) y=(y + 37) { (if is_covered(name) { "covered" } else { "not covered" }) }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
    use super::*;

    #[test]
    fn owners_stand_above_what_they_own_and_rings_end() {
        let text = r#"companies = [
            { name = "parent", law = "KY", owners = [{ owner = "government:CN", percent = 60 }] },
            { name = "sub", law = "SG", owners = [{ owner = "parent", percent = 50.5 }] },
            { name = "a", law = "SG", owners = [{ owner = "b", percent = 60 }] },
            { name = "b", law = "SG", owners = [{ owner = "a", percent = 60 }] },
        ]"#;
        let registry = Registry::parse(text).unwrap();
        let levels = levels(&registry);
        assert!(levels["government:CN"] > levels["parent"] && levels["parent"] > levels["sub"]);
        let above = owners_above(&registry, "sub");
        assert_eq!(
            above,
            [
                ("parent".to_owned(), 50.5, "sub".to_owned()),
                ("government:CN".to_owned(), 60.0, "parent".to_owned())
            ]
        );
        assert_eq!(owners_above(&registry, "a").len(), 2);
    }
}
