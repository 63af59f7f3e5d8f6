//! Signatures: what the published libraries of Standard Webhooks say of webhooks that the real system sent.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xora_tests::{Client, Receiver, Request, root};

use crate::{PATIENCE, own_edge, webhooks::cancelled};

const JAVASCRIPT: &str = "const { Webhook } = require('standardwebhooks');
    const judge = ({ secret, headers, body }) => {
        try { new Webhook(secret).verify(body, headers); return 'verified'; }
        catch (error) { return error.constructor.name; }
    };
    console.log(JSON.stringify(JSON.parse(process.argv[1]).map(judge)));";

const PYTHON: &str = "
import json, sys
from standardwebhooks import Webhook
def judge(case):
    try:
        Webhook(case['secret']).verify(case['body'], case['headers'])
        return 'verified'
    except Exception as error:
        return type(error).__name__
print(json.dumps([judge(case) for case in json.loads(sys.argv[1])]))";

const VERIFIED: &str = "verified";
const REFUSED: &str = "WebhookVerificationError";

/// What both libraries say of each case: they must agree.
fn judged(cases: &[Value]) -> Result<Vec<String>> {
    let cases = Value::from(cases).to_string();
    let mut javascript = Command::new(root().join("node_modules/.bin/node"));
    javascript.args(["-e", JAVASCRIPT, &cases]).current_dir(root());
    let mut python = Command::new("python3");
    let library = root().join("target/tools/python");
    ensure!(library.join("standardwebhooks").is_dir(), "the library for Python is missing; run scripts/setup");
    python.args(["-c", PYTHON, &cases]).env("PYTHONPATH", library).current_dir(Path::new("/"));
    let [ours, theirs] = [said(javascript)?, said(python)?];
    assert_eq!(ours, theirs, "the libraries disagree");
    Ok(ours)
}

fn said(mut command: Command) -> Result<Vec<String>> {
    let run = command.output()?;
    ensure!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    Ok(serde_json::from_slice(&run.stdout)?)
}

fn case(secret: &str, request: &Request) -> Result<Value> {
    let headers: serde_json::Map<_, _> =
        request.headers.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    Ok(json!({"secret": secret, "headers": headers, "body": String::from_utf8(request.body.clone())?}))
}

async fn webhook(client: &Client) -> Result<Request> {
    let receiver = Receiver::start().await?;
    cancelled(client, &receiver.url()).await?;
    Ok(receiver.wait(1, PATIENCE).await?.remove(0).request)
}

async fn secret(client: &Client) -> Result<String> {
    let shown = client.get("/v1/settings/webhook/secret").await?.expect(200)?;
    Ok(shown["secret"].as_str().context("a secret")?.to_owned())
}

#[tokio::test]
async fn published_libraries_verify_webhooks_and_refuse_changed_ones() -> Result<()> {
    let edge = own_edge().await?;
    let client = edge.client();
    let request = webhook(&client).await?;
    let secret = secret(&client).await?;
    assert!(secret.starts_with("whsec_"));

    let good = case(&secret, &request)?;
    let mut cases = vec![good.clone()];
    let body = good["body"].as_str().unwrap_or_default();
    cases.push(json!({"secret": secret, "headers": good["headers"], "body": body.replace("cancelled", "completed")}));
    for (name, value) in [
        ("webhook-id", "01J00000000000000000000000".to_owned()),
        ("webhook-timestamp", later(request.header("webhook-timestamp"), 1)?),
        ("webhook-timestamp", later(request.header("webhook-timestamp"), -3600)?),
        ("webhook-signature", "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".to_owned()),
    ] {
        let mut changed = good.clone();
        changed["headers"][name] = value.into();
        cases.push(changed);
    }
    cases.push(case("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", &request)?);
    let mut expected = vec![REFUSED; cases.len()];
    expected[0] = VERIFIED;
    assert_eq!(judged(&cases)?, expected);
    Ok(())
}

fn later(seconds: Option<&str>, by: i64) -> Result<String> {
    Ok((seconds.context("a time")?.parse::<i64>()? + by).to_string())
}

#[tokio::test]
async fn after_a_rotation_either_secret_verifies_and_the_one_before_both_does_not() -> Result<()> {
    let edge = own_edge().await?;
    let client = edge.client();
    let rotate = async || {
        let rotated = client.post("/v1/settings/webhook/secret/rotate", &json!({})).await?.expect(200)?;
        assert!(rotated["previousSecretExpiresAt"].is_string(), "{rotated}");
        anyhow::Ok(rotated["secret"].as_str().context("a secret")?.to_owned())
    };
    let first = secret(&client).await?;
    let second = rotate().await?;
    let request = webhook(&client).await?;
    assert_eq!(secret(&client).await?, second);
    assert_eq!(judged(&[case(&first, &request)?, case(&second, &request)?])?, [VERIFIED; 2]);

    let third = rotate().await?;
    let request = webhook(&client).await?;
    let cases = [case(&first, &request)?, case(&second, &request)?, case(&third, &request)?];
    assert_eq!(judged(&cases)?, [REFUSED, VERIFIED, VERIFIED]);
    Ok(())
}

#[tokio::test]
async fn the_test_webhook_is_signed_like_any_other() -> Result<()> {
    let edge = own_edge().await?;
    let client = edge.client();
    let receiver = Receiver::start().await?;
    client.put("/v1/settings", &json!({"defaultWebhookUrl": receiver.url()})).await?.expect(200)?;
    client.post("/v1/settings/webhook/test", &json!({})).await?.expect(200)?;
    let request = receiver.wait(1, PATIENCE).await?.remove(0).request;
    assert_eq!(judged(&[case(&secret(&client).await?, &request)?])?, [VERIFIED]);
    Ok(())
}
