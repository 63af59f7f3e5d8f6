//! What the record bears: a KV that fails or lags, storage that hangs, shards that fail, rows of another version, nodes out
//! of reach.

use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use xora_tests::{Bucket, Client, Edge, Node, NodeOptions, Origin, Receiver, Reply, wait_for};

use crate::{
    PATIENCE, over_shards, own_edge, short_clip, thumbnail,
    webhooks::{cancelled, delivery, outcomes},
    with,
};

/// A lease ends 30 s after its last heartbeat.
const LEASE_ENDS: Duration = Duration::from_secs(75);

/// A node that a test plays by itself.
struct Played {
    client: Client,
    info: Value,
}

impl Played {
    async fn start(edge: &Edge, name: &str) -> Result<Self> {
        let client = edge.client();
        let client = client.with_key(&client.mint(name, &["node"]).await?);
        Ok(Self { client, info: json!({"name": name, "version": "0", "encoders": []}) })
    }

    /// The next task, if there is one.
    async fn lease(&self) -> Result<Option<Value>> {
        let answer = self.client.post("/v1/node/lease", &json!({"node": self.info})).await?.expect(200)?;
        Ok(Some(answer["lease"].clone()).filter(|lease| !lease.is_null()))
    }

    /// A word for each lease.
    async fn beat(&self, leases: &[&Value]) -> Result<Value> {
        let beat = |lease: &&Value| json!({"hold": lease["hold"], "stage": "transcode", "progress": 7});
        let beats: Vec<_> = leases.iter().map(beat).collect();
        let body = json!({"node": self.info, "leases": beats});
        Ok(self.client.post("/v1/node/heartbeat", &body).await?.expect(200)?["words"].take())
    }

    /// Opens an output of several parts.
    async fn begin(&self, lease: &Value) -> Result<Value> {
        let body = json!({"hold": lease["hold"], "format": "mp4", "partSize": 5 << 20});
        self.client.post("/v1/node/outputs/begin", &body).await?.expect(200)
    }
}

fn film() -> Value {
    thumbnail("https://media.example.com/a.mp4")
}

async fn set(client: &Client, settings: &Value) -> Result<Value> {
    client.put("/v1/settings", settings).await?.expect(200)
}

#[tokio::test]
async fn while_kv_fails_jobs_are_made_listed_taken_and_ended_and_settings_are_changed_and_used() -> Result<()> {
    let mut edge = over_shards(own_edge().await?).await?;
    let client = edge.client();
    let before = client.create(&film()).await?;
    // The cron keeps a copy of the map of shards in the record.
    edge.tick().await?;
    edge.restart().await?;
    edge.fault("kv/fails").await?;

    let receiver = Receiver::start().await?;
    set(&client, &json!({"defaultWebhookUrl": receiver.url()})).await?;
    let id = client.create(&film()).await?;
    let listed = client.get("/v1/jobs").await?.expect(200)?;
    assert_eq!(listed["jobs"].as_array().map(Vec::len), Some(2), "{listed}");
    let node = Played::start(&edge, "played").await?;
    let lease = node.lease().await?.context("a lease")?;
    assert_eq!(node.beat(&[&lease]).await?, json!(["continue"]));
    let failed =
        json!({"hold": lease["hold"], "failure": {"kind": "input_unsupported", "stage": "probe", "message": "no"}});
    node.client.post("/v1/node/fail", &failed).await?.expect(200)?;
    for id in [&before, &id] {
        if client.job(id).await?["state"] == "queued" {
            client.cancel(id).await?.expect(200)?;
        }
        delivery(&client, id, "delivered").await?;
    }
    assert_eq!(receiver.hooks().len(), 2);
    Ok(())
}

#[tokio::test]
async fn settings_hold_from_their_answer_on_though_kv_lags() -> Result<()> {
    let edge = own_edge().await?;
    let client = edge.client();
    client.create(&film()).await?;
    edge.fault("kv/lags").await?;

    let (receiver, failing) = (Receiver::start().await?, Receiver::answering(vec![Reply::status(500); 3]).await?);
    let first = client.create(&film()).await?;
    set(&client, &json!({"defaultWebhookUrl": receiver.url()})).await?;
    client.cancel(&first).await?.expect(200)?;
    delivery(&client, &first, "delivered").await?;

    let untold = client.create(&film()).await?;
    set(&client, &json!({"defaultWebhookUrl": null, "webhookSchedule": "durable"})).await?;
    client.cancel(&untold).await?.expect(200)?;
    let log = client.get(&format!("/v1/jobs/{untold}/deliveries")).await?.expect(200)?;
    assert_eq!(log, json!({"deliveries": []}));
    // The standard schedule ends with the third attempt.
    let id = cancelled(&client, &failing.url()).await?;
    assert_eq!(outcomes(&delivery(&client, &id, "delivered").await?).len(), 4);
    Ok(())
}

