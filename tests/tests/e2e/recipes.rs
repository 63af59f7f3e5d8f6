//! Recipes that do less than encode.

use anyhow::{Context, Result};
use serde_json::json;
use xora_tests::{Origin, Receiver, clip, probe};

use crate::{PATIENCE, edge, job, with};

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
