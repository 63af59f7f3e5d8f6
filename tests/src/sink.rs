//! A bucket that counts what is written and keeps only its ends: storage for outputs that are larger than anything here.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    http::{Line, Reply, Request, Server},
    origin,
};

/// Parts kept at either end: what verification reads lies there.
const KEPT: u32 = 8;

/// The bucket, which takes one object. It asks for no signature. Dropping it closes the port.
#[derive(Debug)]
pub struct Sink {
    server: Server,
    object: Arc<Mutex<Object>>,
}

#[derive(Debug, Default)]
struct Object {
    /// Sizes of all parts, by number.
    sizes: BTreeMap<u32, u64>,
    kept: BTreeMap<u32, Bytes>,
}

impl Sink {
    /// An empty one, at the end of a line.
    pub async fn start(line: Option<Line>) -> Result<Self> {
        let object: Arc<Mutex<Object>> = Arc::default();
        let shared = Arc::clone(&object);
        let server = Server::start(move |request| {
            let reply = shared.lock().unwrap_or_else(PoisonError::into_inner).answer(request);
            let line = line.clone();
            async move { Reply { line, ..reply } }
        });
        Ok(Self { server: server.await?, object })
    }

    /// Where one takes an object in one piece.
    pub fn url(&self) -> String {
        format!("http://{}/sink/object", self.server.address)
    }

    /// The body that adds this bucket as a storage provider.
    pub fn provider(&self) -> Value {
        json!({"name": "sink", "endpoint": format!("http://{}", self.server.address), "bucket": "sink",
            "region": "us-east-1", "accessKeyId": "any", "secretAccessKey": "any"})
    }

    /// Forgets what it has.
    pub fn empty(&self) {
        *self.object.lock().unwrap_or_else(PoisonError::into_inner) = Object::default();
    }

    /// Bytes of all parts.
    pub fn bytes(&self) -> u64 {
        self.object.lock().unwrap_or_else(PoisonError::into_inner).size()
    }
}

impl Object {
    fn size(&self) -> u64 {
        self.sizes.values().sum()
    }

    fn answer(&mut self, request: Request) -> Reply {
        let part = request.target.split(['?', '&']).find_map(|pair| pair.strip_prefix("partNumber=")?.parse().ok());
        match (request.method.as_str(), part) {
            // Without a number it is the whole object.
            ("PUT", part) => {
                let number = part.unwrap_or(1);
                self.take(number, request.body.into());
                Reply::status(200).header("ETag", &format!("\"{number}\""))
            }
            ("POST", _) => Reply::status(200).body("<Result><UploadId>the-one</UploadId></Result>"),
            ("GET", _) => self.read(request.header("range").unwrap_or("bytes=0-")),
            _ => Reply::status(204),
        }
    }

    fn take(&mut self, number: u32, bytes: Bytes) {
        self.sizes.insert(number, bytes.len() as u64);
        self.kept.insert(number, bytes);
        let last = self.sizes.last_key_value().map_or(0, |(last, _)| *last);
        self.kept.retain(|number, _| *number <= KEPT || *number + KEPT > last);
    }

    /// A range, cut at the first byte that was not kept; with none of it kept, it is a fault of this server.
    fn read(&self, header: &str) -> Reply {
        let size = self.size();
        let Some(Range { start, end }) = origin::parse(header, size) else { return Reply::status(400) };
        let (mut at, mut body) = (0, Vec::new());
        for (number, length) in &self.sizes {
            let place = at..at + length;
            at += length;
            let (from, to) = (start.max(place.start), end.min(place.end));
            if from >= to {
                continue;
            }
            let Some(bytes) = self.kept.get(number) else { break };
            let within = |offset: u64| usize::try_from(offset - place.start).unwrap_or(usize::MAX);
            body.extend_from_slice(&bytes[within(from)..within(to)]);
        }
        if body.is_empty() {
            return Reply::status(500);
        }
        let place = format!("bytes {start}-{}/{size}", start + body.len() as u64 - 1);
        Reply::status(206).header("ETag", "\"1\"").header("Content-Range", &place).body(body)
    }
}
