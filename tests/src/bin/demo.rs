//! `make demo`: the main job on a real file, from request to downloaded results.
#![allow(clippy::print_stdout, reason = "a command that talks to a person")]

use std::{
    env, fs,
    io::{IsTerminal, Write, stdout},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use xora_tests::{
    Client, Edge, EdgeOptions, Node, NodeOptions, Origin, Receiver, TERMINAL, end_with_parent, root, sample,
};

/// A whole film may be given as INPUT.
const PATIENCE: Duration = Duration::from_hours(2);

#[tokio::main]
async fn main() -> Result<()> {
    end_with_parent();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        done = demo() => done,
        _ = interrupt.recv() => anyhow::bail!("interrupted"),
        _ = terminate.recv() => anyhow::bail!("terminated"),
    }
}

async fn demo() -> Result<()> {
    let started = Instant::now();
    let port = text("PORT").map(|port| port.parse()).transpose().context("PORT must be a number")?;
    let edge = Edge::start(EdgeOptions { port, ..EdgeOptions::default() }).await?;
    took("edge", started);
    let begun = Instant::now();
    let _node = Node::start_anywhere(&edge, NodeOptions::default()).await?;
    took("node", begun);

    let origin = Origin::start().await?;
    let receiver = Receiver::start().await?;
    let (url, before) = input(&origin)?;
    println!("input     {url}{}", before.map_or(String::new(), |bytes| format!(", {}", megabytes(bytes))));

    let client = edge.client();
    let begun = Instant::now();
    let jobs = [
        ("compress", "mp4", json!({"name": "compress"})),
        ("thumbnail", "jpg", json!({"name": "thumbnail", "seekSeconds": 5})),
    ];
    let mut ids = Vec::new();
    for (name, format, recipe) in &jobs {
        let job = json!({
            "mode": "recipe",
            "input": {"url": url},
            "output": {"format": format},
            "recipe": recipe,
            "webhookUrl": receiver.url(),
        });
        let id = client.create(&job).await?;
        println!("created   {name:9} {id}");
        ids.push(id);
    }
    let finished = follow(&client, &ids, &jobs.each_ref().map(|job| job.0)).await?;
    took("jobs", begun);

    let hooks = receiver.wait(jobs.len(), Duration::from_secs(20)).await?;
    for hook in &hooks {
        println!("\nwebhook   {}", serde_json::to_string_pretty(&hook.json)?);
    }
    for id in &ids {
        let told = hooks.iter().any(|hook| hook.job()["jobId"] == id.as_str() && hook.job()["state"] == "completed");
        ensure!(told, "no webhook said that {id} completed");
    }

    println!();
    let out = root().join("out");
    fs::create_dir_all(&out)?;
    for ((name, format, _), job) in jobs.iter().zip(&finished) {
        let path = out.join(format!("{name}.{format}"));
        let bytes = download(&client, job, &path).await?;
        let share = before.map_or(String::new(), |before| format!(", {} % of the input", bytes * 100 / before.max(1)));
        println!("{name:9} {} ({}{share})", path.display(), megabytes(bytes));
        println!("          {}", timings(job));
    }
    took("all", started);
    Ok(())
}

/// Shows progress until both jobs rest, and insists that they completed.
async fn follow(client: &Client, ids: &[String], names: &[&str]) -> Result<Vec<Value>> {
    let started = Instant::now();
    let mut shown = String::new();
    loop {
        let mut jobs = Vec::new();
        for id in ids {
            jobs.push(client.job(id).await?);
        }
        let parts = names
            .iter()
            .zip(&jobs)
            .map(|(name, job)| format!("{name} {} {} %", job["state"].as_str().unwrap_or("?"), job["progress"]));
        let line = parts.collect::<Vec<_>>().join("   ");
        if line != shown {
            // On a terminal the line is renewed in place.
            let (before, after) = if stdout().is_terminal() { ("\r\x1b[2K", "") } else { ("", "\n") };
            print!("{before}progress  {line}{after}");
            stdout().flush()?;
            shown = line;
        }
        if jobs.iter().all(|job| TERMINAL.iter().any(|state| job["state"] == *state)) {
            println!();
            for job in &jobs {
                ensure!(job["state"] == "completed", "a job did not complete: {job}");
            }
            return Ok(jobs);
        }
        ensure!(started.elapsed() < PATIENCE, "the jobs took too long");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn download(client: &Client, job: &Value, path: &Path) -> Result<u64> {
    let url = job["output"]["signedUrl"].as_str().context("a signed URL")?;
    let bytes = client.download(url).await?;
    ensure!(!bytes.is_empty(), "{url} is empty");
    fs::write(path, &bytes)?;
    Ok(bytes.len() as u64)
}

/// The URL to work on, and its size where we know it.
fn input(origin: &Origin) -> Result<(String, Option<u64>)> {
    let path = match text("INPUT") {
        Some(url) if url.contains("://") => return Ok((url, None)),
        Some(path) => PathBuf::from(path),
        None => sample("trailer.mp4")?,
    };
    let size = fs::metadata(&path).with_context(|| path.display().to_string())?.len();
    Ok((origin.file(&path)?, Some(size)))
}

fn timings(job: &Value) -> String {
    let part = |name| job["timings"][name].as_u64().unwrap_or_default();
    let (queue, fetch, process, upload) = (part("queueMs"), part("fetchMs"), part("processMs"), part("uploadMs"));
    format!("queued {queue} ms, fetching {fetch} ms, processing {process} ms, uploading {upload} ms")
}

fn took(what: &str, since: Instant) {
    println!("{what:9} {:.1} s", since.elapsed().as_secs_f32());
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{:02} MB", bytes / 1_000_000, bytes % 1_000_000 / 10_000)
}

/// A variable that is set to something.
fn text(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}
