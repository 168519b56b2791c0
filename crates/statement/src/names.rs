//! What a statement does to the names of its session: prepared statements, and cursors (which share one
//! name space with the portals of the protocol).

use pg_query::NodeEnum;
use pg_query::protobuf::a_const::Val;
use pg_query::protobuf::{DiscardMode, Node, TransactionStmtKind};

/// What a statement does to names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// `PREPARE name AS …`.
    Prepare(String),
    /// `EXECUTE name`: runs what the name stands for.
    Execute(String),
    /// `DEALLOCATE name`; `None` for all.
    Deallocate(Option<String>),
    /// `DECLARE name CURSOR FOR …`.
    Declare {
        /// The cursor.
        name: String,
        /// It outlives its transaction (WITH HOLD).
        hold: bool,
    },
    /// `FETCH … FROM name` or `MOVE`: goes on with what the name stands for.
    Fetch {
        /// The cursor.
        name: String,
        /// It is a MOVE, which gives no rows.
        is_move: bool,
    },
    /// `CLOSE name`; `None` for all.
    Close(Option<String>),
    /// `DISCARD ALL`.
    DiscardAll,
    /// `SAVEPOINT name`.
    Savepoint(String),
    /// `RELEASE name`.
    Release(String),
    /// `ROLLBACK TO name`: cursors that were made since then are gone.
    RollbackTo(String),
    /// COMMIT: cursors are gone but for those WITH HOLD.
    Commit,
    /// ROLLBACK: all cursors of the transaction are gone.
    Rollback,
    /// It may do anything to any name.
    Unsure,
}

/// The effect of a statement; `None` if it has none.
pub(crate) fn effect(node: &NodeEnum) -> Option<Effect> {
    let named = |name: &str| (!name.is_empty()).then(|| name.to_owned());
    Some(match node {
        NodeEnum::PrepareStmt(s) => Effect::Prepare(s.name.clone()),
        NodeEnum::ExecuteStmt(s) => Effect::Execute(s.name.clone()),
        NodeEnum::DeallocateStmt(s) => Effect::Deallocate(named(&s.name)),
        // DECLARE … BINARY and SCROLL change nothing here. CURSOR_OPT_HOLD, parsenodes.h.
        NodeEnum::DeclareCursorStmt(s) => {
            Effect::Declare { name: s.portalname.clone(), hold: s.options & 0x20 != 0 }
        }
        NodeEnum::FetchStmt(s) => Effect::Fetch { name: s.portalname.clone(), is_move: s.ismove },
        NodeEnum::ClosePortalStmt(s) => Effect::Close(named(&s.portalname)),
        NodeEnum::DiscardStmt(s) => match s.target() {
            DiscardMode::DiscardAll => Effect::DiscardAll,
            DiscardMode::Undefined => Effect::Unsure,
            _ => return None,
        },
        NodeEnum::TransactionStmt(s) => match s.kind() {
            TransactionStmtKind::TransStmtBegin | TransactionStmtKind::TransStmtStart => return None,
            TransactionStmtKind::TransStmtCommit => Effect::Commit,
            TransactionStmtKind::TransStmtRollback | TransactionStmtKind::TransStmtPrepare => {
                Effect::Rollback
            }
            TransactionStmtKind::TransStmtSavepoint => Effect::Savepoint(s.savepoint_name.clone()),
            TransactionStmtKind::TransStmtRelease => Effect::Release(s.savepoint_name.clone()),
            TransactionStmtKind::TransStmtRollbackTo => Effect::RollbackTo(s.savepoint_name.clone()),
            TransactionStmtKind::TransStmtCommitPrepared | TransactionStmtKind::TransStmtRollbackPrepared => {
                return None;
            }
            TransactionStmtKind::Undefined => Effect::Unsure,
        },
        // What runs inside may PREPARE and DEALLOCATE by itself.
        NodeEnum::DoStmt(_) | NodeEnum::CallStmt(_) => Effect::Unsure,
        // EXPLAIN ANALYZE EXECUTE runs what a name stands for.
        NodeEnum::ExplainStmt(s) => {
            let inner = s.query.as_ref().and_then(|q| q.node.as_ref())?;
            return effect(inner).filter(|e| matches!(e, Effect::Execute(_)));
        }
        // CREATE TABLE … AS EXECUTE name.
        NodeEnum::CreateTableAsStmt(s) => {
            let inner = s.query.as_ref().and_then(|q| q.node.as_ref())?;
            return effect(inner).filter(|e| matches!(e, Effect::Execute(_)));
        }
        _ => return None,
    })
}

/// Whether the statement may change how later texts are read: a setting, or what puts one back.
pub(crate) fn may_change_settings(node: &NodeEnum) -> bool {
    match node {
        NodeEnum::SelectStmt(_)
        | NodeEnum::InsertStmt(_)
        | NodeEnum::UpdateStmt(_)
        | NodeEnum::DeleteStmt(_)
        | NodeEnum::CopyStmt(_)
        | NodeEnum::ClosePortalStmt(_)
        | NodeEnum::PrepareStmt(_)
        | NodeEnum::DeclareCursorStmt(_)
        | NodeEnum::DeallocateStmt(_)
        | NodeEnum::VariableShowStmt(_) => false,
        NodeEnum::TransactionStmt(s) => !matches!(
            s.kind(),
            TransactionStmtKind::TransStmtBegin
                | TransactionStmtKind::TransStmtStart
                | TransactionStmtKind::TransStmtSavepoint
                | TransactionStmtKind::TransStmtRelease
        ),
        _ => true,
    }
}

