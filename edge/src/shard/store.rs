//! Rows. Each table is a key, the columns that queries need, and a JSON document.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use worker::{SqlStorage, SqlStorageValue, console_error};
use xora_shared::{
    delivery::Delivery,
    failure::{FailureKind, Stage},
    id::Id,
    job::{
        JobState,
        lease::Hold,
        view::{Attempt, JobRecord},
    },
    protocol::name_for_header,
    provider::Provider,
    upload::Layout,
};

use super::{JobShard, Live, rpc::Speaker};
use crate::{config, docs::docs, error::ApiError};

/// Statements that lead from one version of the schema to the next. Never edited, only added to.
const MIGRATIONS: [&[&str]; 7] = [
    &[
        "CREATE TABLE jobs (id TEXT PRIMARY KEY, state TEXT NOT NULL, doc TEXT NOT NULL) WITHOUT ROWID",
        // Rows of jobs that are not over. `ready_at` and `wakes_at` are null while leased: memory knows when a lease ends.
        "CREATE TABLE tasks (id TEXT PRIMARY KEY, priority INTEGER NOT NULL, ready_at INTEGER, wakes_at INTEGER,
        doc TEXT NOT NULL) WITHOUT ROWID",
        "CREATE INDEX tasks_ready ON tasks (priority DESC, id) WHERE ready_at IS NOT NULL",
        // Objects and multipart uploads that no job refers to (yet).
        "CREATE TABLE uploads (key TEXT PRIMARY KEY, drop_at INTEGER, doc TEXT NOT NULL) WITHOUT ROWID",
        "CREATE TABLE deliveries (id TEXT PRIMARY KEY, wakes_at INTEGER, doc TEXT NOT NULL) WITHOUT ROWID",
        "CREATE INDEX deliveries_due ON deliveries (wakes_at) WHERE wakes_at IS NOT NULL",
    ],
    &[
        // Answers to repeat, by caller and key, for a day.
        "CREATE TABLE repeats (key TEXT PRIMARY KEY, at INTEGER NOT NULL, doc TEXT NOT NULL) WITHOUT ROWID",
    ],
    &[
        // Files that callers upload, and their parts until a job names the file.
        "CREATE TABLE received (id TEXT PRIMARY KEY, token TEXT NOT NULL, used INTEGER NOT NULL, drop_at INTEGER NOT NULL,
        doc TEXT NOT NULL) WITHOUT ROWID",
        "CREATE INDEX received_due ON received (drop_at)",
        "CREATE TABLE received_parts (id TEXT NOT NULL, number INTEGER NOT NULL, etag TEXT NOT NULL,
        PRIMARY KEY (id, number)) WITHOUT ROWID",
    ],
    // Tasks known to encode moving pictures.
    &["ALTER TABLE tasks ADD COLUMN heavy INTEGER NOT NULL DEFAULT 0"],
    &[
        // Copies of the storage providers that jobs here use; what opens them is sealed. Deleting one deletes its copies.
        "CREATE TABLE providers (id TEXT PRIMARY KEY, doc TEXT NOT NULL) WITHOUT ROWID",
    ],
    &[
        // Since when jobs are over, and since when if there is still an output of theirs. No index: it would cost each job
        // a row, and lists and sweeps go by id, which is by time.
        "ALTER TABLE jobs ADD COLUMN ended_at INTEGER",
        "ALTER TABLE jobs ADD COLUMN output_at INTEGER",
        "UPDATE jobs SET ended_at = json_extract(doc, '$.record.finishedMs'), output_at =
        iif(json_extract(doc, '$.record.result') IS NULL, NULL, json_extract(doc, '$.record.finishedMs'))",
        // Within a priority, keys take turns.
        "DROP INDEX tasks_ready",
        "ALTER TABLE tasks ADD COLUMN token TEXT NOT NULL DEFAULT 'first'",
        "CREATE INDEX tasks_turn ON tasks (priority DESC, token, id) WHERE ready_at IS NOT NULL",
        // What nodes said of themselves; when, only roughly: memory and their sockets know better.
        "CREATE TABLE nodes (name TEXT PRIMARY KEY, doc TEXT NOT NULL) WITHOUT ROWID",
    ],
    &[
        // Headers for origins stood in the open before, in jobs and in their deliveries. Jobs that are not over keep theirs.
        // Only one input of a job could have any.
        "UPDATE jobs SET doc = json_remove(json_set(doc, '$.record.request.inputs[0].sealedHeaders', 'forgotten'),
        '$.record.request.inputs[0].headers') WHERE ended_at IS NOT NULL
        AND json_extract(doc, '$.record.request.inputs[0].headers') IS NOT NULL",
        "UPDATE deliveries SET doc = json_remove(doc, '$.record.request.inputs[0].headers')
        WHERE json_extract(doc, '$.record.request.inputs[0].headers') IS NOT NULL",
        // Jobs that named an upload and may not be over. They may be in any shard.
        "CREATE TABLE received_users (id TEXT NOT NULL, job TEXT NOT NULL, PRIMARY KEY (id, job)) WITHOUT ROWID",
    ],
];

