//! What is asked of the record, by table. A `doc` is one JSON document. Where several rows are read, each comes with its
//! `key`, so that one whose document cannot be read can be put off without stopping the others.
//!
//! Numbers are bound as floating point by the runtime, so no statement depends on their type. An index with a condition is
//! used only where the statement has that condition as a literal.

/// Every statement whose cost must not grow with the shard, by name.
pub const ALL: &[(&str, &str)] = &[
    ("JOB", JOB),
    ("PUT_JOB", PUT_JOB),
    ("DELETE_JOB", DELETE_JOB),
    ("JOBS_ENDED", JOBS_ENDED),
    ("JOBS_WITH_OUTPUT", JOBS_WITH_OUTPUT),
    ("PUT_OFF_ENDED", PUT_OFF_ENDED),
    ("PUT_OFF_OUTPUT", PUT_OFF_OUTPUT),
    ("LIST", LIST),
    ("LIST_OVER", LIST_OVER),
    ("LIST_QUEUED", LIST_QUEUED),
    ("TASK", TASK),
    ("PUT_TASK", PUT_TASK),
    ("DELETE_TASK", DELETE_TASK),
    ("TASKS_LEASED", TASKS_LEASED),
    ("TASKS_DUE", TASKS_DUE),
    ("PUT_OFF_TASK", PUT_OFF_TASK),
    ("TOP_PRIORITY", TOP_PRIORITY),
    ("NEXT_KEY", NEXT_KEY),
    ("OLDEST_OF_KEY", OLDEST_OF_KEY),
    ("DELIVERY", DELIVERY),
    ("PUT_DELIVERY", PUT_DELIVERY),
    ("DELETE_DELIVERY", DELETE_DELIVERY),
    ("DELIVERIES_DUE", DELIVERIES_DUE),
    ("PUT_OFF_DELIVERY", PUT_OFF_DELIVERY),
    ("UPLOAD", UPLOAD),
    ("UPLOADS_BETWEEN", UPLOADS_BETWEEN),
    ("UPLOADS_DUE", UPLOADS_DUE),
    ("PUT_UPLOAD", PUT_UPLOAD),
    ("DELETE_UPLOAD", DELETE_UPLOAD),
    ("PUT_OFF_UPLOAD", PUT_OFF_UPLOAD),
    ("RECEIVED", RECEIVED),
    ("RECEIVED_DUE", RECEIVED_DUE),
    ("RECEIVED_UNUSED", RECEIVED_UNUSED),
    ("PUT_RECEIVED", PUT_RECEIVED),
    ("DELETE_RECEIVED", DELETE_RECEIVED),
    ("PUT_OFF_RECEIVED", PUT_OFF_RECEIVED),
    ("RECEIVED_PARTS", RECEIVED_PARTS),
    ("PUT_RECEIVED_PART", PUT_RECEIVED_PART),
    ("DELETE_RECEIVED_PARTS", DELETE_RECEIVED_PARTS),
    ("RECEIVED_USERS", RECEIVED_USERS),
    ("PUT_RECEIVED_USER", PUT_RECEIVED_USER),
    ("DELETE_RECEIVED_USER", DELETE_RECEIVED_USER),
    ("REPEAT", REPEAT),
    ("PUT_REPEAT", PUT_REPEAT),
    ("FORGET_REPEATS", FORGET_REPEATS),
    ("SETTINGS", SETTINGS),
    ("PUT_SETTINGS", PUT_SETTINGS),
    ("NODE", NODE),
    ("PUT_NODE", PUT_NODE),
    ("DELETE_NODE", DELETE_NODE),
    ("EARLIEST", EARLIEST),
    ("EARLIEST_REMOVAL", EARLIEST_REMOVAL),
];

/// A job by id.
pub const JOB: &str = "SELECT doc FROM jobs WHERE id = ?";
/// Id, state, end, since when there is an output, document.
pub const PUT_JOB: &str = "INSERT OR REPLACE INTO jobs (id, state, ended_at, output_at, doc) VALUES (?, ?, ?, ?, ?)";
/// A job by id.
pub const DELETE_JOB: &str = "DELETE FROM jobs WHERE id = ?";
/// Jobs that ended by a time, so many of them, oldest first.
pub const JOBS_ENDED: &str = "SELECT id AS key, doc FROM jobs WHERE ended_at <= ? ORDER BY ended_at LIMIT ?";
/// Jobs with an output that ended by a time, so many of them, oldest first.
pub const JOBS_WITH_OUTPUT: &str = "SELECT id AS key, doc FROM jobs WHERE output_at <= ? ORDER BY output_at LIMIT ?";
/// Until when [`JOBS_ENDED`] passes over a job, its id. The document has the true time.
pub const PUT_OFF_ENDED: &str = "UPDATE jobs SET ended_at = ? WHERE id = ?";
/// The same for [`JOBS_WITH_OUTPUT`].
pub const PUT_OFF_OUTPUT: &str = "UPDATE jobs SET output_at = ? WHERE id = ?";

