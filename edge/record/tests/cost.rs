//! What each statement costs, in steps of SQLite's virtual machine: for the same number of rows at most twice as much with
//! 100,000 jobs as with 100, however the tables are filled. Steps are counted rather than plans read, because a plan that
//! uses an index may still go through most of it.
#![allow(clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use rusqlite::{Connection, StatementStatus, params_from_iter, types::Value};
use xora_record::{schema::MIGRATIONS, statements::ALL};

const FEW: u32 = 100;
const MANY: u32 = 100_000;

/// Rows that a statement is asked for where there are enough.
const LIMIT: f64 = 10.0;

/// The time in every filling, in ms since 1970.
const NOW: f64 = 1_800_000_000_000.0;

/// How the tables are filled. Each hurts some statement that goes through what it does not want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filling {
    /// Every task waits, is heavy, and belongs to a key of its own. A node that only has room for light ones asks.
    Heavy,
    /// Every task waits, is light, and belongs to one key.
    OneKey,
    /// Every task waits for a time to come: a storage outage that each attempt has met.
    Later,
    /// Every job is over in the same state, and nothing is due.
    Over,
    /// All that can be due is due.
    Due,
    /// All was there, and was deleted.
    Deleted,
}

use Filling::{Deleted, Due, Heavy, Later, OneKey, Over};

fn text(text: impl Into<String>) -> Value {
    Value::Text(text.into())
}

/// Every number is bound as floating point, as the runtime does.
fn number(number: f64) -> Value {
    Value::Real(number)
}

fn fill(filling: Filling, rows: u32) -> Connection {
    let db = Connection::open_in_memory().expect("a database");
    for statement in MIGRATIONS.into_iter().flatten() {
        db.execute_batch(statement).expect(statement);
    }
    db.execute_batch("BEGIN").expect("a transaction");
    for n in 0..rows {
        let id = format!("ID{n:08}");
        let key = if filling == OneKey { "key".to_owned() } else { format!("key{n:08}") };
        let (over, due) = (filling == Over || filling == Due, filling == Due);
        // Long ago, just now, or not at all.
        let at = if due { number(1.0) } else { number(NOW + 1e9) };
        let ended = if due {
            number(1.0)
        } else if over {
            number(NOW)
        } else {
            Value::Null
        };
        let state = if over { "completed" } else { "queued" };
        run(&db, "PUT_JOB", vec![text(&id), text(state), ended.clone(), ended, text("{}")]);
        if filling != Over {
            let offer = if filling == Later { 1.0 } else { 0.0 };
            let heavy = if filling == Heavy { 1.0 } else { 0.0 };
            let values = vec![
                text(&id),
                number(5.0),
                text(&key),
                number(offer),
                at.clone(),
                at.clone(),
                number(heavy),
                text("{}"),
            ];
            run(&db, "PUT_TASK", values);
        }
        run(&db, "PUT_DELIVERY", vec![text(&id), if over && !due { Value::Null } else { at.clone() }, text("{}")]);
        run(&db, "PUT_UPLOAD", vec![text(format!("outputs/{id}/result.mp4")), at.clone(), text("{}")]);
        // The edge permits a key at most a hundred that no job has named.
        let used = if n < 10 { 0.0 } else { 1.0 };
        run(&db, "PUT_RECEIVED", vec![text(&id), text(&key), number(used), at.clone(), text("{}")]);
        run(&db, "PUT_RECEIVED_PART", vec![text(&id), number(1.0), text("etag")]);
        run(&db, "PUT_RECEIVED_USER", vec![text(&id), text(&id)]);
        run(&db, "PUT_REPEAT", vec![text(format!("repeat{id}")), at, text("{}")]);
    }
    if filling == Deleted {
        for table in
            ["jobs", "tasks", "deliveries", "uploads", "received", "received_parts", "received_users", "repeats"]
        {
            db.execute_batch(&format!("DELETE FROM {table}")).expect(table);
        }
    }
    db.execute_batch("COMMIT").expect("a commit");
    run(&db, "PUT_NODE", vec![text("node"), text("{}")]);
    db
}