/// A job's row. While the job runs, its task's row is newer in state, progress and attempts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct JobRow {
    pub record: JobRecord,
    /// The origin for links to its files.
    pub origin: String,
    /// The key that created it.
    pub token_id: String,
    /// The last fence that its task granted; a retried job goes on from here.
    pub fence: u64,
    /// The hold under which it completed: the same message again is fine.
    pub completed_by: Option<Hold>,
    /// Its deliveries, oldest first.
    pub deliveries: Vec<Id>,
    /// How often it was ended or retried.
    #[serde(default)]
    pub turns: u32,
}

impl JobRow {
    /// Since when its output stands in the managed bucket, if one does.
    fn output_at(&self) -> Option<i64> {
        self.record.finished_ms.filter(|_| self.record.kept_key().is_some())
    }
}

/// Tasks of before keys took turns.
fn first_key() -> String {
    "first".to_owned()
}

/// The row of a task that is not over. The one task of an undivided job carries the job's id.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct TaskRow {
    pub id: Id,
    pub job_id: Id,
    /// The key that created its job.
    #[serde(default = "first_key")]
    pub token_id: String,
    pub priority: u8,
    /// Since when it waits for a node, in ms since 1970.
    pub offered_ms: i64,
    pub state: JobState,
    pub phase: Phase,
    /// The last fence granted.
    pub fence: u64,
    /// When a node first took it.
    pub started_ms: Option<i64>,
    pub attempts: Vec<Attempt>,
    /// How the attempts that cost something ended.
    pub spent: Vec<FailureKind>,
    /// Whether it is known to encode moving pictures.
    #[serde(default)]
    pub heavy: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Phase {
    /// Offered to nodes from this time on, in ms since 1970.
    Waiting { ready_ms: i64 },
    /// A node has it.
    Leased {
        token: String,
        /// Id of the node's API key. None in rows of before keys were noted.
        #[serde(default)]
        key: Option<String>,
        expires_ms: i64,
        stage: Stage,
        progress: u8,
    },
}

/// A task that waits longer than this for a node is given up, in milliseconds.
pub(super) const UNCLAIMED_MS: i64 = 24 * 3600 * 1000;

impl TaskRow {
    /// Whether this node's key and name are those that the lease was given to. True of a task that nobody has, whose hold
    /// is refused anyway. The name is that of the running attempt.
    pub(super) fn is_held_by(&self, by: Option<&Speaker>) -> bool {
        let Phase::Leased { key: Some(key), .. } = &self.phase else { return true };
        let Some(by) = by else { return false };
        let node = self.attempts.last().map(|attempt| name_for_header(&attempt.node));
        by.key == *key && by.name.as_ref().is_none_or(|name| Some(name) == node.as_ref())
    }

    fn ready_at(&self) -> Option<i64> {
        match self.phase {
            Phase::Waiting { ready_ms } => Some(ready_ms),
            Phase::Leased { .. } => None,
        }
    }

    /// When the alarm has to look at it: an offer that begins, or a wait that was too long.
    pub(super) fn wakes_at(&self) -> Option<i64> {
        match self.phase {
            Phase::Waiting { ready_ms } if ready_ms > self.offered_ms => Some(ready_ms),
            Phase::Waiting { .. } => Some(self.offered_ms + UNCLAIMED_MS),
            Phase::Leased { .. } => None,
        }
    }
}

