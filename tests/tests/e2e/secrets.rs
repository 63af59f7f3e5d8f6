//! Secrets of callers: where the headers for an origin are, and where they are not.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use xora_tests::{Edge, Node, NodeOptions, Origin, Receiver, wait_for};

use crate::{PATIENCE, own_edge, short_clip, storage::holds, thumbnail, with};

/// A value that stands nowhere by chance.
const SECRET: &str = "Bearer hush-7f1c9a52d0e84b63";

fn with_headers(url: &str) -> Value {
    with(thumbnail(url), "input", json!({"url": url, "headers": {"Authorization": SECRET}}))
}

/// Fails if the edge keeps the secret anywhere on disk: rows, what is left of rows, and logs.
fn assert_nowhere(edge: &Edge, when: &str) -> Result<()> {
    for part in ["state", "edge.log", "wrangler-logs"] {
        let path = edge.dir().join(part);
        assert!(!path.exists() || !holds(&path, SECRET)?, "{when}: {part} holds the header");
    }
    Ok(())
}

#[tokio::test]
async fn the_headers_for_an_origin_reach_it_and_are_never_on_disk() -> Result<()> {
    let edge = own_edge().await?;
    let client = edge.client();
    let (origin, receiver) = (Origin::start().await?, Receiver::start().await?);
    let url = origin.file(&short_clip()?)?;
    let body = with(with_headers(&url), "webhookUrl", receiver.url());
    let id = client.create(&body).await?;
    assert_nowhere(&edge, "while the job waits")?;

    let node = Node::start(&edge, NodeOptions::default()).await?;
    let done = client.finished(&id, PATIENCE).await?;
    assert_eq!(done["state"], "completed", "{done}");
    let requests = origin.requests();
    assert!(!requests.is_empty() && requests.iter().all(|request| request.header("authorization") == Some(SECRET)));
    let hook = receiver.wait(1, PATIENCE).await?.remove(0);
    assert!(!String::from_utf8_lossy(&hook.request.body).contains(SECRET));
    assert_nowhere(&edge, "after the job completed")?;

    // One that fails forgets them too, so it cannot be tried again.
    let failed = client.run(&with_headers(&origin.missing()), PATIENCE).await?;
    assert_eq!(failed["state"], "failed", "{failed}");
    drop(node);
    let cancelled = client.create(&body).await?;
    client.cancel(&cancelled).await?.expect(200)?;
    for id in [failed["jobId"].as_str().context("an id")?, &cancelled] {
        let retried = client.post(&format!("/v1/jobs/{id}/retry"), &json!({})).await?;
        assert_eq!((retried.status, retried.code()), (409, "CONFLICT"), "{}", retried.json);
        assert!(retried.message().contains("create a new job"), "{}", retried.message());
    }
    assert_nowhere(&edge, "after jobs failed and were cancelled")
}

#[tokio::test]
async fn headers_that_another_secret_sealed_fail_their_job_and_stop_no_other() -> Result<()> {
    let mut edge = own_edge().await?;
    let client = edge.client();
    let origin = Origin::start().await?;
    let url = origin.file(&short_clip()?)?;
    let sealed = client.create(&with_headers(&url)).await?;
    let other = client.create(&thumbnail(&url)).await?;
    edge.restart_with("CREDENTIALS_SECRET", &"f".repeat(64)).await?;
    let _node = Node::start(&edge, NodeOptions::default()).await?;
    let failed = client.finished(&sealed, PATIENCE).await?;
    assert_eq!((&failed["state"], &failed["error"]["code"]), (&json!("failed"), &json!("CONFIG_ERROR")), "{failed}");
    assert!(failed["error"]["message"].as_str().is_some_and(|said| said.contains("CREDENTIALS_SECRET")), "{failed}");
    assert!(failed.get("attempts").is_none(), "no node had it: {failed}");
    let done = wait_for("the other job", PATIENCE, async || {
        Ok(Some(client.job(&other).await?).filter(|job| job["state"] == "completed"))
    });
    done.await.map(drop)
}
