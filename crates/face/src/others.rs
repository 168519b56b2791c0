//! What of a store runs code that is not PostgreSQL's own: functions, and what calls them without being
//! written as a call. A function counts as PostgreSQL's own if `initdb` made it, or if it belongs to an
//! extension and to a superuser: the files of extensions are the administrator's.

use std::collections::{BTreeSet, HashSet};

use ringfence_statement::asked::{BEHIND, STATE, THEIRS};
use ringfence_statement::functions::unseen_patterns;
use ringfence_statement::symbols::{Symbols, harmless_words, in_catalogue};
use tokio_postgres::Client;

use crate::Error;

/// See the module's text. Names are compared without their schema: which one a text means depends on types
/// and on `search_path`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Others {
    /// What may read any row.
    pub all: Code,
    /// What may also change its session: prepared statements, cursors, settings.
    pub changing: Code,
}

/// Names behind which there is code of others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Code {
    calls: HashSet<Box<str>>,
    fields: HashSet<Box<str>>,
    operators: HashSet<Box<str>>,
    types: HashSet<Box<str>>,
    /// Relations of which a look runs it.
    relations: HashSet<Box<str>>,
    /// Those of which a change does.
    written: HashSet<Box<str>>,
    /// A cast runs it, also where none is written.
    is_anywhere: bool,
    /// A cast runs it that is written.
    is_in_casts: bool,
    /// An event trigger runs it when something is defined.
    is_in_definitions: bool,
}

impl Code {
    /// Whether it has types that run it when a value is read.
    pub fn has_types(&self) -> bool {
        !self.types.is_empty()
    }

    /// Whether a text may run some of it when it is parsed: a constant of such a type is read then, whether it is
    /// written as a cast, as a call, behind a dot, or meets a column of the type.
    pub fn may_run_at_parse(&self, symbols: &Symbols) -> bool {
        let all = symbols.types.iter().chain(&symbols.calls).chain(&symbols.fields);
        !self.types.is_empty()
            && (all.into_iter().any(|name| self.types.contains(name))
                || meet(&self.relations, &symbols.relations)
                || meet(&self.written, &symbols.written))
    }

    /// Whether a text may run some of it.
    pub fn may_run(&self, symbols: &Symbols) -> bool {
        let is_something = !symbols.relations.is_empty()
            || !symbols.calls.is_empty()
            || !symbols.operators.is_empty()
            || !symbols.types.is_empty();
        self.is_anywhere && is_something
            || self.is_in_casts && symbols.casts
            || self.is_in_definitions && symbols.defines
            || symbols.maintains_all && !self.relations.is_empty()
            || meet(&self.calls, &symbols.calls)
            || meet(&self.fields, &symbols.fields)
            || meet(&self.operators, &symbols.operators)
            || meet(&self.types, &symbols.types)
            || meet(&self.relations, &symbols.relations)
            || meet(&self.written, &symbols.written)
    }

    /// Whether there is a function of them.
    pub fn has_functions(&self) -> bool {
        !self.calls.is_empty()
    }
}

fn meet(mine: &HashSet<Box<str>>, theirs: &BTreeSet<Box<str>>) -> bool {
    !mine.is_empty() && theirs.iter().any(|name| mine.contains(name))
}

/// The state of what [`read`] reads.
pub(crate) async fn state(client: &Client) -> Result<String, Error> {
    let doing = "say whether its code has changed";
    let row = client.query_one(STATE, &[]).await.map_err(Error::refused(doing))?;
    Ok(row.get::<_, Option<String>>(0).unwrap_or_default())
}

struct Function {
    oid: u32,
    name: String,
    takes_one: bool,
    is_in_catalogue: bool,
    /// The words of its source; `None` if it may change its session.
    words: Option<BTreeSet<String>>,
}

