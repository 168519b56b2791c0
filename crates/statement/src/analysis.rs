//! Everything that is decided by a statement's text, found by one parse and remembered.
//!
//! The allow-list, the meter, row limits, pooling, counting and the reports use this one analysis. A
//! text is read under the settings of its session ([`Settings`]); what cannot be read reaches
//! everything.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::allow_list::{self, Verdict};
use crate::functions::Function;
use crate::names::{self, Effect, Keeps};
use crate::scope::{self, QueryScope};
use crate::settings::{Settings, Strings};
use crate::shape::{self, Shape, Template};
use crate::symbols::{self, Symbols};
use crate::{functions, pinning, tree};

/// The most analyses that are remembered, and the most bytes of texts that find them.
const REMEMBERED: usize = 16 * 1024;
const REMEMBERED_BYTES: usize = 32 << 20;

/// One statement of a text.
#[derive(Clone, Debug)]
pub struct Part {
    /// What it does to the session's names.
    pub effect: Option<Effect>,
    /// It runs no query, so that it takes no time.
    pub is_quick: bool,
    /// It is COPY FROM STDIN.
    pub copies_in: bool,
    /// It gives no row back, copies none, and calls nothing that could.
    pub only_defines: bool,
    /// What its own result can show. That of EXECUTE and FETCH is in what their name stands for; that
    /// of PREPARE and DECLARE is shown later, by those.
    pub scope: Arc<QueryScope>,
}

/// See the module's text.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own about a text")]
pub struct Analysis {
    /// What the allow-list for governed persons says.
    pub verdict: Verdict,
    /// The statements of the text, in order.
    pub parts: Vec<Part>,
    /// What all statements show or define together, without what EXECUTE and FETCH go on with.
    pub scope: Arc<QueryScope>,
    /// It leaves something in the connection that the session may rely on later.
    pub is_sticky: bool,
    /// It may change how later texts are read.
    pub changes_settings: bool,
    /// After which statements one may see the rows as they were some time before (REPEATABLE READ and above).
    pub keeps_snapshot: Keeps,
    /// After it that may be so, which nothing in the text says.
    pub may_set_level: bool,
    /// It runs triggers that wait.
    pub sets_constraints: bool,
    /// The names in it behind which a store can have code of its own.
    pub symbols: Symbols,
    /// It may make or change such code.
    pub defines_code: bool,
    /// It calls a function that runs a text as SQL, or it is not understood.
    pub runs_sql: bool,
    /// The text without its constants.
    pub shape: Shape,
    /// PostgreSQL's grammar accepts the text under the session's settings.
    pub is_understood: bool,
    /// The settings that it was read under.
    pub settings: Settings,
    /// What was found depends on the values of constants.
    reads_constants: bool,
    /// Recognises other texts of which the same was found.
    template: Option<Template>,
}

