//! What survives when something dies.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;
use tokio::sync::watch;
use xora_tests::{Client, Node, NodeOptions, Origin, Receiver, Reply, Served, probe, wait_for};

use crate::{
    PATIENCE, compress, faint_clip, job, long_clip, own_edge, thumbnail,
    webhooks::{cancelled, delivery, outcomes},
    with,
};

fn named(name: &str) -> NodeOptions {
    NodeOptions { name: name.to_owned(), ..NodeOptions::default() }
}

#[tokio::test]
async fn a_job_whose_node_is_killed_is_finished_by_another_with_one_webhook() -> Result<()> {
    let edge = own_edge().await?;
    let client = edge.client();
    let (origin, receiver) = (Origin::start().await?, Receiver::start().await?);
    let mut first = Node::start(&edge, named("first")).await?;
    let url = origin.file(&long_clip()?)?;
    let id = client.create(&with(compress(&url), "webhookUrl", receiver.url())).await?;
    client.when(&id, PATIENCE, |job| job["state"] == "transcoding").await?;
    first.kill()?;
    let _second = Node::start(&edge, named("second")).await?;

    // A lease is 30 s long, and the encode itself takes its time.
    let done = client.finished(&id, Duration::from_secs(150)).await?;
    assert_eq!(done["state"], "completed", "{done}");
    let nodes: Vec<_> = done["attempts"].as_array().into_iter().flatten().map(|attempt| &attempt["node"]).collect();
    assert_eq!(nodes, [&json!("first"), &json!("second")]);
    let path = edge.dir().join("state/result.mp4");
    std::fs::write(&path, client.download(done["output"]["signedUrl"].as_str().unwrap_or_default()).await?)?;
    assert_eq!(probe(&path)?.frames("video")?, 1800);

    receiver.wait(1, PATIENCE).await?;
    let delivered = wait_for("the delivery to be recorded", PATIENCE, async || {
        let log = client.get(&format!("/v1/jobs/{id}/deliveries")).await?.expect(200)?["deliveries"].take();
        Ok((log[0]["state"] == "delivered").then_some(log))
    });
    let log = delivered.await?;
    assert_eq!(log.as_array().map(Vec::len), Some(1), "one terminal state, one delivery: {log}");
    assert_eq!(log[0]["attempts"].as_array().map(Vec::len), Some(1), "{log}");
    assert_eq!(receiver.hooks().len(), 1);
    Ok(())
}

#[tokio::test]
async fn an_input_that_was_kept_serves_the_next_attempt_though_its_origin_is_gone() -> Result<()> {
    let edge = own_edge().await?;
    let client = edge.client();
    let origin = Origin::start().await?;
    let mut first = Node::start(&edge, named("first")).await?;
    let url = origin.file(&faint_clip()?)?;
    let id = client.create(&job(&url, "mp4", &json!({"name": "compress", "codec": "hevc"}))).await?;
    let log = edge.dir().join("first.log");
    let kept = wait_for("the input to be kept", PATIENCE, async || {
        Ok(std::fs::read_to_string(&log)?.contains("input kept").then_some(()))
    });
    kept.await?;
    first.kill()?;
    origin.serve("faint.mp4", Served::Always(Reply::status(404)));
    let asked = origin.requests().len();

    let _second = Node::start(&edge, named("second")).await?;
    let done = client.finished(&id, Duration::from_secs(150)).await?;
    assert_eq!(done["state"], "completed", "{done}");
    assert_eq!(done["attempts"].as_array().map(Vec::len), Some(2), "{done}");
    assert_eq!(origin.requests().len(), asked, "the second attempt asks storage only");
    Ok(())
}

#[tokio::test]
async fn a_node_told_to_stop_gives_its_job_back_without_costing_an_attempt() -> Result<()> {
    let edge = own_edge().await?;
    let client = edge.client();
    let origin = Origin::start().await?;
    let impatient = NodeOptions { flags: vec!["--drain-seconds=1".to_owned()], ..named("first") };
    let mut first = Node::start(&edge, impatient).await?;
    let url = origin.file(&long_clip()?)?;
    let id = client.create(&job(&url, "webm", &json!({"name": "compress"}))).await?;
    client.when(&id, PATIENCE, |job| job["state"] == "transcoding").await?;
    first.terminate()?;
    assert!(first.wait(Duration::from_secs(10)).await?, "it ends well");
    client.when(&id, Duration::from_secs(5), |job| job["state"] == "queued").await?;

    let _second = Node::start(&edge, named("second")).await?;
    client.when(&id, PATIENCE, |job| job["state"] == "transcoding").await?;
    client.cancel(&id).await?.expect(200).map(drop)
}

#[tokio::test]
async fn a_node_told_to_stop_finishes_what_is_nearly_done() -> Result<()> {
    let edge = own_edge().await?;
    let client = edge.client();
    let origin = Origin::start().await?;
    let patient = NodeOptions { flags: vec!["--drain-seconds=90".to_owned()], ..NodeOptions::default() };
    let mut node = Node::start(&edge, patient).await?;
    let id = client.create(&compress(&origin.file(&long_clip()?)?)).await?;
    // Leased it is before the node has heard of it.
    client.when(&id, PATIENCE, |job| job["state"] == "transcoding").await?;
    node.terminate()?;
    assert!(node.wait(Duration::from_secs(90)).await?, "it ends well");
    assert_eq!(client.job(&id).await?["state"], "completed");
    Ok(())
}