/// Reads the catalogue.
pub(crate) async fn read(client: &Client) -> Result<Others, Error> {
    let doing = "list the code of others";
    let rows = client.query(THEIRS, &[]).await.map_err(Error::refused(doing))?;
    let functions: Vec<Function> = rows
        .iter()
        .map(|row| {
            let language: String = row.get(2);
            let source: Option<String> = row.get(3);
            let is_read = ["sql", "plpgsql"].contains(&language.as_str());
            let words = source.filter(|_| is_read).and_then(|source| harmless_words(&source));
            let (takes_one, is_in_catalogue) = (row.get(4), row.get(5));
            Function { oid: row.get(0), name: row.get(1), takes_one, is_in_catalogue, words }
        })
        .collect();
    let oids: Vec<u32> = functions.iter().map(|f| f.oid).collect();
    let rows = client.query(BEHIND, &[&oids, &unseen_patterns()]).await.map_err(Error::refused(doing))?;
    let behind: Vec<(String, String, u32)> =
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    let all = code(&functions, &behind, |_| true);
    let changing = changing(&functions, &behind);
    let changing = code(&functions, &behind, |oid| changing.contains(&oid));
    Ok(Others { all, changing })
}

/// The functions that may change their session, by themselves or by what they name.
fn changing(functions: &[Function], behind: &[(String, String, u32)]) -> HashSet<u32> {
    let mut changing: HashSet<u32> = functions.iter().filter(|f| f.words.is_none()).map(|f| f.oid).collect();
    loop {
        // What runs without a name in the source.
        let is_hidden = behind.iter().any(|(kind, _, function)| {
            ["operator", "cast", "explicit", "type"].contains(&kind.as_str())
                && (*function == 0 || changing.contains(function))
        });
        if is_hidden {
            return functions.iter().map(|f| f.oid).collect();
        }
        let named = functions.iter().filter(|f| changing.contains(&f.oid));
        let names: BTreeSet<String> = named.map(|f| f.name.to_lowercase()).collect();
        let of_relation = |kind: &str| ["read", "written"].contains(&kind);
        let relations =
            behind.iter().filter(|(kind, _, f)| of_relation(kind) && (*f == 0 || changing.contains(f)));
        let relations: BTreeSet<String> = relations.map(|(_, name, _)| name.to_lowercase()).collect();
        let spreads = |words: &BTreeSet<String>| !words.is_disjoint(&names) || !words.is_disjoint(&relations);
        let more = functions.iter().filter(|f| !changing.contains(&f.oid));
        let more = more.filter(|f| f.words.as_ref().is_none_or(spreads));
        let more: Vec<u32> = more.map(|f| f.oid).collect();
        if more.is_empty() {
            return changing;
        }
        changing.extend(more);
    }
}

fn code(functions: &[Function], behind: &[(String, String, u32)], is_in: impl Fn(u32) -> bool) -> Code {
    let mut code = Code::default();
    for function in functions.iter().filter(|f| is_in(f.oid)) {
        code.calls.insert(function.name.as_str().into());
        if function.is_in_catalogue {
            code.calls.insert(in_catalogue(&function.name));
        }
        if function.takes_one {
            code.fields.insert(function.name.as_str().into());
        }
    }
    // A rule's own statements stand in no function.
    for (kind, name, _) in behind.iter().filter(|(_, _, function)| *function == 0 || is_in(*function)) {
        let name: Box<str> = name.as_str().into();
        match kind.as_str() {
            "operator" => drop(code.operators.insert(name)),
            "call" => drop(code.calls.insert(name)),
            "event" => code.is_in_definitions = true,
            // The target may be a type around it, and the grammar has other words for many types.
            "explicit" => code.is_in_casts = true,
            // `x::name`, `name(x)`, `x.name`.
            "type" => {
                code.calls.insert(name.clone());
                code.fields.insert(name.clone());
                code.types.insert(name);
            }
            "cast" => code.is_anywhere = true,
            "written" => drop(code.written.insert(name)),
            _ => drop(code.relations.insert(name)),
        }
    }
    code
}
