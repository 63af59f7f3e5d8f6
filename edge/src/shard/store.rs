//! Rows. Each table is a key, the columns that queries need, and a JSON document.

use std::panic::AssertUnwindSafe;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use worker::{
    SqlStorage, SqlStorageValue, Storage, console_error,
    js_sys::{Function, Reflect},
    wasm_bindgen::{JsCast, JsValue, closure::Closure},
};
use xora_record::{
    schema::MIGRATIONS,
    statements::{
        DELETE_DELIVERY, DELETE_JOB, DELETE_PROVIDER, DELETE_RECEIVED, DELETE_RECEIVED_PARTS, DELETE_RECEIVED_USER,
        DELETE_TASK, DELETE_UPLOAD, DELIVERIES_DUE, DELIVERY, EARLIEST, EARLIEST_REMOVAL, FORGET_REPEATS, JOB,
        PROVIDER, PROVIDERS, PUT_DELIVERY, PUT_JOB, PUT_OFF_DELIVERY, PUT_OFF_RECEIVED, PUT_OFF_TASK, PUT_OFF_UPLOAD,
        PUT_PROVIDER, PUT_RECEIVED, PUT_RECEIVED_PART, PUT_RECEIVED_USER, PUT_REPEAT, PUT_SETTINGS, PUT_TASK,
        PUT_UPLOAD, RECEIVED, RECEIVED_DUE, RECEIVED_PARTS, RECEIVED_UNUSED, RECEIVED_USERS, REPEAT, SETTINGS, TASK,
        TASKS_DUE, TASKS_LEASED, UPLOAD, UPLOADS_BETWEEN, UPLOADS_DUE,
    },
};
use xora_shared::{
    delivery::Delivery,
    failure::{FailureKind, Stage},
    id::Id,
    job::{
        JobState,
        lease::Hold,
        refusals::Refusals,
        view::{Attempt, JobRecord},
    },
    protocol::name_for_header,
    provider::Provider,
    removal::Removal,
    settings::Settings,
    upload::Layout,
};

use super::{JobShard, Live, rpc::Speaker};
use crate::{
    account::VersionedSettings,
    config,
    docs::{docs, keyed},
    error::{ApiError, Code},
};

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
    /// Which nodes could not do it. `turns.rs` reads it in SQL.
    #[serde(default, skip_serializing_if = "Refusals::is_empty")]
    pub refusals: Refusals,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Phase {
    /// Offered to nodes.
    Waiting {
        /// From this time on, in ms since 1970.
        ready_ms: i64,
        /// The lease that ran out last, if nobody had the task since: its node may go on.
        #[serde(default)]
        lapsed: Option<Lapsed>,
    },
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

/// A lease that ran out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Lapsed {
    pub token: String,
    /// Id of the node's API key.
    pub key: Option<String>,
}

/// A task that waits longer than this for a node is given up, in milliseconds.
pub(super) const UNCLAIMED_MS: i64 = 24 * 3600 * 1000;

impl TaskRow {
    /// Whether this node's key and name are those that the lease was given to, also after that ran out. True of a task that
    /// nobody has or had, whose hold is refused anyway. The name is that of the last attempt.
    pub(super) fn is_held_by(&self, by: Option<&Speaker>) -> bool {
        let key = match &self.phase {
            Phase::Leased { key, .. } => key.as_ref(),
            Phase::Waiting { lapsed, .. } => lapsed.as_ref().and_then(|lapsed| lapsed.key.as_ref()),
        };
        let Some(key) = key else { return true };
        let Some(by) = by else { return false };
        let node = self.attempts.last().map(|attempt| name_for_header(&attempt.node));
        by.key == *key && by.name.as_ref().is_none_or(|name| Some(name) == node.as_ref())
    }

    /// Whether nodes may take it: 0 now, 1 at a later time, 2 one has it.
    fn offer(&self) -> i64 {
        match self.phase {
            Phase::Waiting { ready_ms, .. } => i64::from(ready_ms > self.offered_ms),
            Phase::Leased { .. } => 2,
        }
    }

