//! A bucket on a real S3 server that checks signatures, with a front that can fail on demand.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    client::http_client,
    http::{Reply, Request, Server},
    process::{Group, Guard, free_port},
    root, state_dir, wait_for,
};

/// How long the server has for one request: longer, and the test fails instead of waiting for ever.
const PATIENCE: Duration = Duration::from_secs(20);

/// The bucket's name.
const NAME: &str = "media";

/// The bucket. Dropping it ends the server and deletes what it holds.
#[derive(Debug)]
pub struct Bucket {
    /// Names the key that opens it.
    pub access_key_id: String,
    /// The key.
    pub secret_access_key: String,
    front: Server,
    seen: Arc<Mutex<Vec<Seen>>>,
    faults: Arc<Mutex<Vec<Fault>>>,
    spoils: Arc<AtomicBool>,
    dir: PathBuf,
    _server: Group,
    /// After the server, which writes there.
    _scratch: Guard,
}

/// A request, and the status that it got.
#[derive(Clone, Debug)]
pub struct Seen {
    /// As it came.
    pub request: Request,
    /// 0 when there was no answer.
    pub status: u16,
}

#[derive(Debug)]
struct Fault {
    method: &'static str,
    part_of_target: &'static str,
    left: usize,
    reply: Reply,
}

impl Bucket {
    /// Starts the server and waits until it answers.
    pub async fn start() -> Result<Self> {
        let program = root().join("target/tools/bin/s3s-fs");
        ensure!(program.exists(), "{} is missing; run `scripts/setup s3s-fs`", program.display());
        let port = free_port()?;
        let dir = state_dir(port);
        fs::create_dir_all(dir.join("s3").join(NAME))?;
        let scratch = Guard::delete_dirs(std::slice::from_ref(&dir))?;
        let (access_key_id, secret_access_key) = (format!("key-of-{port}"), format!("hush-hush-{port}"));
        let mut command = Command::new(program);
        command.args(["--host", "127.0.0.1", "--port", &port.to_string(), "--access-key", &access_key_id]);
        command.args(["--secret-key", &secret_access_key]).arg(dir.join("s3"));
        let server = Group::spawn(command, &dir.join("s3.log"))?;
        let back = format!("http://127.0.0.1:{port}");
        answers(&back).await?;

        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let faults: Arc<Mutex<Vec<Fault>>> = Arc::default();
        let spoils = Arc::<AtomicBool>::default();
        let (log, plan, spoiling) = (Arc::clone(&seen), Arc::clone(&faults), Arc::clone(&spoils));
        let http = http_client().timeout(PATIENCE).build()?;
        let front = Server::start(move |mut request| {
            if let Some(byte) = request.body.last_mut().filter(|_| spoiling.load(Ordering::Relaxed)) {
                *byte ^= u8::from(request.method == "PUT");
            }
            let (http, back, log, fault) = (http.clone(), back.clone(), Arc::clone(&log), next(&plan, &request));
            async move {
                let reply = match fault {
                    Some(reply) => reply,
                    None => pass_on(&http, &back, &request).await.unwrap_or_else(|_| Reply::status(502)),
                };
                lock(&log).push(Seen { request: Request { body: Vec::new(), ..request }, status: reply.status });
                reply
            }
        });
        let front = front.await?;
        Ok(Self {
            access_key_id,
            secret_access_key,
            front,
            seen,
            faults,
            spoils,
            dir,
            _server: server,
            _scratch: scratch,
        })
    }

    /// The server's URL, without the bucket.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.front.address)
    }

    /// The body that adds this bucket as a storage provider.
    pub fn provider(&self) -> Value {
        json!({"name": "mine", "endpoint": self.endpoint(), "bucket": NAME, "region": "us-east-1", "prefix": "made",
            "accessKeyId": self.access_key_id, "secretAccessKey": self.secret_access_key})
    }

    /// Answers the next `count` requests of this method, whose target contains this, so.
    pub fn fail(&self, method: &'static str, part_of_target: &'static str, count: usize, reply: Reply) {
        lock(&self.faults).push(Fault { method, part_of_target, left: count, reply });
    }

    /// From now on, one bit at the end of everything is another when it is stored.
    pub fn spoil(&self) {
        self.spoils.store(true, Ordering::Relaxed);
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.seen).clone()
    }

    /// The requests that wrote parts.
    pub fn parts(&self) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.request.target.contains("partNumber=")).collect()
    }

    /// An object's bytes, if it is there.
    pub fn object(&self, key: &str) -> Option<Vec<u8>> {
        fs::read(self.dir.join("s3").join(NAME).join(key)).ok()
    }

    /// Keys of the objects, and names of the multipart uploads and parts that were neither completed nor aborted.
    pub fn left(&self) -> Result<Vec<String>> {
        let mut left = Vec::new();
        let mut dirs = vec![self.dir.join("s3")];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir)? {
                let path = entry?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                // The server's notes on an object stay when it goes.
                let is_note = name.contains(".metadata.json") || name.contains(".internal.json");
                if path.is_dir() {
                    dirs.push(path);
                } else if !is_note {
                    left.push(path.strip_prefix(self.dir.join("s3"))?.to_string_lossy().into_owned());
                }
            }
        }
        Ok(left)
    }
}

async fn answers(url: &str) -> Result<()> {
    let http = http_client().timeout(PATIENCE).build()?;
    let ready =
        wait_for("the S3 server to answer", Duration::from_secs(20), async || Ok(http.get(url).send().await.ok()));
    ready.await.map(drop)
}

fn next(faults: &Mutex<Vec<Fault>>, request: &Request) -> Option<Reply> {
    let mut faults = lock(faults);
    let fits = |fault: &&mut Fault| {
        fault.left > 0 && fault.method == request.method && request.target.contains(fault.part_of_target)
    };
    let fault = faults.iter_mut().find(fits)?;
    fault.left -= 1;
    Some(fault.reply.clone())
}

/// The server's own answer. It gets the request as it came, its `Host` included, which the signature covers.
async fn pass_on(http: &reqwest::Client, back: &str, request: &Request) -> Result<Reply> {
    let method: Method = request.method.parse()?;
    let mut passed = http.request(method, format!("{back}{}", request.target));
    let of_the_connection = ["content-length", "transfer-encoding", "connection", "expect"];
    for (name, value) in request.headers.iter().filter(|(name, _)| !of_the_connection.contains(&name.as_str())) {
        passed = passed.header(name, value);
    }
    let answer = passed.body(request.body.clone()).send().await.context("the S3 server")?;
    let mut reply = Reply::status(answer.status().as_u16());
    for (name, value) in answer.headers() {
        if !of_the_connection.contains(&name.as_str()) {
            reply = reply.header(name.as_str(), value.to_str()?);
        }
    }
    Ok(reply.body(answer.bytes().await?))
}

/// Nothing here panics while it holds a lock.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
