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
async fn the_test_webhook_says_what_the_receiver_answered() -> Result<()> {
    let edge = own_edge().await?;
    let client = edge.client();
    let test = async || client.post("/v1/settings/webhook/test", &json!({})).await;
    assert_eq!(test().await?.status, 400, "no URL is set");

    let receiver = Receiver::answering([Reply::status(204), Reply::status(500), Reply::redirect("/else")]).await?;
    client.post("/v1/settings", &json!({"defaultWebhookUrl": receiver.url()})).await?.expect(200)?;
    assert_eq!(test().await?.expect(200)?, json!({"ok": true, "status": 204}));
    assert_eq!(test().await?.expect(200)?, json!({"ok": false, "status": 500}));
    let redirected = test().await?.expect(200)?;
    assert_eq!(redirected["ok"], false, "{redirected}");
    assert_eq!(receiver.hooks().len(), 3, "nothing is tried again");
    assert!(receiver.hooks()[0].request.header("webhook-signature").is_some());

    drop(receiver);
    let nobody = test().await?.expect(200)?;
    assert_eq!((&nobody["ok"], &nobody["status"]), (&json!(false), &json!(0)), "{nobody}");
    assert!(nobody["error"].is_object(), "{nobody}");
    Ok(())
}
