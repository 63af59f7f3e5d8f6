//! What survives when something dies.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use xora_tests::{Client, Node, NodeOptions, Origin, Receiver, Reply, Served, clip, probe};

use crate::{
    PATIENCE, compress, job, long_clip, own_edge, short_clip, thumbnail,
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
    let delivered = xora_tests::wait_for("the delivery to be recorded", PATIENCE, async || {
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
    // Small to read and long to encode.
    let pale = "-f lavfi -i testsrc2=s=1280x720:r=30:d=60 -c:v libx264 -preset ultrafast -crf 45";
    let url = origin.file(&clip("pale.mp4", &pale.split(' ').collect::<Vec<_>>())?)?;
    let id = client.create(&job(&url, "mp4", &json!({"name": "compress", "codec": "hevc"}))).await?;
    let log = edge.dir().join("first.log");
    let kept = xora_tests::wait_for("the input to be kept", PATIENCE, async || {
        Ok(std::fs::read_to_string(&log)?.contains("input kept").then_some(()))
    });
    kept.await?;
    first.kill()?;
    origin.serve("pale.mp4", Served::Always(Reply::status(404)));
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
    let mut node = Node::start(&edge, NodeOptions::default()).await?;
    let id = client.create(&compress(&origin.file(&short_clip()?)?)).await?;
    client.when(&id, PATIENCE, |job| job["state"] != "queued").await?;
    node.terminate()?;
    assert!(node.wait(Duration::from_secs(30)).await?, "it ends well");
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
    let told = xora_tests::wait_for("every cancelled job's webhook", PATIENCE, async || {
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

#[tokio::test]
async fn a_webhook_whose_sender_died_is_sent_again_and_it_costs_no_attempt() -> Result<()> {
    let mut edge = own_edge().await?;
    let client = edge.client();
    let receiver = Receiver::answering([Reply::hang(), Reply::status(500), Reply::status(500)]).await?;
    let id = cancelled(&client, &receiver.url()).await?;
    // The receiver has the request and has not answered.
    receiver.wait(1, PATIENCE).await?;
    edge.restart().await?;
    let log = delivery(&client, &id, "delivered").await?;
    let expected = [(1, 0, "interrupted"), (1, 500, "status"), (2, 500, "status"), (3, 200, "")];
    assert_eq!(outcomes(&log), expected);
    let hooks = receiver.hooks();
    assert_eq!(hooks.len(), 4);
    assert!(hooks.iter().all(|hook| hook.request.header("webhook-id") == log["id"].as_str()));
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