impl Analysis {
    /// Reads a text, which may hold several statements.
    pub fn of(text: &str, settings: Settings) -> Self {
        let Some(options) = settings.options(text) else { return Self::not_understood(settings) };
        let parsed = match pg_query::parse(text, options) {
            Ok(parsed) => parsed.protobuf,
            Err(error) => {
                let verdict = allow_list::not_parsed(&error);
                return Self { verdict, ..Self::not_understood(settings) };
            }
        };
        let Ok(tree) = serde_json::to_value(&parsed) else { return Self::not_understood(settings) };
        let mut reads_constants = false;
        let mut verdict = allow_list::judge(&parsed.stmts, &tree);
        if text.len() > allow_list::MAX_LENGTH {
            verdict = allow_list::too_long();
        }
        let mut parts = Vec::with_capacity(parsed.stmts.len());
        let (mut changes_settings, mut defines_code) = (false, false);
        let (mut keeps_snapshot, mut may_set_level, mut sets_constraints) = (Keeps::Nothing, false, false);
        for (n, raw) in parsed.stmts.iter().enumerate() {
            let Some(node) = raw.stmt.as_ref().and_then(|s| s.node.as_ref()) else { continue };
            let value = &tree["stmts"][n]["stmt"]["node"];
            reads_constants |= !names::is_same_for_all_constants(node);
            let scope = Arc::new(scope::of(value, &mut reads_constants));
            changes_settings |= names::may_change_settings(node) || sets_unseen(value);
            keeps_snapshot = keeps_snapshot.max(names::keeps_snapshot(node));
            may_set_level |= names::may_set_level(node) || sets_isolation(value, &mut reads_constants);
            sets_constraints |= matches!(node, pg_query::NodeEnum::ConstraintsSetStmt(_));
            defines_code |= symbols::defines_code(node, value);
            let copies_in = matches!(node, pg_query::NodeEnum::CopyStmt(copy) if copy.is_from);
            let (effect, is_quick) = (names::effect(node), names::is_quick(node));
            let only_defines = symbols::only_defines(value);
            parts.push(Part { effect, is_quick, copies_in, only_defines, scope });
        }
        reads_constants |= verdict.refused.is_some();
        let scope = match parts.as_slice() {
            [one] => Arc::clone(&one.scope),
            parts => {
                let mut all = QueryScope::empty();
                for part in parts {
                    all.merge(&part.scope);
                }
                Arc::new(all)
            }
        };
        Self {
            verdict,
            parts,
            scope,
            is_sticky: pinning::is_sticky(&parsed.stmts, &tree),
            changes_settings,
            keeps_snapshot,
            may_set_level,
            sets_constraints,
            symbols: Symbols::of(&tree),
            defines_code,
            runs_sql: calls_sql(&tree),
            shape: Shape::of(text),
            is_understood: true,
            settings,
            template: (!reads_constants).then(|| Template::of(text)).flatten(),
            reads_constants,
        }
    }

    /// The analysis of bytes that the gateway cannot read as the store does.
    pub fn not_understood(settings: Settings) -> Self {
        let scope = Arc::new(QueryScope::unknown());
        Self {
            verdict: allow_list::not_judged(),
            parts: vec![Part {
                effect: Some(Effect::Unsure),
                is_quick: false,
                copies_in: false,
                only_defines: false,
                scope: Arc::clone(&scope),
            }],
            scope,
            is_sticky: true,
            changes_settings: true,
            keeps_snapshot: Keeps::Nothing,
            may_set_level: true,
            sets_constraints: true,
            symbols: Symbols::default(),
            defines_code: true,
            runs_sql: true,
            shape: Shape::not_understood(),
            is_understood: false,
            settings,
            reads_constants: true,
            template: None,
        }
    }

    /// The analysis of a function-call message, which has a function and no text.
    pub fn function_call(function: &str) -> Self {
        Self { shape: Shape::function_call(function), ..Self::not_understood(Settings::default()) }
    }

    /// The analysis of a text that is too long for a governed person.
    pub fn too_long(settings: Settings) -> Self {
        Self { verdict: allow_list::too_long(), ..Self::not_understood(settings) }
    }

    /// What the tokens of a long text say: that it is one statement that reads or changes rows, and so
    /// changes no name. Its scope is not looked for. `None` if it may be something else.
    fn by_tokens(text: &str, settings: Settings) -> Option<Self> {
        let shape::OneStatement { shape, is_sticky, words, operators } = shape::one_statement(text)?;
        let runs_sql = words.iter().any(|word| functions::function(word) == Function::RunsSql);
        let symbols = Symbols {
            calls: words.clone(),
            fields: words.clone(),
            types: words.clone(),
            written: words.clone(),
            relations: words,
            operators,
            ..Symbols::default()
        };
        let scope = Arc::new(QueryScope::unknown());
        let parts = vec![Part {
            effect: None,
            is_quick: false,
            copies_in: false,
            only_defines: false,
            scope: Arc::clone(&scope),
        }];
        let is_understood = true;
        let defines_code = false;
        let rest = Self::not_understood(settings);
        Some(Self { parts, scope, is_sticky, symbols, defines_code, runs_sql, shape, is_understood, ..rest })
    }