#[tokio::test]
async fn a_job_goes_on_after_the_edge_loses_power() -> Result<()> {
    let mut edge = own_edge().await?;
    let client = edge.client();
    let (origin, receiver) = (Origin::start().await?, Receiver::start().await?);
    let _node = Node::start(&edge, NodeOptions::default()).await?;
    let url = origin.file(&long_clip()?)?;
    let id = client.create(&with(compress(&url), "webhookUrl", receiver.url())).await?;
    client.when(&id, PATIENCE, |job| job["state"] == "transcoding").await?;
    edge.restart().await?;
    let done = client.finished(&id, Duration::from_mins(2)).await?;
    assert_eq!(done["state"], "completed", "{done}");
    assert_eq!(receiver.wait(1, PATIENCE).await?[0].job()["jobId"], id.as_str());
    Ok(())
}

#[tokio::test]
async fn an_encode_goes_on_while_the_edge_is_down_for_longer_than_its_lease() -> Result<()> {
    let mut edge = own_edge().await?;
    let client = edge.client();
    let origin = Origin::start().await?;
    // VP9 in one thread takes more than a minute on any machine.
    let slow = NodeOptions { flags: vec!["--threads=1".to_owned()], ..NodeOptions::default() };
    let _node = Node::start(&edge, slow).await?;
    let id = client.create(&job(&origin.file(&long_clip()?)?, "webm", &json!({"name": "compress"}))).await?;
    client.when(&id, PATIENCE, |job| job["state"] == "transcoding").await?;
    edge.freeze()?;
    let frozen = Instant::now();
    let over = async || Ok((frozen.elapsed() > Duration::from_secs(35)).then_some(()));
    wait_for("the lease of 30 s to be over", PATIENCE, over).await?;
    edge.restart().await?;
    let done = client.finished(&id, PATIENCE * 10).await?;
    assert_eq!(done["state"], "completed", "{done}");
    assert_eq!(done["attempts"].as_array().map(Vec::len), Some(1), "nobody else took it: {done}");
    Ok(())
}

#[tokio::test]
async fn a_webhook_that_was_owed_when_the_power_went_is_still_sent() -> Result<()> {
    let mut edge = own_edge().await?;
    let client = edge.client();
    let receiver = Receiver::start().await?;
    // Nobody will take it; cancelling is what ends it.
    let body = with(compress("https://media.example.com/a.mp4"), "webhookUrl", receiver.url());
    let mut ids = Vec::new();
    for _ in 0..10 {
        let id = client.create(&body).await?;
        client.cancel(&id).await?.expect(200)?;
        ids.push(id);
    }
    edge.restart().await?;
    edge.tick().await?;
    let told = wait_for("every cancelled job's webhook", PATIENCE, async || {
        let hooks = receiver.hooks();
        let told = |id: &String| hooks.iter().any(|hook| hook.job()["jobId"] == id.as_str());
        Ok(ids.iter().all(told).then_some(()))
    });
    told.await
}

/// However the power goes between the row, its message, the claim, the sending and the record: after the restart every
/// delivery arrives, under one `webhook-id`, and no attempt is lost.
#[tokio::test]
async fn every_delivery_arrives_whenever_the_power_went() -> Result<()> {
    const CUTS: usize = 3;
    const JOBS: usize = 12;
    let mut edge = own_edge().await?;
    let client = edge.client();
    let receiver = Receiver::start().await?;
    let body = with(thumbnail("https://media.example.com/a.mp4"), "webhookUrl", receiver.url());
    let mut ids = Vec::new();
    for cut in 1..=CUTS {
        let mut fresh = Vec::new();
        for _ in 0..JOBS {
            fresh.push(client.create(&body).await?);
        }
        // All end at once; when a few webhooks have arrived, the others are anywhere on their way.
        let ending: Vec<_> = fresh.iter().cloned().map(|id| tokio::spawn(end(client.clone(), id))).collect();
        receiver.wait(ids.len() + cut, PATIENCE).await?;
        edge.restart().await?;
        for task in ending {
            task.await?;
        }
        for id in &fresh {
            // A cancel that was never heard of is asked for again; one that was heard stands.
            end(client.clone(), id.clone()).await;
            assert_eq!(client.job(id).await?["state"], "cancelled");
        }
        ids.extend(fresh);
        for id in &ids {
            let log = delivery(&client, id, "delivered").await?;
            assert!(outcomes(&log).iter().all(|(attempt, ..)| *attempt == 1), "an interruption cost an attempt: {log}");
            let hooks = receiver.hooks();
            let told: Vec<_> = hooks.iter().filter(|hook| hook.job()["jobId"] == id.as_str()).collect();
            assert!(!told.is_empty());
            assert!(told.iter().all(|hook| hook.request.header("webhook-id") == log["id"].as_str()), "{log}");
        }
    }
    Ok(())
}