/// Whether what is decided of a statement may be used for texts with other constants, where no constant's
/// value was looked at on the way. Other statements have constants where a name, a file or a setting stands.
pub(crate) fn is_same_for_all_constants(node: &NodeEnum) -> bool {
    matches!(
        node,
        NodeEnum::SelectStmt(_)
            | NodeEnum::InsertStmt(_)
            | NodeEnum::UpdateStmt(_)
            | NodeEnum::DeleteStmt(_)
            | NodeEnum::MergeStmt(_)
            | NodeEnum::TransactionStmt(_)
            | NodeEnum::DeclareCursorStmt(_)
            | NodeEnum::FetchStmt(_)
            | NodeEnum::ClosePortalStmt(_)
            | NodeEnum::PrepareStmt(_)
            | NodeEnum::ExecuteStmt(_)
            | NodeEnum::DeallocateStmt(_)
            | NodeEnum::VariableShowStmt(_)
    )
}

/// Whether the statement runs no query, so that it takes no time. COMMIT runs the rest of cursors WITH
/// HOLD.
pub(crate) fn is_quick(node: &NodeEnum) -> bool {
    match node {
        NodeEnum::VariableSetStmt(_)
        | NodeEnum::VariableShowStmt(_)
        | NodeEnum::DeallocateStmt(_)
        | NodeEnum::PrepareStmt(_)
        | NodeEnum::DeclareCursorStmt(_)
        | NodeEnum::ClosePortalStmt(_) => true,
        NodeEnum::TransactionStmt(s) => !matches!(s.kind(), TransactionStmtKind::TransStmtCommit),
        _ => false,
    }
}

/// After which statements one may see the rows as they were before: in a transaction that is REPEATABLE READ or
/// SERIALIZABLE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keeps {
    /// None.
    #[default]
    Nothing,
    /// Those of the same transaction, and of one that is chained to it.
    Transaction,
    /// All of the session.
    Session,
}

/// What a statement says of that.
pub(crate) fn keeps_snapshot(node: &NodeEnum) -> Keeps {
    let (keeps, until) = match node {
        NodeEnum::TransactionStmt(s) => (s.options.iter().any(asks_for_snapshot), Keeps::Transaction),
        NodeEnum::VariableSetStmt(s) => match s.name.to_ascii_lowercase().as_str() {
            // This parameter is the transaction's (PostgreSQL manual, 20.11.1).
            "transaction_isolation" => (!s.args.iter().any(is_read_committed), Keeps::Transaction),
            "default_transaction_isolation" => (!s.args.iter().any(is_read_committed), Keeps::Session),
            "transaction" => (s.args.iter().any(asks_for_snapshot), Keeps::Transaction),
            "session characteristics" => (s.args.iter().any(asks_for_snapshot), Keeps::Session),
            "transaction snapshot" => (true, Keeps::Transaction),
            _ => return Keeps::Nothing,
        },
        _ => return Keeps::Nothing,
    };
    if keeps { until } else { Keeps::Nothing }
}

/// Whether a statement may do the same without a word of it.
pub(crate) fn may_set_level(node: &NodeEnum) -> bool {
    matches!(node, NodeEnum::DoStmt(_) | NodeEnum::CallStmt(_))
}

/// An option of a transaction that is an isolation level above READ COMMITTED.
fn asks_for_snapshot(option: &Node) -> bool {
    match &option.node {
        Some(NodeEnum::DefElem(option)) if option.defname == "transaction_isolation" => {
            !option.arg.as_deref().is_some_and(is_read_committed)
        }
        _ => false,
    }
}

fn is_read_committed(value: &Node) -> bool {
    let Some(NodeEnum::AConst(constant)) = &value.node else { return false };
    let Some(Val::Sval(level)) = &constant.val else { return false };
    ["read committed", "read uncommitted"].contains(&level.sval.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod snapshot_tests {
    use super::Keeps;
    use crate::analysis::Analysis;
    use crate::settings::Settings;

    #[test]
    fn levels_above_read_committed_keep_a_snapshot() {
        let keeps = |text: &str| Analysis::of(text, Settings::default()).keeps_snapshot != Keeps::Nothing;
        let of_session =
            |text: &str| Analysis::of(text, Settings::default()).keeps_snapshot == Keeps::Session;
        for text in [
            "begin isolation level repeatable read",
            "start transaction read only, isolation level serializable",
            "set transaction isolation level repeatable read",
            "set transaction read only, isolation level serializable",
            "set session characteristics as transaction isolation level serializable",
            "set transaction_isolation = 'repeatable read'",
            "set transaction_isolation to serializable",
            "set default_transaction_isolation = 'serializable'",
            "set transaction snapshot '00000003-0000001B-1'",
            "begin; set local transaction_isolation = 'Repeatable Read'",
        ] {
            assert!(keeps(text), "{text}");
            let is_default = text.contains("session") || text.contains("default");
            assert_eq!(of_session(text), is_default, "{text}");
        }
        for text in [
            "begin",
            "begin read only",
            "start transaction read write, deferrable",
            "begin isolation level read committed",
            "set transaction read only",
            "set transaction isolation level read committed",
            "set transaction_isolation = 'READ COMMITTED'",
            "set idle_in_transaction_session_timeout = 0",
            "commit and chain",
        ] {
            assert!(!keeps(text), "{text}");
        }
    }
}
