//! Erasing what is left of rows that have moved: in the store that they left, and in its copies.
//!
//! A [`Plan`] says what is erased where; approvers of the in-country team sign its canonical text. [`rows`] then removes the rows
//! from the store with everything that a database keeps of them (dead tuples, indexes, statistics, materialised views), [`wal`] old WAL, at its standbys, too;
//! [`files`] removes dumps, base backups, WAL archives and exports whole. Whether something is left is not asked of the database:
//! the people's values are looked for as bytes in its files.

pub mod dump;
pub mod files;
pub mod online;
pub mod person;
pub mod rows;
pub mod wal;

use serde::{Deserialize, Serialize};

use self::person::Subject;
use crate::copies::{Copy, Holds, Kind};

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
    /// It is written anew without these rows, with everybody else's.
    RewriteDump,
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
    /// How long it was when it was found, in bytes: what is at its place by then may be something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// When it was last written, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<u64>,
}

impl Target {
    /// What is done with a copy.
    pub fn new(copy: &Copy, action: Action) -> Self {
        Self {
            id: copy.id.clone(),
            kind: copy.kind,
            location: copy.location.clone(),
            place: copy.place.clone(),
            action,
            key: copy.key.clone().filter(|_| action == Action::DestroyKey),
            bytes: copy.bytes.filter(|_| is_checked(copy.kind)),
            made: copy.made.filter(|_| is_checked(copy.kind)),
        }
    }
}

/// Whether a copy stays as it is until it is erased; databases, logs and archives of WAL grow.
fn is_checked(kind: Kind) -> bool {
    matches!(kind, Kind::Dump | Kind::Export | Kind::BaseBackup)
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

/// What is known of the places that copies are in.
pub struct Surroundings<'a> {
    /// The store that the rows left.
    pub store: &'a str,
    /// Its database.
    pub database: &'a str,
    /// Other stores whose clusters are known.
    pub others: &'a [String],
    /// How many of the store's standbys are configured, so that old WAL can be removed there, too.
    pub standbys: usize,
    /// The jurisdiction's countries.
    pub countries: &'a [String],
    /// The number of the system that has the rows now.
    pub home_system: Option<u64>,
    /// Whether a path is in one of the folders or buckets that are looked through.
    pub can_reach: &'a dyn Fn(&str) -> bool,
    /// Whether a key (by its public half) is kept here, is of the jurisdiction's rows alone, and can be destroyed.
    pub has_key: &'a dyn Fn(&str) -> bool,
    /// Whether dumps are written anew instead of being deleted.
    pub rewrite_dumps: bool,
}

/// What is to be done with each registered copy: erased, or named.
pub fn sort(registered: &[Registered], around: &Surroundings<'_>) -> (Vec<Target>, Vec<Remains>) {
    let (mut targets, mut remains) = (Vec::new(), Vec::new());
    let replicas = registered.iter().filter(|r| !r.is_gone && r.copy.kind == Kind::Replica);
    let of_store = |place: &str| place.starts_with(&format!("{}: ", around.store));
    let replicas = replicas.filter(|r| of_store(&r.copy.place)).count();
    for Registered { copy, is_excepted, is_gone } in registered {
        if *is_gone || copy.holds.is_nothing() {
            continue;
        }
        let at_home = around.countries.contains(&copy.location);
        let of_another = around.others.iter().any(|other| copy.place.starts_with(&format!("{other}: ")));
        if of_another && at_home {
            continue; // where the jurisdiction's data belongs
        }
        let action = if of_another {
            Err("it is another store's: nothing here erases it".to_owned())
        } else if *is_excepted {
            Err("the in-country team has excepted it".to_owned())
        } else {
            what(copy, around, at_home, replicas)
        };
        match action {
            Ok(action) => targets.push(Target::new(copy, action)),
            Err(why) => remains.push(remain(copy, &why)),
        }
    }
    (targets, remains)
}

