//! Erasing what is left of rows that have moved: in the store that they left, and in its copies.
//!
//! A [`Plan`] says what is erased where; approvers of the in-country team sign its canonical text. [`rows`] then removes the rows
//! from the store with everything that a database keeps of them (dead tuples, indexes, statistics, materialised views), [`wal`] old WAL, at its standbys, too;
//! [`files`] removes dumps, base backups, WAL archives and exports whole. Whether something is left is not asked of the database:
//! the people's values are looked for as bytes in its files.

pub mod dump;
pub mod files;
pub mod person;
pub mod rows;
pub mod wal;

use serde::{Deserialize, Serialize};

use self::person::Subject;
use crate::copies::{Copy, Kind};

/// What is done with a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// The rows are deleted, and the files that had them are rewritten.
    DeleteRows,
    /// It is made anew from tables that have the rows no more.
    Refresh,
    /// It is deleted whole.
    DeleteWhole,
    /// The server's log loses what it has until now: it has values of people in its statements.
    EmptyLog,
    /// The slot is dropped.
    DropSlot,
    /// It is encrypted with a key of its own, which is destroyed: every copy of it is unreadable then.
    DestroyKey,
    /// It follows the store, and is looked through afterwards.
    Follows,
}

/// A copy that is erased.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Its name in the register.
    pub id: String,
    /// What it is.
    pub kind: Kind,
    /// The country where it lies.
    pub location: String,
    /// Where exactly.
    pub place: String,
    /// What is done.
    pub action: Action,
    /// The key that is destroyed, by its public half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// A copy that is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remains {
    /// Its name in the register.
    pub id: String,
    /// The country where it lies.
    pub location: String,
    /// Where exactly.
    pub place: String,
    /// Why it stays.
    pub why: String,
}

/// What approvers sign: this and when, by whom and under which name it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Version of this format.
    pub v: u8,
    /// `erase`, so that it cannot be taken for a request to see something.
    pub what: String,
    /// The move whose rows are erased at the store that they left.
    #[serde(rename = "move")]
    pub of: String,
    /// Whose data.
    pub jurisdiction: String,
    /// The store that they left.
    pub store: String,
    /// The store that has them.
    pub home: String,
    /// How many rows of each table.
    pub rows: Vec<(String, i64)>,
    /// What is erased.
    pub targets: Vec<Target>,
    /// What is known and stays.
    pub remains: Vec<Remains>,
    /// Whose own request it is, where it is one: then `store` and `home` are the store that decides, and the rows are those of all stores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Subject>,
    /// For such a one: whether tables are written anew.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rewrite: bool,
}

/// A registered copy, as the register tells it.
pub struct Registered {
    /// The copy.
    pub copy: Copy,
    /// Whether the in-country team has decided that it may stay.
    pub is_excepted: bool,
    /// Whether it is not there any more.
    pub is_gone: bool,
}

/// What is to be done with each registered copy. `can_reach` says whether a path is in one of the folders that are looked through,
/// `has_key` whether a key (by its public half) is kept here and can be destroyed.
pub fn sort(
    registered: &[Registered],
    store: &str,
    is_home: &dyn Fn(&str) -> bool,
    can_reach: &dyn Fn(&str) -> bool,
    has_key: &dyn Fn(&str) -> bool,
) -> (Vec<Target>, Vec<Remains>) {
    let (mut targets, mut remains) = (Vec::new(), Vec::new());
    for Registered { copy, is_excepted, is_gone } in registered {
        if *is_gone || is_home(&copy.place) || copy.holds.is_nothing() {
            continue;
        }
        let of_store = copy.place.starts_with(&format!("{store}: "));
        let reach = can_reach(&copy.place);
        let action = match copy.kind {
            _ if copy.key.as_deref().is_some_and(has_key) => Ok(Action::DestroyKey),
            Kind::Database if of_store => Ok(Action::DeleteRows),
            Kind::MaterializedView if of_store => Ok(Action::Refresh),
            Kind::Slot if of_store && copy.note.contains("nobody uses it") => Ok(Action::DropSlot),
            Kind::Dump | Kind::Export | Kind::WalArchive if reach => Ok(Action::DeleteWhole),
            Kind::BaseBackup if reach && (copy.note.contains("a base backup") || copy.note == "tar") => {
                Ok(Action::DeleteWhole)
            }
            Kind::BaseBackup if reach => Ok(Action::Follows),
            Kind::Replica if of_store => Ok(Action::Follows),
            Kind::Slot | Kind::Publication | Kind::Subscription if of_store => {
                Err("it keeps no rows once the store has none; who uses it is to be asked")
            }
            Kind::Sealed => Err("nobody can look into it: its owner has to say what it is"),
            _ => Err("nothing here can reach it: its owner has to erase it"),
        };
        match action {
            _ if *is_excepted => remains.push(remain(copy, "the in-country team has excepted it")),
            Ok(action) => targets.push(Target {
                id: copy.id.clone(),
                kind: copy.kind,
                location: copy.location.clone(),
                place: copy.place.clone(),
                action,
                key: copy.key.clone().filter(|_| action == Action::DestroyKey),
            }),
            Err(why) => remains.push(remain(copy, why)),
        }
    }
    (targets, remains)
}

fn remain(copy: &Copy, why: &str) -> Remains {
    Remains {
        id: copy.id.clone(),
        location: copy.location.clone(),
        place: copy.place.clone(),
        why: why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copies::Holds;

    #[test]
    fn every_copy_is_either_erased_or_named() {
        let registered = |kind, place: &str, note: &str| Registered {
            copy: Copy::new("us", kind, "SG", place, Holds::Everything).note(note),
            is_excepted: place.contains("hold"),
            is_gone: false,
        };
        let all = [
            registered(Kind::Database, "legacy: database legacy", ""),
            registered(Kind::Database, "us: database home", ""),
            registered(Kind::Dump, "/backup/a.dump", ""),
            registered(Kind::Dump, "/elsewhere/a.dump", ""),
            registered(Kind::Dump, "/backup/hold.dump", ""),
            registered(Kind::BaseBackup, "/backup/standby", "a standby's data directory, PostgreSQL 15"),
            registered(Kind::Sealed, "/backup/x.age", ""),
            Registered {
                copy: Copy { key: Some("age1ours".to_owned()), ..registered(Kind::Dump, "tape 17", "").copy },
                is_excepted: false,
                is_gone: false,
            },
            registered(Kind::Slot, "legacy: slot old", "physical, nobody uses it; keeps WAL"),
        ];
        let (targets, remains) = sort(
            &all,
            "legacy",
            &|place| place.starts_with("us: "),
            &|place| place.starts_with("/backup"),
            &|key| key == "age1ours",
        );
        let done: Vec<(&str, Action)> = targets.iter().map(|t| (t.place.as_str(), t.action)).collect();
        assert_eq!(
            done,
            [
                ("legacy: database legacy", Action::DeleteRows),
                ("/backup/a.dump", Action::DeleteWhole),
                ("/backup/standby", Action::Follows),
                ("tape 17", Action::DestroyKey),
                ("legacy: slot old", Action::DropSlot),
            ]
        );
        let left: Vec<&str> = remains.iter().map(|r| r.place.as_str()).collect();
        assert_eq!(left, ["/elsewhere/a.dump", "/backup/hold.dump", "/backup/x.age"]);
    }
}
