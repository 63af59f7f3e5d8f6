//! The Durable Object `JobShard`: the record of jobs, tasks, leases, outputs on their way, uploads and deliveries.
//!
//! Every handler does all its awaits first, then reads the rows, asks the machine in `xora-shared`, writes all rows
//! without an await between, arms the alarm, and answers. The terminal state of a job and its delivery row are written
//! in the same turn.

mod alarm;
mod deliveries;
mod events;
mod jobs;
mod leases;
mod list;
mod map;
mod nodes;
mod received;
mod removals;
mod retention;
pub mod rpc;
mod staged;
mod store;
mod turns;
mod uploads;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    panic::AssertUnwindSafe,
};

use futures_util::future::join_all;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use worker::{
    DurableObject, Env, Error, Request, Response, Result, Socket, State, WebSocket, WebSocketIncomingMessage,
    WebSocketPair, console_error, console_log, durable_object,
};
use xora_shared::{
    failure::Stage,
    id::Id,
    job::{JobState, lease::Hold, turns::Turns},
    json,
    provider::Provider,
    request::JobRequest,
};

pub use deliveries::{Claimed, Entrusted, Recorded};
pub use events::Watch;
use events::Watchers;
pub use map::{keep as keep_shard_map, reach_by_kv, shard_map, shard_of};
use nodes::{MAX_TAG, NodeRow};
pub use received::{NewReceived, ReceivedPart, UseReceived, of_key as received_of_key};
use rpc::Asked;
pub use rpc::Speaker;
pub use uploads::Upload;

use crate::{
    account::{self, VersionedSettings},
    auth,
    error::{ApiError, Code},
    routes::{Reply, Site},
};

/// What can be asked of a shard: the path of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Keeps a [`NewJob`]. Answers it, or the job that the same idempotency key made before: [`Made`].
    Create,
    /// Answers the job that a [`Once`] made before, if one did: `Option<Made>`.
    Repeat,
    /// Answers the job with this id.
    Read,
    /// `ListQuery` → the id and the job of each, newest first.
    List,
    /// [`Watch`] → a stream of events.
    Events,
    /// Stops the job with this id. Answers it.
    Cancel,
    /// Starts the job with this id again. Answers nothing.
    Retry,
    /// Deletes the job with this id, which is over. Answers nothing.
    Delete,
    /// Answers the log of the deliveries of the job with this id.
    Deliveries,
    /// Makes an attempt of the delivery with this id now. Answers nothing.
    Redeliver,
    /// `LeaseRequest` → the priority of the task that [`Self::Lease`] would hand out.
    Peek,
    /// `LeaseRequest` → `Option<Lease>`.
    Lease,
    /// `Heartbeat` → a word for each lease.
    Heartbeat,
    /// `OutputBegin` → `OutputBegun`.
    OutputBegin,
    /// `OutputTargets` → `OutputBegun`.
    OutputTargets,
    /// `OutputFinish` → `OutputFinished`.
    OutputFinish,
    /// `InputBegin` → `InputBegun`.
    InputBegin,
    /// `InputFinish` → nothing.
    InputFinish,
    /// `Complete` → the job's state.
    Complete,
    /// `Fail` → the job's state.
    Fail,
    /// `Release` → the job's state.
    Release,
    /// Takes the attempt of a `webhook::Message`. Answers `Option<Claimed>`.
    Claim,
    /// [`Recorded`]: how a claimed attempt went. Answers `Option<Entrusted>`.
    Record,
    /// Notes that the Queue gave up the attempt of a `webhook::Message`. Answers nothing.
    DeadLetter,
    /// Opens an upload: [`NewReceived`] → `UploadView`.
    Receive,
    /// Answers the upload with this id.
    ReadReceived,
    /// [`ReceivedPart`]: whether it may be stored. Answers nothing.
    ExpectPart,
    /// [`ReceivedPart`]: it is stored. Answers nothing.
    NotePart,
    /// [`UseReceived`]: gives an upload to a job. Answers nothing.
    UseReceived,
    /// Ids of jobs → when each was over, in ms since 1970; null for those that are not.
    Over,
    /// Forgets what opens the bucket of the storage provider with this id. Answers nothing.
    ForgetProvider,
    /// Answers every `NodeSeen`.
    Nodes,
    /// Tells the nodes that listen to look for work. Answers nothing.
    Wake,
    /// Closes the sockets of nodes whose key was kept under this hash. Answers nothing.
    HangUp,
    /// `VersionedSettings`, to be used from now on unless newer ones are known. Answers nothing.
    Settings,
    /// `Removals`: removes what the alarm found due. Answers nothing.
    Remove,
    /// Looks at what is due, as the alarm does. Comes with `Option<VersionedSettings>`, as [`Self::Settings`]. Answers
    /// nothing.
    Touch,
}

