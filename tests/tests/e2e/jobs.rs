//! What a job delivers.

use anyhow::{Context, Result};
use serde_json::json;
use tokio::time::Instant;
use xora_tests::{Origin, Receiver, probe, sample};

use crate::{PATIENCE, compress, edge, job, long_clip, short_clip, thumbnail, with};

#[tokio::test]
async fn a_real_clip_is_compressed_and_pictured_and_both_webhooks_tell() -> Result<()> {
    let client = edge().await?.client();
    let (origin, receiver) = (Origin::start().await?, Receiver::start().await?);
    let path = sample("surround.mp4")?;
    let url = origin.file(&path)?;
    let film = client.create(&with(compress(&url), "webhookUrl", receiver.url())).await?;
    let still = client.create(&with(thumbnail(&url), "webhookUrl", receiver.url())).await?;
    assert_eq!(film.len(), 26);

    let film = client.finished(&film, PATIENCE).await?;
    let still = client.finished(&still, PATIENCE).await?;
    for job in [&film, &still] {
        assert_eq!(job["state"], "completed", "{job}");
        assert_eq!(job["progress"], 100);
        assert!(job.get("error").is_none(), "{job}");
    }

    let dir = std::env::temp_dir().join(format!("xora-e2e-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let mut files = Vec::new();
    for (job, name) in [(&film, "film.mp4"), (&still, "still.jpg")] {
        let bytes = client.download(job["output"]["signedUrl"].as_str().context("a URL")?).await?;
        assert_eq!(job["output_files"]["output"]["size_bytes"], bytes.len());
        std::fs::write(dir.join(name), bytes)?;
        files.push(probe(&dir.join(name))?);
    }
    let before = probe(&path)?;
    assert_eq!(files[0].codec("video"), Some("h264"));
    assert_eq!(files[0].codec("audio"), Some("aac"));
    assert_eq!(files[0].size(), before.size());
    assert_eq!(files[0].frames("video")?, before.frames("video")?);
    assert!((files[0].duration()? - before.duration()?).abs() < 0.1);
    assert_eq!(files[1].codec("video"), Some("mjpeg"));
    assert_eq!(files[1].size(), before.size());
    std::fs::remove_dir_all(&dir)?;

    let hooks = receiver.wait(2, PATIENCE).await?;
    for job in [&film, &still] {
        let told: Vec<_> = hooks.iter().filter(|hook| hook.job()["jobId"] == job["jobId"]).collect();
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].request.method, "POST");
        assert_eq!(told[0].request.header("content-type"), Some("application/json"));
        assert_eq!(told[0].job()["state"], "completed");
        assert!(told[0].job()["output"]["signedUrl"].is_string());
        assert!(told[0].json["timestamp"].as_i64() > Some(1_700_000_000_000), "{}", told[0].json);
        let keys: Vec<_> = told[0].json.as_object().context("an object")?.keys().collect();
        assert_eq!(keys, ["data", "timestamp"]);
    }
    Ok(())
}

#[tokio::test]
async fn a_cancelled_job_stops_within_two_seconds_and_its_webhook_says_so() -> Result<()> {
    let client = edge().await?.client();
    let (origin, receiver) = (Origin::start().await?, Receiver::start().await?);
    let url = origin.file(&long_clip()?)?;
    let slow = json!({"name": "compress", "crf": 10});
    let id = client.create(&with(job(&url, "webm", &slow), "webhookUrl", receiver.url())).await?;
    client.when(&id, PATIENCE, |job| job["state"] == "transcoding").await?;

    let asked = Instant::now();
    let cancelled = client.cancel(&id).await?.expect(200)?;
    assert_eq!(cancelled["state"], "cancelled");
    let hooks = receiver.wait(1, PATIENCE).await?;
    assert!(asked.elapsed().as_secs() < 2, "{:?}", asked.elapsed());
    assert_eq!(hooks[0].job()["state"], "cancelled");

    let again = client.cancel(&id).await?;
    assert_eq!((again.status, again.code()), (409, "CONFLICT"));
    assert_eq!(client.job(&id).await?["state"], "cancelled");
    Ok(())
}

#[tokio::test]
async fn progress_never_goes_back_within_an_attempt() -> Result<()> {
    let client = edge().await?.client();
    let origin = Origin::start().await?;
    let id = client.create(&compress(&origin.file(&sample("small.mp4")?)?)).await?;
    let mut last = 0;
    let done = client.when(&id, PATIENCE, |job| {
        let progress = job["progress"].as_u64().unwrap_or(u64::MAX);
        assert!((last..=100).contains(&progress), "{last} before {job}");
        last = progress;
        job["state"] == "completed"
    });
    done.await.map(drop)
}

#[tokio::test]
async fn a_retried_job_keeps_its_id_and_its_attempts() -> Result<()> {
    let client = edge().await?.client();
    let origin = Origin::start().await?;
    let url = origin.missing();
    let failed = client.run(&thumbnail(&url), PATIENCE).await?;
    assert_eq!(failed["error"]["code"], "INPUT_UNREACHABLE", "{failed}");
    let id = failed["jobId"].as_str().context("an id")?;
    let before = failed["attempts"].as_array().map_or(0, Vec::len);

    // What was missing is there now.
    origin.serve("missing.mp4", xora_tests::Served::Well(crate::bytes(&short_clip()?)?));
    client.post(&format!("/v1/jobs/{id}/retry"), &json!({})).await?.expect(202)?;
    let done = client.finished(id, PATIENCE).await?;
    assert_eq!(done["state"], "completed", "{done}");
    assert!(done["attempts"].as_array().map_or(0, Vec::len) > before, "{done}");

    let again = client.post(&format!("/v1/jobs/{id}/retry"), &json!({})).await?;
    assert_eq!((again.status, again.code()), (409, "CONFLICT"));
    Ok(())
}
