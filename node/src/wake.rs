//! Wake-up sockets, one to each shard: a word on one means "heartbeat now, then look for work".

use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use tokio::{
    net::TcpStream,
    sync::Notify,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, client::IntoClientRequest, http::header::AUTHORIZATION},
};
use tracing::debug;
use xora_shared::protocol::WAKE;

use crate::{board::Board, edge::Edge};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Between two pings. The edge answers them without waking its shard.
const PING: Duration = Duration::from_secs(30);
/// How long the edge may take to answer one.
const PONG: Duration = Duration::from_secs(10);
/// Longest wait before connecting again.
const LONGEST: Duration = Duration::from_secs(30);

/// The sockets of a node.
pub struct Wake {
    edge: Arc<Edge>,
    board: Arc<Board>,
    /// Told when there may be work.
    pub look: Arc<Notify>,
    wanted: AtomicU16,
    up: AtomicU16,
}

impl Wake {
    /// None yet: the first lease answer says how many shards there are.
    pub fn new(edge: Arc<Edge>, board: Arc<Board>) -> Self {
        Self { edge, board, look: Arc::default(), wanted: AtomicU16::new(0), up: AtomicU16::new(0) }
    }

    /// Keeps a socket to each of `shards` shards from now on.
    pub fn keep(self: &Arc<Self>, shards: u16) {
        for shard in self.wanted.fetch_max(shards, Ordering::Relaxed)..shards {
            let wake = Arc::clone(self);
            tokio::spawn(async move { wake.stay(shard).await });
        }
    }

    /// Whether every shard can wake us.
    pub fn is_up(&self) -> bool {
        let wanted = self.wanted.load(Ordering::Relaxed);
        wanted > 0 && self.up.load(Ordering::Relaxed) >= wanted
    }

    async fn stay(&self, shard: u16) {
        let mut wait = Duration::from_millis(500);
        loop {
            let started = Instant::now();
            if let Some(socket) = self.connect(shard).await {
                self.up.fetch_add(1, Ordering::Relaxed);
                // Something may have come while we could not hear.
                self.look.notify_one();
                self.listen(socket).await;
                self.up.fetch_sub(1, Ordering::Relaxed);
                // Whatever closed the socket may have been a restart: show that the leases are alive.
                self.board.beat.notify_one();
            }
            debug!(shard, "wake-up socket is down");
            wait = if started.elapsed() > LONGEST { Duration::from_millis(500) } else { (wait * 2).min(LONGEST) };
            sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        }
    }

    async fn connect(&self, shard: u16) -> Option<Socket> {
        let (mut url, authorization) = self.edge.address(WAKE)?;
        url.set_scheme(if url.scheme() == "https" { "wss" } else { "ws" }).ok()?;
        url.query_pairs_mut().append_pair("shard", &shard.to_string()).append_pair("node", &self.edge.node.name);
        let mut request = url.as_str().into_client_request().ok()?;
        request.headers_mut().insert(AUTHORIZATION, authorization.parse().ok()?);
        match timeout(PONG, connect_async(request)).await {
            Ok(Ok((socket, _))) => Some(socket),
            Ok(Err(error)) => {
                debug!(shard, "wake-up socket: {error}");
                None
            }
            Err(_) => None,
        }
    }

    /// Listens until the socket is closed or dead.
    async fn listen(&self, mut socket: Socket) {
        let mut ping_at = Instant::now() + PING;
        let mut pong_by = None;
        loop {
            let due = pong_by.unwrap_or(ping_at);
            tokio::select! {
                message = socket.next() => match message {
                    Some(Ok(Message::Text(text))) if text.as_str() == "pong" => pong_by = None,
                    Some(Ok(Message::Text(_))) => self.woken(),
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    Some(Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                },
                () = sleep_until(due) => {
                    if pong_by.is_some() || socket.send(Message::text("ping")).await.is_err() {
                        return;
                    }
                    ping_at = Instant::now() + PING;
                    pong_by = Some(Instant::now() + PONG);
                }
            }
        }
    }

    fn woken(&self) {
        self.board.beat.notify_one();
        self.look.notify_one();
    }
}
