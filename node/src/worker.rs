//! The node's loop: take a permit, look for work, have it done, look again.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Instant, timeout},
};
use tracing::{info, warn};
use xora_shared::protocol::{Lease, NodeInfo, Release, SandboxLevel};

use crate::{
    attempt::{self, Node},
    board::Board,
    config::Config,
    edge::{CallError, Edge},
    encoders, health,
    job::lockdown::{Lacking, Sandbox},
    memory::Capacity,
    process::Launcher,
    refused::Refused,
    share::Share,
    source::{Room, client},
    stop::{Phase, Stop},
    wake::Wake,
};

/// Between two looks for work when there was some lately.
const SHORTEST: Duration = Duration::from_secs(1);
/// Between two looks when there has been none for long, or when the edge can wake us.
const LONGEST: Duration = Duration::from_secs(30);
/// Between two looks while the edge does not answer.
const OUTAGE: Duration = Duration::from_secs(5);

/// Works until told to stop.
pub async fn run(config: Config, launcher: Launcher) -> io::Result<()> {
    let stop = Stop::on_signals(config.drain)?;
    say_capacity(&config);
    let trusted = client::trusted().map_err(io::Error::other)?;
    let info = NodeInfo {
        name: config.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        sandbox: Some(sandbox(&launcher).await?),
        encoders: encoders::find(&launcher, &config).await?,
    };
    let edge = Arc::new(Edge::new(trusted.clone(), config.edge.clone(), config.token.clone(), info));
    let node = Arc::new(Node {
        board: Arc::new(Board::default()),
        launcher,
        inputs: client::judged(config.policy).map_err(io::Error::other)?,
        storage: trusted,
        room: Arc::new(Room::new(config.spool_dir.clone(), config.spool_bytes)),
        edge,
        stop,
        refused: Refused::default(),
        config,
    });
    health::serve(Arc::clone(&node), node.config.listen).await?;
    let beating = Arc::clone(&node);
    tokio::spawn(async move { beating.board.keep(&beating.edge).await });
    Worker::new(node).work().await;
    info!("stopped");
    Ok(())
}

/// Says what the node does at a time, and what of it follows from its memory.
fn say_capacity(config: &Config) {
    let Config { slots, encodes, threads, max_job_memory, .. } = *config;
    let mib = |bytes: u64| bytes >> 20;
    let Some(memory) = config.memory else {
        return warn!(
            "how much memory there is cannot be read from /proc; --slots and --max-job-memory-bytes stand unchecked"
        );
    };
    let whose = if memory.by_cgroup { "control group" } else { "machine" };
    info!(
        "{} MiB of memory ({whose}): {slots} slots, {encodes} of them for encodes with {threads} threads, at most {} MiB for a \
         job process",
        mib(memory.bytes),
        mib(max_job_memory)
    );
    if (Capacity { slots, encodes, job: max_job_memory }).exceeds(memory) {
        warn!("the encodes may together take more memory than there is; lower --encodes or --max-job-memory-bytes");
    }
}

/// How far job processes are locked down. An error where that is less than was asked for: no work is begun then.
async fn sandbox(launcher: &Launcher) -> io::Result<SandboxLevel> {
    let lacking = |lacking: Lacking| io::Error::new(io::ErrorKind::Unsupported, lacking);
    let level = match launcher.locked().await?.map_err(lacking)? {
        Sandbox::Strict { .. } => {
            info!("sandbox: strict (resource limits, system call filters, Landlock)");
            return Ok(SandboxLevel::Strict);
        }
        Sandbox::Basic => SandboxLevel::Basic,
        Sandbox::Off => SandboxLevel::Off,
    };
    warn!(
        "job processes are not isolated (--sandbox={}): a decoder that is taken over by a hostile file can read what this user \
         can read and use the network",
        if level == SandboxLevel::Basic { "basic" } else { "off" }
    );
    Ok(level)
}

