//! Inputs that are not there, not whole, or not what they say.

use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use xora_tests::{Origin, Reply, Resets, Served, sample};

use crate::{PATIENCE, bytes, compress, edge, short_clip, thumbnail};

/// Runs a job on something served badly and answers how it ended.
async fn end_of(name: &str, served: Served) -> Result<Value> {
    let client = edge().await?.client();
    let origin = Origin::start().await?;
    client.run(&compress(&origin.serve(name, served)), PATIENCE).await
}

fn assert_ended(job: &Value, state: &str, code: &str) {
    assert_eq!(job["state"], state, "{job}");
    assert_eq!(job["error"]["code"], code, "{job}");
    let message = job["error"]["message"].as_str().unwrap_or_default();
    assert!(message.len() > 10, "says too little: {job}");
}

#[tokio::test]
async fn an_input_that_is_missing_fails_at_once_and_for_good() -> Result<()> {
    let job = end_of("gone.mp4", Served::Always(Reply::status(404))).await?;
    assert_ended(&job, "failed", "INPUT_UNREACHABLE");
    assert_eq!(job["error"]["retryable"], false);
    assert_eq!(job["attempts"].as_array().map(Vec::len), Some(1), "{job}");
    Ok(())
}

/// Runs a job until its first attempt has failed for a reason that may pass, after which it waits for longer than a test
/// does, and cancels it.
async fn first_attempt_at(url: &str) -> Result<Value> {
    let client = edge().await?.client();
    let id = client.create(&compress(url)).await?;
    let waits = |job: &Value| job["state"] == "queued" && job["attempts"][0]["outcome"] == "failed";
    let job = client.when(&id, PATIENCE, waits).await?;
    client.cancel(&id).await?.expect(200)?;
    assert_eq!(job["attempts"][0]["error"]["retryable"], true, "{job}");
    Ok(job["attempts"][0]["error"].clone())
}

#[tokio::test]
async fn an_origin_that_is_down_is_asked_again_later() -> Result<()> {
    let origin = Origin::start().await?;
    let error = first_attempt_at(&origin.serve("down.mp4", Served::Always(Reply::status(503)))).await?;
    assert_eq!(error["code"], "INPUT_UNREACHABLE", "{error}");
    assert!(error["message"].to_string().contains("503"), "{error}");
    Ok(())
}

#[tokio::test]
async fn nobody_listening_is_an_unreachable_input() -> Result<()> {
    let url = format!("http://127.0.0.1:{}/a.mp4", xora_tests::free_port()?);
    assert_eq!(first_attempt_at(&url).await?["code"], "INPUT_UNREACHABLE");
    Ok(())
}

#[tokio::test]
async fn an_origin_that_resets_a_few_times_in_mid_job_costs_no_attempt() -> Result<()> {
    let clip = bytes(&sample("surround.mp4")?)?;
    let half = clip.len() / 2;
    let job = end_of("reset.mp4", Served::ResetAt(clip, half, Resets::new(4))).await?;
    assert_eq!(job["state"], "completed", "{job}");
    assert_eq!(job["attempts"].as_array().map(Vec::len), Some(1), "{job}");
    Ok(())
}

#[tokio::test]
async fn an_origin_that_lies_about_the_length_does_not_pass() -> Result<()> {
    let job = end_of("long.mp4", Served::Overstated(bytes(&short_clip()?)?, 100_000)).await?;
    assert_ended(&job, "failed", "INPUT_TRUNCATED");
    assert_eq!(job["error"]["retryable"], false);
    Ok(())
}

#[tokio::test]
async fn an_origin_without_ranges_will_do() -> Result<()> {
    let job = end_of("whole.mp4", Served::WithoutRanges(bytes(&short_clip()?)?)).await?;
    assert_eq!(job["state"], "completed", "{job}");
    Ok(())
}

#[tokio::test]
async fn a_slow_origin_will_do() -> Result<()> {
    let clip = bytes(&short_clip()?)?;
    let pace = clip.len() / 3;
    let job = end_of("slow.mp4", Served::Slowly(clip, pace)).await?;
    assert_eq!(job["state"], "completed", "{job}");
    Ok(())
}

#[tokio::test]
async fn a_redirect_is_followed_where_its_target_is_allowed_and_only_there() -> Result<()> {
    let client = edge().await?.client();
    let origin = Origin::start().await?;
    let target = origin.file(&short_clip()?)?;
    let good = origin.serve("good.mp4", Served::Always(Reply::redirect(&target)));
    assert_eq!(client.run(&thumbnail(&good), PATIENCE).await?["state"], "completed");
    let bad = origin.serve("bad.mp4", Served::Always(Reply::redirect("http://169.254.169.254/latest/meta-data/")));
    assert_ended(&client.run(&thumbnail(&bad), PATIENCE).await?, "rejected", "INPUT_UNREACHABLE");
    Ok(())
}

#[tokio::test]
async fn what_is_not_media_is_rejected_whatever_its_name() -> Result<()> {
    let playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n";
    let script = "ffconcat version 1.0\nfile /etc/passwd\n";
    for (name, text) in
        [("text.mp4", "I am no film. ".repeat(500)), ("list.mp4", playlist.into()), ("cat.mp4", script.into())]
    {
        let job = end_of(name, Served::Well(text.into())).await?;
        assert_ended(&job, "rejected", "INPUT_UNSUPPORTED");
        assert_eq!(job["error"]["retryable"], false);
        assert_eq!(job["error"]["stage"], "probing", "{job}");
    }
    Ok(())
}

#[tokio::test]
async fn an_empty_file_is_not_accepted() -> Result<()> {
    let job = end_of("empty.mp4", Served::Well(bytes::Bytes::new())).await?;
    assert_ended(&job, "rejected", "INPUT_UNSUPPORTED");
    Ok(())
}

#[tokio::test]
async fn a_film_cut_in_half_fails_as_truncated() -> Result<()> {
    let whole = bytes(&sample("surround.mp4")?)?;
    let job = end_of("half.mp4", Served::Well(whole.slice(..whole.len() / 2))).await?;
    assert_ended(&job, "failed", "INPUT_TRUNCATED");
    assert_eq!(job["error"]["retryable"], false);
    Ok(())
}

#[tokio::test]
async fn an_origin_that_never_answers_does_not_hold_a_job_for_ever() -> Result<()> {
    let client = edge().await?.client();
    let origin = Origin::start().await?;
    let url = origin.serve("hang.mp4", Served::Always(Reply::hang()));
    let id = client.create(&thumbnail(&url)).await?;
    // One attempt has its own deadline; three of them and their delays take longer than a test may.
    let noticed = client.when(&id, Duration::from_secs(90), |job| {
        job["attempts"]
            .as_array()
            .is_some_and(|attempts| attempts.iter().any(|attempt| attempt["finishedAt"].is_string()))
            || job["state"] == "failed"
    });
    noticed.await?;
    let cancelled = client.cancel(&id).await?;
    assert!([200, 409].contains(&cancelled.status));
    Ok(())
}
