//! A small HTTP/1.1 server that also does what a proper one refuses to: reset, hang, trickle, lie about lengths.

use std::{
    collections::VecDeque,
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use bytes::Bytes;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, sleep_until, timeout},
};

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET` and so on.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, decoded if it was chunked.
    pub body: Vec<u8>,
    /// When the last byte of it was read.
    pub at: SystemTime,
}

impl Request {
    /// A header's value, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// What happens after the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The next request may come.
    Complete,
    /// The connection is closed in good order.
    Close,
    /// The connection is reset.
    Reset,
    /// Nothing more is ever sent.
    Hang,
}

/// Bytes that a connection sends before it first waits for an answer: ten segments (RFC 6928).
const FIRST_WINDOW: usize = 14_600;
/// How long a connection may rest before it begins anew with that (RFC 6298: the least time after which one sends
/// again).
const REST: Duration = Duration::from_millis(200);

/// A way between two places, which everything that takes it shares. A new connection costs a round trip more, and
/// begins slowly, as TCP does.
#[derive(Clone, Debug)]
pub struct Line {
    round_trip: Duration,
    bytes_per_second: u32,
    free: Arc<Mutex<Instant>>,
}

impl Line {
    /// A line of this latency and rate.
    pub fn new(round_trip: Duration, bytes_per_second: u32) -> Self {
        Self { round_trip, bytes_per_second, free: Arc::new(Mutex::new(Instant::now())) }
    }

    /// Waits until so many bytes have come through, behind those that came before. What waiting too long has cost is
    /// made up for, as far as that is the timer's doing.
    async fn pass(&self, bytes: usize) {
        const TIMER: Duration = Duration::from_millis(10);
        let took = Duration::from_secs_f64(bytes as f64 / f64::from(self.bytes_per_second));
        let through = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            *free = (*free).max(Instant::now() - TIMER) + took;
            *free
        };
        sleep_until(through).await;
    }
}

/// What one direction of a connection has on its way, as slow start has it (RFC 5681): as much as has arrived may
/// follow, and the same again. Nothing is lost on a line, so that it only grows.
struct Window {
    free: usize,
    /// When it will be known that so many bytes have arrived.
    arrivals: VecDeque<(Instant, usize)>,
}

impl Window {
    fn new() -> Self {
        Self { free: FIRST_WINDOW, arrivals: VecDeque::new() }
    }

    /// Waits until so many bytes have come through the line.
    async fn pass(&mut self, line: &Line, mut bytes: usize) {
        if self.arrivals.back().is_some_and(|(known, _)| known.elapsed() > REST) {
            *self = Self::new();
        }
        while bytes > 0 {
            while let Some((known, arrived)) = self.arrivals.front().copied() {
                if self.free > 0 && known > Instant::now() {
                    break;
                }
                sleep_until(known).await;
                self.arrivals.pop_front();
                self.free += 2 * arrived;
            }
            let piece = bytes.min(self.free).min(FIRST_WINDOW);
            line.pass(piece).await;
            self.free -= piece;
            self.arrivals.push_back((Instant::now() + line.round_trip, piece));
            bytes -= piece;
        }
    }
}

/// How a request is answered.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Waited before the first byte.
    pub delay: Duration,
    /// Whose next word is waited for before the first byte.
    pub word: Option<watch::Receiver<()>>,
    /// The status code. 0 sends no head at all, but the body as it stands, and the ending.
    pub status: u16,
    /// Headers besides `Content-Length`.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
    /// The length that is claimed, if not the body's.
    pub claimed: Option<usize>,
    /// Bytes a second, if not as fast as possible.
    pub pace: Option<usize>,
    /// The way that request and answer take, if it is a long one.
    pub line: Option<Line>,
    /// Whether the body is sent again and again, without end.
    pub endless: bool,
    /// What happens after the body.
    pub ending: Ending,
}

impl Reply {
    /// An empty answer.
    pub fn status(status: u16) -> Self {
        Self {
            delay: Duration::ZERO,
            word: None,
            status,
            headers: Vec::new(),
            body: Bytes::new(),
            claimed: None,
            pace: None,
            line: None,
            endless: false,
            ending: Ending::Complete,
        }
    }

    /// A connection reset without an answer.
    pub fn reset() -> Self {
        Self { ending: Ending::Reset, ..Self::status(0) }
    }

    /// Exactly these bytes, head and all, and the connection is closed.
    pub fn raw(bytes: impl Into<Bytes>) -> Self {
        Self { body: bytes.into(), ending: Ending::Close, ..Self::status(0) }
    }

    /// No answer, ever.
    pub fn hang() -> Self {
        Self { ending: Ending::Hang, ..Self::status(0) }
    }

    /// An answer that never comes to its end, at this many bytes a second or as fast as it is read.
    pub fn endless(status: u16, pace: Option<usize>) -> Self {
        let body = Bytes::from_static(&[b'x'; 4 << 10]);
        Self { body, claimed: Some(1 << 50), pace, endless: true, ..Self::status(status) }
    }

    /// A redirect.
    pub fn redirect(to: &str) -> Self {
        Self::status(302).header("Location", to)
    }

    /// The same answer, later.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// The same answer, at the next word of this.
    #[must_use]
    pub fn when(self, word: watch::Receiver<()>) -> Self {
        Self { word: Some(word), ..self }
    }

    /// The same answer with one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same answer with a body.
    #[must_use]
    pub fn body(self, body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..self }
    }
}

/// A listening server. Dropping it closes every connection.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    sent: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Server {
    /// Answers every request with what `answer` makes of it.
    pub async fn start<A, F>(answer: A) -> Result<Self>
    where
        A: Fn(Request) -> F + Send + Sync + 'static,
        F: Future<Output = Reply> + Send + 'static,
    {
        Self::start_at(0, answer).await
    }

    /// The same, at a port.
    pub async fn start_at<A, F>(port: u16, answer: A) -> Result<Self>
    where
        A: Fn(Request) -> F + Send + Sync + 'static,
        F: Future<Output = Reply> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        let sent = Arc::new(AtomicU64::new(0));
        let (answer, counter) = (Arc::new(answer), Arc::clone(&sent));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, counter) = (Arc::clone(&answer), Arc::clone(&counter));
                // A caller that goes away in mid-answer is none of our business.
                connections.spawn(async move { serve(stream, &*answer, &counter).await.ok() });
            }
        });
        Ok(Self { address, sent, task })
    }

    /// Bytes of bodies sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve<F: Future<Output = Reply>>(
    stream: TcpStream,
    answer: &(impl Fn(Request) -> F + Sync),
    sent: &AtomicU64,
) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    let (mut up, mut down, mut is_new) = (Window::new(), Window::new(), true);
    while let Some(request) = read_request(&mut stream).await? {
        let (head_only, received) = (request.method == "HEAD", request.body.len());
        let mut reply = answer(request).await;
        sleep(reply.delay).await;
        if let Some(line) = &reply.line {
            sleep(line.round_trip * if std::mem::take(&mut is_new) { 2 } else { 1 }).await;
            up.pass(line, received).await;
        }
        if let Some(word) = &mut reply.word {
            word.changed().await?;
        }
        write_reply(stream.get_mut(), (&reply, head_only), &mut down, sent).await?;
        match reply.ending {
            Ending::Complete => {}
            Ending::Close => return Ok(stream.shutdown().await?),
            Ending::Reset => return reset(stream.get_mut()).await,
            Ending::Hang => std::future::pending().await,
        }
    }
    Ok(())
}

/// Lets what was sent arrive, then resets.
async fn reset(stream: &mut TcpStream) -> Result<()> {
    let mut ignored = [0; 1];
    let _ = timeout(Duration::from_millis(50), stream.peek(&mut ignored)).await;
    Ok(stream.set_zero_linger()?)
}

async fn write_reply(
    stream: &mut TcpStream,
    (reply, head_only): (&Reply, bool),
    window: &mut Window,
    sent: &AtomicU64,
) -> Result<()> {
    if reply.status == 0 {
        return Ok(stream.write_all(&reply.body).await?);
    }
    let mut head = format!("HTTP/1.1 {} .\r\nContent-Length: {}\r\n", reply.status, length(reply));
    for (name, value) in &reply.headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await?;
    if head_only {
        return Ok(());
    }
    // Ten steps a second when paced.
    let step = if reply.line.is_some() { FIRST_WINDOW } else { 64 << 10 };
    let step = reply.pace.map_or(step, |pace| (pace / 10).max(1));
    loop {
        for piece in reply.body.chunks(step) {
            if let Some(line) = &reply.line {
                window.pass(line, piece.len()).await;
            }
            stream.write_all(piece).await?;
            sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
            if reply.pace.is_some() {
                sleep(Duration::from_millis(100)).await;
            }
        }
        if !reply.endless {
            return Ok(());
        }
    }
}

fn length(reply: &Reply) -> usize {
    reply.claimed.unwrap_or(reply.body.len())
}

/// The next request, or nothing when the connection was closed.
async fn read_request(stream: &mut BufReader<TcpStream>) -> Result<Option<Request>> {
    let Some(first) = read_line(stream).await? else { return Ok(None) };
    let mut words = first.split(' ');
    let method = words.next().context("a method")?.to_owned();
    let target = words.next().context("a target")?.to_owned();
    let mut headers = Vec::new();
    while let Some(line) = read_line(stream).await?.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').context("a header")?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut request = Request { method, target, headers, body: Vec::new(), at: SystemTime::now() };
    request.body = read_body(stream, &request).await?;
    request.at = SystemTime::now();
    Ok(Some(request))
}

async fn read_body(stream: &mut BufReader<TcpStream>, request: &Request) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    if request.header("transfer-encoding").is_some() {
        loop {
            let size = read_line(stream).await?.context("a chunk")?;
            let size = u64::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)?;
            stream.take(size).read_to_end(&mut body).await?;
            read_line(stream).await?;
            if size == 0 {
                return Ok(body);
            }
        }
    }
    let length = request.header("content-length").map_or(Ok(0), str::parse)?;
    stream.take(length).read_to_end(&mut body).await?;
    Ok(body)
}

async fn read_line(stream: &mut BufReader<TcpStream>) -> Result<Option<String>> {
    let mut line = String::new();
    let read = stream.read_line(&mut line).await?;
    Ok((read > 0).then(|| line.trim_end().to_owned()))
}
