//! Settings: what is merged, what is cleared, what they are used for.

use anyhow::Result;
use serde_json::{Value, json};
use xora_tests::{Node, NodeOptions, Origin, Receiver, Reply};

use crate::{PATIENCE, own_edge, short_clip, thumbnail};

#[tokio::test]
async fn given_keys_are_merged_and_null_clears() -> Result<()> {
    let edge = own_edge().await?;
    let client = edge.client();
    let fresh = client.get("/v1/settings").await?.expect(200)?;
    assert_eq!(fresh["defaultWebhookUrl"], Value::Null);
    assert_eq!(fresh["webhookSchedule"], "standard");

    let url = "https://hooks.example.com/a";
    let set = client.post("/v1/settings", &json!({"defaultWebhookUrl": url})).await?.expect(200)?;
    assert_eq!(set["defaultWebhookUrl"], url);
    let kept = client.put("/v1/settings", &json!({"webhookSchedule": "durable"})).await?.expect(200)?;
    assert_eq!((&kept["defaultWebhookUrl"], &kept["webhookSchedule"]), (&json!(url), &json!("durable")));
    let cleared = client.post("/v1/settings", &json!({"defaultWebhookUrl": null})).await?.expect(200)?;
    assert_eq!((&cleared["defaultWebhookUrl"], &cleared["webhookSchedule"]), (&Value::Null, &json!("durable")));
    assert_eq!(client.get("/v1/settings").await?.expect(200)?, cleared);

    for wrong in [
        json!({"defaultWebhookUrl": "http://10.0.0.1/"}),
        json!({"unknown": 1}),
        json!([]),
        json!({"webhookSchedule": 7}),
    ] {
        let answer = client.post("/v1/settings", &wrong).await?;
        assert_eq!((answer.status, answer.code()), (400, "VALIDATION_ERROR"), "{wrong}");
    }
    assert_eq!(client.get("/v1/settings").await?.expect(200)?, cleared);
    Ok(())
}

#[tokio::test]
async fn settings_survive_a_power_cut() -> Result<()> {
    let mut edge = own_edge().await?;
    let client = edge.client();
    let set =
        client.post("/v1/settings", &json!({"defaultWebhookUrl": "https://hooks.example.com/a"})).await?.expect(200)?;
    edge.restart().await?;
    assert_eq!(client.get("/v1/settings").await?.expect(200)?, set);
    Ok(())
}

#[tokio::test]
async fn the_default_webhook_url_is_used_and_a_jobs_own_beats_it() -> Result<()> {
    let edge = own_edge().await?;
    let _node = Node::start(&edge, NodeOptions::default()).await?;
    let client = edge.client();
    let (origin, default, own) = (Origin::start().await?, Receiver::start().await?, Receiver::start().await?);
    client.post("/v1/settings", &json!({"defaultWebhookUrl": default.url()})).await?.expect(200)?;
    let body = thumbnail(&origin.file(&short_clip()?)?);
    let plain = client.create(&body).await?;
    let beating = client.create(&crate::with(body, "webhookUrl", own.url())).await?;
    assert_eq!(default.wait(1, PATIENCE).await?[0].job()["jobId"], plain.as_str());
    assert_eq!(own.wait(1, PATIENCE).await?[0].job()["jobId"], beating.as_str());
    assert_eq!(default.hooks().len(), 1);
    Ok(())
}

#[tokio::test]
async fn who_gets_a_webhook_is_settled_when_the_job_ends() -> Result<()> {
    let edge = own_edge().await?;
    let client = edge.client();
    let (before, after) = (Receiver::start().await?, Receiver::answering([Reply::status(500)]).await?);
    let set = async |url: Value| client.put("/v1/settings", &json!({"defaultWebhookUrl": url})).await?.expect(200);
    let create = async || client.create(&thumbnail("https://media.example.com/a.mp4")).await;

    set(before.url().into()).await?;
    let (told, untold) = (create().await?, create().await?);
    set(after.url().into()).await?;
    client.cancel(&told).await?.expect(200)?;
    // What is owed is owed, whatever the settings say by then.
    set(Value::Null).await?;
    client.cancel(&untold).await?.expect(200)?;
    let hooks = after.wait(2, PATIENCE).await?;
    assert!(hooks.iter().all(|hook| hook.job()["jobId"] == told.as_str()));
    assert!(before.hooks().is_empty(), "the URL at creation does not count");
    let log = client.get(&format!("/v1/jobs/{untold}/deliveries")).await?.expect(200)?;
    assert_eq!(log, json!({"deliveries": []}));
    Ok(())
}

#[tokio::test]
async fn the_test_webhook_says_what_the_receiver_answered() -> Result<()> {
    let edge = own_edge().await?;
    let client = edge.client();
    let test = async || client.post("/v1/settings/webhook/test", &json!({})).await;
    assert_eq!(test().await?.status, 400, "no URL is set");

    let replies = [Reply::status(204), Reply::status(500), Reply::status(404), Reply::redirect("/else"), Reply::hang()];
    let receiver = Receiver::answering(replies).await?;
    client.post("/v1/settings", &json!({"defaultWebhookUrl": receiver.url()})).await?.expect(200)?;
    assert_eq!(test().await?.expect(200)?, json!({"ok": true, "status": 204}));
    for status in [500, 404, 302] {
        assert_eq!(test().await?.expect(200)?, json!({"ok": false, "status": status}));
    }
    let unreached = async |code: &str| {
        let told = test().await?.expect(200)?;
        assert_eq!((&told["ok"], &told["status"], &told["error"]["code"]), (&json!(false), &json!(0), &json!(code)));
        assert!(told["error"]["message"].is_string(), "{told}");
        anyhow::Ok(())
    };
    unreached("timeout").await?;
    let hooks = receiver.hooks();
    assert_eq!(hooks.len(), 5, "nothing is tried again");
    let sample = hooks[0].job();
    for field in ["jobId", "state", "progress", "output", "output_files"] {
        assert!(sample.get(field).is_some(), "the sample has no {field}: {sample}");
    }
    assert!(hooks[0].json["timestamp"].is_u64());

    // Nobody listens there any more.
    drop(receiver);
    unreached("network").await
}