impl Op {
    const ALL: [(&'static str, Self); 37] = [
        ("create", Self::Create),
        ("repeat", Self::Repeat),
        ("read", Self::Read),
        ("list", Self::List),
        ("events", Self::Events),
        ("cancel", Self::Cancel),
        ("retry", Self::Retry),
        ("delete", Self::Delete),
        ("deliveries", Self::Deliveries),
        ("redeliver", Self::Redeliver),
        ("peek", Self::Peek),
        ("lease", Self::Lease),
        ("heartbeat", Self::Heartbeat),
        ("output-begin", Self::OutputBegin),
        ("output-targets", Self::OutputTargets),
        ("output-finish", Self::OutputFinish),
        ("input-begin", Self::InputBegin),
        ("input-finish", Self::InputFinish),
        ("complete", Self::Complete),
        ("fail", Self::Fail),
        ("release", Self::Release),
        ("claim", Self::Claim),
        ("record", Self::Record),
        ("dead-letter", Self::DeadLetter),
        ("receive", Self::Receive),
        ("read-received", Self::ReadReceived),
        ("expect-part", Self::ExpectPart),
        ("note-part", Self::NotePart),
        ("use-received", Self::UseReceived),
        ("over", Self::Over),
        ("forget-provider", Self::ForgetProvider),
        ("nodes", Self::Nodes),
        ("wake", Self::Wake),
        ("hang-up", Self::HangUp),
        ("settings", Self::Settings),
        ("remove", Self::Remove),
        ("touch", Self::Touch),
    ];

    /// Whether it is the message of one node about one lease, with a `hold` in its body.
    const fn is_about_a_lease(self) -> bool {
        match self {
            Self::OutputBegin
            | Self::OutputTargets
            | Self::OutputFinish
            | Self::InputBegin
            | Self::InputFinish
            | Self::Complete
            | Self::Fail
            | Self::Release => true,
            Self::Create
            | Self::Repeat
            | Self::Read
            | Self::List
            | Self::Events
            | Self::Cancel
            | Self::Retry
            | Self::Delete
            | Self::Deliveries
            | Self::Redeliver
            | Self::Peek
            | Self::Lease
            | Self::Heartbeat
            | Self::Claim
            | Self::Record
            | Self::DeadLetter
            | Self::Receive
            | Self::ReadReceived
            | Self::ExpectPart
            | Self::NotePart
            | Self::UseReceived
            | Self::Over
            | Self::ForgetProvider
            | Self::Nodes
            | Self::Wake
            | Self::HangUp
            | Self::Settings
            | Self::Remove
            | Self::Touch => false,
        }
    }

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, op)| *op == self).map_or("", |(name, _)| name)
    }
}

/// A job to keep.
#[derive(Debug, Serialize, Deserialize)]
pub struct NewJob {
    /// Its id.
    pub id: Id,
    /// What is asked for.
    pub request: JobRequest,
    /// The key that asked.
    pub token_id: String,
    /// Where the caller reached us, for links to files.
    pub origin: String,
    /// What makes a repeated request the same one.
    pub once: Option<Once>,
    /// The bucket that its output goes to, unless it is the managed one.
    pub provider: Option<Provider>,
}

