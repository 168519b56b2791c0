//! The rows themselves: a function a table, each writing the lines of one user.

use super::copy_text::{CopyText, DAY, new_year};
use super::people::{END, push_phone, within};
use super::phrases::{BIOS, DESCRIPTIONS, GROWN_UP_BIOS, MESSAGES, TITLES};
use super::rng::{Purpose, Rng};
use super::speech::say;
use super::words::Country;
use super::{Clips, Table};

/// A user's things are numbered from this many times the user's number, so that ids are the same in
/// any store; nobody has that many.
const IDS_PER_USER: u64 = 1000;

/// What one can buy, in cents, and how often that happens.
#[rustfmt::skip]
const PRICES: &[(u64, u32)] = &[
    (99, 190), (199, 180), (299, 90), (499, 175), (799, 55), (999, 130), (1499, 45), (1999, 60), (2499, 20),
    (2999, 18), (4999, 22), (7499, 5), (9999, 8), (19_999, 2),
];

impl Clips {
    /// Writes the rows of `table` that are about `user`.
    pub(super) fn push_rows(&self, table: Table, user: u32, out: &mut CopyText) {
        let n = self.rows_of(table, user);
        match table {
            Table::Users => self.push_user(user, out),
            Table::Profiles => self.push_profile(user, out),
            Table::Devices => self.push_devices(user, n, out),
            Table::Videos => self.push_videos(user, n, out),
            Table::Follows => self.push_follows(user, n, out),
            Table::Messages => self.push_messages(user, n, out),
            Table::WatchHistory => self.push_watch_history(user, n, out),
            Table::Payments => self.push_payments(user, n, out),
        }
    }

    fn push_user(&self, user: u32, out: &mut CopyText) {
        let person = self.person(user);
        let life = self.life(user);
        let mut rng = self.rng(Purpose::User, user, 0);
        out.number(user.into());
        out.tab();
        out.text(person.country.code);
        out.tab();
        out.timestamp(life.joined);
        out.tab();
        person.push_email(user, &mut rng, out);
        out.tab();
        push_phone(person.city, &mut rng, out);
        out.tab();
        person.push_full_name(out);
        out.tab();
        out.date(life.birth);
        out.end();
    }

    fn push_profile(&self, user: u32, out: &mut CopyText) {
        let person = self.person(user);
        let mut rng = self.rng(Purpose::Profile, user, 0);
        out.number(user.into());
        out.tab();
        person.push_handle(user, &mut rng, out);
        out.tab();
        person.push_display_name(&mut rng, out);
        out.tab();
        let grown_up = self.life(user).birth < new_year(1998) && rng.chance(30);
        let bio = rng.pick(if grown_up { GROWN_UP_BIOS } else { BIOS });
        say(bio, &person, &mut rng, out);
        out.end();
    }

    fn push_devices(&self, user: u32, n: u32, out: &mut CopyText) {
        let person = self.person(user);
        for k in 0..n {
            let mut rng = self.rng(Purpose::Device, user, k);
            push_id(user, k, out);
            out.number(user.into());
            out.tab();
            out.uuid(rng.bits(), rng.bits());
            out.tab();
            push_ip(person.country, &mut rng, out);
            out.tab();
            out.text(rng.pick(person.country.models));
            out.tab();
            let city = if rng.chance(90) { person.city } else { rng.pick(person.country.cities) };
            out.degrees(near(city.lat_e5, &mut rng));
            out.tab();
            out.degrees(near(city.lon_e5, &mut rng));
            out.end();
        }
    }

    fn push_videos(&self, user: u32, n: u32, out: &mut CopyText) {
        let person = self.person(user);
        for k in 0..n {
            let mut rng = self.rng(Purpose::Video, user, k);
            let video = self.video(user, k, &mut rng);
            push_id(user, k, out);
            out.number(user.into());
            out.tab();
            say(self.turn(TITLES, Table::Videos, user, k), &person, &mut rng, out);
            out.tab();
            say(rng.pick(DESCRIPTIONS), &person, &mut rng, out);
            out.tab();
            out.number(video.duration_s.into());
            out.tab();
            out.timestamp(video.published);
            out.end();
        }
    }

    /// Nobody follows themselves or anybody twice: on a clash, the next user who is neither is
    /// taken.
    fn push_follows(&self, user: u32, n: u32, out: &mut CopyText) {
        let mut taken = vec![user];
        for k in 0..n {
            let mut rng = self.rng(Purpose::Follow, user, k);
            let mut followee = match rng.below(10) {
                0..6 => self.popular_author(&mut rng),
                6..8 => self.contact(user, k),
                _ => self.somebody_else(user, &mut rng),
            };
            while taken.contains(&followee) {
                followee = followee % self.users + 1;
            }
            taken.push(followee);
            out.number(user.into());
            out.tab();
            out.number(followee.into());
            out.end();
        }
    }