    /// Whether the grammar does not accept the text.
    pub fn is_syntax_error(&self) -> bool {
        self.verdict.refused.as_ref().is_some_and(|refused| refused.is_syntax)
    }

    /// About how many bytes it takes.
    fn size(&self) -> usize {
        let verdict = self.verdict.columns.iter().chain(&self.verdict.tables).map(|n| n.len() + 48);
        let parts = self.parts.iter().map(|part| 64 + part.scope.size());
        let template = self.template.as_ref().map_or(0, Template::size);
        512 + template
            + self.shape.text.len()
            + self.scope.size()
            + self.symbols.size()
            + verdict.sum::<usize>()
            + parts.sum::<usize>()
    }

    /// Whether what it runs by itself can read a row of a user's table.
    pub fn may_read(&self) -> bool {
        self.scope.is_unknown || self.scope.calls_unknown || !self.scope.tables.is_empty()
    }

    /// Whether the store may wait for COPY data when it runs.
    pub fn may_copy_in(&self) -> bool {
        !self.is_understood || self.parts.iter().any(|part| part.copies_in)
    }

    /// Whether a part runs or goes on with what a name stands for.
    pub fn uses_names(&self) -> bool {
        let uses = |e: &Effect| matches!(e, Effect::Execute(_) | Effect::Fetch { .. });
        self.parts.iter().filter_map(|part| part.effect.as_ref()).any(uses)
    }

    /// Whether a part takes all prepared statements away.
    pub fn discards_names(&self) -> bool {
        let all = |e: &Effect| matches!(e, Effect::Deallocate(None) | Effect::DiscardAll);
        self.parts.iter().filter_map(|part| part.effect.as_ref()).any(all)
    }

    /// Whether a part changes what names stand for.
    pub fn changes_names(&self) -> bool {
        let changes = |e: &Effect| !matches!(e, Effect::Execute(_) | Effect::Fetch { .. });
        self.parts.iter().filter_map(|part| part.effect.as_ref()).any(changes)
    }
}

/// Whether a call is one of `set_config`.
fn is_set_config(call: &Value) -> bool {
    let last = call["funcname"].as_array().and_then(|parts| parts.last());
    last.is_some_and(|name| name["node"]["String"]["sval"] == "set_config")
}

/// Whether a statement may change a setting without SET: by a function, or by a change of the view
/// `pg_settings`, which calls one.
fn sets_unseen(value: &Value) -> bool {
    let may_set = |call: &Value| {
        is_set_config(call) || matches!(functions::of_call(call), Function::Unknown | Function::RunsSql)
    };
    tree::any(value, &mut |kind, fields| {
        kind == "FuncCall" && may_set(fields) || pinning::changes_pg_settings(kind, fields)
    })
}

/// Whether a statement may set a transaction's isolation without SET.
fn sets_isolation(value: &Value, reads_constants: &mut bool) -> bool {
    let mut sets = |call: &Value| {
        let is_set = is_set_config(call);
        *reads_constants |= is_set;
        let parameter = call["args"][0]["node"]["AConst"]["val"]["Sval"]["sval"].as_str();
        is_set && parameter.is_none_or(|name| name.to_ascii_lowercase().contains("isolation"))
            || functions::of_call(call) == Function::RunsSql
    };
    tree::any(value, &mut |kind, fields| {
        kind == "FuncCall" && sets(fields) || pinning::changes_pg_settings(kind, fields)
    })
}

/// Whether a text runs as SQL within a statement.
fn calls_sql(value: &Value) -> bool {
    tree::any(value, &mut |kind, fields| {
        kind == "FuncCall" && functions::of_call(fields) == Function::RunsSql
    })
}

/// The analyses that one session used last. A client that sends one statement again and again with other
/// constants finds it here, without a scan and without a lock that others take.
#[derive(Debug, Default)]
pub struct Recent(Vec<Arc<Analysis>>);

