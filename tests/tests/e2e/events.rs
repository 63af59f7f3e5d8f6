//! Live events of a job.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use xora_tests::{Node, NodeOptions, Origin, Said, wait_for};

use crate::{PATIENCE, compress, edge, idle_edge, long_clip, own_edge, short_clip, thumbnail, with};

fn states(events: &[xora_tests::Event]) -> Vec<&str> {
    let mut states: Vec<_> = events.iter().filter_map(|event| event.job["state"].as_str()).collect();
    states.dedup();
    states
}

#[tokio::test]
async fn a_stream_tells_every_change_in_order_and_ends_with_the_job() -> Result<()> {
    let edge = own_edge().await?;
    let client = edge.client();
    let origin = Origin::start().await?;
    let id = client.create(&compress(&origin.file(&long_clip()?)?)).await?;
    let mut stream = client.events(&id, None).await?.context("a stream")?;
    let first = stream.next(PATIENCE).await?.context("how it stands")?;
    assert_eq!(first.job["state"], "queued");

    // A reader that never reads, and one that is gone at once, hold up nobody.
    let _idle = client.events(&id, None).await?.context("a stream")?;
    drop(client.events(&id, None).await?.context("a stream")?);

    let _node = Node::start(&edge, NodeOptions::default()).await?;
    let mut events = vec![first];
    events.extend(stream.rest(PATIENCE).await?);
    assert!(events.is_sorted_by(|a, b| a.id < b.id), "versions grow: {events:?}");
    let states = states(&events);
    assert_eq!((states.first(), states.last()), (Some(&"queued"), Some(&"completed")), "{states:?}");
    assert!(states.contains(&"transcoding"), "{states:?}");
    let progress: Vec<_> = events.iter().filter_map(|event| event.job["progress"].as_u64()).collect();
    assert!(progress.is_sorted(), "{progress:?}");
    assert!(progress.iter().any(|percent| (1..100).contains(percent)), "{progress:?}");
    let last = events.last().context("an end")?;
    client.download(last.job["output"]["signedUrl"].as_str().context("a link")?).await?;

    // A reader that lost its connection goes on where it was; one that has seen the end is told not to come back.
    let middle = &events[events.len() / 2];
    let rest = client.events(&id, Some(middle.id)).await?.context("a stream")?.rest(PATIENCE).await?;
    assert_eq!(rest.iter().map(|event| event.id).collect::<Vec<_>>(), [last.id]);
    assert!(client.events(&id, Some(last.id)).await?.is_none());
    Ok(())
}

#[tokio::test]
async fn a_retried_job_has_newer_versions_than_it_ever_had() -> Result<()> {
    let client = edge().await?.client();
    let origin = Origin::start().await?;
    let failed = client.run(&thumbnail(&origin.missing()), PATIENCE).await?;
    let id = failed["jobId"].as_str().context("an id")?;
    let before = client.events(id, None).await?.context("a stream")?.rest(PATIENCE).await?;
    assert_eq!(states(&before), ["failed"]);

    origin.serve("missing.mp4", xora_tests::Served::Well(crate::bytes(&short_clip()?)?));
    client.post(&format!("/v1/jobs/{id}/retry"), &json!({})).await?.expect(202)?;
    let after = client.events(id, Some(before[0].id)).await?.context("a stream")?.rest(PATIENCE).await?;
    assert_eq!(states(&after).last(), Some(&"completed"));
    assert!(after.iter().all(|event| event.id > before[0].id), "{after:?}");
    Ok(())
}

#[tokio::test]
async fn a_stream_outlives_silence_and_is_found_again_after_a_power_cut() -> Result<()> {
    let mut edge = own_edge().await?;
    let client = edge.client();
    let body = with(compress("https://media.example.com/a.mp4"), "metadata", json!({"of": "events"}));
    let id = client.create(&body).await?;
    let mut stream = client.events(&id, None).await?.context("a stream")?;
    assert!(matches!(stream.said().await?, Some(Said::Retry(1..))), "a reader learns when to come back");
    let first = stream.next(PATIENCE).await?.context("how it stands")?;
    assert_eq!(first.job["metadata"], json!({"of": "events"}));
    let silence = tokio::time::timeout(Duration::from_secs(40), stream.said()).await??;
    assert!(matches!(silence, Some(Said::Comment(_))), "{silence:?}");

    edge.restart().await?;
    assert!(stream.next(PATIENCE).await.map_or(true, |event| event.is_none()), "the stream is over");
    let mut again = client.events(&id, Some(first.id)).await?.context("a stream")?;
    client.cancel(&id).await?.expect(200)?;
    let end = again.next(PATIENCE).await?.context("the end")?;
    assert_eq!(end.job["state"], "cancelled", "what was seen is not told again");
    assert!(again.next(PATIENCE).await?.is_none());
    Ok(())
}

#[tokio::test]
async fn a_stream_ends_within_half_a_minute_after_its_key_was_revoked() -> Result<()> {
    let admin = idle_edge().await?.client();
    let id = admin.create(&compress("https://media.example.com/a.mp4")).await?;
    let minted = admin.post("/v1/tokens", &json!({"name": "watcher", "scopes": ["jobs"]})).await?.expect(201)?;
    let watcher = admin.with_key(minted["token"].as_str().context("a key")?);
    let mut revoked = watcher.events(&id, None).await?.context("a stream")?;
    let mut other = admin.events(&id, None).await?.context("a stream")?;
    revoked.next(PATIENCE).await?.context("how it stands")?;
    other.next(PATIENCE).await?.context("how it stands")?;

    admin.delete(&format!("/v1/tokens/{}", minted["id"].as_str().context("an id")?)).await?.expect(204)?;
    assert!(revoked.next(Duration::from_secs(30)).await?.is_none(), "the contract names the time");
    let refused = wait_for("the refusal", Duration::from_secs(30), async || {
        let answer = watcher.get(&format!("/v1/jobs/{id}/events")).await?;
        Ok((answer.status != 200).then_some(answer))
    });
    let refused = refused.await?;
    assert_eq!((refused.status, refused.code()), (401, "UNAUTHORIZED"));
    admin.cancel(&id).await?.expect(200)?;
    assert_eq!(other.next(PATIENCE).await?.context("the end")?.job["state"], "cancelled", "another key's goes on");
    Ok(())
}

#[tokio::test]
async fn events_are_for_keys_that_may_read_jobs_that_exist() -> Result<()> {
    let admin = edge().await?.client();
    let path = "/v1/jobs/01J00000000000000000000000/events";
    assert_eq!(admin.get(path).await?.code(), "NOT_FOUND");
    let other = admin.with_key(&admin.mint("settings only", &["settings"]).await?);
    assert_eq!(other.get(path).await?.code(), "FORBIDDEN");
    assert_eq!(admin.post(path, &json!({})).await?.status, 405);
    Ok(())
}
