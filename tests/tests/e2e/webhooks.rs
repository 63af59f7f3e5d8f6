//! Webhooks: when they are sent, again and again, and to whom not.

use std::time::Duration;

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use xora_shared::sign::hmac_sha256;
use xora_tests::{Hook, Origin, Receiver, Reply, wait_for};

use crate::{PATIENCE, edge, short_clip, thumbnail, with};

/// Runs a job whose webhook is answered with these, and answers what the receiver got, after the last attempt that
/// there should be.
async fn attempts(replies: Vec<Reply>, expected: usize) -> Result<(Receiver, Vec<Hook>, String)> {
    let client = edge().await?.client();
    let (origin, receiver) = (Origin::start().await?, Receiver::answering(replies).await?);
    let body = with(thumbnail(&origin.file(&short_clip()?)?), "webhookUrl", receiver.url());
    let id = client.create(&body).await?;
    client.finished(&id, PATIENCE).await?;
    let hooks = receiver.wait(expected, PATIENCE).await?;
    Ok((receiver, hooks, id))
}

fn gap(hooks: &[Hook], from: usize) -> Result<Duration> {
    Ok(hooks[from + 1].request.at.duration_since(hooks[from].request.at)?)
}

#[tokio::test]
async fn a_failed_webhook_is_sent_again_after_half_a_second_and_a_second_and_no_more() -> Result<()> {
    let (receiver, hooks, id) = attempts(vec![Reply::status(500); 3], 3).await?;
    let (first, second) = (gap(&hooks, 0)?, gap(&hooks, 1)?);
    assert!((450..900).contains(&first.as_millis()), "{first:?}");
    assert!((950..1400).contains(&second.as_millis()), "{second:?}");
    let bodies: Vec<_> =
        hooks.iter().map(|hook| (&hook.json["timestamp"], hook.request.header("webhook-id"))).collect();
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]), "{bodies:?}");

    // The log says that it was given up, so a fourth cannot come.
    let client = edge().await?.client();
    let log = wait_for("the delivery to be given up", PATIENCE, async || {
        let log = client.get(&format!("/v1/jobs/{id}/deliveries")).await?.expect(200)?;
        let over = log["deliveries"][0]["state"] == "abandoned";
        Ok(over.then_some(log))
    });
    let log = log.await?;
    assert_eq!(log["deliveries"][0]["attempts"].as_array().map(Vec::len), Some(3), "{log}");
    assert_eq!(receiver.hooks().len(), 3);
    assert_eq!(client.job(&id).await?["state"], "completed");
    Ok(())
}

#[tokio::test]
async fn a_redirect_a_reset_and_an_error_are_failures_and_success_ends_it() -> Result<()> {
    let (_, hooks, _) = attempts(vec![Reply::redirect("/elsewhere"), Reply::reset()], 3).await?;
    assert!(hooks.iter().all(|hook| hook.request.target == "/hook"), "a redirect was followed");
    let (receiver, _, id) = attempts(vec![Reply::status(503)], 2).await?;
    let client = edge().await?.client();
    let log = wait_for("the delivery to be logged", PATIENCE, async || {
        let log = client.get(&format!("/v1/jobs/{id}/deliveries")).await?.expect(200)?;
        Ok((log["deliveries"][0]["state"] == "delivered").then_some(log))
    });
    assert_eq!(log.await?["deliveries"][0]["attempts"].as_array().map(Vec::len), Some(2));
    assert_eq!(receiver.hooks().len(), 2);
    Ok(())
}

#[tokio::test]
async fn a_slow_receiver_does_not_hold_up_another() -> Result<()> {
    let client = edge().await?.client();
    let origin = Origin::start().await?;
    let url = origin.file(&short_clip()?)?;
    let slow = Receiver::answering([Reply::status(200).after(Duration::from_secs(8))]).await?;
    let quick = Receiver::start().await?;
    client.create(&with(thumbnail(&url), "webhookUrl", slow.url())).await?;
    slow.wait(1, PATIENCE).await?;
    let id = client.create(&with(thumbnail(&url), "webhookUrl", quick.url())).await?;
    let ended = client.finished(&id, PATIENCE).await?;
    let hooks = quick.wait(1, Duration::from_secs(4)).await?;
    assert_eq!(hooks[0].job()["finishedAt"], ended["finishedAt"]);
    Ok(())
}

#[tokio::test]
async fn a_failed_job_has_its_webhook_too() -> Result<()> {
    let client = edge().await?.client();
    let (origin, receiver) = (Origin::start().await?, Receiver::start().await?);
    client.create(&with(thumbnail(&origin.missing()), "webhookUrl", receiver.url())).await?;
    let hooks = receiver.wait(1, PATIENCE).await?;
    assert_eq!(hooks[0].job()["state"], "failed");
    assert_eq!(hooks[0].job()["error"]["code"], "INPUT_UNREACHABLE");
    assert!(hooks[0].job().get("output").is_none());
    Ok(())
}

#[tokio::test]
async fn a_webhook_is_signed_as_standard_webhooks_has_it() -> Result<()> {
    let (_, hooks, _) = attempts(Vec::new(), 1).await?;
    let secret = edge().await?.client().get("/v1/settings/webhook/secret").await?.expect(200)?;
    let secret = secret["secret"].as_str().and_then(|secret| secret.strip_prefix("whsec_")).context("whsec_")?;
    let request = &hooks[0].request;
    let (id, time) = (request.header("webhook-id"), request.header("webhook-timestamp"));
    let mut signed = format!("{}.{}.", id.context("an id")?, time.context("a time")?).into_bytes();
    signed.extend(&request.body);
    let wanted = format!("v1,{}", STANDARD.encode(hmac_sha256(&STANDARD.decode(secret)?, &signed)));
    let signatures = request.header("webhook-signature").context("a signature")?;
    assert!(signatures.split(' ').any(|signature| signature == wanted), "{signatures}");
    Ok(())
}