/// An idempotency key. Its shard is that of the key's digest, so that a repeated request meets the first one there.
#[derive(Debug, Serialize, Deserialize)]
pub struct Once {
    /// SHA-256 of the caller's token and key.
    pub key: String,
    /// SHA-256 of the body, as `xora_shared::request::digest` has it.
    pub body: String,
}

/// The job that a request has made, now or before.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Made {
    /// Its id.
    pub id: Id,
    /// Where it is.
    pub state: JobState,
    /// Whether an earlier request with the same idempotency key made it.
    pub replayed: bool,
}

/// Asks a shard for something that the Worker needs itself.
pub async fn ask<T: DeserializeOwned>(env: &Env, shard: u16, op: Op, body: &impl Serialize) -> Result<T, ApiError> {
    let answer = ask_for_text(env, shard, op, serde_json::to_string(body)?).await?;
    Ok(json::from_str(&answer)?)
}

async fn ask_for_text(env: &Env, shard: u16, op: Op, body: String) -> Result<String, ApiError> {
    #[cfg(debug_assertions)]
    crate::faults::shard(shard)?;
    rpc::ask(&stub(env, shard)?, op.name(), None, body).await
}

/// As [`ask`], for a node.
pub async fn ask_for_node<T: DeserializeOwned>(
    env: &Env,
    speaker: &Speaker,
    shard: u16,
    op: Op,
    body: &impl Serialize,
) -> Result<T, ApiError> {
    #[cfg(debug_assertions)]
    crate::faults::shard(shard)?;
    let body = serde_json::to_string(body)?;
    Ok(json::from_str(&rpc::ask(&stub(env, shard)?, op.name(), Some(speaker), body).await?)?)
}

/// Asks a shard on behalf of a caller, who gets its answer as it stands.
pub async fn forward(site: &Site, shard: u16, op: Op, body: String) -> Result<Reply, ApiError> {
    #[cfg(debug_assertions)]
    crate::faults::shard(shard)?;
    rpc::forward(&stub(&site.env, shard)?, op.name(), &site.origin, None, body).await
}

/// As [`forward`], for a node.
pub async fn forward_for_node(
    site: &Site,
    speaker: &Speaker,
    shard: u16,
    op: Op,
    body: String,
) -> Result<Reply, ApiError> {
    #[cfg(debug_assertions)]
    crate::faults::shard(shard)?;
    rpc::forward(&stub(&site.env, shard)?, op.name(), &site.origin, Some(speaker), body).await
}

/// Asks a shard for an answer that is a stream, or refused.
pub async fn open(env: &Env, shard: u16, op: Op, body: &impl Serialize) -> Result<Response, ApiError> {
    rpc::open(&stub(env, shard)?, op.name(), serde_json::to_string(body)?).await
}

/// Asks every shard at once, and gives what those answered that could.
pub async fn ask_all<T: DeserializeOwned>(
    env: &Env,
    shards: u16,
    op: Op,
    body: &impl Serialize,
) -> Result<Vec<(u16, Result<T, ApiError>)>, ApiError> {
    let answers = ask_all_for_text(env, shards, op, &serde_json::to_string(body)?).await;
    let read = |answer: Result<String, ApiError>| Ok(json::from_str(&answer?)?);
    Ok((0..).zip(answers.into_iter().map(read)).collect())
}

async fn ask_all_for_text(env: &Env, shards: u16, op: Op, body: &str) -> Vec<Result<String, ApiError>> {
    join_all((0..shards).map(async |shard| ask_for_text(env, shard, op, body.to_owned()).await)).await
}

/// The object that is shard `shard`.
pub fn stub(env: &Env, shard: u16) -> Result<worker::Stub, ApiError> {
    Ok(env.durable_object("JOB_SHARDS")?.get_by_name(&format!("shard-{shard}"))?)
}

/// Asks every shard that there ever was for something that it answers nothing to. One that cannot be asked does not keep
/// the others from hearing of it.
pub async fn tell_all(env: &Env, op: Op, body: &impl Serialize) -> Result<(), ApiError> {
    let shards = shard_map(env).await?.reach();
    tell_shards(env, shards, op, body).await.map(drop)
}

