//! Lists of jobs, and what is left when a job is cancelled or deleted.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use xora_tests::{Client, Node, NodeOptions, Origin, Receiver, Reply, wait_for};

use crate::{PATIENCE, compress, edge, long_clip, own_edge, short_clip, thumbnail, with};

/// Nobody takes it: it is used where no node runs.
const HTTPS: &str = "https://media.example.com/a.mp4";

/// The ids of a page, and its cursor.
async fn page(client: &Client, query: &str) -> Result<(Vec<String>, Option<String>)> {
    let page = client.get(&format!("/v1/jobs?{query}")).await?.expect(200)?;
    let ids = page["jobs"].as_array().context("jobs")?.iter();
    let ids = ids.map(|job| job["jobId"].as_str().map(str::to_owned).context("an id")).collect::<Result<_>>()?;
    Ok((ids, page["nextCursor"].as_str().map(str::to_owned)))
}

/// The ids of all pages.
async fn pages(client: &Client, query: &str) -> Result<Vec<String>> {
    let (mut all, mut next) = page(client, query).await?;
    while let Some(cursor) = next {
        let (ids, cursor) = page(client, &format!("{query}&cursor={cursor}")).await?;
        assert!(!ids.is_empty(), "a cursor leads to something");
        all.extend(ids);
        next = cursor;
    }
    Ok(all)
}

#[tokio::test]
async fn jobs_of_all_shards_are_listed_newest_first_and_cursors_stay_where_they_are() -> Result<()> {
    let edge = own_edge().await?;
    edge.put_shard_map(&json!({"epochs": [{"shards": 4}]})).await?;
    let client = edge.client();
    let mut ids = Vec::new();
    for _ in 0..15 {
        ids.push(client.create(&compress(HTTPS)).await?);
    }
    let shards: std::collections::HashSet<_> = ids.iter().map(|id| id[24..].to_owned()).collect();
    assert!(shards.len() > 1, "{ids:?}");
    ids.sort_by(|a, b| b.cmp(a));

    let (first, cursor) = page(&client, "limit=4").await?;
    assert_eq!(first, ids[..4]);
    // What comes and goes meanwhile moves nobody's place.
    let newer = client.create(&compress(HTTPS)).await?;
    client.cancel(&ids[3]).await?.expect(200)?;
    client.delete(&format!("/v1/jobs/{}", ids[3])).await?.expect(204)?;
    let cursor = cursor.context("a cursor")?;
    assert_eq!(page(&client, &format!("limit=4&cursor={cursor}")).await?.0, ids[4..8]);
    assert_eq!(page(&client, &format!("limit=100&cursor={cursor}")).await?, (ids[4..].to_vec(), None));
    ids.remove(3);
    ids.insert(0, newer);
    assert_eq!(pages(&client, "limit=5").await?, ids, "15 in pages of 5: no empty last page");
    assert_eq!(pages(&client, "").await?, ids);

    for id in &ids[5..8] {
        client.cancel(id).await?.expect(200)?;
    }
    assert_eq!(pages(&client, "state=cancelled&limit=2").await?, ids[5..8]);
    let queued: Vec<_> = ids[..5].iter().chain(&ids[8..]).cloned().collect();
    assert_eq!(pages(&client, "state=queued&limit=7").await?, queued);
    assert_eq!(pages(&client, "state=completed").await?, [""; 0]);
    Ok(())
}

#[tokio::test]
async fn a_list_shows_jobs_as_they_are_and_finds_those_that_run() -> Result<()> {
    let client = edge().await?.client();
    let origin = Origin::start().await?;
    let done = client.run(&thumbnail(&origin.file(&short_clip()?)?), PATIENCE).await?;
    let id = done["jobId"].as_str().context("an id")?;
    let position = format!("limit=1&cursor={}", after(id));
    let listed = client.get(&format!("/v1/jobs?{position}")).await?.expect(200)?["jobs"][0].take();
    assert_eq!((&listed["jobId"], &listed["verification"]), (&done["jobId"], &done["verification"]));
    client.download(listed["output"]["signedUrl"].as_str().context("a fresh link")?).await?;

    let slow = with(compress(&origin.file(&long_clip()?)?), "output", json!({"format": "webm"}));
    let running = client.create(&slow).await?;
    client.when(&running, PATIENCE, |job| job["state"] == "transcoding").await?;
    assert!(pages(&client, "state=transcoding").await?.contains(&running));
    assert!(!pages(&client, "state=queued").await?.contains(&running));
    client.cancel(&running).await?.expect(200)?;
    assert!(pages(&client, "state=cancelled").await?.contains(&running));
    Ok(())
}

/// The position right above an id.
fn after(id: &str) -> String {
    // The last random character may be any but the highest.
    let raised = if id.as_bytes()[22] == b'Z' { "Z" } else { "Y" };
    format!("{}{raised}{}", &id[..22], "ZZZ")
}