/// How many analyses a session keeps.
const RECENT: usize = 4;

impl Recent {
    /// As [`Cache::of`], or as [`Cache::without_scope`] where the session needs no scope.
    pub fn of(&mut self, cache: &Cache, text: &str, settings: Settings, needs_scope: bool) -> Arc<Analysis> {
        if let Some(found) = self.find(text, settings) {
            return found;
        }
        let found = if needs_scope { cache.of(text, settings) } else { cache.without_scope(text, settings) };
        self.keep(&found);
        found
    }

    /// The analysis of a text, if it is one of those.
    pub fn find(&self, text: &str, settings: Settings) -> Option<Arc<Analysis>> {
        let is_standard = settings.strings == Strings::Standard || !text.contains('\\');
        let fits = |known: &&Arc<Analysis>| known.template.as_ref().is_some_and(|t| t.fits(text));
        self.0.iter().find(fits).filter(|_| is_standard).cloned()
    }

    /// Keeps one that a session has used.
    pub fn keep(&mut self, found: &Arc<Analysis>) {
        if found.template.is_some() {
            if self.0.len() >= RECENT {
                self.0.remove(0);
            }
            self.0.push(Arc::clone(found));
        }
    }
}

/// Analyses that hold for a text only, and those that hold for all texts of a key. A text can be its own key,
/// so one map would give what was found of its constants to texts with others.
#[derive(Default)]
struct Known {
    by_text: HashMap<Box<str>, Arc<Analysis>>,
    by_key: HashMap<Box<str>, Arc<Analysis>>,
    bytes: usize,
}

/// Analyses by text, or by the text's key where no constant counts.
#[derive(Default)]
pub struct Cache {
    known: Mutex<Known>,
}

impl Cache {
    /// As [`Analysis::of`], remembered.
    pub fn of(&self, text: &str, settings: Settings) -> Arc<Analysis> {
        // The scanner that makes keys reads literals by the standard. Without a backslash they read
        // the same under all settings.
        if settings.strings != Strings::Standard && text.contains('\\') {
            return Arc::new(Analysis::of(text, settings));
        }
        shape::with_key(text, |key| {
            if let Some(found) = self.find(text, key) {
                return found;
            }
            let found = Arc::new(Analysis::of(text, settings));
            if text.len() <= shape::MAX_LENGTH {
                self.remember(text, key, &found);
            }
            found
        })
    }

    /// The same for a session that needs no scope: a long text, as a bulk INSERT is, is not parsed.
    pub fn without_scope(&self, text: &str, settings: Settings) -> Arc<Analysis> {
        let is_standard = settings.strings == Strings::Standard || !text.contains('\\');
        if text.len() > shape::MAX_LENGTH
            && is_standard
            && let Some(found) = Analysis::by_tokens(text, settings)
        {
            return Arc::new(found);
        }
        self.of(text, settings)
    }

