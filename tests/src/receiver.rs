//! A webhook receiver that remembers everything and answers as told.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::{sync::watch, time::timeout};

use crate::http::{Reply, Request, Server};

/// One webhook as it arrived.
#[derive(Clone, Debug)]
pub struct Hook {
    /// The request.
    pub request: Request,
    /// Its body.
    pub json: Value,
}

impl Hook {
    /// The job object it carries.
    pub fn job(&self) -> &Value {
        &self.json["data"]
    }
}

/// The receiver. Everything it got stays; dropping it closes the port.
#[derive(Debug)]
pub struct Receiver {
    server: Server,
    replies: Arc<Mutex<VecDeque<Reply>>>,
    got: watch::Receiver<Vec<Hook>>,
}

impl Receiver {
    /// Answers 200 to everything, unless told otherwise.
    pub async fn start() -> Result<Self> {
        Self::answering([]).await
    }

    /// Answers with these first, and 200 afterwards.
    pub async fn answering(replies: impl IntoIterator<Item = Reply>) -> Result<Self> {
        let replies = Arc::new(Mutex::new(replies.into_iter().collect::<VecDeque<_>>()));
        let (sender, got) = watch::channel(Vec::new());
        let (queue, sender) = (Arc::clone(&replies), Arc::new(sender));
        let server = Server::start(move |request| {
            let json = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
            sender.send_modify(|hooks| hooks.push(Hook { request, json }));
            let reply = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            async move { reply.unwrap_or_else(|| Reply::status(200)) }
        });
        Ok(Self { server: server.await?, replies, got })
    }

    /// Answers the next requests with these, after those it was told before.
    pub fn then(&self, replies: impl IntoIterator<Item = Reply>) {
        self.replies.lock().unwrap_or_else(PoisonError::into_inner).extend(replies);
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.server.address)
    }

    /// Bytes of answers sent so far.
    pub fn sent(&self) -> u64 {
        self.server.sent()
    }

    /// Everything received so far.
    pub fn hooks(&self) -> Vec<Hook> {
        self.got.borrow().clone()
    }

    /// Everything received, as soon as there are `count`.
    pub async fn wait(&self, count: usize, deadline: Duration) -> Result<Vec<Hook>> {
        let mut got = self.got.clone();
        let enough = timeout(deadline, got.wait_for(|hooks| hooks.len() >= count)).await;
        let hooks = enough.with_context(|| {
            format!("{count} webhooks within {deadline:?}, there were {}", self.got.borrow().len())
        })??;
        Ok(hooks.clone())
    }
}
