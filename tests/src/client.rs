//! What a caller does, in few words.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::wait_for;

/// States in which a job rests.
pub const TERMINAL: [&str; 4] = ["completed", "failed", "rejected", "cancelled"];

/// A caller with a key.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    key: String,
}

/// A status and a JSON body; `null` where there was no JSON.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub json: Value,
}

impl Answer {
    /// The body, if the status is this.
    pub fn expect(self, status: u16) -> Result<Value> {
        ensure!(self.status == status, "wanted {status}, got {}: {}", self.status, self.json);
        Ok(self.json)
    }

    /// The `code` of an error body.
    pub fn code(&self) -> &str {
        self.json["error"]["code"].as_str().unwrap_or_default()
    }

    /// The `message` of an error body.
    pub fn message(&self) -> &str {
        self.json["error"]["message"].as_str().unwrap_or_default()
    }
}

/// A client that uses no proxy. The node's build of `reqwest` is ours, too, and wants to be given its cryptography.
pub fn http_client() -> reqwest::ClientBuilder {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy()
}

impl Client {
    /// A client of the API at `base`.
    pub fn new(base: &str, key: &str) -> Self {
        let http = http_client().redirect(reqwest::redirect::Policy::none());
        let http = http.timeout(Duration::from_mins(1)).build().unwrap_or_default();
        Self { http, base: base.to_owned(), key: key.to_owned() }
    }

    /// The same, with another key.
    #[must_use]
    pub fn with_key(&self, key: &str) -> Self {
        Self { key: key.to_owned(), ..self.clone() }
    }

    /// A request to a path, or to a whole URL without the key.
    pub fn request(&self, method: Method, to: &str) -> RequestBuilder {
        if to.starts_with("http") {
            return self.http.request(method, to);
        }
        let request = self.http.request(method, format!("{}{to}", self.base));
        if self.key.is_empty() { request } else { request.bearer_auth(&self.key) }
    }

    /// `GET`
    pub async fn get(&self, path: &str) -> Result<Answer> {
        answer(self.request(Method::GET, path)).await
    }

    /// `POST` of JSON
    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        answer(self.request(Method::POST, path).json(body)).await
    }

    /// `PUT` of JSON
    pub async fn put(&self, path: &str, body: &Value) -> Result<Answer> {
        answer(self.request(Method::PUT, path).json(body)).await
    }

    /// Creates a job and answers its id.
    pub async fn create(&self, job: &Value) -> Result<String> {
        let created = self.post("/v1/jobs", job).await?.expect(202)?;
        created["jobId"].as_str().map(str::to_owned).context("a job id")
    }

    /// `DELETE`
    pub async fn delete(&self, path: &str) -> Result<Answer> {
        answer(self.request(Method::DELETE, path)).await
    }

    /// The job as it stands.
    pub async fn job(&self, id: &str) -> Result<Value> {
        self.get(&format!("/v1/jobs/{id}")).await?.expect(200)
    }

    /// The job as soon as `done` says so.
    pub async fn when(&self, id: &str, deadline: Duration, mut done: impl FnMut(&Value) -> bool) -> Result<Value> {
        let mut last = Value::Null;
        let found = wait_for("the job", deadline, async || {
            last = self.job(id).await?;
            Ok(done(&last).then(|| last.clone()))
        });
        let found = found.await;
        found.with_context(|| format!("the job's last state: {last}"))
    }

    /// The job as soon as it rests.
    pub async fn finished(&self, id: &str, deadline: Duration) -> Result<Value> {
        self.when(id, deadline, |job| TERMINAL.iter().any(|state| job["state"] == *state)).await
    }

    /// Creates a job and waits until it rests.
    pub async fn run(&self, job: &Value, deadline: Duration) -> Result<Value> {
        let id = self.create(job).await?;
        self.finished(&id, deadline).await
    }

    /// Cancels a job.
    pub async fn cancel(&self, id: &str) -> Result<Answer> {
        self.post(&format!("/v1/jobs/{id}/cancel"), &json!({})).await
    }

    /// Mints a key.
    pub async fn mint(&self, name: &str, scopes: &[&str]) -> Result<String> {
        let minted = self.post("/v1/tokens", &json!({"name": name, "scopes": scopes})).await?.expect(201)?;
        minted["token"].as_str().map(str::to_owned).context("a token")
    }

    /// The bytes behind a URL that answers 200.
    pub async fn download(&self, url: &str) -> Result<Vec<u8>> {
        let response = self.request(Method::GET, url).send().await?;
        if response.status() != 200 {
            bail!("{url}: {} {}", response.status(), response.text().await?);
        }
        Ok(response.bytes().await?.to_vec())
    }
}

async fn answer(request: RequestBuilder) -> Result<Answer> {
    let response = request.send().await?;
    let status = response.status().as_u16();
    let json = serde_json::from_slice(&response.bytes().await?).unwrap_or(Value::Null);
    Ok(Answer { status, json })
}