    fn ready_at(&self) -> Option<i64> {
        match self.phase {
            Phase::Waiting { ready_ms, .. } => Some(ready_ms),
            Phase::Leased { .. } => None,
        }
    }

    /// When the alarm has to look at it: an offer that begins, or a wait that was too long.
    pub(super) fn wakes_at(&self) -> Option<i64> {
        match self.phase {
            Phase::Waiting { ready_ms, .. } if ready_ms > self.offered_ms => Some(ready_ms),
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
    /// How its removal has gone so far.
    #[serde(default)]
    pub removal: Removal,
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

/// How far a row that cannot be read is put off, in milliseconds: a version of the edge that knows more may be back by then.
pub(super) const UNREADABLE_MS: i64 = 3600 * 1000;

impl JobShard {
    /// Opens the record if it is not open: brings the schema up to date and takes leases up again. Without that nothing is
    /// answered, because no statement would mean what it says.
    pub(super) fn ensure_open(&self) -> Result<(), ApiError> {
        if self.memory.opened.get() {
            return Ok(());
        }
        self.migrate().and_then(|()| self.resume_leases()).map_err(|error| {
            console_error!("shard: cannot open: {error}");
            ApiError::new(Code::Unavailable, "this shard cannot open its record; try again soon")
        })?;
        self.memory.opened.set(true);
        Ok(())
    }

    /// All or nothing: a schema between two versions fits neither.
    fn migrate(&self) -> Result<(), ApiError> {
        let sql = self.sql();
        sql.exec("CREATE TABLE IF NOT EXISTS schema_version (at INTEGER NOT NULL)", None)?;
        let version = sql.exec("SELECT max(at) AS at FROM schema_version", None)?.one::<At>()?.at.unwrap_or(0);
        let missing: Vec<_> = (1..).zip(MIGRATIONS).filter(|(number, _)| *number > version).collect();
        if missing.is_empty() {
            return Ok(());
        }
        in_transaction(&self.state.storage(), move || {
            for (number, statements) in missing {
                for statement in statements {
                    sql.exec(statement, None)?;
                }
                sql.exec("INSERT INTO schema_version (at) VALUES (?)", vec![integer(number)])?;
            }
            Ok(())
        })
    }

    /// None ends earlier than one lease time from now, because heartbeats may have been missed while nobody was here.
    fn resume_leases(&self) -> Result<(), ApiError> {
        let now = config::now().0;
        let leased = self.readable::<TaskRow>(TASKS_LEASED, vec![])?;
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
        Ok(self.docs(JOB, vec![text(id)])?.pop())
    }

    pub(super) fn task(&self, id: Id) -> Result<Option<TaskRow>, ApiError> {
        Ok(self.docs(TASK, vec![text(id)])?.pop())
    }

    /// Tasks that the alarm has to look at: those that waited long enough, and those whose lease has ended.
    pub(super) fn due_tasks(&self, now: i64, limit: i64) -> Result<Vec<TaskRow>, ApiError> {
        let mut due = self.due(TASKS_DUE, PUT_OFF_TASK, now, limit)?;
        let ended = |live: &Live| live.expires_ms <= now;
        let leased: Vec<_> =
            self.memory.live.borrow().iter().filter(|(_, live)| ended(live)).map(|(id, _)| *id).collect();
        for id in leased {
            match self.task(id) {
                Ok(task) => due.extend(task),
                Err(error) => self.put_off_lease(id, now, &error),
            }
        }
        Ok(due)
    }

    /// Has the alarm look at a task later that it could not handle now.
    pub(super) fn put_off_task(&self, task: &TaskRow, now: i64, error: &ApiError) {
        match task.phase {
            Phase::Leased { .. } => self.put_off_lease(task.id, now, error),
            Phase::Waiting { .. } => self.put_off(PUT_OFF_TASK, &task.id.to_string(), now + UNREADABLE_MS, error),
        }
    }

    fn put_off_lease(&self, id: Id, now: i64, error: &ApiError) {
        console_error!("row {id}: cannot be handled and is put off by an hour: {error}");
        if let Some(live) = self.memory.live.borrow_mut().get_mut(&id) {
            live.expires_ms = now + UNREADABLE_MS;
        }
    }

    pub(super) fn delivery(&self, id: Id) -> Result<Option<DeliveryRow>, ApiError> {
        Ok(self.docs(DELIVERY, vec![text(id)])?.pop())
    }

    pub(super) fn due_deliveries(&self, now: i64, limit: i64) -> Result<Vec<DeliveryRow>, ApiError> {
        self.due(DELIVERIES_DUE, PUT_OFF_DELIVERY, now, limit)
    }

    pub(super) fn upload(&self, key: &str) -> Result<Option<UploadRow>, ApiError> {
        Ok(self.docs(UPLOAD, vec![key.into()])?.pop())
    }

    /// What a task has written or is writing, under whichever fence.
    pub(super) fn uploads_of(&self, task: Id) -> Result<Vec<UploadRow>, ApiError> {
        self.uploads_below(&format!("outputs/{task}"))
    }

    /// The copies of a job's inputs, whole or on their way.
    pub(super) fn staged_of(&self, job: Id) -> Result<Vec<UploadRow>, ApiError> {
        self.uploads_below(&format!("inputs/{job}"))
    }

    fn uploads_below(&self, directory: &str) -> Result<Vec<UploadRow>, ApiError> {
        // `0` is the character after `/`.
        self.readable(UPLOADS_BETWEEN, vec![format!("{directory}/").into(), format!("{directory}0").into()])
    }

    pub(super) fn due_uploads(&self, now: i64, limit: i64) -> Result<Vec<UploadRow>, ApiError> {
        self.due(UPLOADS_DUE, PUT_OFF_UPLOAD, now, limit)
    }

    /// When the alarm has to run next, and when something has to be removed.
    pub(super) fn earliest(&self) -> Result<(Option<i64>, Option<i64>), ApiError> {
        let at = |query: &str| Ok::<_, ApiError>(self.sql().exec(query, None)?.one::<At>()?.at);
        let leases = self.memory.live.borrow().values().map(|live| live.expires_ms).min();
        Ok((at(EARLIEST)?.into_iter().chain(leases).min(), at(EARLIEST_REMOVAL)?))
    }

    /// Rows whose time has come. One that cannot be read is put off, and the others are there all the same.
    pub(super) fn due<T: DeserializeOwned>(
        &self,
        query: &str,
        put_off: &str,
        by: i64,
        limit: i64,
    ) -> Result<Vec<T>, ApiError> {
        let rows = keyed(&self.sql(), query, vec![integer(by), integer(limit)])?;
        let read = |(key, doc): (String, Result<T, ApiError>)| match doc {
            Ok(row) => Some(row),
            Err(error) => {
                self.put_off(put_off, &key, by + UNREADABLE_MS, &error);
                None
            }
        };
        Ok(rows.into_iter().filter_map(read).collect())
    }

    pub(super) fn put_off(&self, statement: &str, key: &str, until: i64, error: &ApiError) {
        console_error!("row {key}: cannot be handled and is put off by an hour: {error}");
        super::alarm::report(self.write(statement, vec![integer(until), key.into()]));
    }

    pub(super) fn put_job(&self, row: &JobRow) -> Result<(), ApiError> {
        let values = vec![
            text(row.record.id),
            row.record.state.name().into(),
            row.record.finished_ms.map_or(SqlStorageValue::Null, integer),
            row.output_at().map_or(SqlStorageValue::Null, integer),
            serde_json::to_string(row)?.into(),
        ];
        self.write(PUT_JOB, values)
    }

    pub(super) fn delete_job(&self, id: Id) -> Result<(), ApiError> {
        self.write(DELETE_JOB, vec![text(id)])
    }

    pub(super) fn put_task(&self, row: &TaskRow) -> Result<(), ApiError> {
        let values = vec![
            text(row.id),
            integer(row.priority.into()),
            row.token_id.as_str().into(),
            integer(row.offer()),
            row.ready_at().map_or(SqlStorageValue::Null, integer),
            row.wakes_at().map_or(SqlStorageValue::Null, integer),
            integer(row.heavy.into()),
            serde_json::to_string(row)?.into(),
        ];
        self.write(PUT_TASK, values)
    }

    pub(super) fn delete_task(&self, id: Id) -> Result<(), ApiError> {
        self.write(DELETE_TASK, vec![text(id)])
    }

    /// Keeps a delivery, unless its job is gone and nothing is owed any more.
    pub(super) fn put_delivery(&self, row: &DeliveryRow) -> Result<(), ApiError> {
        if row.orphan && row.delivery.wakes_at().is_none() {
            return self.write(DELETE_DELIVERY, vec![text(row.id)]);
        }
        let wakes_at = row.delivery.wakes_at().map_or(SqlStorageValue::Null, integer);
        let values = vec![text(row.id), wakes_at, serde_json::to_string(row)?.into()];
        self.write(PUT_DELIVERY, values)
    }

    pub(super) fn put_upload(&self, row: &UploadRow) -> Result<(), ApiError> {
        let drop_at = row.drop_at.map_or(SqlStorageValue::Null, integer);
        let values = vec![row.key.as_str().into(), drop_at, serde_json::to_string(row)?.into()];
        self.write(PUT_UPLOAD, values)
    }

    pub(super) fn delete_upload(&self, key: &str) -> Result<(), ApiError> {
        self.write(DELETE_UPLOAD, vec![key.into()])
    }

    /// An upload that is not being deleted.
    pub(super) fn received(&self, id: Id) -> Result<ReceivedRow, ApiError> {
        let found = self.any_received(id)?.filter(|row| !row.deleting);
        found.ok_or_else(|| ApiError::not_found("upload; one that no job names is deleted after a day"))
    }

    pub(super) fn any_received(&self, id: Id) -> Result<Option<ReceivedRow>, ApiError> {
        Ok(self.docs(RECEIVED, vec![text(id)])?.pop())
    }

    /// Jobs that named an upload and are not known to be over, the oldest first.
    pub(super) fn received_users(&self, id: Id, limit: i64) -> Result<Vec<Id>, ApiError> {
        // As JSON, which is how documents are read.
        self.docs(RECEIVED_USERS, vec![text(id), integer(limit)])
    }

    pub(super) fn put_received_user(&self, id: Id, job: Id) -> Result<(), ApiError> {
        self.write(PUT_RECEIVED_USER, vec![text(id), text(job)])
    }

    pub(super) fn delete_received_user(&self, id: Id, job: Id) -> Result<(), ApiError> {
        self.write(DELETE_RECEIVED_USER, vec![text(id), text(job)])
    }

    pub(super) fn due_received(&self, now: i64, limit: i64) -> Result<Vec<ReceivedRow>, ApiError> {
        self.due(RECEIVED_DUE, PUT_OFF_RECEIVED, now, limit)
    }

    /// How many uploads of a key no job has named.
    pub(super) fn count_unused(&self, token: &str) -> Result<u64, ApiError> {
        let count = self.sql().exec(RECEIVED_UNUSED, vec![token.into()])?.one::<At>()?.at;
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
        self.write(PUT_RECEIVED, values)
    }

    pub(super) fn delete_received(&self, id: Id) -> Result<(), ApiError> {
        self.write(DELETE_RECEIVED, vec![text(id)])
    }

    /// Number and ETag of the parts that are there, in order.
    pub(super) fn received_parts(&self, id: Id) -> Result<Vec<(u32, String)>, ApiError> {
        let rows = self.sql().exec(RECEIVED_PARTS, vec![text(id)])?.to_array::<Part>()?;
        Ok(rows.into_iter().map(|Part { number, etag }| (number, etag)).collect())
    }

    pub(super) fn put_received_part(&self, id: Id, number: u32, etag: &str) -> Result<(), ApiError> {
        self.write(PUT_RECEIVED_PART, vec![text(id), integer(number.into()), etag.into()])
    }

    pub(super) fn delete_received_parts(&self, id: Id) -> Result<(), ApiError> {
        self.write(DELETE_RECEIVED_PARTS, vec![text(id)])
    }

    /// This shard's copy of the settings, if it has one.
    pub(super) fn kept_settings(&self) -> Result<Option<Settings>, ApiError> {
        Ok(self.docs(SETTINGS, vec![])?.pop())
    }

    /// Keeps settings, unless newer ones are here: a change that was overtaken on its way does no harm.
    pub(super) fn keep_settings(
        &self,
        VersionedSettings { version, settings }: &VersionedSettings,
    ) -> Result<(), ApiError> {
        let values =
            vec![integer(i64::try_from(*version).unwrap_or(i64::MAX)), serde_json::to_string(settings)?.into()];
        self.write(PUT_SETTINGS, values)
    }

    pub(super) fn provider(&self, id: Id) -> Result<Option<Provider>, ApiError> {
        Ok(self.docs(PROVIDER, vec![text(id)])?.pop())
    }

    pub(super) fn providers(&self) -> Result<Vec<Provider>, ApiError> {
        self.docs(PROVIDERS, vec![])
    }

    /// Keeps a copy of a provider. Writes nothing when it is there.
    pub(super) fn put_provider(&self, provider: &Provider) -> Result<(), ApiError> {
        let values = vec![text(provider.id), serde_json::to_string(provider)?.into()];
        self.write(PUT_PROVIDER, values)
    }

    pub(super) fn delete_provider(&self, id: Id) -> Result<(), ApiError> {
        self.write(DELETE_PROVIDER, vec![text(id)])
    }

    /// The answer that is repeated for this key, unless it is older than [`REPEAT_MS`].
    pub(super) fn repeat(&self, key: &str, now: i64) -> Result<Option<RepeatRow>, ApiError> {
        Ok(self.docs(REPEAT, vec![key.into(), integer(now - REPEAT_MS)])?.pop())
    }

    /// Keeps an answer, and forgets some of those whose time is over.
    pub(super) fn put_repeat(&self, key: &str, now: i64, row: &RepeatRow) -> Result<(), ApiError> {
        self.write(FORGET_REPEATS, vec![integer(now - REPEAT_MS)])?;
        let values = vec![key.into(), integer(now), serde_json::to_string(row)?.into()];
        self.write(PUT_REPEAT, values)
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

    /// As [`Self::docs`], without rows that cannot be read: they are in the log.
    pub(super) fn readable<T: DeserializeOwned>(
        &self,
        query: &str,
        values: Vec<SqlStorageValue>,
    ) -> Result<Vec<T>, ApiError> {
        let read = |(key, doc): (String, Result<T, ApiError>)| {
            doc.inspect_err(|error| console_error!("row {key}: cannot be read: {error}")).ok()
        };
        Ok(keyed(&self.sql(), query, values)?.into_iter().filter_map(read).collect())
    }

    pub(super) fn sql(&self) -> SqlStorage {
        self.state.storage().sql()
    }
}

/// Runs statements of which either all stand or none.
fn in_transaction(
    storage: &Storage,
    statements: impl FnOnce() -> Result<(), worker::Error> + 'static,
) -> Result<(), ApiError> {
    let storage: &JsValue = storage.as_raw().as_ref();
    let run = Reflect::get(storage, &"transactionSync".into()).and_then(JsValue::dyn_into::<Function>);
    let run = run.map_err(worker::Error::from)?;
    // What it throws undoes the transaction and comes back.
    let statements = move || statements().map_err(|error| JsValue::from_str(&error.to_string()));
    // After a panic in it nothing of it stands, and nothing of it is used again.
    let statements = Closure::once(AssertUnwindSafe(statements));
    run.call1(storage, statements.as_ref()).map_err(worker::Error::from)?;
    Ok(())
}

pub(super) fn text(id: Id) -> SqlStorageValue {
    id.to_string().into()
}

/// Times and counts stay below 2^53, which is all that SQL values carry over JavaScript.
pub(super) fn integer(value: i64) -> SqlStorageValue {
    SqlStorageValue::Integer(value)
}