struct Worker {
    node: Arc<Node>,
    wake: Arc<Wake>,
    slots: Arc<Semaphore>,
    encodes: Arc<Semaphore>,
    running: JoinSet<()>,
    /// How long to wait after the next look that finds nothing, when nobody can wake us.
    wait: Duration,
    connected: bool,
}

impl Worker {
    fn new(node: Arc<Node>) -> Self {
        let wake = Arc::new(Wake::new(Arc::clone(&node.edge), Arc::clone(&node.board)));
        let slots = Arc::new(Semaphore::new(node.config.slots));
        let encodes = Arc::new(Semaphore::new(node.config.encodes));
        Self { node, wake, slots, encodes, running: JoinSet::new(), wait: SHORTEST, connected: false }
    }

    async fn work(mut self) {
        let stop = self.node.stop.clone();
        while let Some(slot) = self.slot(&stop).await {
            self.look(Share::of(slot, &self.encodes, &self.wake.look)).await;
        }
        // Tasks that still run watch the stop themselves.
        while self.running.join_next().await.is_some() {}
    }

    /// The right to run one more task; none when stopping. A node never asks for work that it could not begin.
    async fn slot(&mut self, stop: &Stop) -> Option<OwnedSemaphorePermit> {
        while self.running.try_join_next().is_some() {}
        let permit = tokio::select! {
            permit = Arc::clone(&self.slots).acquire_owned() => permit.ok(),
            () = stop.reached(Phase::Draining) => None,
        };
        permit.filter(|_| stop.phase() == Phase::Running)
    }

    /// Looks for work once, and waits for a reason to look again if there is none.
    async fn look(&mut self, share: Share) {
        // An edge that was away may offer the tasks whose leases ran out meanwhile. Those that run here are shown first, or
        // this node would be given its own work again.
        if self.node.edge.trouble().is_some() && !self.node.board.renew(&self.node.edge).await {
            self.connected = false;
            return self.idle_longer(OUTAGE).await;
        }
        let asked = Instant::now();
        // Not to be interrupted: the answer may be a lease.
        match self.node.edge.lease(!share.can_encode()).await {
            Ok(answer) => {
                if !self.connected {
                    self.connected = true;
                    info!("connected to {}", self.node.config.edge);
                }
                self.wake.keep(answer.shards);
                match answer.lease {
                    Some(lease) => self.begin(lease, asked, share).await,
                    None if self.wake.is_up() => self.idle(LONGEST).await,
                    None => self.idle_longer(LONGEST).await,
                }
            }
            Err(CallError::Unreachable | CallError::Stale) => {
                self.connected = false;
                self.idle_longer(OUTAGE).await;
            }
            Err(error @ (CallError::Key | CallError::Refused(_))) => {
                warn!("{error}");
                self.idle_longer(LONGEST).await;
            }
        }
    }

    async fn begin(&mut self, lease: Lease, asked: Instant, share: Share) {
        self.wait = SHORTEST;
        if self.node.stop.phase() > Phase::Running {
            let _ = self.node.edge.release(&Release { hold: lease.hold, heavy: false, reason: None }).await;
            return;
        }
        let (node, wake) = (Arc::clone(&self.node), Arc::clone(&self.wake));
        self.running.spawn(async move {
            attempt::run(&node, lease, asked, share).await;
            wake.look.notify_one();
        });
    }

    /// Waits, longer each time in a row.
    async fn idle_longer(&mut self, most: Duration) {
        let wait = self.wait.min(most);
        self.wait = (self.wait * 2).min(LONGEST);
        self.idle(wait).await;
    }

    /// Waits for a wake-up, the end of a task, or about this long: nodes that start together must not stay in step.
    async fn idle(&mut self, wait: Duration) {
        let wait = wait.mul_f64(0.75 + fastrand::f64() / 2.0);
        let woken = tokio::select! {
            woken = timeout(wait, self.wake.look.notified()) => woken.is_ok(),
            () = self.node.stop.reached(Phase::Draining) => false,
        };
        if woken {
            self.wait = SHORTEST;
        }
    }
}
