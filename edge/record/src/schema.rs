//! Tables and indexes. Each table is a key, the columns that queries need, and a JSON document.

/// Statements that lead from one version of the schema to the next. Never edited, only added to.
pub const MIGRATIONS: [&[&str]; 8] = [
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
        // Since when jobs are over, and since when if there is still an output of theirs.
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
    &[
        // One row: the settings as this shard last heard of them.
        "CREATE TABLE settings (id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL, doc TEXT NOT NULL)",
        // Whether nodes may take a task: 0 now, 1 at a later time, 2 one has it.
        "ALTER TABLE tasks ADD COLUMN offer INTEGER NOT NULL DEFAULT 0",
        "UPDATE tasks SET offer = iif(ready_at IS NULL, 2, ready_at > json_extract(doc, '$.offered_ms'))",
        "DROP INDEX tasks_turn",
        // Every query below names all columns before those that it goes through in order.
        "CREATE INDEX tasks_turn ON tasks (offer, heavy, priority DESC, token, id)",
        "CREATE INDEX tasks_due ON tasks (wakes_at) WHERE wakes_at IS NOT NULL",
        "CREATE INDEX uploads_due ON uploads (drop_at) WHERE drop_at IS NOT NULL",
        "CREATE INDEX jobs_ended ON jobs (ended_at) WHERE ended_at IS NOT NULL",
        "CREATE INDEX jobs_output ON jobs (output_at) WHERE output_at IS NOT NULL",
        "CREATE INDEX jobs_state ON jobs (state, id) WHERE ended_at IS NOT NULL",
        "CREATE INDEX repeats_at ON repeats (at)",
        "CREATE INDEX received_unused ON received (token) WHERE used = 0",
    ],
];
