//! The Durable Object `JobShard`: the record of jobs, tasks, leases, uploads and deliveries.
//!
//! Every handler does all its awaits first, then reads the rows, asks the machine in `xora-shared`, writes all rows
//! without an await between, arms the alarm, and answers. The terminal state of a job and its delivery row are written
//! in the same turn.

mod alarm;
mod deliveries;
mod jobs;
mod leases;
pub mod rpc;
mod store;
mod uploads;

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    panic::AssertUnwindSafe,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use worker::{
    DurableObject, Env, Error, Request, Response, Result, Socket, State, WebSocket, WebSocketIncomingMessage,
    WebSocketPair, console_log, durable_object,
};
use xora_shared::{
    failure::Stage,
    id::{Id, Place},
    job::JobState,
    protocol::{Complete, Fail, Heartbeat, LeaseRequest, OutputBegin, OutputFinish, Release},
    request::JobRequest,
};

pub use deliveries::{Claimed, DeliveryView, Recorded};
pub use uploads::Upload;

use crate::{
    config,
    error::{ApiError, Code},
};

/// What can be asked of a shard.
#[derive(Debug, Serialize, Deserialize)]
pub enum Call {
    /// Keeps a new job. Answers nothing.
    Create {
        /// Its id.
        id: Id,
        /// What is asked for.
        request: Box<JobRequest>,
        /// The key that asked.
        token_id: String,
        /// Where the caller reached us, for links to files.
        origin: String,
    },
    /// Answers a [`Stored`] job.
    Read(Id),
    /// Stops a job. Answers it.
    Cancel(Id),
    /// Starts a job again. Answers nothing.
    Retry(Id),
    /// Hands out a task. Answers `Option<Lease>`.
    Lease(LeaseRequest),
    /// Renews leases. Answers a word for each.
    Heartbeat(Heartbeat),
    /// Opens an output. Answers its [`Upload`].
    OutputBegin(OutputBegin),
    /// Answers the [`Upload`] that a hold is writing.
    OutputOf(xora_shared::job::lease::Hold),
    /// Puts an output together. Answers its key.
    OutputFinish(OutputFinish),
    /// Publishes. Answers the job's state.
    Complete(Box<Complete>),
    /// Ends an attempt. Answers the job's state.
    Fail(Fail),
    /// Gives a task back. Answers the job's state.
    Release(Release),
    /// Takes an attempt of a delivery. Answers `Option<Claimed>`.
    Claim {
        /// The delivery.
        delivery: Id,
        /// The attempt's number.
        attempt: u32,
    },
    /// Says how a claimed attempt went. Answers nothing.
    Record(Recorded),
    /// Makes an attempt of a delivery now. Answers nothing.
    Redeliver(Id),
    /// Answers the log of a job's deliveries.
    Deliveries(Id),
    /// Notes that the Queue gave an attempt up. Answers nothing.
    DeadLetter {
        /// The delivery.
        delivery: Id,
        /// The attempt's number.
        attempt: u32,
    },
    /// Looks at what is due, as the alarm does. Answers nothing.
    Touch,
}

/// A job with what it takes to show it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Stored {
    /// The job.
    pub record: xora_shared::job::view::JobRecord,
    /// The origin for links to its files.
    pub origin: String,
}

/// Asks the shard of an id.
pub async fn call<T: DeserializeOwned>(env: &Env, id: Id, call: &Call) -> Result<T, ApiError> {
    call_shard(env, id.place().shard(), call).await
}

/// Asks a shard by number.
pub async fn call_shard<T: DeserializeOwned>(env: &Env, shard: u16, call: &Call) -> Result<T, ApiError> {
    let stub = stub(env, shard)?;
    rpc::send(&stub, call).await
}

/// The object that is shard `shard`.
pub fn stub(env: &Env, shard: u16) -> Result<worker::Stub, ApiError> {
    Ok(env.durable_object("JOB_SHARDS")?.get_by_name(&format!("shard-{shard}"))?)
}

/// How new ids are spread: a versioned map in KV, one shard when it says nothing.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct ShardMap {
    epoch: u8,
    /// How many shards there are.
    pub shards: u16,
}

impl ShardMap {
    const KEY: &str = "shard-map";
    const ONE: Self = Self { epoch: 0, shards: 1 };

    /// The map in force.
    pub async fn load(env: &Env) -> Result<Self, ApiError> {
        let text = env.kv("SETTINGS")?.get(Self::KEY).text().await?;
        Ok(text.map(|text| serde_json::from_str(&text)).transpose()?.unwrap_or(Self::ONE))
    }