/// The same for shards 0 to `shards` - 1. Whether all of them could be asked.
pub async fn tell_shards(env: &Env, shards: u16, op: Op, body: &impl Serialize) -> Result<bool, ApiError> {
    let mut all = true;
    for (shard, told) in ask_all::<()>(env, shards, op, body).await? {
        if let Err(error) = told {
            console_error!("{}: shard {shard}: {error}", op.name());
            all = false;
        }
    }
    Ok(all)
}

/// The shard of a row that a caller names.
pub async fn of(env: &Env, id: Id, what: &str) -> Result<u16, ApiError> {
    shard_of(env, id).await.ok_or_else(|| ApiError::not_found(what))
}

/// Has every shard forget what opens the bucket of a storage provider.
pub async fn forget_provider(env: &Env, id: Id) -> Result<(), ApiError> {
    for shard in 0..shard_map(env).await?.reach() {
        ask::<()>(env, shard, Op::ForgetProvider, &id).await?;
    }
    Ok(())
}

/// What the shard knows of a lease between rows: a heartbeat costs no row.
#[derive(Clone, Copy, Debug)]
struct Live {
    /// When the lease ends without another heartbeat, in ms since 1970.
    expires_ms: i64,
    stage: Stage,
    progress: u8,
    /// When its row was last written, in ms since 1970.
    written_ms: i64,
}

/// See the module.
#[durable_object]
pub struct JobShard {
    state: State,
    env: Env,
    /// Nothing here is ever left half changed, so a panic elsewhere cannot spoil it.
    memory: AssertUnwindSafe<Memory>,
}

/// What an instance knows beyond its rows. It may be lost at any time.
#[derive(Default)]
struct Memory {
    /// Leases by task.
    live: RefCell<HashMap<Id, Live>>,
    /// Leases by task whose node still has to hear that the caller cancelled the job.
    cancelled: RefCell<HashMap<Id, Hold>>,
    /// Whose turn it is.
    turns: RefCell<Turns>,
    /// Who watches which job.
    watchers: Watchers,
    /// Nodes by name.
    nodes: RefCell<HashMap<String, NodeRow>>,
    /// When retention was last carried out, in ms since 1970.
    swept_ms: Cell<i64>,
    /// When the alarm is set for, as far as this instance knows.
    armed: Cell<Option<i64>>,
    /// What this instance has cost so far.
    cost: Cell<Cost>,
    /// Whether the record was opened.
    opened: Cell<bool>,
    /// Until when objects are being removed at most, in ms since 1970; 0 while none are.
    removing_ms: Cell<i64>,
    /// Before when the alarm is not set, in ms since 1970: something that is due could not be handled.
    pause_ms: Cell<i64>,
}

/// What the platform bills besides requests. Written to the log every five minutes.
#[derive(Clone, Copy, Default, Debug)]
struct Cost {
    /// Rows written, index entries and alarms included.
    rows: usize,
    /// Messages sent to the Queue.
    messages: usize,
}

