//! What the document says of each route. The match has no wildcard: a new route is described before it compiles.

use schemars::JsonSchema;
use serde_json::{Value, json};

use super::{Answer, Body, Operation, requests, schema_of};
use crate::{
    answer,
    job::{JobState, view::JobView},
    preset::Preset,
    provider::ProviderView,
    refusal::Code,
    route::Route,
    settings::Settings,
    token::Scope,
    upload::UploadView,
};

/// Groups of operations, in the order of the page.
pub(super) const TAGS: [(&str, &str); 9] = [
    ("Jobs", "Create a job, follow it, stop it, run it again."),
    ("Webhooks", "What was sent when a job ended, and what came back."),
    ("Uploads", "A file of yours, in parts, to name as the input of jobs."),
    ("Presets", "Saved job configurations, and the starters that every account has."),
    ("Settings", "Defaults of the account, and the secret that signs webhooks."),
    ("Storage", "Buckets of yours that outputs go to."),
    ("Tokens", "API keys and what they may do."),
    ("Files", "Signed downloads, and signed targets of uploads."),
    ("Service", "The API itself."),
];

/// What is said of a route of the table; nothing of the protocol of nodes, which is not for callers.
pub(super) fn of(route: Route) -> Option<Operation> {
    Some(match route {
        Route::Health => Operation::public("Service", "health", "Whether the service answers")
            .answers::<answer::Health>(200, "It does.", json!({"ok": true})),
        Route::CreateJob => create_job(),
        Route::ListJobs => list_jobs(),
        Route::DeleteJob => Operation::keyed(Scope::Jobs, "Jobs", "deleteJob", "Delete a job")
            .says("The job, its files and its webhook log. Webhooks that are still owed are sent.")
            .done("It is gone.")
            .refuses(Code::Conflict, "the job has not ended; cancel it first"),
        Route::JobEvents => job_events(),
        Route::ReadJob => Operation::keyed(Scope::Jobs, "Jobs", "readJob", "Read a job")
            .says("Links in the answer are signed afresh at each read.")
            .answers::<JobView>(200, "The job as it stands.", completed()),
        Route::CancelJob => Operation::keyed(Scope::Jobs, "Jobs", "cancelJob", "Stop a job")
            .says("The node that works on it stops within two seconds.")
            .answers::<JobView>(200, "The job, which is `cancelled` now.", Value::Null)
            .refuses(Code::Conflict, "the job has ended already"),
        Route::RetryJob => Operation::keyed(Scope::Jobs, "Jobs", "retryJob", "Run a job again")
            .says("The job keeps its id and its attempts, and is `queued` again.")
            .answers::<answer::Accepted>(202, "The job waits for a node.", accepted())
            .refuses(Code::Conflict, "the job is neither `failed` nor `cancelled`")
            .refuses(
                Code::Conflict,
                "its input needs headers, which were forgotten when it ended; or its upload was deleted",
            ),
        Route::Deliveries => {
            Operation::keyed(Scope::Jobs, "Webhooks", "listDeliveries", "Read the webhook log of a job")
                .says("Every attempt, how it went, and the first 4 KB of the answer.")
                .answers::<answer::DeliveryLog>(200, "The deliveries of the job, oldest first.", deliveries())
        }
        Route::Redeliver => Operation::keyed(Scope::Jobs, "Webhooks", "redeliver", "Send a webhook once more")
            .says("One more attempt of the same delivery, with the same `webhook-id`.")
            .answers::<answer::Redelivered>(202, "It is on its way.", json!({"id": ID, "state": "pending"}))
            .refuses(Code::Conflict, "an attempt is being made just now"),
        Route::Starters => Operation::keyed(Scope::Jobs, "Presets", "listStarters", "List the starters")
            .says("Presets that every account has. Their ids can be used as `presetId`; they cannot be changed.")
            .answers::<answer::PresetList>(200, "The starters.", Value::Null),
        Route::CreatePreset => Operation::keyed(Scope::Jobs, "Presets", "createPreset", "Save a preset")
            .says("At most 200 presets of at most 16 KiB.")
            .reads::<requests::PresetBody>([("still", preset_body())])
            .answers::<Preset>(201, "The preset.", preset())
            .refuses(Code::Conflict, "there are 200 presets; delete one first"),
        Route::ListPresets => Operation::keyed(Scope::Jobs, "Presets", "listPresets", "List presets")
            .answers::<answer::PresetList>(200, "All presets, newest first.", json!({"presets": [preset()]})),
        Route::ReadPreset => Operation::keyed(Scope::Jobs, "Presets", "readPreset", "Read a preset").answers::<Preset>(
            200,
            "The preset, or the starter.",
            preset(),
        ),
        Route::ReplacePreset => Operation::keyed(Scope::Jobs, "Presets", "replacePreset", "Replace a preset")
            .says("The whole preset: what is not given is gone.")
            .reads::<requests::PresetBody>([("still", preset_body())])
            .answers::<Preset>(200, "The preset as it is now.", preset())
            .refuses(Code::Conflict, "starters cannot be changed"),
        Route::DeletePreset => Operation::keyed(Scope::Jobs, "Presets", "deletePreset", "Delete a preset")
            .says("Jobs that were made with it are as they were.")
            .done("It is gone.")
            .refuses(Code::Conflict, "starters cannot be deleted"),
        Route::CreateUpload => Operation::keyed(Scope::Jobs, "Uploads", "createUpload", "Open an upload")
            .says(
                "Answers where each part goes: `PUT` its bytes there, then name the upload in a job. What no job names \
                is deleted after 24 hours.",
            )
            .reads::<requests::UploadBody>([("file", json!({"filename": "talk.mov", "size": 40_000_000}))])
            .answers::<UploadView>(201, "The upload, and where its parts go.", upload())
            .refuses(Code::Conflict, "this key has 100 uploads that no job has named"),
        Route::ReadUpload => Operation::keyed(Scope::Jobs, "Uploads", "readUpload", "Read an upload")
            .says("Which parts arrived, and fresh URLs for the rest.")
            .answers::<UploadView>(200, "The upload as it stands.", upload()),
        Route::ReadSettings => Operation::keyed(Scope::Settings, "Settings", "readSettings", "Read the settings")
            .answers::<Settings>(200, "The settings. What is not set is null.", settings()),
        Route::MergeSettings => Operation::keyed(Scope::Settings, "Settings", "changeSettings", "Change settings")
            .says("Merges the given keys. Null clears one; a key that is absent stays. `POST` and `PUT` do the same.")
            .reads::<requests::SettingsBody>([("webhook", json!({"defaultWebhookUrl": "https://app.example/hook"}))])
            .answers::<Settings>(200, "The settings as they are now.", settings()),
        Route::TestWebhook => Operation::keyed(Scope::Settings, "Settings", "testWebhook", "Send a sample webhook")
            .says("Sends a signed sample to the default URL, once, and answers how it went. Takes up to 15 seconds.")
            .answers::<answer::WebhookTest>(200, "How it went.", json!({"ok": true, "status": 200}))
            .refuses(Code::ValidationError, "no default webhook URL is set"),
        Route::ReadSecret => {
            Operation::keyed(Scope::Settings, "Settings", "readWebhookSecret", "Read the webhook secret")
                .answers::<answer::WebhookSecret>(200, "The secret that signs webhooks.", secret())
        }
        Route::RotateSecret => Operation::keyed(
            Scope::Settings,
            "Settings",
            "rotateWebhookSecret",
            "Make a new webhook secret",
        )
        .says(
            "The old one signs beside the new one for 24 hours. In the first minute some webhooks are signed with \
                    the old one alone, so accept both.",
        )
        .answers::<answer::WebhookSecret>(200, "The new secret.", secret()),
        Route::CreateProvider => {
            Operation::keyed(Scope::Settings, "Storage", "addStorageProvider", "Add a bucket of yours")
                .says(
                    "R2 and whatever else speaks S3. What opens it is kept sealed and never shown; nodes never get it.",
                )
                .reads::<requests::ProviderBody>([("r2", provider_body())])
                .answers::<ProviderView>(201, "The storage provider.", provider())
                .refuses(Code::Conflict, "there are 100 storage providers; delete one first")
        }
        Route::ListProviders => {
            Operation::keyed(Scope::Settings, "Storage", "listStorageProviders", "List storage providers")
                .answers::<answer::ProviderList>(
                200,
                "All of them, newest first.",
                json!({"storageProviders": [provider()]}),
            )
        }
        Route::ReadProvider => {
            Operation::keyed(Scope::Settings, "Storage", "readStorageProvider", "Read a storage provider")
                .answers::<ProviderView>(200, "The storage provider.", provider())
        }
        Route::DeleteProvider => Operation::keyed(
            Scope::Settings,
            "Storage",
            "deleteStorageProvider",
            "Delete a storage provider",
        )
        .says(
            "What opens the bucket is forgotten, so links to outputs there are not signed any more, and jobs that \
                    still write there fail. The bucket stays as it is. If it was the default, there is none now.",
        )
        .done("It is gone."),
        Route::TestProvider => {
            Operation::keyed(Scope::Settings, "Storage", "testStorageProvider", "Try a storage provider out")
                .says("Writes, reads and deletes a small object.")
                .answers::<answer::ProviderTest>(200, "How it went.", json!({"ok": true}))
        }
        Route::CreateToken => Operation::keyed(Scope::Admin, "Tokens", "createToken", "Make an API key")
            .says("The key is shown this once; only its hash is kept.")
            .reads::<requests::TokenBody>([("jobs", json!({"name": "app", "scopes": ["jobs"]}))])
            .answers::<answer::NewToken>(201, "The key, in `token`.", Value::Null),
        Route::ListTokens => Operation::keyed(Scope::Admin, "Tokens", "listTokens", "List API keys")
            .answers::<answer::TokenList>(200, "All keys, without the keys themselves.", Value::Null),
        Route::RevokeToken => Operation::keyed(Scope::Admin, "Tokens", "revokeToken", "Revoke an API key")
            .says("It is refused everywhere within 30 seconds.")
            .done("It is gone."),
        Route::ListNodes => Operation::keyed(Scope::Jobs, "Service", "listNodes", "List nodes")
            .says("What they can encode, what they work on, and when they were last heard of.")
            .answers::<answer::NodeList>(200, "The nodes, by name.", nodes()),
        Route::Lease
        | Route::Heartbeat
        | Route::OutputBegin
        | Route::OutputTargets
        | Route::OutputFinish
        | Route::InputBegin
        | Route::InputFinish
        | Route::Complete
        | Route::Fail
        | Route::Release => return None,
    })
}

