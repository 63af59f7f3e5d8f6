//! Webhooks: when they are sent, again and again, and to whom not.

use std::{process::Command, time::Duration};

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};
use xora_tests::{Hook, Origin, Receiver, Reply, Request, root, wait_for};

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
async fn the_published_library_verifies_a_webhook_and_refuses_a_changed_one() -> Result<()> {
    let (_, hooks, _) = attempts(Vec::new(), 1).await?;
    let secret = edge().await?.client().get("/v1/settings/webhook/secret").await?.expect(200)?["secret"].take();
    let request = &hooks[0].request;
    let body = String::from_utf8(request.body.clone())?;
    let changed = body.replace("completed", "Completed");
    assert!(verified(&secret, request, &body)?);
    assert!(!verified(&secret, request, &changed)?);
    Ok(())
}

/// What Standard Webhooks' own JavaScript library says of a body under these headers.
fn verified(secret: &Value, request: &Request, body: &str) -> Result<bool> {
    const SCRIPT: &str = "const { Webhook } = require('standardwebhooks');
        const { secret, headers, body } = JSON.parse(process.argv[1]);
        try { new Webhook(secret).verify(body, headers); console.log('good'); }
        catch (error) { console.log(error.constructor.name); }";
    let headers: serde_json::Map<_, _> =
        request.headers.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    let case = json!({"secret": secret, "headers": headers, "body": body}).to_string();
    let node = root().join("node_modules/.bin/node");
    let run = Command::new(node).args(["-e", SCRIPT, &case]).current_dir(root()).output()?;
    let said = String::from_utf8(run.stdout)?;
    ensure!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    match said.trim() {
        "good" => Ok(true),
        "WebhookVerificationError" => Ok(false),
        other => bail!("the library failed: {other}"),
    }
}