/// What each statement is asked with.
fn values(name: &str) -> Vec<Value> {
    let id = || text("ID00000050");
    match name {
        "JOB"
        | "DELETE_JOB"
        | "TASK"
        | "DELETE_TASK"
        | "DELIVERY"
        | "DELETE_DELIVERY"
        | "RECEIVED"
        | "DELETE_RECEIVED"
        | "RECEIVED_PARTS"
        | "DELETE_RECEIVED_PARTS" => vec![id()],
        "JOBS_ENDED" | "JOBS_WITH_OUTPUT" | "TASKS_DUE" | "DELIVERIES_DUE" | "UPLOADS_DUE" | "RECEIVED_DUE" => {
            vec![number(NOW - 1e9), number(LIMIT)]
        }
        "PUT_OFF_ENDED" | "PUT_OFF_OUTPUT" | "PUT_OFF_TASK" | "PUT_OFF_DELIVERY" | "PUT_OFF_RECEIVED" => {
            vec![number(NOW), id()]
        }
        "LIST" | "LIST_QUEUED" => vec![text("~"), number(LIMIT)],
        "LIST_OVER" => vec![text("failed"), text("~"), number(LIMIT)],
        "PUT_JOB" => vec![text("new"), text("completed"), number(NOW), number(NOW), text("{}")],
        "PUT_TASK" => {
            vec![text("new"), number(5.0), text("key"), number(0.0), number(NOW), number(NOW), number(0.0), text("{}")]
        }
        "TOP_PRIORITY" => vec![number(0.0), text("node-1"), number(NOW)],
        "NEXT_KEY" => vec![number(0.0), number(5.0), text(""), text("node-1"), number(NOW)],
        "OLDEST_OF_KEY" => vec![number(0.0), number(5.0), text("key"), text("node-1"), number(NOW)],
        "TASKS_LEASED" | "SETTINGS" | "EARLIEST" | "EARLIEST_REMOVAL" => vec![],
        "UPLOAD" | "DELETE_UPLOAD" => vec![text("outputs/ID00000050/result.mp4")],
        "UPLOADS_BETWEEN" => vec![text("outputs/ID00000050/"), text("outputs/ID000000500")],
        "PUT_DELIVERY" | "PUT_UPLOAD" | "PUT_REPEAT" => vec![text("new"), number(NOW), text("{}")],
        "PUT_OFF_UPLOAD" => vec![number(NOW), text("outputs/ID00000050/result.mp4")],
        "RECEIVED_UNUSED" => vec![text("key")],
        "PUT_RECEIVED" => vec![text("new"), text("key"), number(0.0), number(NOW), text("{}")],
        "PUT_RECEIVED_PART" => vec![text("new"), number(1.0), text("etag")],
        "RECEIVED_USERS" => vec![id(), number(LIMIT)],
        "PUT_RECEIVED_USER" => vec![text("new"), text("new")],
        "DELETE_RECEIVED_USER" => vec![id(), id()],
        "REPEAT" => vec![text("repeatID00000050"), number(NOW - 1e9)],
        "FORGET_REPEATS" => vec![number(NOW - 1e9)],
        "PUT_SETTINGS" => vec![number(1.0), text("{}")],
        "NODE" | "DELETE_NODE" => vec![text("node")],
        "PUT_NODE" => vec![text("node"), text("{}")],
        other => panic!("{other}: what is it asked with?"),
    }
}

/// What a statement took.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// Rows that it answered.
    rows: usize,
    steps: i32,
    /// Rows that it sorted, or put into an index of its own.
    sorts: i32,
}

fn run(db: &Connection, name: &str, values: Vec<Value>) -> Cost {
    let (_, sql) = ALL.iter().find(|(known, _)| *known == name).expect(name);
    let mut statement = db.prepare_cached(sql).expect(sql);
    for status in [StatementStatus::VmStep, StatementStatus::Sort, StatementStatus::AutoIndex] {
        statement.reset_status(status);
    }
    let mut rows = 0;
    {
        let mut found = statement.query(params_from_iter(values)).expect(sql);
        while found.next().expect(sql).is_some() {
            rows += 1;
        }
    }
    let sorts = statement.get_status(StatementStatus::Sort) + statement.get_status(StatementStatus::AutoIndex);
    Cost { rows, steps: statement.get_status(StatementStatus::VmStep), sorts }
}

#[test]
fn no_statement_costs_more_than_twice_as_much_with_100_000_jobs_as_with_100() {
    let mut wrong = Vec::new();
    for filling in [Heavy, OneKey, Later, Over, Due, Deleted] {
        let (few, many) = (fill(filling, FEW), fill(filling, MANY));
        for (name, _) in ALL {
            let cost = |db: &Connection| {
                db.execute_batch("SAVEPOINT untouched").expect("a savepoint");
                let cost = run(db, name, values(name));
                db.execute_batch("ROLLBACK TO untouched; RELEASE untouched").expect("a rollback");
                cost
            };
            let (before, after) = (cost(&few), cost(&many));
            assert_eq!(before.rows, after.rows, "{filling:?}, {name}: the comparison is of the same number of rows");
            if after.steps > 2 * before.steps || after.sorts > 0 {
                wrong.push(format!("{filling:?}, {name}: {before:?} and then {after:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn older_settings_never_replace_newer_ones() {
    let db = fill(Filling::Over, 0);
    for (version, doc) in [(2.0, "two"), (1.0, "one"), (2.0, "two again"), (3.0, "three"), (2.0, "late")] {
        run(&db, "PUT_SETTINGS", vec![number(version), text(doc)]);
        let kept: String = db.query_row("SELECT doc FROM settings", [], |row| row.get(0)).expect("a row");
        let expected = if version < 3.0 && doc != "late" { "two" } else { "three" };
        assert_eq!(kept, expected, "after {doc}");
    }
}