/// Jobs before an id, newest first, each with its task while it is not over.
pub const LIST: &str = "SELECT jobs.doc AS doc, tasks.doc AS task FROM jobs LEFT JOIN tasks USING (id)
    WHERE id < ? ORDER BY id DESC LIMIT ?";
/// The same of those that ended in a state.
pub const LIST_OVER: &str = "SELECT jobs.doc AS doc, tasks.doc AS task FROM jobs LEFT JOIN tasks USING (id)
    WHERE ended_at IS NOT NULL AND state = ? AND id < ? ORDER BY id DESC LIMIT ?";
/// The same of those that wait. It passes over those that nodes have: as many as nodes have slots.
pub const LIST_QUEUED: &str = "SELECT jobs.doc AS doc, tasks.doc AS task FROM tasks CROSS JOIN jobs USING (id)
    WHERE offer < 2 AND id < ? ORDER BY id DESC LIMIT ?";

/// A task by id.
pub const TASK: &str = "SELECT doc FROM tasks WHERE id = ?";
/// Id, priority, token, offer, since or until when it waits, when the alarm looks at it, whether it is heavy, document.
pub const PUT_TASK: &str = "INSERT OR REPLACE INTO tasks (id, priority, token, offer, ready_at, wakes_at, heavy, doc)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
/// A task by id.
pub const DELETE_TASK: &str = "DELETE FROM tasks WHERE id = ?";
/// Tasks that nodes have.
pub const TASKS_LEASED: &str = "SELECT id AS key, doc FROM tasks WHERE offer = 2";
/// Tasks that the alarm looks at by a time, so many of them.
pub const TASKS_DUE: &str = "SELECT id AS key, doc FROM tasks WHERE wakes_at <= ? ORDER BY wakes_at LIMIT ?";
/// When the alarm looks at a task, its id. Nodes are not offered it before.
pub const PUT_OFF_TASK: &str = "UPDATE tasks SET wakes_at = ?, offer = 1 WHERE id = ?";
/// The highest priority that is offered of a weight. Name of a node, time in ms: left out is what that node gave back since then,
/// because it could not do it.
pub const TOP_PRIORITY: &str = "SELECT priority FROM tasks WHERE offer = 0 AND heavy = ?
    AND NOT EXISTS (SELECT 1 FROM json_each(doc, '$.refusals.by') AS refusal
        WHERE refusal.value ->> 'node' = ? AND refusal.value ->> 'atMs' > ?)
    ORDER BY priority DESC, token, id LIMIT 1";
/// Of a weight and a priority: the next key after one with a task that is offered, and its oldest. Name of a node, time in ms.
pub const NEXT_KEY: &str = "SELECT token, id FROM tasks WHERE offer = 0 AND heavy = ? AND priority = ? AND token > ?
    AND NOT EXISTS (SELECT 1 FROM json_each(doc, '$.refusals.by') AS refusal
        WHERE refusal.value ->> 'node' = ? AND refusal.value ->> 'atMs' > ?)
    ORDER BY token, id LIMIT 1";
/// Of a weight, a priority and a key: the oldest task that is offered. Name of a node, time in ms.
pub const OLDEST_OF_KEY: &str =
    "SELECT id AS key, doc FROM tasks WHERE offer = 0 AND heavy = ? AND priority = ? AND token = ?
    AND NOT EXISTS (SELECT 1 FROM json_each(doc, '$.refusals.by') AS refusal
        WHERE refusal.value ->> 'node' = ? AND refusal.value ->> 'atMs' > ?)
    ORDER BY id LIMIT 1";

/// A delivery by id.
pub const DELIVERY: &str = "SELECT doc FROM deliveries WHERE id = ?";
/// Id, when the alarm looks at it, document.
pub const PUT_DELIVERY: &str = "INSERT OR REPLACE INTO deliveries (id, wakes_at, doc) VALUES (?, ?, ?)";
/// A delivery by id.
pub const DELETE_DELIVERY: &str = "DELETE FROM deliveries WHERE id = ?";
/// Deliveries that the alarm looks at by a time, so many of them.
pub const DELIVERIES_DUE: &str = "SELECT id AS key, doc FROM deliveries WHERE wakes_at <= ? ORDER BY wakes_at LIMIT ?";
/// When the alarm looks at a delivery, its id.
pub const PUT_OFF_DELIVERY: &str = "UPDATE deliveries SET wakes_at = ? WHERE id = ?";

/// An object on its way, or to be removed, by its key.
pub const UPLOAD: &str = "SELECT doc FROM uploads WHERE key = ?";
/// All from a key on to before another.
pub const UPLOADS_BETWEEN: &str = "SELECT key, doc FROM uploads WHERE key >= ? AND key < ?";
/// Those to be removed by a time, so many of them.
pub const UPLOADS_DUE: &str = "SELECT key, doc FROM uploads WHERE drop_at <= ? ORDER BY drop_at LIMIT ?";
/// Key, when it is to be removed, document.
pub const PUT_UPLOAD: &str = "INSERT OR REPLACE INTO uploads (key, drop_at, doc) VALUES (?, ?, ?)";
/// One by its key.
pub const DELETE_UPLOAD: &str = "DELETE FROM uploads WHERE key = ?";
/// When an object is to be removed, its key.
pub const PUT_OFF_UPLOAD: &str = "UPDATE uploads SET drop_at = ? WHERE key = ?";