/// What is answered without standing in the table: static files and signed ones.
pub(super) fn beside_the_table() -> Vec<(&'static str, &'static str, Operation)> {
    let signature = ["expires", "signature"]
        .map(|name| json!({"name": name, "in": "query", "required": true, "schema": {"type": "string"}}));
    let download = |id, summary| {
        let mut operation = Operation::public("Files", id, summary)
            .says(
                "Links to files come whole, in jobs and webhooks: `Range`, `HEAD` and `If-Range` work on them. The \
                signature is the right, so no key is needed.",
            )
            .refuses(Code::Forbidden, "the link is not signed, was changed, or has expired; read the job for a new one")
            .refuses(Code::NotFound, "the file is gone")
            .refuses(Code::RangeNotSatisfiable, "the range starts past the end");
        let path = json!({"name": "path", "in": "path", "required": true, "schema": {"type": "string"}});
        operation.parameters = [path].into_iter().chain(signature.clone()).collect();
        operation
    };
    let media = |status, description| Answer { status, description, content: Some(("*/*", binary, None)) };
    let bare = |status, description| Answer { status, description, content: None };
    let read = Operation {
        answers: vec![media(200, "The file."), media(206, "The range that was asked for.")],
        ..download("downloadFile", "Download a file")
    };
    let head = Operation {
        answers: vec![bare(200, "The file's headers."), bare(206, "Those of the range that was asked for.")],
        ..download("downloadFile", "Ask about a file")
    };
    let mut write = Operation::public("Files", "uploadPart", "Upload a part")
        .says("Where parts go is told when an upload is opened or read. The bytes come as they are, with `Content-Length`; a \
            part that arrived can be sent again.")
        .refuses(Code::ValidationError, "the part has another size than the upload says")
        .refuses(Code::Forbidden, "the link is not signed, was changed, or has expired; read the upload for a new one")
        .refuses(Code::NotFound, "the upload is gone")
        .refuses(Code::Conflict, "a job has the file already")
        .refuses(Code::PayloadTooLarge, "the part is larger than any may be");
    write.parameters.clone_from(&head.parameters);
    write.answers.push(bare(200, "It arrived."));
    let description = Operation {
        answers: vec![Answer {
            status: 200,
            description: "OpenAPI 3.1.",
            content: Some(("application/json", schema_of::<serde_json::Map<String, Value>>(), None)),
        }],
        ..Operation::public("Service", "openapi", "This document")
    };
    let page = Operation {
        answers: vec![Answer {
            status: 200,
            description: "HTML.",
            content: Some(("text/html", schema_of::<String>(), None)),
        }],
        ..Operation::public("Service", "docs", "This document, for people")
    };
    vec![
        ("GET", "/files/{path}", read),
        ("HEAD", "/files/{path}", head),
        ("PUT", "/files/{path}", write),
        ("GET", "/v1/openapi.json", description),
        ("GET", "/docs", page),
    ]
}