impl JobShard {
    async fn perform(&self, asked: &Asked) -> Result<Reply, ApiError> {
        let op = Op::ALL.iter().find(|(name, _)| *name == asked.op).map(|(_, op)| *op);
        let op = op.ok_or_else(|| ApiError::not_found("operation"))?;
        if op.is_about_a_lease() {
            self.refuse_other_nodes(asked)?;
        }
        match op {
            Op::Create => rpc::reply(&self.create(asked.body()?).await?),
            Op::Repeat => rpc::reply(&self.repeated(&asked.body()?)?),
            Op::Read => rpc::reply(&self.read(asked.body()?)?),
            Op::List => rpc::reply(&self.list(&asked.body()?)?),
            // Answered before, with a stream.
            Op::Events => Err(ApiError::not_found("operation")),
            Op::Cancel => rpc::reply(&self.cancel(asked.body()?).await?),
            Op::Retry => rpc::reply(&self.retry(asked.body()?).await?),
            Op::Delete => rpc::reply(&self.delete(asked.body()?).await?),
            Op::Deliveries => rpc::reply(&self.log(asked.body()?)?),
            Op::Redeliver => rpc::reply(&self.redeliver(asked.body()?).await?),
            Op::Peek => rpc::reply(&self.peek(&asked.body()?)?),
            Op::Lease => rpc::reply(&self.lease(&asked.body()?, asked).await?),
            Op::Heartbeat => rpc::reply(&self.heartbeat(&asked.body()?, asked.speaker.as_ref()).await),
            Op::OutputBegin => rpc::reply(&self.begin_upload(asked.body()?, &asked.origin).await?),
            Op::OutputTargets => rpc::reply(&self.targets(&asked.body()?, &asked.origin)?),
            Op::OutputFinish => rpc::reply(&self.finish_upload(asked.body()?, &asked.origin).await?),
            Op::InputBegin => rpc::reply(&self.begin_staging(asked.body()?, &asked.origin).await?),
            Op::InputFinish => rpc::reply(&self.finish_staging(asked.body()?).await?),
            Op::Complete => Ok(told(self.complete(asked.body()?).await?)),
            Op::Fail => Ok(told(self.fail(asked.body()?).await?)),
            Op::Release => Ok(told(self.release(&asked.body()?).await?)),
            Op::Claim => rpc::reply(&self.claim(&asked.body()?).await?),
            Op::Record => rpc::reply(&self.record(asked.body()?).await?),
            Op::DeadLetter => rpc::reply(&self.note_dead_letter(&asked.body()?)?),
            Op::Receive => rpc::reply(&self.receive(asked.body()?, &asked.origin).await?),
            Op::ReadReceived => rpc::reply(&self.read_received(asked.body()?, &asked.origin)?),
            Op::ExpectPart => rpc::reply(&self.expect_part(&asked.body()?)?),
            Op::NotePart => rpc::reply(&self.note_part(asked.body()?)?),
            Op::UseReceived => rpc::reply(&self.use_received(asked.body()?).await?),
            Op::Over => rpc::reply(&self.over(&asked.body::<Vec<_>>()?)?),
            Op::ForgetProvider => rpc::reply(&self.delete_provider(asked.body()?)?),
            Op::Nodes => rpc::reply(&self.nodes_seen()?),
            Op::Wake => rpc::reply(&self.wake_nodes()),
            Op::HangUp => rpc::reply(&self.hang_up(&asked.body::<String>()?)),
            Op::Settings => rpc::reply(&self.keep_settings(&asked.body()?)?),
            Op::Remove => rpc::reply(&self.pass(asked.body()?).await),
            Op::Touch => rpc::reply(&self.touch(asked.body()?).await),
        }
    }

    /// What the cron asks for: the settings in force, retention, a look at what is due, and a line on what this instance
    /// has cost.
    async fn touch(&self, settings: Option<VersionedSettings>) {
        if let Some(settings) = settings {
            alarm::report(self.keep_settings(&settings));
        }
        alarm::report(self.sweep().await);
        alarm::report(self.forget_deleted_providers().await);
        self.look_at_what_is_due().await;
        let Cost { rows, messages } = self.memory.cost.get();
        console_log!("cost since start: {rows} rows written, {messages} queue messages");
    }

    fn spend(&self, rows: usize, messages: usize) {
        let Cost { rows: before, messages: sent } = self.memory.cost.get();
        self.memory.cost.set(Cost { rows: before + rows, messages: sent + messages });
    }