#[tokio::test]
async fn a_query_that_is_wrong_is_refused_by_its_parameter() -> Result<()> {
    let client = edge().await?.client();
    for (query, name) in [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=ten", "limit"),
        ("limit=", "limit"),
        ("limit=1&limit=2", "limit"),
        ("state=done", "state"),
        ("cursor=first", "cursor"),
        ("offset=3", "offset"),
    ] {
        let answer = client.get(&format!("/v1/jobs?{query}")).await?;
        assert_eq!((answer.status, answer.code()), (400, "VALIDATION_ERROR"), "{query}");
        assert!(answer.message().starts_with(&format!("{name}: ")), "{query}: {}", answer.message());
    }
    Ok(())
}

#[tokio::test]
async fn nothing_is_left_of_a_job_that_is_cancelled_while_it_writes_or_deleted_when_it_is_over() -> Result<()> {
    let edge = own_edge().await?;
    let _node = Node::start(&edge, NodeOptions::default()).await?;
    let client = edge.client();
    let origin = Origin::start().await?;
    let left = async |rows: &[(&str, u64)]| {
        let what = format!("storage empty and {rows:?}");
        let found = wait_for(&what, PATIENCE, async || {
            let counts: Result<Vec<_>> = rows.iter().map(|(table, _)| edge.rows(table)).collect();
            let right = counts?.iter().eq(rows.iter().map(|(_, count)| count));
            Ok((right && edge.stored()? == 0).then_some(()))
        });
        found.await
    };

    // So large that parts of it are in storage long before it is done.
    let large = with(compress(&origin.file(&long_clip()?)?), "recipe", json!({"name": "compress", "crf": 1}));
    let id = client.create(&with(large, "stageInput", false)).await?;
    wait_for("a part in storage", PATIENCE, async || Ok((edge.stored()? > 0).then_some(()))).await?;
    assert_eq!(edge.rows("uploads")?, 1);
    let early = client.delete(&format!("/v1/jobs/{id}")).await?;
    assert_eq!((early.status, early.code()), (409, "CONFLICT"), "{}", early.json);
    client.cancel(&id).await?.expect(200)?;
    left(&[("jobs", 1), ("tasks", 0), ("uploads", 0)]).await?;

    // Tried again, it goes on from its attempts; and a second cancel is as thorough.
    client.post(&format!("/v1/jobs/{id}/retry"), &json!({})).await?.expect(202)?;
    wait_for("a part in storage", PATIENCE, async || Ok((edge.stored()? > 0).then_some(()))).await?;
    let cancelled = client.cancel(&id).await?.expect(200)?;
    assert_eq!(cancelled["attempts"].as_array().map(Vec::len), Some(2), "{cancelled}");
    left(&[("jobs", 1), ("tasks", 0), ("uploads", 0)]).await?;
    client.delete(&format!("/v1/jobs/{id}")).await?.expect(204)?;

    let receiver = Receiver::start().await?;
    let body = with(thumbnail(&origin.file(&short_clip()?)?), "webhookUrl", receiver.url());
    let done = client.run(&body, PATIENCE).await?;
    let id = done["jobId"].as_str().context("an id")?;
    let link = done["output"]["signedUrl"].as_str().context("a link")?;
    wait_for("the delivery", PATIENCE, async || {
        let log = client.get(&format!("/v1/jobs/{id}/deliveries")).await?.expect(200)?;
        Ok((log["deliveries"][0]["state"] == "delivered").then_some(()))
    })
    .await?;
    assert_eq!(edge.stored()?, 1);
    let deleted = client.delete(&format!("/v1/jobs/{id}")).await?;
    assert_eq!((deleted.status, &deleted.json), (204, &Value::Null));
    for path in [format!("/v1/jobs/{id}"), format!("/v1/jobs/{id}/deliveries"), format!("/v1/jobs/{id}/events")] {
        assert_eq!(client.get(&path).await?.status, 404, "{path}");
    }
    assert_eq!(client.delete(&format!("/v1/jobs/{id}")).await?.status, 404);
    assert_eq!(client.request(reqwest::Method::GET, link).send().await?.status(), 404);
    left(&[("jobs", 0), ("tasks", 0), ("uploads", 0), ("deliveries", 0)]).await
}

#[tokio::test]
async fn a_webhook_that_is_owed_is_sent_though_its_job_is_deleted() -> Result<()> {
    let edge = own_edge().await?;
    let client = edge.client();
    let receiver = Receiver::answering([Reply::status(500)]).await?;
    let id = client.create(&with(compress(HTTPS), "webhookUrl", receiver.url())).await?;
    client.cancel(&id).await?.expect(200)?;
    client.delete(&format!("/v1/jobs/{id}")).await?.expect(204)?;
    let hooks = receiver.wait(2, PATIENCE).await?;
    assert_eq!(hooks[1].job()["jobId"], id.as_str());
    wait_for("the row to go", Duration::from_secs(20), async || Ok((edge.rows("deliveries")? == 0).then_some(()))).await
}
