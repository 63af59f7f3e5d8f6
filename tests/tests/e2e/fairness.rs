//! Whose job runs next.

use anyhow::{Context, Result};
use serde_json::json;
use xora_tests::{Client, Edge, Node, NodeOptions, Origin};

use crate::{PATIENCE, own_edge, short_clip, thumbnail, with};

/// Runs everything that waits on one slot, and answers the names of the jobs in the order in which they were taken.
async fn order(edge: &Edge, jobs: &[(&str, &Client, u8)]) -> Result<Vec<String>> {
    let origin = Origin::start().await?;
    let body = thumbnail(&origin.file(&short_clip()?)?);
    let mut ids = Vec::new();
    for (name, client, priority) in jobs {
        let body = with(with(body.clone(), "priority", *priority), "metadata", json!({"name": name}));
        ids.push(client.create(&body).await?);
    }
    let _node = Node::start(edge, NodeOptions { slots: Some(1), ..NodeOptions::default() }).await?;
    let mut taken = Vec::new();
    for id in &ids {
        let job = edge.client().finished(id, PATIENCE).await?;
        assert_eq!(job["state"], "completed", "{job}");
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        taken.push((text(&job["startedAt"]), text(&job["metadata"]["name"]).context("a name")?));
    }
    taken.sort();
    Ok(taken.into_iter().map(|(_, name)| name).collect())
}

#[tokio::test]
async fn the_highest_priority_runs_first_and_within_it_keys_take_turns() -> Result<()> {
    let edge = own_edge().await?;
    let many = edge.client();
    let one = many.with_key(&many.mint("one", &["jobs"]).await?);
    let mut jobs = vec![("many", &many, 5); 6];
    jobs.extend([("one", &one, 5), ("low", &one, 0), ("urgent", &many, 9)]);
    let order = order(&edge, &jobs).await?;
    // The urgent one was the busy key's turn.
    assert_eq!(order, ["urgent", "one", "many", "many", "many", "many", "many", "many", "low"]);
    Ok(())
}

#[tokio::test]
async fn the_highest_priority_of_all_shards_runs_first() -> Result<()> {
    let edge = own_edge().await?;
    edge.put_shard_map(&json!({"epochs": [{"shards": 4}]})).await?;
    let client = edge.client();
    let mut jobs = vec![("low", &client, 1); 8];
    jobs.extend(vec![("middle", &client, 5); 4]);
    jobs.push(("urgent", &client, 9));
    let order = order(&edge, &jobs).await?;
    let expected: Vec<_> = [vec!["urgent"], vec!["middle"; 4], vec!["low"; 8]].concat();
    assert_eq!(order, expected);
    Ok(())
}
