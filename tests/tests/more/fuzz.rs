//! A fuzzer that makes requests from the served description of the API, and holds the answers against it. What it judges
//! is in `tests/fuzz/schemathesis.toml`.

use std::{env, fs, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use xora_tests::{
    Edge, EdgeOptions, Node, NodeOptions, Origin, PATIENCE, Receiver, compress, end_with_parent, root, short_clip,
    thumbnail, with,
};

#[tokio::test]
async fn no_request_is_answered_with_a_server_error_or_in_a_way_that_is_not_described() -> Result<()> {
    end_with_parent();
    let edge = Edge::start(EdgeOptions::default()).await?;
    let (origin, receiver) = (Origin::start().await?, Receiver::start().await?);
    let known = known(&edge, &origin, &receiver).await?;
    let log = root().join("target/fuzz.log");
    let mut command = Command::new(root().join("target/fuzz/bin/schemathesis"));
    command
        .args(["--config-file".as_ref(), root().join("tests/fuzz/schemathesis.toml").as_os_str()])
        .args(["run", &format!("{}/v1/openapi.json", edge.url)])
        .args(["--max-time", &env::var("FUZZ_SECONDS").unwrap_or_else(|_| "60".to_owned())])
        .args(["--header", &format!("Authorization: Bearer {}", edge.key)])
        .envs([("XORA_FUZZ", known.as_str()), ("SCHEMATHESIS_HOOKS", "hooks"), ("NO_COLOR", "1")])
        .envs([("PYTHONPATH", root().join("tests/fuzz").as_os_str()), ("PYTHONDONTWRITEBYTECODE", "1".as_ref())])
        .current_dir(root().join("target/fuzz"))
        .stdout(fs::File::create(&log)?)
        .stderr(fs::File::options().append(true).open(&log)?);
    let status = tokio::task::spawn_blocking(move || command.status()).await?.context("run `scripts/setup fuzzer`")?;
    let report = fs::read_to_string(&log)?;
    ensure!(status.success(), "{report}");
    Ok(())
}

/// What the fuzzer has to know to reach more than refusals: the ids of a completed and a failed job, of a delivery, a
/// preset and an upload, and URLs that answer.
async fn known(edge: &Edge, origin: &Origin, receiver: &Receiver) -> Result<String> {
    let client = edge.client();
    let node = Node::start(edge, NodeOptions::default()).await?;
    let input = origin.file(&short_clip()?)?;
    let completed = client.run(&with(compress(&input), "webhookUrl", receiver.url()), PATIENCE).await?;
    let failed = client.run(&thumbnail(&origin.missing()), PATIENCE).await?;
    receiver.wait(1, PATIENCE).await?;
    // Without a node, jobs that the fuzzer makes wait, and can be cancelled and retried.
    drop(node);
    let id = completed["jobId"].as_str().context("an id")?;
    let log = client.get(&format!("/v1/jobs/{id}/deliveries")).await?.expect(200)?;
    let config = json!({"mode": "recipe", "output": {"format": "png"}, "recipe": {"name": "thumbnail"}});
    let preset = client.post("/v1/presets", &json!({"name": "still", "config": config})).await?.expect(201)?;
    let upload = client.post("/v1/uploads", &json!({"filename": "a.mov", "size": 9})).await?.expect(201)?;
    let waiting = client.create(&compress(&input)).await?;
    let ids = json!([
        id,
        failed["jobId"],
        waiting,
        log["deliveries"][0]["id"],
        preset["id"],
        upload["uploadId"],
        "thumbnail"
    ]);
    Ok(json!({"ids": ids, "input": input, "webhook": receiver.url()}).to_string())
}