    /// The place of a new row, by chance.
    pub fn place(self, random: u16) -> Place {
        Place::new(self.epoch, random % self.shards.max(1)).unwrap_or_else(|| unreachable!("the map is in range"))
    }
}

/// Wakes every shard.
pub async fn touch_all(env: &Env) -> Result<(), ApiError> {
    for shard in 0..ShardMap::load(env).await?.shards {
        call_shard::<()>(env, shard, &Call::Touch).await?;
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
    /// Tasks whose node still has to hear that the caller cancelled them.
    cancelled: RefCell<HashSet<Id>>,
    /// When the alarm is set for, as far as this instance knows.
    armed: Cell<Option<i64>>,
    /// What this instance has cost so far.
    cost: Cell<Cost>,
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
    async fn perform(&self, call: Call) -> Result<Response, ApiError> {
        match call {
            Call::Create { id, request, token_id, origin } => {
                rpc::reply(&self.create(id, *request, token_id, origin).await?)
            }
            Call::Read(id) => rpc::reply(&self.read(id)?),
            Call::Cancel(id) => rpc::reply(&self.cancel(id).await?),
            Call::Retry(id) => rpc::reply(&self.retry(id).await?),
            Call::Lease(request) => rpc::reply(&self.lease(&request).await?),
            Call::Heartbeat(heartbeat) => rpc::reply(&self.heartbeat(&heartbeat)?),
            Call::OutputBegin(begin) => rpc::reply(&self.begin_upload(begin).await?),
            Call::OutputOf(hold) => rpc::reply(&self.upload_of(&hold)?),
            Call::OutputFinish(finish) => rpc::reply(&self.finish_upload(finish).await?),
            Call::Complete(complete) => rpc::reply(&self.complete(*complete).await?),
            Call::Fail(fail) => rpc::reply(&self.fail(fail).await?),
            Call::Release(release) => rpc::reply(&self.release(&release).await?),
            Call::Claim { delivery, attempt } => rpc::reply(&self.claim(delivery, attempt).await?),
            Call::Record(recorded) => rpc::reply(&self.record(recorded).await?),
            Call::Redeliver(id) => rpc::reply(&self.redeliver(id).await?),
            Call::Deliveries(job) => rpc::reply(&self.log(job)?),
            Call::DeadLetter { delivery, attempt } => rpc::reply(&self.note_dead_letter(delivery, attempt)?),
            Call::Touch => {
                self.look_at_what_is_due().await;
                let Cost { rows, messages } = self.memory.cost.get();
                console_log!("cost since start: {rows} rows written, {messages} queue messages");
                rpc::reply(&())
            }
        }
    }

    fn spend(&self, rows: usize, messages: usize) {
        let Cost { rows: before, messages: sent } = self.memory.cost.get();
        self.memory.cost.set(Cost { rows: before + rows, messages: sent + messages });
    }

    /// Opens a wake-up socket for a node. It hibernates: an idle node costs nothing.
    fn accept_node(&self) -> Result<Response> {
        let pair = WebSocketPair::new()?;
        self.state.accept_web_socket(&pair.server);
        let pong = worker::worker_sys::WebSocketRequestResponsePair::new("ping", "pong")?;
        self.state.set_websocket_auto_response(&pong);
        Response::from_websocket(pair.client)
    }

    /// Tells every node to send a heartbeat and look for work. A node that misses it polls.
    fn wake_nodes(&self) {
        for socket in self.state.get_websockets() {
            let _ = socket.send_with_str("wake");
        }
    }
}

/// A new id whose row lives beside that of another.
fn id_beside(sibling: Id) -> Result<Id, ApiError> {
    Ok(Id::new(config::now(), u128::from_le_bytes(config::random()?), sibling.place()))
}

/// What a node learns of a job that it no longer holds.
fn stale(state: JobState) -> ApiError {
    let state = format!("{state:?}").to_lowercase();
    ApiError::new(Code::Conflict, format!("this lease is over and the job is {state}; drop the work"))
}

impl DurableObject for JobShard {
    fn new(state: State, env: Env) -> Self {
        let shard = Self { state, env, memory: AssertUnwindSafe(Memory::default()) };
        shard.open();
        shard
    }

    async fn fetch(&self, mut req: Request) -> Result<Response> {
        if req.headers().get("Upgrade")?.is_some() {
            return self.accept_node();
        }
        rpc::answer(match rpc::receive(&mut req).await {
            Ok(call) => self.perform(call).await,
            Err(error) => Err(error),
        })
    }

    async fn alarm(&self) -> Result<Response> {
        self.memory.armed.set(None);
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