#[tokio::test]
async fn a_default_bucket_holds_from_its_answer_on_though_kv_lags() -> Result<()> {
    let (edge, origin, bucket) = (own_edge().await?, Origin::start().await?, Bucket::start().await?);
    let client = edge.client();
    let _node = Node::start(&edge, NodeOptions::default()).await?;
    let body = thumbnail(&origin.file(&short_clip()?)?);
    assert_eq!(client.run(&body, PATIENCE).await?["state"], "completed");
    edge.fault("kv/lags").await?;
    let provider = client.post("/v1/settings/storage-providers", &bucket.provider()).await?.expect(201)?;
    set(&client, &json!({"defaultStorageProviderId": provider["id"]})).await?;
    assert_eq!(client.run(&body, PATIENCE).await?["state"], "completed");
    assert_eq!(bucket.left()?.len(), 1, "it went to the default bucket");
    set(&client, &json!({"defaultStorageProviderId": null})).await?;
    assert_eq!(client.run(&body, PATIENCE).await?["state"], "completed");
    assert_eq!(bucket.left()?.len(), 1, "it did not");
    Ok(())
}

#[tokio::test]
async fn a_map_of_shards_with_a_typo_leaves_the_last_good_one_in_force() -> Result<()> {
    let mut edge = over_shards(own_edge().await?).await?;
    let client = edge.client();
    client.create(&film()).await?;
    edge.tick().await?;
    edge.put_shard_map(&json!({"epochs": [{"shard": 4}]})).await?;
    let used_on = async |edge: &Edge| {
        let before = edge.log()?.matches("the last good map stays in force").count();
        let refused = wait_for("the map to be read again", PATIENCE, async || {
            edge.client().create(&film()).await?;
            Ok((edge.log()?.matches("the last good map stays in force").count() > before).then_some(()))
        });
        refused.await
    };
    used_on(&edge).await?;
    client.create(&film()).await?;
    // Whoever starts now has never seen a good one.
    edge.restart().await?;
    used_on(&edge).await
}

#[tokio::test]
async fn an_id_that_no_shard_can_have_given_out_is_not_found_and_makes_no_shard() -> Result<()> {
    let edge = own_edge().await?;
    let client = edge.client();
    let id = client.create(&film()).await?;
    let shards = edge.shards()?;
    let strange = format!("{}ZZ", &id[..24]);
    let job = format!("/v1/jobs/{strange}");
    for (method, path) in [
        (Method::GET, job.clone()),
        (Method::DELETE, job.clone()),
        (Method::POST, format!("{job}/cancel")),
        (Method::POST, format!("{job}/retry")),
        (Method::GET, format!("{job}/events")),
        (Method::GET, format!("{job}/deliveries")),
        (Method::POST, format!("/v1/deliveries/{strange}/redeliver")),
        (Method::GET, format!("/v1/uploads/{strange}")),
    ] {
        assert_eq!(client.request(method, &path).send().await?.status(), 404, "{path}");
    }
    let body = with(film(), "input", json!({"uploadId": strange}));
    assert_eq!(client.post("/v1/jobs", &body).await?.status, 404);
    let node = Played::start(&edge, "played").await?;
    let lease = json!({"hold": {"taskId": strange, "token": "t", "fence": 1}});
    assert_eq!(node.beat(&[&lease]).await?, json!(["unknown"]), "work is not given up for a map that may be behind");
    assert_eq!(edge.shards()?, shards);
    Ok(())
}

