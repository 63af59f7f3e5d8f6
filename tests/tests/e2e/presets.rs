//! Presets: saved, changed, used, overridden.

use anyhow::{Context, Result};
use reqwest::Method;
use serde_json::{Value, json};
use xora_tests::{Client, Origin};

use crate::{PATIENCE, edge, own_edge, short_clip};

const HTTPS: &str = "https://media.example.com/a.mp4";

fn preset() -> Value {
    json!({
        "name": "Small stills",
        "description": "For lists",
        "config": {
            "mode": "recipe",
            "output": {"format": "png"},
            "recipe": {"name": "thumbnail", "width": 64, "seekSeconds": 1},
            "metadata": {"from": "preset", "kind": "still"},
        },
    })
}

async fn delete(client: &Client, id: &str) -> Result<u16> {
    Ok(client.request(Method::DELETE, &format!("/v1/presets/{id}")).send().await?.status().as_u16())
}

#[tokio::test]
async fn a_preset_is_created_read_listed_replaced_and_deleted() -> Result<()> {
    let client = edge().await?.client();
    let created = client.post("/v1/presets", &preset()).await?.expect(201)?;
    let id = created["id"].as_str().context("an id")?;
    let path = format!("/v1/presets/{id}");
    assert_eq!(created["config"], preset()["config"]);
    assert_eq!(client.get(&path).await?.expect(200)?, created);
    let listed = client.get("/v1/presets").await?.expect(200)?;
    assert!(listed["presets"].as_array().is_some_and(|all| all.contains(&created)), "{listed}");

    let mut other = preset();
    other["name"] = "Large stills".into();
    other["config"]["recipe"]["width"] = 128.into();
    let replaced = client.put(&path, &other).await?.expect(200)?;
    assert_eq!((&replaced["id"], &replaced["createdAt"]), (&created["id"], &created["createdAt"]));
    assert_eq!((&replaced["name"], &replaced["config"]), (&other["name"], &other["config"]));
    assert_eq!(client.get(&path).await?.expect(200)?, replaced);

    assert_eq!(delete(&client, id).await?, 204);
    assert_eq!(delete(&client, id).await?, 404);
    assert_eq!(client.get(&path).await?.status, 404);
    assert_eq!(client.put(&path, &other).await?.status, 404);
    let gone = client.post("/v1/jobs", &json!({"presetId": id, "input": {"url": HTTPS}})).await?;
    assert_eq!((gone.status, gone.code()), (400, "VALIDATION_ERROR"));
    assert!(gone.message().contains("presetId: names no preset"), "{}", gone.message());
    Ok(())
}

#[tokio::test]
async fn a_job_takes_what_its_preset_says_and_overrides_the_rest() -> Result<()> {
    let client = edge().await?.client();
    let origin = Origin::start().await?;
    let created = client.post("/v1/presets", &preset()).await?.expect(201)?;
    let job = json!({
        "presetId": created["id"],
        "input": {"url": origin.file(&short_clip()?)?},
        "recipe": {"width": 96},
        "metadata": {"from": "job"},
    });
    let done = client.run(&job, PATIENCE).await?;
    assert_eq!(done["state"], "completed", "{done}");
    let file = &done["output_files"]["output"];
    assert_eq!((&file["file_format"], &file["width"], &file["height"]), (&json!("png"), &json!(96), &json!(54)));
    assert_eq!(done["metadata"], json!({"from": "job", "kind": "still"}));
    Ok(())
}

#[tokio::test]
async fn what_a_job_with_a_preset_lacks_or_has_wrong_is_named() -> Result<()> {
    let client = edge().await?.client();
    let starters = client.get("/v1/presets/starters").await?.expect(200)?;
    let starter = &starters["presets"][0]["id"];
    let table = [
        (json!({"presetId": starter}), "input: is required"),
        (json!({"presetId": starter, "input": {"url": HTTPS}, "recipe": {"crf": 99}}), "recipe.crf: must be 0 to 51"),
        (json!({"presetId": starter, "input": {"url": HTTPS}, "mode": "ffmpeg"}), "mode: `ffmpeg` is not offered"),
        (json!({"presetId": starter, "input": {"url": HTTPS}, "frobnicate": 1}), "frobnicate: unknown field"),
        (json!({"presetId": 7, "input": {"url": HTTPS}}), "presetId: must be the id of a preset"),
    ];
    for (body, problem) in table {
        let answer = client.post("/v1/jobs", &body).await?;
        assert_eq!((answer.status, answer.code()), (400, "VALIDATION_ERROR"), "{body}");
        assert!(answer.message().contains(problem), "{} for {problem}", answer.message());
    }
    Ok(())
}

#[tokio::test]
async fn a_starter_can_be_used_and_read_but_not_changed() -> Result<()> {
    let client = edge().await?.client();
    let starters = client.get("/v1/presets/starters").await?.expect(200)?;
    for starter in starters["presets"].as_array().context("a list")? {
        let id = starter["id"].as_str().context("an id")?;
        assert_eq!(&client.get(&format!("/v1/presets/{id}")).await?.expect(200)?, starter);
        let created = client.post("/v1/jobs", &json!({"presetId": id, "input": {"url": HTTPS}})).await?.expect(202)?;
        client.cancel(created["jobId"].as_str().context("a job")?).await?;
        assert_eq!(client.put(&format!("/v1/presets/{id}"), &preset()).await?.code(), "CONFLICT");
        assert_eq!(delete(&client, id).await?, 409);
    }
    Ok(())
}

#[tokio::test]
async fn more_presets_than_can_be_kept_are_refused() -> Result<()> {
    let edge = own_edge().await?;
    let client = edge.client();
    let mut ids = Vec::new();
    let refused = loop {
        let answer = client.post("/v1/presets", &preset()).await?;
        match answer.status {
            201 => ids.push(answer.json["id"].clone()),
            _ => break answer,
        }
    };
    assert_eq!((refused.status, refused.code(), ids.len()), (409, "CONFLICT", 200));
    delete(&client, ids[0].as_str().context("an id")?).await?;
    client.post("/v1/presets", &preset()).await?.expect(201).map(drop)
}
