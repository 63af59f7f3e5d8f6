//! An origin that serves files, well or badly.

use std::{
    collections::HashMap,
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Result;
use bytes::Bytes;

use crate::http::{Ending, Line, Reply, Request, Server};

/// How one file is served.
#[derive(Clone, Debug)]
pub enum Served {
    /// As it should be, with ranges.
    Well(Bytes),
    /// Whole, whatever range is asked for.
    WithoutRanges(Bytes),
    /// Well, but at this many bytes a second.
    Slowly(Bytes, usize),
    /// Well, but from far away.
    Far(Bytes, Line),
    /// Well up to this offset; whoever asks for what lies behind is reset there, this often.
    ResetAt(Bytes, usize, Resets),
    /// Claims this much more than there is, and then hangs up.
    Overstated(Bytes, usize),
    /// Well, from a file of any size, of which at most 16 MiB are sent at a time.
    FromDisk(PathBuf),
    /// Well, but every answer breaks off after this many bytes.
    Dropping(Bytes, usize),
    /// Well, but as another version of the file each time.
    Changing(Bytes),
    /// Well, but with another `ETag` each time, and nothing else that tells a version.
    Tagged(Bytes),
    /// Always this.
    Always(Reply),
}

/// How many resets are left.
#[derive(Clone, Debug)]
pub struct Resets(Arc<AtomicU64>);

impl Resets {
    /// This many.
    pub fn new(count: u64) -> Self {
        Self(Arc::new(AtomicU64::new(count)))
    }

    fn one_more(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

/// The origin. Dropping it closes the port.
#[derive(Debug)]
pub struct Origin {
    server: Server,
    files: Arc<Mutex<HashMap<String, Served>>>,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Origin {
    /// An origin without files.
    pub async fn start() -> Result<Self> {
        let files: Arc<Mutex<HashMap<String, Served>>> = Arc::default();
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (shelf, log) = (Arc::clone(&files), Arc::clone(&requests));
        let server = Server::start(move |request| {
            log.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
            let path = request.target.split('?').next().unwrap_or_default();
            let served = shelf.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
            let reply = served.map_or_else(|| Reply::status(404), |served| answer(served, &request));
            async move { reply }
        });
        Ok(Self { server: server.await?, files, requests })
    }

    /// Serves something under a name, and answers its URL.
    pub fn serve(&self, name: &str, served: Served) -> String {
        let path = format!("/{name}");
        let url = format!("http://{}{path}", self.server.address);
        self.files.lock().unwrap_or_else(PoisonError::into_inner).insert(path, served);
        url
    }

    /// Serves a file well, under its own name.
    pub fn file(&self, path: &Path) -> Result<String> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(self.serve(&name, Served::Well(std::fs::read(path)?.into())))
    }

    /// The URL of a name that is not served.
    pub fn missing(&self) -> String {
        format!("http://{}/missing.mp4", self.server.address)
    }

    /// Bytes of bodies sent so far.
    pub fn sent(&self) -> u64 {
        self.server.sent()
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn answer(served: Served, request: &Request) -> Reply {
    match served {
        Served::Well(bytes) => ranged(&bytes, request).0,
        Served::Far(bytes, line) => Reply { line: Some(line), ..ranged(&bytes, request).0 },
        Served::WithoutRanges(bytes) => whole(bytes),
        Served::Slowly(bytes, pace) => Reply { pace: Some(pace), ..ranged(&bytes, request).0 },
        Served::ResetAt(bytes, at, resets) => {
            let (reply, range) = ranged(&bytes, request);
            if range.end <= at || !resets.one_more() {
                return reply;
            }
            let claimed = Some(reply.body.len());
            let body = reply.body.slice(..at.saturating_sub(range.start).min(reply.body.len()));
            Reply { claimed, body, ending: Ending::Reset, ..reply }
        }
        Served::Overstated(bytes, by) => {
            Reply { claimed: Some(bytes.len() + by), ending: Ending::Close, ..whole(bytes) }
        }
        Served::FromDisk(path) => from_disk(&path, request).unwrap_or_else(|_| Reply::status(500)),
        Served::Dropping(bytes, after) => {
            let (reply, _) = ranged(&bytes, request);
            if reply.body.len() <= after {
                return reply;
            }
            Reply { claimed: Some(reply.body.len()), body: reply.body.slice(..after), ending: Ending::Reset, ..reply }
        }
        Served::Changing(bytes) => {
            let (mut reply, _) = ranged(&bytes, request);
            reply.headers.retain(|(name, _)| name != "ETag");
            let version = VERSION.fetch_add(1, Ordering::Relaxed);
            let time = format!("Mon, 01 Jan 2024 {:02}:{:02}:00 GMT", version / 60 % 24, version % 60);
            reply.header("ETag", &format!("\"{version}\"")).header("Last-Modified", &time)
        }
        Served::Tagged(bytes) => {
            let (mut reply, _) = ranged(&bytes, request);
            reply.headers.retain(|(name, _)| name != "ETag");
            reply.header("ETag", &format!("\"{}\"", VERSION.fetch_add(1, Ordering::Relaxed)))
        }
        Served::Always(reply) => reply,
    }
}

/// The version that is served next of what changes.
static VERSION: AtomicU64 = AtomicU64::new(0);

fn from_disk(path: &Path, request: &Request) -> io::Result<Reply> {
    const MOST: u64 = 16 << 20;
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let Range { start, end } = request.header("range").and_then(|range| parse(range, size)).unwrap_or(0..size);
    let end = end.min(start + MOST);
    let mut bytes = vec![0; usize::try_from(end.saturating_sub(start)).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, start)?;
    let place = format!("bytes {start}-{}/{size}", end - 1);
    Ok(Reply::status(206).header("ETag", "\"1\"").header("Content-Range", &place).body(bytes))
}

fn whole(bytes: Bytes) -> Reply {
    Reply::status(200).header("Content-Type", "video/mp4").body(bytes)
}

/// The answer to a request that may ask for a range, and the range it is.
fn ranged(bytes: &Bytes, request: &Request) -> (Reply, Range<usize>) {
    let size = bytes.len();
    let reply = Reply::status(200).header("Accept-Ranges", "bytes").header("ETag", "\"1\"");
    let within = |place: u64| usize::try_from(place).unwrap_or(usize::MAX);
    let Some(range) = request.header("range").and_then(|range| parse(range, size as u64)) else {
        return (reply.body(bytes.clone()), 0..size);
    };
    let range = within(range.start)..within(range.end);
    if range.start >= size {
        return (Reply::status(416).header("Content-Range", &format!("bytes */{size}")), 0..0);
    }
    let content_range = format!("bytes {}-{}/{size}", range.start, range.end - 1);
    let reply = Reply { status: 206, ..reply.header("Content-Range", &content_range) };
    (reply.body(bytes.slice(range.clone())), range)
}

/// `bytes=a-b`, `bytes=a-` or `bytes=-n`.
pub fn parse(header: &str, size: u64) -> Option<Range<u64>> {
    let (from, to) = header.strip_prefix("bytes=")?.split_once('-')?;
    if from.is_empty() {
        return Some(size.saturating_sub(to.parse().ok()?)..size);
    }
    let end = if to.is_empty() { size } else { to.parse::<u64>().ok()?.saturating_add(1).min(size) };
    Some(from.parse().ok()?..end)
}