/// A caller's file by id.
pub const RECEIVED: &str = "SELECT doc FROM received WHERE id = ?";
/// Files whose time is over by a time, so many of them.
pub const RECEIVED_DUE: &str = "SELECT id AS key, doc FROM received WHERE drop_at <= ? ORDER BY drop_at LIMIT ?";
/// How many files of a key no job has named.
pub const RECEIVED_UNUSED: &str = "SELECT count(*) AS at FROM received WHERE token = ? AND used = 0";
/// Id, token, whether a job has named it, when its time is over, document.
pub const PUT_RECEIVED: &str = "INSERT OR REPLACE INTO received (id, token, used, drop_at, doc) VALUES (?, ?, ?, ?, ?)";
/// A file by id.
pub const DELETE_RECEIVED: &str = "DELETE FROM received WHERE id = ?";
/// When the time of a file is over, its id.
pub const PUT_OFF_RECEIVED: &str = "UPDATE received SET drop_at = ? WHERE id = ?";
/// The parts of a file that are there, by its id.
pub const RECEIVED_PARTS: &str = "SELECT number, etag FROM received_parts WHERE id = ? ORDER BY number";
/// Id, number, `ETag`.
pub const PUT_RECEIVED_PART: &str = "INSERT OR REPLACE INTO received_parts (id, number, etag) VALUES (?, ?, ?)";
/// The parts of a file, by its id.
pub const DELETE_RECEIVED_PARTS: &str = "DELETE FROM received_parts WHERE id = ?";

/// Jobs that use a file, as JSON, so many of them, oldest first.
pub const RECEIVED_USERS: &str = "SELECT json_quote(job) AS doc FROM received_users WHERE id = ? ORDER BY job LIMIT ?";
/// File, job.
pub const PUT_RECEIVED_USER: &str = "INSERT OR IGNORE INTO received_users (id, job) VALUES (?, ?)";
/// File, job.
pub const DELETE_RECEIVED_USER: &str = "DELETE FROM received_users WHERE id = ? AND job = ?";

/// The answer under an idempotency key, if it is from after a time.
pub const REPEAT: &str = "SELECT doc FROM repeats WHERE key = ? AND at > ?";
/// Key, time, document.
pub const PUT_REPEAT: &str = "INSERT OR REPLACE INTO repeats (key, at, doc) VALUES (?, ?, ?)";
/// Some of those from up to a time: one is added at a time, and each time more are forgotten.
pub const FORGET_REPEATS: &str =
    "DELETE FROM repeats WHERE key IN (SELECT key FROM repeats WHERE at <= ? ORDER BY at LIMIT 4)";

/// The settings.
pub const SETTINGS: &str = "SELECT doc FROM settings WHERE id = 1";
/// Version, document. What is not newer changes nothing.
pub const PUT_SETTINGS: &str = "INSERT INTO settings (id, version, doc) VALUES (1, ?, ?) ON CONFLICT (id)
    DO UPDATE SET version = excluded.version, doc = excluded.doc WHERE excluded.version > settings.version";

/// A node by name.
pub const NODE: &str = "SELECT doc FROM nodes WHERE name = ?";
/// All nodes.
pub const NODES: &str = "SELECT name AS key, doc FROM nodes ORDER BY name";
/// Name, document.
pub const PUT_NODE: &str = "INSERT OR REPLACE INTO nodes (name, doc) VALUES (?, ?)";
/// A node by name.
pub const DELETE_NODE: &str = "DELETE FROM nodes WHERE name = ?";

/// A storage provider by id.
pub const PROVIDER: &str = "SELECT doc FROM providers WHERE id = ?";
/// All storage providers.
pub const PROVIDERS: &str = "SELECT doc FROM providers";
/// Id, document. Changes nothing when it is there.
pub const PUT_PROVIDER: &str = "INSERT OR IGNORE INTO providers (id, doc) VALUES (?, ?)";
/// A storage provider by id.
pub const DELETE_PROVIDER: &str = "DELETE FROM providers WHERE id = ?";

/// When the alarm has to look at a task or a delivery next.
pub const EARLIEST: &str = "SELECT min(at) AS at FROM (
    SELECT min(wakes_at) AS at FROM tasks WHERE wakes_at IS NOT NULL
    UNION ALL SELECT min(wakes_at) FROM deliveries WHERE wakes_at IS NOT NULL)";
/// When something has to be removed next.
pub const EARLIEST_REMOVAL: &str = "SELECT min(at) AS at FROM (
    SELECT min(drop_at) AS at FROM uploads WHERE drop_at IS NOT NULL
    UNION ALL SELECT min(drop_at) FROM received)";