#[tokio::test]
async fn a_bucket_that_hangs_keeps_nothing_else_of_the_shard_waiting() -> Result<()> {
    const LEFT: usize = 6;
    let (edge, bucket) = (own_edge().await?, Bucket::start().await?);
    let client = edge.client();
    let provider = client.post("/v1/settings/storage-providers", &bucket.provider()).await?.expect(201)?;
    let node = Played::start(&edge, "played").await?;
    let body = with(film(), "storageProviderId", provider["id"].clone());
    let mut ids = Vec::new();
    for _ in 0..LEFT {
        ids.push(client.create(&body).await?);
        let lease = node.lease().await?.context("a lease")?;
        node.begin(&lease).await?;
    }
    bucket.fail("DELETE", "", 1000, Reply::hang());
    for id in &ids {
        client.cancel(id).await?.expect(200)?;
    }
    wait_for("the bucket to be asked", PATIENCE, async || {
        Ok(edge.number("SELECT count(*) AS n FROM uploads WHERE drop_at > 0")?.eq(&(LEFT as u64)).then_some(()))
    })
    .await?;
    // Its fourth attempt is due by the alarm, 5 s after the third.
    set(&client, &json!({"webhookSchedule": "durable"})).await?;
    let failing = Receiver::answering(vec![Reply::status(500); 3]).await?;
    cancelled(&client, &failing.url()).await?;
    // One removal after the other, each with two calls that take 8 s, they would be over after this.
    failing.wait(4, Duration::from_secs(LEFT as u64 * 8)).await.map(drop)
}

#[tokio::test]
async fn rows_that_cannot_be_read_stop_no_others() -> Result<()> {
    let mut edge = own_edge().await?;
    let client = edge.client();
    let node = Played::start(&edge, "played").await?;
    set(&client, &json!({"webhookSchedule": "durable"})).await?;
    let failing = Receiver::answering(vec![Reply::status(500); 6]).await?;
    let mut deliveries = Vec::new();
    for _ in 0..2 {
        let id = cancelled(&client, &failing.url()).await?;
        wait_for("three attempts", PATIENCE, async || {
            let log = client.get(&format!("/v1/jobs/{id}/deliveries")).await?.expect(200)?["deliveries"][0].take();
            Ok((outcomes(&log).len() == 3).then_some(()))
        })
        .await?;
        deliveries.push(id);
    }
    let (bad, good) = (client.create(&film()).await?, client.create(&film()).await?);
    edge.edit(&format!(
        "UPDATE tasks SET doc = replace(doc, '\"state\":\"queued\"', '\"state\":\"dreaming\"') WHERE id = '{bad}';
        UPDATE deliveries SET doc = replace(doc, '\"durable\"', '\"eternal\"') WHERE doc LIKE '%\"id\":\"{}\"%'",
        deliveries[0]
    ))
    .await?;
    edge.tick().await?;
    assert_eq!(outcomes(&delivery(&client, &deliveries[1], "delivered").await?).len(), 4);
    let lease = node.lease().await?.context("a lease")?;
    assert_eq!(lease["jobId"], good.as_str(), "the one that can be read");
    assert_eq!(node.lease().await?, None);
    assert_eq!(node.beat(&[&lease]).await?, json!(["continue"]));
    let listed = client.get("/v1/jobs").await?.expect(200)?;
    assert_eq!(listed["jobs"].as_array().map(Vec::len), Some(3), "all but one can be shown: {listed}");

    // The version that wrote them is back.
    edge.edit(
        "UPDATE tasks SET doc = replace(doc, 'dreaming', 'queued'), wakes_at = 1 WHERE wakes_at IS NOT NULL;
        UPDATE deliveries SET doc = replace(doc, 'eternal', 'durable'), wakes_at = 1 WHERE wakes_at IS NOT NULL",
    )
    .await?;
    edge.tick().await?;
    delivery(&client, &deliveries[0], "delivered").await?;
    let lease = wait_for("the other task", PATIENCE, async || node.lease().await).await?;
    assert_eq!(lease["jobId"], bad.as_str());
    Ok(())
}

