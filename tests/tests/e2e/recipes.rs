//! Recipes that do less than encode.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use xora_tests::{Bucket, Node, NodeOptions, Origin, Receiver, clip, probe};

use crate::{PATIENCE, bytes, edge, job, own_edge, uploads, with};

/// A second of web-ready film.
fn web_ready_clip() -> Result<std::path::PathBuf> {
    let args = "-f lavfi -i testsrc2=s=320x180:r=25:d=1 -f lavfi -i sine=d=1 -pix_fmt yuv420p -c:v libx264 -c:a aac \
                -movflags +faststart";
    clip("web-ready.mp4", &args.split_whitespace().collect::<Vec<_>>())
}

#[tokio::test]
async fn a_web_ready_input_is_given_back_at_its_own_url() -> Result<()> {
    let client = edge().await?.client();
    let (origin, receiver) = (Origin::start().await?, Receiver::start().await?);
    let url = origin.file(&web_ready_clip()?)?;
    let wanted = with(job(&url, "mp4", &json!({"name": "webReady"})), "webhookUrl", receiver.url());
    let id = client.create(&wanted).await?;
    let job = client.finished(&id, PATIENCE).await?;
    assert_eq!(job["state"], "completed", "{job}");
    assert_eq!(job["output"]["signedUrl"], url);
    assert_eq!(job["output_files"]["output"]["storage_url"], url);
    assert_eq!(job["strategy"]["kind"], "passthrough", "{job}");
    assert!(job["verification"].get("sha256").is_none());
    assert!(job["verification"]["streams"].as_array().context("streams")?.iter().all(|one| one["fate"] == "kept"));
    assert_eq!(job["usage"]["bytesWritten"], 0);
    let hook = &receiver.wait(1, PATIENCE).await?[0];
    assert_eq!(hook.job()["output"]["signedUrl"], url);
    Ok(())
}

#[tokio::test]
async fn a_web_ready_input_is_copied_into_storage_where_its_own_url_serves_nobody_else() -> Result<()> {
    let edge = own_edge().await?;
    let _node = Node::start(&edge, NodeOptions::default()).await?;
    let client = edge.client();
    let (origin, bucket) = (Origin::start().await?, Bucket::start().await?);
    let film = web_ready_clip()?;
    let url = origin.file(&film)?;
    let upload = uploads::sent(&client, bytes(&film)?).await?;
    let added = client.post("/v1/settings/storage-providers", &bucket.provider()).await?.expect(201)?;
    let web_ready = job(&url, "mp4", &json!({"name": "webReady"}));
    let headers = json!({"url": url, "headers": {"Authorization": "Bearer x"}});
    let copied = async |body: Value, into: &str| {
        let done = client.run(&body, PATIENCE).await?;
        assert_eq!((&done["state"], &done["strategy"]["kind"]), (&json!("completed"), &json!("remux")), "{done}");
        let link = done["output"]["signedUrl"].as_str().with_context(|| done.to_string())?;
        assert!(link.starts_with(into), "{link}");
        assert_eq!(done["verification"]["frames"], 25, "{done}");
        let made = std::env::temp_dir().join(format!("xora-copied-{}.mp4", std::process::id()));
        std::fs::write(&made, client.download(link).await?)?;
        let (made_frames, frames) = (probe(&made)?.frames("video")?, probe(&film)?.frames("video")?);
        std::fs::remove_file(&made)?;
        assert_eq!(made_frames, frames);
        anyhow::Ok(())
    };
    copied(with(web_ready.clone(), "input", headers), &edge.url).await?;
    copied(with(web_ready.clone(), "input", json!({"uploadId": upload["uploadId"]})), &edge.url).await?;
    let endpoint = bucket.provider()["endpoint"].as_str().context("an endpoint")?.to_owned();
    copied(with(web_ready.clone(), "storageProviderId", added["id"].clone()), &endpoint).await?;
    client.put("/v1/settings", &json!({"defaultStorageProviderId": added["id"]})).await?.expect(200)?;
    copied(web_ready, &endpoint).await
}

#[tokio::test]
async fn sound_is_copied_into_the_format_of_its_codec_whatever_was_asked_for() -> Result<()> {
    let client = edge().await?.client();
    let origin = Origin::start().await?;
    let url = origin.file(&web_ready_clip()?)?;
    let id = client.create(&job(&url, "mp3", &json!({"name": "extractAudio"}))).await?;
    let job = client.finished(&id, PATIENCE).await?;
    assert_eq!(job["state"], "completed", "{job}");
    let file = &job["output_files"]["output"];
    assert_eq!((file["file_format"].as_str(), file["filename"].as_str()), (Some("aac"), Some("output.aac")));
    let bytes = client.download(job["output"]["signedUrl"].as_str().context("a URL")?).await?;
    let path = std::env::temp_dir().join(format!("xora-extracted-{}.aac", std::process::id()));
    std::fs::write(&path, bytes)?;
    assert_eq!(probe(&path)?.codec("audio"), Some("aac"));
    std::fs::remove_file(&path)?;
    Ok(())
}