/// Cancels, whatever comes of it.
async fn end(client: Client, id: String) {
    let _ = client.cancel(&id).await;
}

/// The power goes at five points at once: while an attempt is being sent, after it was answered and before that is recorded,
/// the same at the second attempt, while a row waits whose message is not sent yet, and while a sender waits to go on.
#[tokio::test]
async fn an_interrupted_attempt_is_made_again_at_no_cost_wherever_the_power_went() -> Result<()> {
    let mut edge = own_edge().await?;
    let client = edge.client();
    // The first waits are the same, and the third is long enough to be caught in it.
    client.put("/v1/settings", &json!({"webhookSchedule": "durable"})).await?.expect(200)?;
    let (answer, told) = watch::channel(());
    let silent = Receiver::answering([Reply::hang(), Reply::status(500), Reply::status(500)]).await?;
    let answered = Receiver::answering([Reply::status(200).body("taken").when(told.clone())]).await?;
    let second = [Reply::status(500), Reply::status(200).body("taken").when(told)];
    let second = Receiver::answering(second).await?;
    let waiting = Receiver::answering(vec![Reply::status(503); 3]).await?;

    let mut ids = Vec::new();
    for receiver in [&silent, &answered, &second] {
        ids.push(cancelled(&client, &receiver.url()).await?);
    }
    silent.wait(1, PATIENCE).await?;
    answered.wait(1, PATIENCE).await?;
    second.wait(2, PATIENCE).await?;
    ids.push(cancelled(&client, &waiting.url()).await?);
    wait_for("the record of three attempts", PATIENCE, async || {
        let log = client.get(&format!("/v1/jobs/{}/deliveries", ids[3])).await?.expect(200)?["deliveries"][0].take();
        Ok((outcomes(&log).len() == 3 && log["nextAttemptAt"].is_string()).then_some(()))
    })
    .await?;
    let soon = Receiver::answering([Reply::status(500)]).await?;
    let interrupted_or_not = cancelled(&client, &soon.url()).await?;
    soon.wait(1, PATIENCE).await?;
    edge.freeze()?;
    // The answers leave, and nobody takes them any more.
    let before = answered.sent() + second.sent();
    answer.send_replace(());
    wait_for("the answers to be sent", PATIENCE, async || {
        Ok((answered.sent() + second.sent() == before + 10).then_some(()))
    })
    .await?;
    edge.restart().await?;

    let lost = |attempt| (attempt, 0, "interrupted");
    let refused = |attempt, status| (attempt, status, "status");
    let done = |attempt| (attempt, 200, "");
    let table = [
        (&silent, vec![lost(1), refused(1, 500), refused(2, 500), done(3)]),
        (&answered, vec![lost(1), done(1)]),
        (&second, vec![refused(1, 500), lost(2), done(2)]),
        (&waiting, vec![refused(1, 503), refused(2, 503), refused(3, 503), done(4)]),
    ];
    for (id, (receiver, expected)) in ids.iter().zip(table) {
        let log = delivery(&client, id, "delivered").await?;
        assert_eq!(outcomes(&log), expected, "{log}");
        let hooks = receiver.hooks();
        assert_eq!(hooks.len(), expected.len(), "every attempt reached the receiver, interrupted ones included");
        assert!(hooks.iter().all(|hook| hook.request.header("webhook-id") == log["id"].as_str()));
    }
    // The record of the first answer may have been made or not: its second attempt is the one that is taken.
    let log = delivery(&client, &interrupted_or_not, "delivered").await?;
    let counted: Vec<_> = outcomes(&log).into_iter().filter(|(.., error)| *error != "interrupted").collect();
    assert!(matches!(counted[..], [(1, 500, "status"), (2, 200, "")] | [(1, 200, "")]), "{log}");
    Ok(())
}

#[tokio::test]
async fn a_panic_in_one_request_touches_no_other() -> Result<()> {
    let edge = own_edge().await?;
    let client = edge.client();
    let receiver = Receiver::answering([Reply::status(200).after(Duration::from_secs(2))]).await?;
    let sending = cancelled(&client, &receiver.url()).await?;
    receiver.wait(1, PATIENCE).await?;
    // Others are asked before, while and after each of them panics, and a webhook is on its way all the time.
    let mut others = Vec::new();
    let mut panics = Vec::new();
    for place in ["worker", "object"] {
        for _ in 0..5 {
            let (caller, url) = (client.clone(), receiver.url());
            others.push(tokio::spawn(async move { cancelled(&caller, &url).await }));
            let caller = client.clone();
            panics.push(tokio::spawn(async move { caller.get(&format!("/panic/{place}")).await }));
        }
    }
    for panicked in panics {
        assert_eq!(panicked.await??.status, 500, "whoever asked learns that it failed");
    }
    for other in others {
        delivery(&client, &other.await??, "delivered").await?;
    }
    assert_eq!(outcomes(&delivery(&client, &sending, "delivered").await?), [(1, 200, "")]);
    Ok(())
}