#[tokio::test]
async fn a_record_that_cannot_be_brought_up_to_date_answers_nothing_and_is_left_as_it_was() -> Result<()> {
    let mut edge = own_edge().await?;
    let client = edge.client();
    let id = client.create(&film()).await?;
    // Of the last version, all but its last table is there, so that it fails half way.
    edge.edit("DELETE FROM schema_version WHERE at = 8; DROP TABLE settings").await?;
    let refused = client.get(&format!("/v1/jobs/{id}")).await?;
    assert_eq!((refused.status, refused.code()), (503, "UNAVAILABLE"), "{}", refused.json);
    assert_eq!(edge.number("SELECT count(*) AS n FROM sqlite_master WHERE name = 'settings'")?, 0, "half of it stands");
    let undo = "DROP INDEX tasks_turn; DROP INDEX tasks_due; DROP INDEX uploads_due; DROP INDEX jobs_ended;
        DROP INDEX jobs_output; DROP INDEX jobs_state; DROP INDEX repeats_at; DROP INDEX received_unused;
        ALTER TABLE tasks DROP COLUMN offer;
        CREATE INDEX tasks_turn ON tasks (priority DESC, token, id) WHERE ready_at IS NOT NULL";
    edge.edit(undo).await?;
    assert_eq!(client.job(&id).await?["state"], "queued");
    let node = Played::start(&edge, "played").await?;
    assert_eq!(node.lease().await?.context("a lease")?["jobId"], id.as_str(), "an old row is offered as before");
    Ok(())
}

#[tokio::test]
async fn a_shard_that_fails_costs_the_leases_of_others_nothing() -> Result<()> {
    let edge = over_shards(own_edge().await?).await?;
    let client = edge.client();
    let node = Played::start(&edge, "played").await?;
    let shard = |lease: &Value| lease["jobId"].as_str().map(|id| id[24..].to_owned());
    let first = {
        client.create(&film()).await?;
        node.lease().await?.context("a lease")?
    };
    let second = wait_for("a task of another shard", PATIENCE, async || {
        client.create(&film()).await?;
        Ok(node.lease().await?.filter(|lease| shard(lease) != shard(&first)))
    })
    .await?;
    assert_eq!(node.beat(&[&first, &second]).await?, json!(["continue", "continue"]));
    let number = shard(&first).context("a shard")?.parse::<u16>()?;
    edge.fault(&format!("shard/{number}")).await?;
    assert_eq!(node.beat(&[&first, &second]).await?, json!(["unknown", "continue"]));
    // Nor does it keep them from handing out work.
    let third = wait_for("a task of a shard that works", PATIENCE, async || {
        let created = client.post("/v1/jobs", &film()).await?;
        Ok(if created.status == 202 { node.lease().await? } else { None })
    });
    assert_ne!(shard(&third.await?), shard(&first));
    edge.fault("shard/none").await?;
    assert_eq!(node.beat(&[&first, &second]).await?, json!(["continue", "continue"]));
    Ok(())
}

#[tokio::test]
async fn a_lease_that_ran_out_holds_again_unless_someone_else_took_the_task() -> Result<()> {
    let edge = own_edge().await?;
    let client = edge.client();
    let (away, other) = (Played::start(&edge, "away").await?, Played::start(&edge, "other").await?);
    let (taken, kept) = (client.create(&film()).await?, client.create(&film()).await?);
    let mut leases = Vec::new();
    for id in [&taken, &kept] {
        let lease = away.lease().await?.context("a lease")?;
        assert_eq!(lease["jobId"], id.as_str(), "the oldest first");
        away.begin(&lease).await?;
        leases.push(lease);
    }
    for id in [&taken, &kept] {
        let queued = client.when(id, LEASE_ENDS, |job| job["state"] == "queued").await?;
        assert_eq!(queued["attempts"][0]["error"]["code"], "NODE_LOST", "{queued}");
    }
    let lease = wait_for("the task to be offered again", PATIENCE, async || other.lease().await).await?;
    assert_eq!(lease["jobId"], taken.as_str());

    assert_eq!(away.beat(&[&leases[0], &leases[1]]).await?, json!(["lost", "continue"]));
    let job = client.job(&kept).await?;
    assert_eq!((&job["state"], &job["attempts"][0]["error"]), (&json!("transcoding"), &Value::Null), "{job}");
    assert_eq!(job["attempts"].as_array().map(Vec::len), Some(1), "its end cost no attempt: {job}");
    assert_eq!(other.lease().await?, None, "nobody else gets it");
    // What it had begun to write is still there.
    let targets = json!({"hold": leases[1]["hold"], "from": 2});
    away.client.post("/v1/node/outputs/targets", &targets).await?.expect(200)?;
    let late = json!({"hold": leases[0]["hold"], "from": 2});
    assert_eq!(away.client.post("/v1/node/outputs/targets", &late).await?.status, 409);
    Ok(())
}