/// An output that is being written, or stands and is not referred to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct UploadRow {
    pub key: String,
    pub task_id: Id,
    /// Of the lease under which it is written; 0 once nobody writes it any more.
    pub fence: u64,
    /// Storage's id of the multipart upload; empty where one request writes it all.
    pub upload_id: String,
    /// The caller's bucket that it is in. None for the managed one.
    #[serde(default)]
    pub provider: Option<Id>,
    /// Size once it stands, in bytes.
    pub stored: Option<u64>,
    pub drop_at: Option<i64>,
}

impl UploadRow {
    /// Whether one request writes all of it.
    pub(super) fn is_single(&self) -> bool {
        self.upload_id.is_empty()
    }
}

/// A file that a caller uploads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ReceivedRow {
    pub id: Id,
    /// The key that opened it.
    pub token_id: String,
    pub filename: String,
    pub layout: Layout,
    /// Storage's id of the multipart upload.
    pub upload_id: String,
    /// Whether a job has named it: then it is whole, and takes no more parts.
    pub used: bool,
    /// When the last of the jobs that named it, and are known to be over, was over, in ms since 1970.
    #[serde(default)]
    pub over_ms: Option<i64>,
    /// How long it is kept after that, in milliseconds, by the settings when a job last named it.
    #[serde(default)]
    pub kept_ms: i64,
    /// Its time is over, and it is being removed: no job gets it any more.
    #[serde(default)]
    pub deleting: bool,
    /// When it is looked at, in ms since 1970: it is deleted then, unless it is in use.
    pub drop_at: i64,
}

/// A webhook delivery.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct DeliveryRow {
    pub id: Id,
    pub delivery: Delivery,
    pub url: String,
    /// When the job ended, in ms since 1970.
    pub ended_ms: i64,
    /// The job as it was then; links to files are signed at each attempt.
    pub record: JobRecord,
    pub origin: String,
    pub log: Vec<LoggedAttempt>,
    /// The job was deleted: the row goes when nothing is owed any more.
    #[serde(default)]
    pub orphan: bool,
}

/// How long the same idempotency key gets the same answer, in milliseconds.
const REPEAT_MS: i64 = 24 * 3600 * 1000;

/// What was asked and answered under an idempotency key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct RepeatRow {
    /// SHA-256 of the body.
    pub body: String,
    /// The job that it made.
    pub job_id: Id,
}

/// One attempt of a delivery, as the log keeps it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LoggedAttempt {
    pub attempt: u32,
    pub ended_ms: i64,
    pub duration_ms: i64,
    pub outcome: xora_shared::delivery::Outcome,
    /// 0 without an answer.
    pub status: u16,
    /// The start of the answer.
    pub answer: String,
}

#[derive(Deserialize)]
struct Part {
    number: u32,
    etag: String,
}

#[derive(Deserialize)]
struct At {
    at: Option<i64>,
}

impl JobShard {
    /// Brings the schema up to date and takes leases up again: none ends earlier than one lease time from now, because
    /// heartbeats may have been missed while nobody was here.
    pub(super) fn open(&self) {
        if let Err(error) = self.migrate().and_then(|()| self.resume_leases()) {
            console_error!("shard: cannot open: {error}");
        }
    }

    fn migrate(&self) -> Result<(), ApiError> {
        let sql = self.sql();
        sql.exec("CREATE TABLE IF NOT EXISTS schema_version (at INTEGER NOT NULL)", None)?;
        let version = sql.exec("SELECT max(at) AS at FROM schema_version", None)?.one::<At>()?.at;
        for (number, statements) in (1..).zip(MIGRATIONS) {
            if version.is_some_and(|version| version >= number) {
                continue;
            }
            for statement in statements {
                sql.exec(statement, None)?;
            }
            sql.exec("INSERT INTO schema_version (at) VALUES (?)", vec![integer(number)])?;
        }
        Ok(())
    }

    fn resume_leases(&self) -> Result<(), ApiError> {
        let now = config::now().0;
        let leased = self.docs::<TaskRow>("SELECT doc FROM tasks WHERE ready_at IS NULL", vec![])?;
        let mut live = self.memory.live.borrow_mut();
        for task in leased {
            if let Phase::Leased { expires_ms, stage, progress, .. } = task.phase {
                let grace = now + xora_shared::job::lease::Clock::STANDARD.lease_ms;
                let entry = Live { expires_ms: expires_ms.max(grace), stage, progress, written_ms: now };
                live.insert(task.id, entry);
            }
        }
        Ok(())
    }