/// Any bytes.
fn binary(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::Schema::default()
}

impl Operation {
    fn public(tag: &'static str, id: &'static str, summary: &'static str) -> Self {
        let (parameters, answers, refusals) = (Vec::new(), Vec::new(), Vec::new());
        Self { tag, id, summary, description: "", scope: None, parameters, body: None, answers, refusals }
    }

    fn keyed(scope: Scope, tag: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self { scope: Some(scope), ..Self::public(tag, id, summary) }
    }

    fn says(self, description: &'static str) -> Self {
        Self { description, ..self }
    }

    fn reads<T: JsonSchema>(self, examples: impl Into<Vec<(&'static str, Value)>>) -> Self {
        Self { body: Some(Body { schema: schema_of::<T>(), examples: examples.into() }), ..self }
    }

    /// A null example is none.
    fn answers<T: JsonSchema>(mut self, status: u16, description: &'static str, example: Value) -> Self {
        let example = Some(example).filter(|example| !example.is_null());
        let content = Some(("application/json", schema_of::<T>(), example));
        self.answers.push(Answer { status, description, content });
        self
    }

    fn done(mut self, description: &'static str) -> Self {
        self.answers.push(Answer { status: 204, description, content: None });
        self
    }

    fn refuses(mut self, code: Code, why: &'static str) -> Self {
        self.refusals.push((code, why));
        self
    }

    fn takes(mut self, parameter: Value) -> Self {
        self.parameters.push(parameter);
        self
    }
}

fn create_job() -> Operation {
    let idempotency = json!({
        "name": "Idempotency-Key", "in": "header", "required": false,
        "description": "The same key and body within 24 hours make one job. A repeated request gets that job as it stands, \
            with the header `Idempotent-Replayed: true`. The order of names in the body does not count, except in \
            `input_files`.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    });
    Operation::keyed(Scope::Jobs, "Jobs", "createJob", "Create a job")
        .says("The job is kept before this is answered. A webhook tells how it ended.")
        .takes(idempotency)
        .reads::<requests::JobBody>([
            ("compress", golden(include_str!("../../tests/wire/request/compress.json"))),
            ("thumbnail", golden(include_str!("../../tests/wire/request/thumbnail.json"))),
            ("upload", golden(include_str!("../../tests/wire/request/upload.json"))),
            ("concat", golden(include_str!("../../tests/wire/request/concat.json"))),
            (
                "preset",
                json!({
                    "presetId": "thumbnail",
                    "input": {"url": "https://media.example/a.mov"},
                    "recipe": {"seekSeconds": 12.5},
                }),
            ),
        ])
        .answers::<answer::Accepted>(202, "The job is kept and waits for a node.", accepted())
        .refuses(Code::NotFound, "there is no upload with this id")
        .refuses(Code::Conflict, "parts of the upload are missing; the message lists them")
        .refuses(Code::Conflict, "the job that this `Idempotency-Key` made was deleted; the message names it")
        .refuses(Code::IdempotencyMismatch, "this `Idempotency-Key` came with another body")
}

fn list_jobs() -> Operation {
    let parameter = |name: &str, description: &str, schema: Value| json!({"name": name, "in": "query", "required": false, "description": description, "schema": schema});
    let states = json!({"type": "string", "enum": JobState::ALL});
    Operation::keyed(Scope::Jobs, "Jobs", "listJobs", "List jobs")
        .says("Newest first. Jobs that come or go meanwhile move nobody's place.")
        .takes(parameter("state", "Only jobs in this state.", states))
        .takes(parameter(
            "limit",
            "At most this many.",
            json!({"type": "integer", "minimum": 1, "maximum": 100, "default": 50}),
        ))
        .takes(parameter("cursor", "The `nextCursor` of the page before.", json!({"type": "string"})))
        .answers::<answer::JobList<JobView>>(200, "A page.", json!({"jobs": [completed()], "nextCursor": null}))
        .refuses(Code::ValidationError, "a parameter is wrong; it is named")
}

fn job_events() -> Operation {
    let last = json!({
        "name": "Last-Event-ID", "in": "header", "required": false,
        "description": "The id of the last event that was read: what follows it is told.",
        "schema": {"type": "string"},
    });
    let mut operation = Operation::keyed(Scope::Jobs, "Jobs", "followJob", "Follow a job")
        .says(
            "Server-sent events: first the job as it stands, then again at every change of state or progress, to its \
            end. The event's id is the job's version, which only grows; its data is the job. A comment comes every 15 \
            seconds of silence.",
        )
        .takes(last)
        .done("The job has ended and its last event was read already.");
    operation.answers.push(Answer {
        status: 200,
        description: "The stream.",
        content: Some((
            "text/event-stream",
            |_| {
                // One event, as the checkers of such streams read it.
                schemars::json_schema!({"type": "object", "required": ["data"], "properties": {
                    "id": {"type": "string", "description": "The job's version."},
                    "event": {"type": "string"},
                    "data": {"type": "string", "description": "The job as it stands, as JSON."},
                }})
            },
            None,
        )),
    });
    operation
}

fn nodes() -> Value {
    json!({"nodes": [{"name": "node-1", "version": env!("CARGO_PKG_VERSION"), "encoders": ["libx264", "aac"],
        "sandbox": "strict", "holds": [{"jobId": ID, "state": "transcoding", "progress": 40}], "lastSeenAt": "2026-01-02T03:05:06.120Z"}]})
}

const ID: &str = "01M86XHHP6260EWAT1TBY7T000";

fn golden(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| unreachable!("a golden file: {error}"))
}

fn completed() -> Value {
    golden(include_str!("../../tests/wire/job/completed.json"))
}

fn upload() -> Value {
    golden(include_str!("../../tests/wire/upload.json"))
}

fn settings() -> Value {
    golden(include_str!("../../tests/wire/settings.json"))
}

fn accepted() -> Value {
    json!({"jobId": ID, "state": "queued"})
}

fn secret() -> Value {
    json!({"secret": "whsec_AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="})
}

fn deliveries() -> Value {
    let attempt = json!({"attempt": 1, "startedAt": "2026-01-02T03:05:06.080Z",
        "endedAt": "2026-01-02T03:05:06.120Z", "durationMs": 40, "status": 200, "answer": "ok"});
    json!({"deliveries": [{"id": ID, "url": "https://app.example/hook", "state": "delivered", "jobState": "completed",
        "endedAt": "2026-01-02T03:05:06.000Z", "attempts": [attempt]}]})
}

fn provider_body() -> Value {
    json!({"name": "Media", "endpoint": "https://account.r2.cloudflarestorage.com", "bucket": "media",
        "prefix": "made/", "accessKeyId": "0123456789abcdef", "secretAccessKey": "0123456789abcdef0123456789abcdef"})
}

fn provider() -> Value {
    json!({"id": ID, "name": "Media", "endpoint": "https://account.r2.cloudflarestorage.com/", "region": "auto",
        "bucket": "media", "prefix": "made/", "pathStyle": true, "createdAt": "2026-01-02T03:04:05.678Z"})
}

fn preset_body() -> Value {
    json!({"name": "Small still", "config": {"mode": "recipe", "output": {"format": "jpg"},
        "recipe": {"name": "thumbnail", "width": 320}}})
}

fn preset() -> Value {
    let mut preset = preset_body();
    preset["id"] = ID.into();
    preset["createdAt"] = "2026-01-02T03:04:05.678Z".into();
    preset["updatedAt"] = "2026-01-02T03:04:05.678Z".into();
    preset
}
