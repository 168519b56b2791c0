//! Made-up data of a short-video platform called `clips`, for the demo.
//!
//! Promises: the same number of users gives the same bytes, on every machine. What a user's rows
//! say depends on the user and on nothing drawn before, so the U.S. rows of a store for the U.S.
//! alone are byte for byte those of a store with everybody, ids included. (Rows that point at
//! somebody else, such as messages, also depend on how many users there are to point at.)
//! User 4711, in a store of that many, is a U.S. user with rows in every table.
//!
//! Nobody here exists: mail hosts and addresses are reserved for examples, telephone numbers for fiction or,
//! as far as we know, not given out (see [`words`] and [`places`]). Never put a real person, host or number in.

mod activity;
mod copy_text;
mod people;
mod phrases;
mod places;
mod rng;
mod rows;
mod speech;
#[cfg(test)]
mod tests;
mod words;

use copy_text::CopyText;

/// The tables' DDL.
pub(crate) const SCHEMA_SQL: &str = include_str!("schema.sql");

/// The secondary indexes' DDL, to run once the rows are in.
pub(crate) const INDEXES_SQL: &str = include_str!("indexes.sql");

/// Chosen among others because it makes user 4711 a person with a story: a U.S. user with a few rows in every
/// table, who tells friends an address and a telephone number.
const SEED: u64 = 20_249_570_231;

/// A chunk goes to the sink once it is this long.
const CHUNK_BYTES: usize = 64 * 1024;

/// Room for the rows of the user who fills a chunk.
const CHUNK_SLACK_BYTES: usize = 8 * 1024;

/// One table of the clips data, in load order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    /// Accounts: who the users are.
    Users,
    /// What users show of themselves.
    Profiles,
    /// What they use, from where.
    Devices,
    /// What they publish.
    Videos,
    /// Whom they follow.
    Follows,
    /// What they write to one another.
    Messages,
    /// What they watch, and how long.
    WatchHistory,
    /// What they pay.
    Payments,
}

impl Table {
    /// All tables, in load order.
    pub(crate) const ALL: [Self; 8] = [
        Self::Users,
        Self::Profiles,
        Self::Devices,
        Self::Videos,
        Self::Follows,
        Self::Messages,
        Self::WatchHistory,
        Self::Payments,
    ];

    /// The table's name in the schema `public`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Profiles => "profiles",
            Self::Devices => "devices",
            Self::Videos => "videos",
            Self::Follows => "follows",
            Self::Messages => "messages",
            Self::WatchHistory => "watch_history",
            Self::Payments => "payments",
        }
    }

    /// The column list for COPY, in the order of the values of a line.
    pub(crate) fn columns(self) -> &'static str {
        match self {
            Self::Users => "id, country, created_at, email, phone, full_name, birth_date",
            Self::Profiles => "user_id, handle, display_name, bio",
            Self::Devices => "id, user_id, device_id, ip, model, last_lat, last_lon",
            Self::Videos => "id, author_id, title, description, duration_s, published_at",
            Self::Follows => "follower_id, followee_id",
            Self::Messages => "id, sender_id, recipient_id, body, sent_at",
            Self::WatchHistory => "user_id, video_id, watched_at, seconds",
            Self::Payments => "id, user_id, card_last4, amount_cents, paid_at",
        }
    }
}

/// The generator: same users and seed, same bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clips {
    users: u32,
    seed: u64,
}

impl Clips {
    /// A platform with users 1 to `users`.
    pub(crate) fn new(users: u32) -> Self {
        Self { users, seed: SEED }
    }

    /// Hands the rows of `table` to `sink`, in chunks of about 64 KiB of whole lines of `PostgreSQL`'s COPY
    /// text format, each with the number of lines in it. With a `country` (ISO code, upper case) only rows
    /// whose subject lives there: the user, author, follower or sender. The first error of `sink` ends the
    /// writing and is returned.
    pub(crate) fn write<E>(
        &self,
        table: Table,
        country: Option<&str>,
        mut sink: impl FnMut(Vec<u8>, u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let empty = || CopyText::with_capacity(CHUNK_BYTES + CHUNK_SLACK_BYTES);
        let mut out = empty();
        for user in self.users_of(country) {
            self.push_rows(table, user, &mut out);
            if out.len() >= CHUNK_BYTES {
                let (chunk, rows) = std::mem::replace(&mut out, empty()).into_parts();
                sink(chunk, rows)?;
            }
        }
        match out.into_parts() {
            (_, 0) => Ok(()),
            (chunk, rows) => sink(chunk, rows),
        }
    }

    /// How many rows [`Clips::write`] hands over for the same arguments. It is exact, and takes a
    /// small part of the time that writing them would.
    pub(crate) fn rows_estimate(&self, table: Table, country: Option<&str>) -> u64 {
        self.users_of(country).map(|user| u64::from(self.rows_of(table, user))).sum()
    }
}