    pub(super) fn job(&self, id: Id) -> Result<JobRow, ApiError> {
        self.find_job(id)?.ok_or_else(|| ApiError::not_found("job"))
    }

    pub(super) fn find_job(&self, id: Id) -> Result<Option<JobRow>, ApiError> {
        Ok(self.docs("SELECT doc FROM jobs WHERE id = ?", vec![text(id)])?.pop())
    }

    pub(super) fn task(&self, id: Id) -> Result<Option<TaskRow>, ApiError> {
        Ok(self.docs("SELECT doc FROM tasks WHERE id = ?", vec![text(id)])?.pop())
    }

    /// Tasks that the alarm has to look at: those that waited long enough, and those whose lease has ended.
    pub(super) fn due_tasks(&self, now: i64, limit: i64) -> Result<Vec<TaskRow>, ApiError> {
        let query = "SELECT doc FROM tasks WHERE wakes_at <= ? ORDER BY wakes_at LIMIT ?";
        let mut due = self.docs(query, vec![integer(now), integer(limit)])?;
        let live = self.memory.live.borrow();
        for (id, _) in live.iter().filter(|(_, live)| live.expires_ms <= now) {
            due.extend(self.task(*id)?);
        }
        Ok(due)
    }

    pub(super) fn delivery(&self, id: Id) -> Result<Option<DeliveryRow>, ApiError> {
        Ok(self.docs("SELECT doc FROM deliveries WHERE id = ?", vec![text(id)])?.pop())
    }

    pub(super) fn due_deliveries(&self, now: i64, limit: i64) -> Result<Vec<DeliveryRow>, ApiError> {
        let query = "SELECT doc FROM deliveries WHERE wakes_at IS NOT NULL AND wakes_at <= ? ORDER BY wakes_at LIMIT ?";
        self.docs(query, vec![integer(now), integer(limit)])
    }

    pub(super) fn upload(&self, key: &str) -> Result<Option<UploadRow>, ApiError> {
        Ok(self.docs("SELECT doc FROM uploads WHERE key = ?", vec![key.into()])?.pop())
    }

    /// What a task has written or is writing, under whichever fence.
    pub(super) fn uploads_of(&self, task: Id) -> Result<Vec<UploadRow>, ApiError> {
        let all = self.docs("SELECT doc FROM uploads WHERE key LIKE ?", vec![format!("outputs/{task}/%").into()])?;
        Ok(all)
    }

    /// The copies of a job's inputs, whole or on their way.
    pub(super) fn staged_of(&self, job: Id) -> Result<Vec<UploadRow>, ApiError> {
        self.docs("SELECT doc FROM uploads WHERE key LIKE ?", vec![format!("inputs/{job}/%").into()])
    }

    pub(super) fn due_uploads(&self, now: i64, limit: i64) -> Result<Vec<UploadRow>, ApiError> {
        let query = "SELECT doc FROM uploads WHERE drop_at IS NOT NULL AND drop_at <= ? LIMIT ?";
        self.docs(query, vec![integer(now), integer(limit)])
    }

