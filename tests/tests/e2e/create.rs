//! What is refused before it becomes a job.

use anyhow::{Context, Result};
use reqwest::Method;
use serde_json::{Value, json};
use xora_tests::{Answer, Client, Edge, EdgeOptions, Origin, end_with_parent};

use crate::{PATIENCE, compress, edge, idle_edge, job, short_clip, thumbnail, with};

const HTTPS: &str = "https://media.example.com/a.mp4";

async fn refused(client: &Client, body: &Value, words: &[&str]) -> Result<()> {
    let answer = client.post("/v1/jobs", body).await?;
    assert_eq!((answer.status, answer.code()), (400, "VALIDATION_ERROR"), "{body} gave {}", answer.json);
    assert_eq!(answer.json["error"]["retryable"], false);
    for word in words {
        assert!(answer.message().contains(word), "`{}` says nothing of `{word}`", answer.message());
    }
    Ok(())
}

#[tokio::test]
async fn nothing_is_answered_without_a_good_key() -> Result<()> {
    let client = edge().await?.client();
    let wrong = "nte_000000000000000000000000000000000000000000000000";
    for key in ["", wrong, "nonsense"] {
        let stranger = client.with_key(key);
        for answer in [
            stranger.get("/v1/jobs/01J00000000000000000000000").await?,
            stranger.post("/v1/jobs", &compress(HTTPS)).await?,
        ] {
            assert_eq!((answer.status, answer.code()), (401, "UNAUTHORIZED"), "{}", answer.json);
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_key_may_stand_in_either_header_and_the_path_under_api() -> Result<()> {
    let edge = edge().await?;
    let nobody = edge.client().with_key("");
    let asked = nobody.request(Method::GET, "/api/v1/settings").header("X-API-KEY", &edge.key).send().await?;
    assert_eq!(asked.status(), 200);
    edge.client().get("/api/v1/settings").await?.expect(200).map(drop)
}

#[tokio::test]
async fn a_key_of_one_scope_does_nothing_else_and_a_revoked_one_nothing_at_all() -> Result<()> {
    let edge = Edge::start(EdgeOptions::default()).await?;
    let admin = edge.client();
    let minted = admin.post("/v1/tokens", &json!({"name": "reader", "scopes": ["settings"]})).await?.expect(201)?;
    let client = admin.with_key(minted["token"].as_str().unwrap_or_default());
    client.get("/v1/settings").await?.expect(200)?;
    let answer = client.post("/v1/jobs", &compress(HTTPS)).await?;
    assert_eq!((answer.status, answer.code()), (403, "FORBIDDEN"));

    let path = format!("/v1/tokens/{}", minted["id"].as_str().unwrap_or_default());
    let revoked = admin.request(Method::DELETE, &path).send().await?;
    assert!(revoked.status().is_success());
    // Workers may keep a verdict for half a minute.
    let patience = std::time::Duration::from_secs(40);
    let gone = xora_tests::wait_for("the key to be refused", patience, async || {
        Ok(Some(client.get("/v1/settings").await?).filter(|answer| answer.status == 401))
    });
    assert_eq!(gone.await?.code(), "UNAUTHORIZED");
    Ok(())
}

#[tokio::test]
async fn a_body_that_is_no_json_is_refused() -> Result<()> {
    let client = edge().await?.client();
    for body in ["", "{", "[]", "\"job\"", "null", "{\"mode\":\"recipe\",}"] {
        let request = client.request(Method::POST, "/v1/jobs").header("Content-Type", "application/json").body(body);
        let response = request.send().await?;
        assert_eq!(response.status(), 400, "{body}");
        let json: Value = serde_json::from_slice(&response.bytes().await?)?;
        assert_eq!(json["error"]["code"], "VALIDATION_ERROR", "{body}");
    }
    Ok(())
}

#[tokio::test]
async fn an_unknown_field_is_refused_by_its_name() -> Result<()> {
    let client = edge().await?.client();
    refused(&client, &with(compress(HTTPS), "webhookURL", "https://example.com/"), &["webhookURL"]).await?;
    refused(&client, &job(HTTPS, "mp4", &json!({"name": "compress", "crff": 20})), &["recipe.crff"]).await
}

#[tokio::test]
async fn every_problem_of_a_body_is_named_in_one_answer() -> Result<()> {
    let client = edge().await?.client();
    let body = json!({
        "mode": "recipe", "input": {"url": "ftp://example.com/a"}, "output": {"format": "avi"},
        "recipe": {"name": "compress", "crf": 99}, "priority": "high", "webhookUrl": 7,
    });
    refused(&client, &body, &["input.url", "output.format", "recipe.crf", "priority", "webhookUrl"]).await
}

#[tokio::test]
async fn wrong_types_unknown_recipes_and_formats_that_do_not_fit_are_refused() -> Result<()> {
    let client = edge().await?.client();
    refused(&client, &with(compress(HTTPS), "mode", 1), &["mode"]).await?;
    refused(&client, &with(compress(HTTPS), "recipe", "compress"), &["recipe"]).await?;
    refused(&client, &job(HTTPS, "mp4", &json!({"name": "shrink"})), &["recipe.name"]).await?;
    refused(&client, &job(HTTPS, "mp3", &json!({"name": "compress"})), &["output.format"]).await?;
    refused(&client, &job(HTTPS, "mp4", &json!({"name": "thumbnail"})), &["output.format"]).await?;
    refused(&client, &with(compress(HTTPS), "input", json!({})), &["input"]).await
}

#[tokio::test]
async fn private_addresses_are_refused_even_where_loopback_is_allowed() -> Result<()> {
    let client = edge().await?.client();
    for host in
        ["10.0.0.1", "169.254.169.254", "192.168.1.1", "[fd00::1]", "[::ffff:10.0.0.1]", "0x0a000001", "printer"]
    {
        for scheme in ["http", "https"] {
            let url = format!("{scheme}://{host}/a.mp4");
            refused(&client, &compress(&url), &["input.url"]).await?;
            refused(&client, &with(compress(HTTPS), "webhookUrl", url), &["webhookUrl"]).await?;
        }
    }
    refused(&client, &compress("https://user:secret@example.com/a.mp4"), &["input.url"]).await
}

#[tokio::test]
async fn http_and_loopback_are_refused_unless_allowed() -> Result<()> {
    end_with_parent();
    let edge = Edge::start(EdgeOptions { allow_loopback: false, ..EdgeOptions::default() }).await?;
    let client = edge.client();
    for url in [
        "http://example.com/a.mp4",
        "http://127.0.0.1/a.mp4",
        "https://127.0.0.1/a.mp4",
        "https://localhost/a",
        "https://[::1]/a",
    ] {
        refused(&client, &compress(url), &["input.url"]).await?;
        refused(&client, &with(compress(HTTPS), "webhookUrl", url), &["webhookUrl"]).await?;
    }
    client.create(&compress(HTTPS)).await.map(drop)
}

#[tokio::test]
async fn unknown_jobs_and_paths_are_not_found() -> Result<()> {
    let client = edge().await?.client();
    for path in ["/v1/jobs/01J00000000000000000000000", "/v1/jobs/x", "/v1/nothing"] {
        let answer = client.get(path).await?;
        assert_eq!((answer.status, answer.code()), (404, "NOT_FOUND"), "{path}");
    }
    let answer = client.put("/v1/jobs", &json!({})).await?;
    assert_eq!((answer.status, answer.code()), (405, "METHOD_NOT_ALLOWED"));
    Ok(())
}

/// `POST /v1/jobs` with a key and a body as it stands: the answer, and whether it says that it was given before.
async fn create_once(client: &Client, key: &str, body: &str) -> Result<(Answer, bool)> {
    let request = client.request(Method::POST, "/v1/jobs").header("Idempotency-Key", key);
    let response = request.header("Content-Type", "application/json").body(body.to_owned()).send().await?;
    let status = response.status().as_u16();
    let replayed = response.headers().get("idempotent-replayed").is_some_and(|value| value == "true");
    Ok((Answer { status, json: serde_json::from_slice(&response.bytes().await?)? }, replayed))
}

/// The same JSON with the names of every object in the opposite order.
fn turned(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields.iter().rev().map(|(name, value)| (name.clone(), turned(value))).collect(),
        Value::Array(items) => items.iter().map(turned).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

#[tokio::test]
async fn a_repeated_request_makes_no_second_job_and_is_answered_with_the_first_as_it_stands() -> Result<()> {
    let client = edge().await?.client();
    let origin = Origin::start().await?;
    let body = thumbnail(&origin.file(&short_clip()?)?);
    let (first, replayed) = create_once(&client, "one", &body.to_string()).await?;
    assert_eq!((first.status, &first.json["state"], replayed), (202, &json!("queued"), false), "{}", first.json);
    let id = first.json["jobId"].as_str().context("an id")?;
    client.finished(id, PATIENCE).await?;

    assert_ne!(turned(&body).to_string(), body.to_string());
    for same in [body.to_string(), format!("  {body}\n"), turned(&body).to_string()] {
        let (again, replayed) = create_once(&client, "one", &same).await?;
        let expected = json!({"jobId": id, "state": "completed"});
        assert_eq!((again.status, again.json, replayed), (202, expected, true), "{same}");
    }
    let (other, replayed) = create_once(&client, "one", &with(body, "priority", 9).to_string()).await?;
    assert_eq!((other.status, other.code(), replayed), (422, "IDEMPOTENCY_MISMATCH", false));
    Ok(())
}

#[tokio::test]
async fn a_repeated_request_is_answered_though_what_it_names_is_gone() -> Result<()> {
    let client = idle_edge().await?.client();
    let config = json!({"mode": "recipe", "output": {"format": "jpg"}, "recipe": {"name": "thumbnail"}});
    let preset =
        client.post("/v1/presets", &json!({"name": "still", "config": config})).await?.expect(201)?["id"].take();
    let body = json!({"presetId": preset, "input": {"url": HTTPS}}).to_string();
    let (first, _) = create_once(&client, "gone", &body).await?;
    let id = first.expect(202)?["jobId"].take();
    client.delete(&format!("/v1/presets/{}", preset.as_str().context("an id")?)).await?.expect(204)?;
    assert_eq!(create_once(&client, "another", &body).await?.0.status, 400, "the preset is gone");
    let (again, replayed) = create_once(&client, "gone", &body).await?;
    assert_eq!((again.expect(202)?["jobId"].take(), replayed), (id.clone(), true));
    // Nor is the body judged before: it is another, and that is what is wrong.
    let (other, _) = create_once(&client, "gone", "{}").await?;
    assert_eq!((other.status, other.code()), (422, "IDEMPOTENCY_MISMATCH"), "{}", other.json);
    client.cancel(id.as_str().context("an id")?).await?.expect(200).map(drop)
}

#[tokio::test]
async fn a_key_whose_job_was_deleted_makes_no_other_and_names_it() -> Result<()> {
    let client = idle_edge().await?.client();
    let body = thumbnail(HTTPS).to_string();
    let first = create_once(&client, "deleted", &body).await?.0.expect(202)?;
    let id = first["jobId"].as_str().context("an id")?;
    client.cancel(id).await?.expect(200)?;
    client.delete(&format!("/v1/jobs/{id}")).await?.expect(204)?;
    let (again, _) = create_once(&client, "deleted", &body).await?;
    assert_eq!((again.status, again.code()), (409, "CONFLICT"), "{}", again.json);
    assert!(again.message().contains(id), "{}", again.message());
    Ok(())
}