    /// Most messages go to the same few others. Who was not there yet gets none, if anybody was.
    fn push_messages(&self, user: u32, n: u32, out: &mut CopyText) {
        const CONTACTS: u32 = 4;
        let person = self.person(user);
        for k in 0..n {
            let mut rng = self.rng(Purpose::Message, user, k);
            let sent = self.moment(user, k, n, &mut rng);
            let slot = rng.below(CONTACTS).min(rng.below(CONTACTS));
            let recipient = (0..CONTACTS)
                .map(|step| self.contact(user, (slot + step) % CONTACTS))
                .find(|&contact| self.life(contact).joined <= sent)
                .unwrap_or_else(|| self.contact(user, slot));
            let sent = not_before(self.life(recipient).joined, sent, &mut rng);
            push_id(user, k, out);
            out.number(user.into());
            out.tab();
            out.number(recipient.into());
            out.tab();
            say(self.turn(MESSAGES, Table::Messages, user, k), &person, &mut rng, out);
            out.tab();
            out.timestamp(sent);
            out.end();
        }
    }

    fn push_watch_history(&self, user: u32, n: u32, out: &mut CopyText) {
        for k in 0..n {
            let mut rng = self.rng(Purpose::Watch, user, k);
            let author = self.popular_author(&mut rng);
            let item = rng.below(self.rows_of(Table::Videos, author));
            let video = self.video(author, item, &mut self.rng(Purpose::Video, author, item));
            let watched = self.moment(user, k, n, &mut rng);
            let watched = not_before(video.published, watched, &mut rng);
            out.number(user.into());
            out.tab();
            push_id(author, item, out);
            out.timestamp(watched);
            out.tab();
            out.number(watched_seconds(video.duration_s, &mut rng).into());
            out.end();
        }
    }

    fn push_payments(&self, user: u32, n: u32, out: &mut CopyText) {
        for k in 0..n {
            let mut rng = self.rng(Purpose::Payment, user, k);
            let card = u32::from(rng.chance(12));
            let last4 = self.rng(Purpose::Card, user, card).below(10_000);
            push_id(user, k, out);
            out.number(user.into());
            out.tab();
            out.padded(last4.into(), 4);
            out.tab();
            out.number(rng.weighted(PRICES, |price| price.1).0);
            out.tab();
            out.timestamp(self.moment(user, k, n, &mut rng));
            out.end();
        }
    }

    /// The phrase for item `k` of `user` in `table`: each comes up once before one comes up again, in an
    /// order of the user's own. That takes a prime number of phrases, so that any step visits all.
    fn turn(&self, phrases: &[&'static str], table: Table, user: u32, k: u32) -> &'static str {
        let all = phrases.len() as u64;
        let mut rng = self.rng(Purpose::Turn, user, table as u32);
        let (first, step) = (rng.bits() % all, 1 + rng.bits() % (all - 1));
        let turn = (first + step * u64::from(k)) % all;
        phrases[usize::try_from(turn).expect("less than a length")]
    }
}

/// The id of item `k` of `user`, and a tab.
fn push_id(user: u32, k: u32, out: &mut CopyText) {
    out.number(u64::from(user) * IDS_PER_USER + u64::from(k));
    out.tab();
}

fn push_ip(country: &Country, rng: &mut Rng, out: &mut CopyText) {
    if rng.chance(92) {
        let (second, first, last) = country.net;
        out.text("198.");
        out.number(second.into());
        out.char('.');
        out.number(rng.between(first, last).into());
        out.char('.');
    } else {
        out.text(rng.pick(&["192.0.2.", "198.51.100.", "203.0.113."]));
    }
    out.number(rng.between(1, 254).into());
}

/// Up to 0.04 degrees from `e5`, and never with a 0 as the last decimal, which `PostgreSQL` would
/// not print.
fn near(e5: i32, rng: &mut Rng) -> i32 {
    const REACH: u32 = 4_000;
    let there = (rng.below(REACH) + rng.below(REACH)).cast_signed() - REACH.cast_signed() + e5;
    if there % 10 == 0 { there + 1 } else { there }
}

/// `moment`, or within a month after `earliest` if it came too soon.
fn not_before(earliest: i64, moment: i64, rng: &mut Rng) -> i64 {
    const MONTH: i64 = 30 * DAY;
    if moment >= earliest { moment } else { within(rng, earliest, END.min(earliest + MONTH)) }
}

/// Most swipe on, some stay, a few watch again and again.
fn watched_seconds(duration_s: u32, rng: &mut Rng) -> u32 {
    match rng.below(100) {
        0..45 => rng.between(1, 4),
        45..80 => rng.between(2, duration_s),
        80..95 => duration_s,
        _ => duration_s * rng.between(2, 4),
    }
}