    /// Opens a wake-up socket for a node. It hibernates: an idle node costs nothing. It is known by the node's name and by
    /// what its key is kept under.
    fn accept_node(&self, req: &Request) -> Result<Response> {
        let pair = WebSocketPair::new()?;
        let url = req.url()?;
        let name = url.query_pairs().find(|(name, _)| name == "node").map(|(_, value)| value.into_owned());
        let key = auth::hash(req.headers()).unwrap_or_default();
        let mut tags = vec![key.as_str()];
        tags.extend(name.as_deref().filter(|name| (1..=MAX_TAG).contains(&name.len())));
        self.state.accept_websocket_with_tags(&pair.server, &tags);
        let pong = worker::worker_sys::WebSocketRequestResponsePair::new("ping", "pong")?;
        self.state.set_websocket_auto_response(&pong);
        // The Worker may have remembered a key that was revoked before there was a socket to close.
        let (env, socket) = (self.env.clone(), pair.server);
        self.state.wait_until(async move {
            if matches!(account::verify(&env, &key).await, Ok(None)) {
                close_revoked(&socket);
            }
        });
        Response::from_websocket(pair.client)
    }

    /// Closes the sockets that were opened with a key.
    fn hang_up(&self, key: &str) {
        self.state.get_websockets_with_tag(key).iter().for_each(close_revoked);
    }

    /// Tells every node to send a heartbeat and look for work. A node that misses it polls.
    fn wake_nodes(&self) {
        for socket in self.state.get_websockets() {
            let _ = socket.send_with_str("wake");
        }
    }

    /// The same for a new job. Nobody listens to a shard that is new: those who listen to the first one learn of it when they
    /// look for work.
    fn wake_nodes_for(&self, job: Id) {
        self.wake_nodes();
        if job.place().shard() > 0 && self.state.get_websockets().is_empty() {
            let env = self.env.clone();
            self.state.wait_until(async move {
                let _ = ask::<()>(&env, 0, Op::Wake, &()).await;
            });
        }
    }
}

/// Closes the socket of a node whose key was revoked.
fn close_revoked(socket: &WebSocket) {
    const POLICY_VIOLATION: u16 = 1008;
    let _ = socket.close(Some(POLICY_VIOLATION), Some("this key was revoked"));
}

fn told(state: JobState) -> Reply {
    Reply { status: 200, body: format!(r#"{{"state":"{}"}}"#, state.name()) }
}

/// What a node learns of a job that it no longer holds.
fn stale(state: JobState) -> ApiError {
    let state = state.name();
    ApiError::new(Code::Conflict, format!("this lease is over and the job is {state}; drop the work"))
}

impl DurableObject for JobShard {
    fn new(state: State, env: Env) -> Self {
        let shard = Self { state, env, memory: AssertUnwindSafe(Memory::default()) };
        // What fails now is tried again by whoever asks first, and answered then.
        let _ = shard.ensure_open();
        shard
    }

    async fn fetch(&self, mut req: Request) -> Result<Response> {
        if let Err(error) = self.ensure_open() {
            return rpc::answer(Err(error));
        }
        if req.headers().get("Upgrade")?.is_some() {
            return self.accept_node(&req);
        }
        #[cfg(debug_assertions)]
        crate::panics::in_object(&req.path());
        let asked = match Asked::receive(&mut req).await {
            Ok(asked) => asked,
            Err(error) => return rpc::answer(Err(error)),
        };
        if asked.op == Op::Events.name() {
            let stream = asked.body().and_then(|watch| self.watch(watch));
            return stream.or_else(|error| rpc::answer(Err(error)));
        }
        rpc::answer(self.perform(&asked).await)
    }

    async fn alarm(&self) -> Result<Response> {
        self.memory.armed.set(None);
        // The platform repeats an alarm that fails.
        self.ensure_open().map_err(|error| Error::RustError(error.to_string()))?;
        self.look_at_what_is_due().await;
        Response::empty()
    }

    async fn connect(&self, _socket: Socket) -> Result<()> {
        Ok(())
    }

    async fn websocket_message(&self, _ws: WebSocket, _message: WebSocketIncomingMessage) -> Result<()> {
        Ok(())
    }

    async fn websocket_close(&self, ws: WebSocket, code: usize, _reason: String, _was_clean: bool) -> Result<()> {
        let _ = ws.close(u16::try_from(code).ok().filter(|code| *code == 1000), Some(""));
        Ok(())
    }

    async fn websocket_error(&self, _ws: WebSocket, _error: Error) -> Result<()> {
        Ok(())
    }
}
