//! Fills the slots of a phrase.

use super::copy_text::CopyText;
use super::people::{Person, names, push_phone};
use super::phrases::{DAYS, FOODS, HOBBIES, PLANS, SPOTS, STREETS, TAGS, THINGS};
use super::rng::Rng;
use super::words::Region;

/// Writes `phrase` as `person` would say it, each `{slot}` filled at random.
pub(super) fn say(phrase: &str, person: &Person, rng: &mut Rng, out: &mut CopyText) {
    let mut rest = phrase;
    while let Some((before, after)) = rest.split_once('{') {
        let (slot, tail) = after.split_once('}').unwrap_or((after, ""));
        out.text(before);
        fill(slot, person, rng, out);
        rest = tail;
    }
    out.text(rest);
}

fn fill(slot: &str, person: &Person, rng: &mut Rng, out: &mut CopyText) {
    match slot {
        "count" => out.number(u64::from(rng.between(2, 30))),
        "day" => out.text(rng.pick(DAYS)),
        "food" => out.text(rng.pick(FOODS)),
        "friend" => {
            let names = names(person.country, rng);
            out.text(rng.pick(names.given));
        }
        "home" => out.text(person.city.name),
        "hobby" => out.text(rng.pick(HOBBIES)),
        "money" => money(person.country.region, rng, out),
        "number" => out.number(u64::from(rng.between(2, 999))),
        "phone" => push_phone(rng.pick(person.country.cities), rng, out),
        "place" => {
            let city = if rng.chance(50) { person.city } else { rng.pick(person.country.cities) };
            out.text(city.name);
        }
        "plan" => out.text(rng.pick(PLANS)),
        "spot" => out.text(rng.pick(SPOTS)),
        "street" => out.text(rng.pick(STREETS)),
        "tag" => out.text(rng.pick(TAGS)),
        "thing" => out.text(rng.pick(THINGS)),
        "time" => {
            out.number(u64::from(rng.between(1, 12)));
            out.text(rng.pick(&[":00", ":15", ":30", ":45"]));
            out.text(if rng.chance(75) { " pm" } else { " am" });
        }
        "year" => out.number(u64::from(rng.between(2017, 2026))),
        _ => debug_assert!(false, "no phrase has a slot {slot}"),
    }
}

fn money(region: Region, rng: &mut Rng, out: &mut CopyText) {
    let amount = rng.pick(&[10, 12, 15, 20, 25, 30, 40, 45, 50, 60, 75, 80, 100, 120, 150, 200]);
    match region {
        Region::Us => {
            out.char('$');
            out.number(amount);
        }
        Region::Singapore => {
            out.text("S$");
            out.number(amount);
        }
        Region::Eu => {
            out.number(amount);
            out.text(" euros");
        }
        Region::China => {
            out.number(amount * 6);
            out.text(" yuan");
        }
    }
}
