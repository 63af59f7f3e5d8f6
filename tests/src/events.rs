//! Server-sent events, as a caller reads them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::{Method, Response};
use serde_json::Value;
use tokio::time::timeout;

use crate::client::Client;

/// How long a stream may last.
const LONGEST: Duration = Duration::from_mins(10);

/// One event.
#[derive(Clone, Debug)]
pub struct Event {
    /// The job's version.
    pub id: u64,
    /// The job.
    pub job: Value,
}

/// An open stream of a job's events.
#[derive(Debug)]
pub struct Events {
    response: Response,
    unread: String,
}

/// What a stream says.
#[derive(Clone, Debug)]
pub enum Said {
    /// How the job stands.
    Event(Event),
    /// A comment, which keeps the connection alive.
    Comment(String),
    /// How long to wait before connecting again, in milliseconds.
    Retry(u64),
}

impl Client {
    /// Opens the stream of a job, from after the event `last` if there is one. None: there is nothing more (204).
    pub async fn events(&self, job: &str, last: Option<u64>) -> Result<Option<Events>> {
        // A stream lasts as long as its job.
        let mut request = self.request(Method::GET, &format!("/v1/jobs/{job}/events")).timeout(LONGEST);
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last.to_string());
        }
        let response = request.send().await?;
        if response.status() == 204 {
            return Ok(None);
        }
        ensure!(response.status() == 200, "{}: {}", response.status(), response.text().await?);
        ensure!(response.headers()["content-type"] == "text/event-stream", "{:?}", response.headers());
        Ok(Some(Events { response, unread: String::new() }))
    }
}

impl Events {
    /// The next event, within a time. None at the end of the stream.
    pub async fn next(&mut self, within: Duration) -> Result<Option<Event>> {
        let found = timeout(within, async {
            while let Some(said) = self.said().await? {
                if let Said::Event(event) = said {
                    return Ok(Some(event));
                }
            }
            Ok(None)
        });
        found.await.with_context(|| format!("no event within {within:?}"))?
    }

    /// All events to the end of the stream, each within a time.
    pub async fn rest(mut self, within: Duration) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        while let Some(event) = self.next(within).await? {
            events.push(event);
        }
        Ok(events)
    }

    /// Whatever the stream says next.
    pub async fn said(&mut self) -> Result<Option<Said>> {
        loop {
            if let Some((block, rest)) = self.unread.split_once("\n\n") {
                let (said, rest) = (read(block)?, rest.to_owned());
                self.unread = rest;
                return Ok(Some(said));
            }
            match self.response.chunk().await? {
                Some(bytes) => self.unread.push_str(std::str::from_utf8(&bytes)?),
                None => return Ok(None),
            }
        }
    }
}

fn read(block: &str) -> Result<Said> {
    if let Some(comment) = block.strip_prefix(':') {
        return Ok(Said::Comment(comment.trim().to_owned()));
    }
    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    if let Some(retry) = field("retry:") {
        return Ok(Said::Retry(retry.parse()?));
    }
    let id = field("id:").with_context(|| format!("an event without an id: {block}"))?.parse()?;
    Ok(Said::Event(Event { id, job: serde_json::from_str(field("data:").context("data")?)? }))
}