    /// When the alarm has to run next.
    pub(super) fn earliest(&self) -> Result<Option<i64>, ApiError> {
        let query = "SELECT min(at) AS at FROM (SELECT min(wakes_at) AS at FROM tasks
            UNION ALL SELECT min(wakes_at) FROM deliveries WHERE wakes_at IS NOT NULL
            UNION ALL SELECT min(drop_at) FROM uploads
            UNION ALL SELECT min(drop_at) FROM received)";
        let rows = self.sql().exec(query, None)?.one::<At>()?.at;
        let leases = self.memory.live.borrow().values().map(|live| live.expires_ms).min();
        Ok(rows.into_iter().chain(leases).min())
    }

    pub(super) fn put_job(&self, row: &JobRow) -> Result<(), ApiError> {
        let values = vec![
            text(row.record.id),
            row.record.state.name().into(),
            row.record.finished_ms.map_or(SqlStorageValue::Null, integer),
            row.output_at().map_or(SqlStorageValue::Null, integer),
            serde_json::to_string(row)?.into(),
        ];
        self.write("INSERT OR REPLACE INTO jobs (id, state, ended_at, output_at, doc) VALUES (?, ?, ?, ?, ?)", values)
    }

    pub(super) fn delete_job(&self, id: Id) -> Result<(), ApiError> {
        self.write("DELETE FROM jobs WHERE id = ?", vec![text(id)])
    }

    pub(super) fn put_task(&self, row: &TaskRow) -> Result<(), ApiError> {
        let values = vec![
            text(row.id),
            integer(row.priority.into()),
            row.token_id.as_str().into(),
            row.ready_at().map_or(SqlStorageValue::Null, integer),
            row.wakes_at().map_or(SqlStorageValue::Null, integer),
            integer(row.heavy.into()),
            serde_json::to_string(row)?.into(),
        ];
        let query = "INSERT OR REPLACE INTO tasks (id, priority, token, ready_at, wakes_at, heavy, doc)
            VALUES (?, ?, ?, ?, ?, ?, ?)";
        self.write(query, values)
    }

    pub(super) fn delete_task(&self, id: Id) -> Result<(), ApiError> {
        self.write("DELETE FROM tasks WHERE id = ?", vec![text(id)])
    }

    /// Keeps a delivery, unless its job is gone and nothing is owed any more.
    pub(super) fn put_delivery(&self, row: &DeliveryRow) -> Result<(), ApiError> {
        if row.orphan && row.delivery.wakes_at().is_none() {
            return self.write("DELETE FROM deliveries WHERE id = ?", vec![text(row.id)]);
        }
        let wakes_at = row.delivery.wakes_at().map_or(SqlStorageValue::Null, integer);
        let values = vec![text(row.id), wakes_at, serde_json::to_string(row)?.into()];
        self.write("INSERT OR REPLACE INTO deliveries (id, wakes_at, doc) VALUES (?, ?, ?)", values)
    }

    pub(super) fn put_upload(&self, row: &UploadRow) -> Result<(), ApiError> {
        let drop_at = row.drop_at.map_or(SqlStorageValue::Null, integer);
        let values = vec![row.key.as_str().into(), drop_at, serde_json::to_string(row)?.into()];
        self.write("INSERT OR REPLACE INTO uploads (key, drop_at, doc) VALUES (?, ?, ?)", values)
    }

    pub(super) fn delete_upload(&self, key: &str) -> Result<(), ApiError> {
        self.write("DELETE FROM uploads WHERE key = ?", vec![key.into()])
    }

    /// An upload that is not being deleted.
    pub(super) fn received(&self, id: Id) -> Result<ReceivedRow, ApiError> {
        let found = self.any_received(id)?.filter(|row| !row.deleting);
        found.ok_or_else(|| ApiError::not_found("upload; one that no job names is deleted after a day"))
    }

    pub(super) fn any_received(&self, id: Id) -> Result<Option<ReceivedRow>, ApiError> {
        Ok(self.docs("SELECT doc FROM received WHERE id = ?", vec![text(id)])?.pop())
    }

    /// Jobs that named an upload and are not known to be over, the oldest first.
    pub(super) fn received_users(&self, id: Id, limit: i64) -> Result<Vec<Id>, ApiError> {
        // As JSON, which is how documents are read.
        let query = "SELECT json_quote(job) AS doc FROM received_users WHERE id = ? ORDER BY job LIMIT ?";
        self.docs(query, vec![text(id), integer(limit)])
    }

    pub(super) fn put_received_user(&self, id: Id, job: Id) -> Result<(), ApiError> {
        self.write("INSERT OR IGNORE INTO received_users (id, job) VALUES (?, ?)", vec![text(id), text(job)])
    }

    pub(super) fn delete_received_user(&self, id: Id, job: Id) -> Result<(), ApiError> {
        self.write("DELETE FROM received_users WHERE id = ? AND job = ?", vec![text(id), text(job)])
    }

    pub(super) fn due_received(&self, now: i64, limit: i64) -> Result<Vec<ReceivedRow>, ApiError> {
        self.docs("SELECT doc FROM received WHERE drop_at <= ? LIMIT ?", vec![integer(now), integer(limit)])
    }

    /// How many uploads of a key no job has named.
    pub(super) fn count_unused(&self, token: &str) -> Result<u64, ApiError> {
        let query = "SELECT count(*) AS at FROM received WHERE token = ? AND used = 0";
        let count = self.sql().exec(query, vec![token.into()])?.one::<At>()?.at;
        Ok(count.unwrap_or(0).unsigned_abs())
    }

    pub(super) fn put_received(&self, row: &ReceivedRow) -> Result<(), ApiError> {
        let values = vec![
            text(row.id),
            row.token_id.as_str().into(),
            integer(row.used.into()),
            integer(row.drop_at),
            serde_json::to_string(row)?.into(),
        ];
        self.write("INSERT OR REPLACE INTO received (id, token, used, drop_at, doc) VALUES (?, ?, ?, ?, ?)", values)
    }

    pub(super) fn delete_received(&self, id: Id) -> Result<(), ApiError> {
        self.write("DELETE FROM received WHERE id = ?", vec![text(id)])
    }

    /// Number and ETag of the parts that are there, in order.
    pub(super) fn received_parts(&self, id: Id) -> Result<Vec<(u32, String)>, ApiError> {
        let query = "SELECT number, etag FROM received_parts WHERE id = ? ORDER BY number";
        let rows = self.sql().exec(query, vec![text(id)])?.to_array::<Part>()?;
        Ok(rows.into_iter().map(|Part { number, etag }| (number, etag)).collect())
    }

    pub(super) fn put_received_part(&self, id: Id, number: u32, etag: &str) -> Result<(), ApiError> {
        let query = "INSERT OR REPLACE INTO received_parts (id, number, etag) VALUES (?, ?, ?)";
        self.write(query, vec![text(id), integer(number.into()), etag.into()])
    }

    pub(super) fn delete_received_parts(&self, id: Id) -> Result<(), ApiError> {
        self.write("DELETE FROM received_parts WHERE id = ?", vec![text(id)])
    }

    pub(super) fn provider(&self, id: Id) -> Result<Option<Provider>, ApiError> {
        Ok(self.docs("SELECT doc FROM providers WHERE id = ?", vec![text(id)])?.pop())
    }

    pub(super) fn providers(&self) -> Result<Vec<Provider>, ApiError> {
        self.docs("SELECT doc FROM providers", vec![])
    }

    /// Keeps a copy of a provider. Writes nothing when it is there.
    pub(super) fn put_provider(&self, provider: &Provider) -> Result<(), ApiError> {
        let values = vec![text(provider.id), serde_json::to_string(provider)?.into()];
        self.write("INSERT OR IGNORE INTO providers (id, doc) VALUES (?, ?)", values)
    }

    pub(super) fn delete_provider(&self, id: Id) -> Result<(), ApiError> {
        self.write("DELETE FROM providers WHERE id = ?", vec![text(id)])
    }

    /// The answer that is repeated for this key, unless it is older than [`REPEAT_MS`].
    pub(super) fn repeat(&self, key: &str, now: i64) -> Result<Option<RepeatRow>, ApiError> {
        let query = "SELECT doc FROM repeats WHERE key = ? AND at > ?";
        Ok(self.docs(query, vec![key.into(), integer(now - REPEAT_MS)])?.pop())
    }

    /// Keeps an answer, and forgets those whose time is over.
    pub(super) fn put_repeat(&self, key: &str, now: i64, row: &RepeatRow) -> Result<(), ApiError> {
        self.write("DELETE FROM repeats WHERE at <= ?", vec![integer(now - REPEAT_MS)])?;
        let values = vec![key.into(), integer(now), serde_json::to_string(row)?.into()];
        self.write("INSERT OR REPLACE INTO repeats (key, at, doc) VALUES (?, ?, ?)", values)
    }

    pub(super) fn write(&self, query: &str, values: Vec<SqlStorageValue>) -> Result<(), ApiError> {
        let written = self.sql().exec(query, values)?.rows_written();
        self.spend(written, 0);
        Ok(())
    }

    pub(super) fn docs<T: DeserializeOwned>(
        &self,
        query: &str,
        values: Vec<SqlStorageValue>,
    ) -> Result<Vec<T>, ApiError> {
        docs(&self.sql(), query, values)
    }

    pub(super) fn sql(&self) -> SqlStorage {
        self.state.storage().sql()
    }
}

pub(super) fn text(id: Id) -> SqlStorageValue {
    id.to_string().into()
}

/// Times and counts stay below 2^53, which is all that SQL values carry over JavaScript.
pub(super) fn integer(value: i64) -> SqlStorageValue {
    SqlStorageValue::Integer(value)
}
