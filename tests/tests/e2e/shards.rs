//! Several shards, and changing how many there are while jobs run.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use reqwest::Method;
use serde_json::{Value, json};
use xora_tests::{Client, Edge, Node, NodeOptions, Origin, Receiver, wait_for};

use crate::{PATIENCE, compress, long_clip, own_edge, short_clip, thumbnail, with};

/// Epoch and shard of an id.
fn place(id: &str) -> (&str, &str) {
    (&id[23..24], &id[24..])
}

async fn create_once(client: &Client, key: &str, body: &Value) -> Result<(u16, Value)> {
    let request = client.request(Method::POST, "/v1/jobs").header("Idempotency-Key", key).json(body);
    let response = request.send().await?;
    Ok((response.status().as_u16(), serde_json::from_slice(&response.bytes().await?)?))
}

fn now() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}

/// Changes the map from now on, and waits until new jobs go by it.
async fn change(edge: &Edge, shards: &[u16], epoch: &str) -> Result<()> {
    let (last, earlier) = shards.split_last().context("an epoch")?;
    let mut epochs: Vec<_> = earlier.iter().zip(0..).map(|(shards, n)| json!({"shards": shards, "since": n})).collect();
    epochs.push(json!({"shards": last, "since": now()?}));
    change_to(edge, &epochs, epoch).await
}

/// Puts a map in force, and waits until new jobs go to its last epoch.
async fn change_to(edge: &Edge, epochs: &[Value], epoch: &str) -> Result<()> {
    edge.put_shard_map(&json!({"epochs": epochs})).await?;
    let client = edge.client();
    let changed = wait_for("new ids of the new epoch", PATIENCE, async || {
        let id = client.create(&compress("https://media.example.com/probe.mp4")).await?;
        client.cancel(&id).await?.expect(200)?;
        Ok((place(&id).0 == epoch).then_some(()))
    });
    changed.await
}

#[tokio::test]
async fn shards_are_added_while_jobs_run_and_nothing_is_lost_or_made_twice() -> Result<()> {
    let edge = own_edge().await?;
    let client = edge.client();
    let (origin, receiver) = (Origin::start().await?, Receiver::start().await?);
    let _node = Node::start(&edge, NodeOptions::default()).await?;
    let body = with(thumbnail(&origin.file(&short_clip()?)?), "webhookUrl", receiver.url());
    let old = client.create(&with(compress(&origin.file(&long_clip()?)?), "webhookUrl", receiver.url())).await?;
    client.when(&old, PATIENCE, |job| job["state"] == "transcoding").await?;
    let mut firsts = Vec::new();
    for key in ["a", "b", "c", "d", "e", "f"] {
        let (status, first) = create_once(&client, key, &body).await?;
        assert_eq!(status, 202, "{first}");
        firsts.push((key, first));
    }

    change(&edge, &[1, 4], "1").await?;
    for (key, first) in &firsts {
        let (status, again) = create_once(&client, key, &body).await?;
        assert_eq!((status, &again["jobId"]), (202, &first["jobId"]), "a key means the same job as before");
        let (status, _) = create_once(&client, key, &with(body.clone(), "priority", 9)).await?;
        assert_eq!(status, 422);
    }
    let mut ids: Vec<_> =
        firsts.iter().map(|(_, first)| first["jobId"].as_str().unwrap_or_default().to_owned()).collect();
    for _ in 0..12 {
        ids.push(client.create(&body).await?);
    }
    let places: std::collections::BTreeSet<_> = ids.iter().map(|id| place(id)).collect();
    assert!(places.len() > 2 && places.contains(&("0", "00")), "{places:?}");

    // Nodes take work from every shard, and every webhook comes.
    ids.push(old);
    for id in &ids {
        let done = client.finished(id, Duration::from_mins(2)).await?;
        assert_eq!(done["state"], "completed", "{done}");
    }
    receiver.wait(ids.len(), PATIENCE).await?;
    let listed = client.get("/v1/jobs?limit=100&state=completed").await?.expect(200)?;
    assert_eq!(listed["jobs"].as_array().map(Vec::len), Some(ids.len()), "one job of each request");
    assert_eq!(client.get("/v1/nodes").await?.expect(200)?["nodes"].as_array().map(Vec::len), Some(1));
    Ok(())
}