#[tokio::test]
async fn only_the_node_that_has_the_task_hears_that_it_is_cancelled() -> Result<()> {
    let edge = own_edge().await?;
    let client = edge.client();
    let node = Played::start(&edge, "played").await?;
    let id = client.create(&film()).await?;
    let lease = node.lease().await?.context("a lease")?;
    client.cancel(&id).await?.expect(200)?;
    let mut stale = lease.clone();
    stale["hold"]["token"] = "another".into();
    assert_eq!(node.beat(&[&stale]).await?, json!(["lost"]));
    assert_eq!(node.beat(&[&lease]).await?, json!(["cancel"]));
    Ok(())
}

#[tokio::test]
async fn a_bucket_that_does_not_answer_is_given_up_before_the_node_gives_up() -> Result<()> {
    let (edge, bucket) = (own_edge().await?, Bucket::start().await?);
    let client = edge.client();
    let provider = client.post("/v1/settings/storage-providers", &bucket.provider()).await?.expect(201)?;
    client.create(&with(film(), "storageProviderId", provider["id"].clone())).await?;
    let node = Played::start(&edge, "played").await?;
    let lease = node.lease().await?.context("a lease")?;
    bucket.fail("POST", "", 1, Reply::hang());
    let body = json!({"hold": lease["hold"], "format": "mp4", "partSize": 5 << 20});
    let request = node.client.request(Method::POST, "/v1/node/outputs/begin").json(&body);
    // As long as a node waits.
    let answer = request.timeout(Duration::from_secs(10)).send().await?;
    assert_eq!(answer.status(), 503);
    Ok(())
}

#[tokio::test]
async fn links_and_webhooks_of_older_jobs_follow_the_public_url_and_what_is_left_of_the_output() -> Result<()> {
    let mut edge = own_edge().await?;
    let client = edge.client();
    let (origin, receiver) = (Origin::start().await?, Receiver::start().await?);
    let done = {
        let _node = Node::start(&edge, NodeOptions::default()).await?;
        let body = with(thumbnail(&origin.file(&short_clip()?)?), "webhookUrl", receiver.url());
        client.run(&body, PATIENCE).await?
    };
    let id = done["jobId"].as_str().context("an id")?;
    let sent = delivery(&client, id, "delivered").await?;
    let again = format!("/v1/deliveries/{}/redeliver", sent["id"].as_str().context("an id")?);

    edge.restart_with("PUBLIC_URL", "https://xora.example/").await?;
    let link = client.job(id).await?["output"]["signedUrl"].take();
    assert!(link.as_str().is_some_and(|link| link.starts_with("https://xora.example/files/")), "{link}");
    client.post(&again, &json!({})).await?.expect(202)?;
    let hook = receiver.wait(2, PATIENCE).await?[1].job().clone();
    assert!(
        hook["output"]["signedUrl"].as_str().is_some_and(|link| link.starts_with("https://xora.example/")),
        "{hook}"
    );

    set(&client, &json!({"outputRetentionDays": 0})).await?;
    wait_for("the output to go", PATIENCE, async || {
        edge.tick().await?;
        Ok(client.job(id).await?.get("outputExpiredAt").cloned())
    })
    .await?;
    delivery(&client, id, "delivered").await?;
    client.post(&again, &json!({})).await?.expect(202)?;
    let hook = receiver.wait(3, PATIENCE).await?[2].job().clone();
    assert!(hook.get("output").is_none() && hook["outputExpiredAt"].is_string(), "{hook}");
    Ok(())
}

#[tokio::test]
async fn a_key_has_a_hundred_unused_uploads_at_most_also_when_it_opens_many_at_once() -> Result<()> {
    let edge = own_edge().await?;
    let client = edge.client();
    let body = json!({"filename": "film.mp4", "size": 10});
    let opened = join_all((0..130).map(async |_| client.post("/v1/uploads", &body).await)).await;
    let statuses: Vec<_> = opened.into_iter().map(|answer| Ok(answer?.status)).collect::<Result<_>>()?;
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 100, "{statuses:?}");
    assert!(statuses.iter().all(|status| [201, 409].contains(status)), "{statuses:?}");
    Ok(())
}