fn what(copy: &Copy, around: &Surroundings<'_>, at_home: bool, replicas: usize) -> Result<Action, String> {
    let of_store = copy.place.starts_with(&format!("{}: ", around.store));
    let database = format!("{}: database {}", around.store, around.database);
    let reach = (around.can_reach)(&copy.place);
    let of_home = around.home_system.is_some_and(|number| copy.note.contains(&format!("system {number}")));
    let action = match (copy.kind, &copy.holds) {
        _ if copy.key.as_deref().is_some_and(around.has_key) => Action::DestroyKey,
        (Kind::Database, _) if copy.place == database => Action::DeleteRows,
        (Kind::MaterializedView, _) if copy.place.starts_with(&format!("{database}, ")) => Action::Refresh,
        (Kind::Database | Kind::MaterializedView, _) if of_store => {
            return Err("it is in another database of the cluster: nothing here erases its rows".to_owned());
        }
        (Kind::Slot, _) if of_store && copy.note.contains("nobody uses it") => Action::DropSlot,
        (Kind::BaseBackup | Kind::WalArchive, _) if of_home && at_home => {
            return Err("it is of the cluster that has the rows now, and where they belong".to_owned());
        }
        (Kind::Dump | Kind::Export | Kind::WalArchive, Holds::Unknown { why }) => {
            return Err(format!("nobody could look into it: {why}"));
        }
        (Kind::Dump, _) if reach && around.rewrite_dumps && !copy.place.starts_with("s3://") => {
            Action::RewriteDump
        }
        (Kind::Dump | Kind::Export | Kind::WalArchive, _) if reach => Action::DeleteWhole,
        (Kind::BaseBackup, _) if reach && (copy.note.contains("a base backup") || copy.note == "tar") => {
            Action::DeleteWhole
        }
        (Kind::BaseBackup, _) if reach => Action::Follows,
        (Kind::Replica, _) if of_store && replicas <= around.standbys => Action::Follows,
        (Kind::Replica, _) if of_store => {
            return Err("[[copies.standbys]] has fewer standbys than follow: its old WAL is not removed, and nobody looks".to_owned());
        }
        (Kind::Slot | Kind::Publication | Kind::Subscription, _) if of_store => {
            return Err("it keeps no rows once the store has none; who uses it is to be asked".to_owned());
        }
        (Kind::Sealed, _) => {
            return Err("nobody can look into it: its owner has to say what it is".to_owned());
        }
        _ => return Err("nothing here can reach it: its owner has to erase it".to_owned()),
    };
    Ok(action)
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
            Registered {
                copy: Copy::new("us", Kind::Database, "US", "us: database home", Holds::Everything),
                is_excepted: false,
                is_gone: false,
            },
            registered(Kind::Database, "reporting: database x", ""),
            registered(Kind::Database, "legacy: database postgres", ""),
            registered(Kind::Replica, "legacy: standby a at b", ""),
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
        let around = Surroundings {
            store: "legacy",
            database: "legacy",
            others: &["us".to_owned(), "reporting".to_owned()],
            standbys: 1,
            countries: &["US".to_owned()],
            home_system: Some(77),
            can_reach: &|place| place.starts_with("/backup"),
            has_key: &|key| key == "age1ours",
            rewrite_dumps: false,
        };
        let (targets, remains) = sort(&all, &around);
        let done: Vec<(&str, Action)> = targets.iter().map(|t| (t.place.as_str(), t.action)).collect();
        assert_eq!(
            done,
            [
                ("legacy: database legacy", Action::DeleteRows),
                ("legacy: standby a at b", Action::Follows),
                ("/backup/a.dump", Action::DeleteWhole),
                ("/backup/standby", Action::Follows),
                ("tape 17", Action::DestroyKey),
                ("legacy: slot old", Action::DropSlot),
            ]
        );
        let left: Vec<&str> = remains.iter().map(|r| r.place.as_str()).collect();
        assert_eq!(
            left,
            [
                "reporting: database x",
                "legacy: database postgres",
                "/elsewhere/a.dump",
                "/backup/hold.dump",
                "/backup/x.age"
            ]
        );
        let (written, _) = sort(&all, &Surroundings { rewrite_dumps: true, standbys: 0, ..around });
        let of = |place: &str| written.iter().find(|t| t.place == place).map(|t| t.action);
        assert_eq!(of("/backup/a.dump"), Some(Action::RewriteDump));
        assert_eq!(of("legacy: standby a at b"), None, "nobody looks at a standby that is not configured");
        let own = |location: &str| Registered {
            copy: Copy::new("us", Kind::BaseBackup, location, "/backup/b", Holds::Everything)
                .note("a base backup, PostgreSQL 15, system 77"),
            is_excepted: false,
            is_gone: false,
        };
        assert!(sort(&[own("US")], &around).0.is_empty(), "the home's own backup, at home");
        assert_eq!(sort(&[own("SG")], &around).0.len(), 1);
        let holds = Holds::Unknown { why: "damaged".to_owned() };
        let copy = Copy::new("us", Kind::Dump, "SG", "/backup/x.dump", holds);
        let unread = Registered { copy, is_excepted: false, is_gone: false };
        assert!(sort(&[unread], &around).0.is_empty(), "what nobody has looked into is not deleted");
    }
}