#[tokio::test]
async fn a_key_means_its_job_after_two_changes_of_the_map_within_a_day() -> Result<()> {
    const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    let edge = own_edge().await?;
    let client = edge.client();
    let body = thumbnail("https://media.example.com/a.mp4");
    let mut epochs = vec![json!({"shards": 1})];
    let mut made = Vec::new();
    for (shards, epoch) in [(64, "1"), (32, "2")] {
        for key in KEYS.map(|key| format!("{key}{epoch}")) {
            let (status, first) = create_once(&client, &key, &body).await?;
            assert_eq!(status, 202, "{first}");
            made.push((key, first));
        }
        // A change in the same second as the one before would begin no later than it.
        let last = epochs.last().and_then(|epoch| epoch["since"].as_u64()).unwrap_or(0);
        epochs.push(json!({"shards": shards, "since": now()?.max(last + 1)}));
        change_to(&edge, &epochs, epoch).await?;
    }
    for (key, first) in &made {
        assert_eq!(&create_once(&client, key, &body).await?, &(202, first.clone()), "{key}");
    }
    Ok(())
}

#[tokio::test]
async fn a_node_that_rests_is_woken_for_a_shard_that_it_does_not_know_yet() -> Result<()> {
    let edge = own_edge().await?;
    let client = edge.client();
    let origin = Origin::start().await?;
    let _node = Node::start(&edge, NodeOptions::default()).await?;
    let body = thumbnail(&origin.file(&short_clip()?)?);
    client.run(&body, PATIENCE).await?;
    edge.put_shard_map(&json!({"epochs": [{"shards": 1}, {"shards": 64, "since": 1}]})).await?;
    let first = wait_for("a job in a new shard", PATIENCE, async || {
        let id = client.create(&body).await?;
        Ok((place(&id).1 != "00").then_some(id))
    });
    let done = client.finished(&first.await?, PATIENCE).await?;
    // Without the word it waits until the node looks by itself, which is up to half a minute.
    assert!(done["timings"]["queueMs"].as_u64().is_some_and(|ms| ms < 10_000), "{done}");
    Ok(())
}

#[tokio::test]
async fn shards_that_new_jobs_no_longer_go_to_are_still_served() -> Result<()> {
    let edge = own_edge().await?;
    edge.put_shard_map(&json!({"epochs": [{"shards": 4}]})).await?;
    let client = edge.client();
    let (origin, receiver) = (Origin::start().await?, Receiver::start().await?);
    let body = with(thumbnail(&origin.file(&short_clip()?)?), "webhookUrl", receiver.url());
    let mut old = Vec::new();
    while old.len() < 4 {
        let id = client.create(&body).await?;
        if place(&id).1 == "00" {
            client.cancel(&id).await?.expect(200)?;
        } else {
            old.push(id);
        }
    }
    change(&edge, &[4, 1], "1").await?;
    assert_eq!(client.job(&old[0]).await?["state"], "queued");
    edge.tick().await?;
    let _node = Node::start(&edge, NodeOptions::default()).await?;
    for id in &old {
        assert_eq!(client.finished(id, PATIENCE).await?["state"], "completed");
    }
    let hooks = wait_for("their webhooks", PATIENCE, async || {
        let hooks = receiver.hooks();
        Ok(old.iter().all(|id| hooks.iter().any(|hook| hook.job()["jobId"] == id.as_str())).then_some(()))
    });
    hooks.await?;
    // A job of such a shard is cancelled, retried and deleted like any other.
    client.delete(&format!("/v1/jobs/{}", old[0])).await?.expect(204)?;
    assert_eq!(client.get(&format!("/v1/jobs/{}", old[0])).await?.status, 404);
    Ok(())
}

#[tokio::test]
async fn a_map_that_cannot_be_used_stops_requests_and_not_what_is_stored() -> Result<()> {
    let edge = own_edge().await?;
    edge.put_shard_map(&json!({"shards": 4})).await?;
    let client = edge.client();
    let refused = client.post("/v1/jobs", &compress("https://media.example.com/a.mp4")).await?;
    assert_eq!((refused.status, refused.code()), (503, "UNAVAILABLE"), "{}", refused.json);
    edge.put_shard_map(&json!({"epochs": [{"shards": 1}]})).await?;
    client.create(&compress("https://media.example.com/a.mp4")).await.map(drop)
}