    fn find(&self, text: &str, key: &str) -> Option<Arc<Analysis>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.by_key.get(key).or_else(|| known.by_text.get(text)).map(Arc::clone)
    }

    fn remember(&self, text: &str, key: &str, found: &Arc<Analysis>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let name = if found.reads_constants { text } else { key };
        let size = name.len() + found.size();
        if known.by_text.len() + known.by_key.len() >= REMEMBERED || known.bytes + size > REMEMBERED_BYTES {
            // Rare and cheap: what is still in use is read again once.
            *known = Known::default();
        }
        known.bytes += size;
        let by = if found.reads_constants { &mut known.by_text } else { &mut known.by_key };
        by.insert(name.into(), Arc::clone(found));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decisions with the cache are those without it.
    #[test]
    fn the_cache_changes_no_decision() {
        let pieces = [
            "select",
            "a",
            "1",
            "23",
            "'x'",
            "'it''s'",
            "\"q 1\"",
            "from t",
            "from users",
            "where",
            "=",
            ",",
            "$1",
            ";",
            "e'",
            "e'\\'",
            "--",
            "/*",
            "*/",
            "1a",
            "::int",
            "-",
            "_1",
            "''",
            "(",
            ")",
            "&",
            "U&\"!0061\"",
            "uescape '!'",
            "uescape '@'",
            "u&'\\0061'",
            "b'1'",
            "x'f'",
            "n'x'",
            "$$",
            "$a$",
            "\n",
            "limit 3",
            "limit 5",
            "limit 0",
            "0",
            "0.0",
            "''",
            "generate_series(0, 0)",
            "generate_series(1, 9)",
            "copy (select a from t) to",
            "fetch first 0 rows only",
            "x::float(0)",
            "x::float(5)",
            "string_agg(a,'')",
            "set a =",
            "with t as (select 1)",
            "\\",
            "execute p",
            "fetch 3 from c",
        ];
        let cache = Cache::default();
        let mut recent = Recent::default();
        let mut state = 1_u64;
        for round in 0..40_000 {
            let mut text = if round % 2 == 0 { "select".to_owned() } else { String::new() };
            for _ in 0..6 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let n = usize::try_from(state >> 33).unwrap();
                text.push_str(if n % 3 == 0 { "" } else { " " });
                text.push_str(pieces[n % pieces.len()]);
            }
            let strings = [Strings::Standard, Strings::Escaping, Strings::Unsure];
            let settings = Settings { strings: strings[round % 3], ..Settings::default() };
            // Each text once more with other constants: the session's own memory finds some of them.
            if round % 4 == 3 {
                recent.of(&cache, &text, settings, true);
                text = text.replace("23", "7").replace("'x'", "'yz'");
            }
            // A text whose constants are the placeholders of keys is a key itself.
            if round % 4 == 1 {
                let key = shape::with_key(&text, str::to_owned);
                let with = cache.of(&key, settings);
                let without = Analysis::of(&key, settings);
                assert_eq!((&with.verdict, &with.scope), (&without.verdict, &without.scope), "{key}");
            }
            let with = match round % 2 {
                0 => cache.of(&text, settings),
                _ => recent.of(&cache, &text, settings, true),
            };
            let without = Analysis::of(&text, settings);
            assert_eq!(with.verdict, without.verdict, "{text}");
            assert_eq!(with.shape, without.shape, "{text}");
            assert_eq!(with.symbols, without.symbols, "{text}");
            assert_eq!(
                (with.defines_code, with.runs_sql),
                (without.defines_code, without.runs_sql),
                "{text}"
            );
            assert_eq!(
                (with.is_sticky, with.changes_settings, with.is_understood),
                (without.is_sticky, without.changes_settings, without.is_understood),
                "{text}"
            );
            let parts = |a: &Analysis| {
                a.parts.iter().map(|p| (p.effect.clone(), p.scope.clone())).collect::<Vec<_>>()
            };
            assert_eq!(parts(&with), parts(&without), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_reaches_everything() {
        let unsure = Settings { strings: Strings::Unsure, ..Settings::default() };
        for analysis in [
            Analysis::of("select 'a\\'", unsure),
            Analysis::of(&format!("select {}", vec!["1"; 60_000].join("+")), Settings::default()),
            Analysis::of("no sql", Settings::default()),
        ] {
            assert!(analysis.scope.is_unknown && !analysis.is_understood && analysis.is_sticky);
            assert!(analysis.verdict.refused.is_some());
            assert_eq!(analysis.shape.id(), shape::NOT_UNDERSTOOD);
        }
        let text = r"select '\'' , email from users --'";
        let escaping = Settings { strings: Strings::Escaping, ..Settings::default() };
        assert!(Analysis::of(text, escaping).scope.tables.contains_key("users"));
        let text = r"select '' , email from users --'";
        assert!(Analysis::of(text, Settings::default()).scope.tables.contains_key("users"));
    }
}
