//! How much a user does and when, and whom the crowd looks at.

use super::people::END;
use super::rng::{Purpose, Rng};
use super::{Clips, Table};

/// How many rows a user has of something: shares of 1,000 users, with the least and most rows of
/// each share.
type Spread = &'static [(u32, u32, u32)];

const ONE: Spread = &[(1000, 1, 1)];
const DEVICES: Spread = &[(620, 1, 1), (280, 2, 2), (80, 3, 3), (20, 4, 4)];
const VIDEOS: Spread = &[(580, 0, 0), (240, 1, 1), (90, 2, 2), (65, 3, 6), (20, 7, 20), (5, 21, 60)];
const FOLLOWS: Spread = &[(240, 0, 0), (260, 1, 1), (170, 2, 2), (230, 3, 5), (95, 6, 12), (5, 13, 40)];
const MESSAGES: Spread = &[(400, 0, 0), (290, 1, 2), (215, 3, 6), (85, 7, 14), (10, 15, 30)];
const WATCHED: Spread = &[(130, 0, 0), (470, 1, 3), (270, 4, 7), (115, 8, 14), (15, 15, 30)];
const PAYMENTS: Spread = &[(770, 0, 0), (125, 1, 1), (67, 2, 3), (29, 4, 8), (9, 9, 20)];

/// A user who always has a video, so that there is one to watch in any store.
const FIRST_AUTHOR: u32 = 1;

/// What others need to know of a video.
#[derive(Clone, Copy, Debug)]
pub(super) struct Video {
    pub(super) duration_s: u32,
    pub(super) published: i64,
}

impl Clips {
    /// How many rows of `table` are about `user`.
    pub(super) fn rows_of(&self, table: Table, user: u32) -> u32 {
        let others = self.users - 1;
        match table {
            Table::Users | Table::Profiles => self.drawn(table, ONE, user),
            Table::Devices => self.drawn(table, DEVICES, user),
            Table::Videos => self.drawn(table, VIDEOS, user).max(u32::from(user == FIRST_AUTHOR)),
            Table::Follows => self.drawn(table, FOLLOWS, user).min(others),
            Table::Messages if others == 0 => 0,
            Table::Messages => self.drawn(table, MESSAGES, user),
            Table::WatchHistory => self.drawn(table, WATCHED, user),
            Table::Payments => self.drawn(table, PAYMENTS, user),
        }
    }

    fn drawn(&self, table: Table, spread: Spread, user: u32) -> u32 {
        let mut rng = self.rng(Purpose::Count, user, table as u32);
        let &(_, least, most) = rng.weighted(spread, |share| share.0);
        rng.between(least, most)
    }

    /// When the `k`th of `n` events of `user` happened: in order, and closer together in later
    /// years.
    pub(super) fn moment(&self, user: u32, k: u32, n: u32, rng: &mut Rng) -> i64 {
        const WHOLE: i64 = 1 << 24;
        let joined = self.life(user).joined;
        let even = (i64::from(k) * WHOLE + i64::from(rng.below(1 << 24))) / i64::from(n);
        let late = even * (3 * WHOLE - even) / (2 * WHOLE);
        joined + (END - joined) * late / WHOLE
    }

    /// An author, the well-known ones far more often.
    pub(super) fn popular_author(&self, rng: &mut Rng) -> u32 {
        let rank = rng.rank(self.users);
        let mut holder = self.rng(Purpose::Rank, rank, 0);
        for _ in 0..32 {
            let user = 1 + holder.below(self.users);
            if self.rows_of(Table::Videos, user) > 0 {
                return user;
            }
        }
        FIRST_AUTHOR
    }

    /// Video `k` of `author`, drawn from its own stream `rng`.
    pub(super) fn video(&self, author: u32, k: u32, rng: &mut Rng) -> Video {
        let published = self.moment(author, k, self.rows_of(Table::Videos, author), rng);
        let &(_, least, most) =
            rng.weighted(&[(70, 7, 34), (22, 35, 75), (7, 76, 180), (1, 181, 600)], |share| share.0);
        Video { duration_s: rng.between(least, most), published }
    }
}
