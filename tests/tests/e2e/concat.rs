//! Several inputs as one output.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use xora_tests::{Origin, Served, clip, probe, sample};

use crate::{PATIENCE, edge, short_clip};

/// A job that joins these, in this order: their names say another one.
fn concat(urls: &[&str]) -> Value {
    let names = ["in_z", "in_m", "in_a"];
    let files: serde_json::Map<_, _> =
        names.iter().zip(urls).map(|(name, url)| ((*name).to_owned(), json!(url))).collect();
    json!({"mode": "recipe", "input_files": files, "output": {"format": "mp4"}, "recipe": {"name": "concat"}})
}

async fn joined(urls: &[&str]) -> Result<(Value, xora_tests::Probe)> {
    let client = edge().await?.client();
    let job = client.run(&concat(urls), PATIENCE).await?;
    anyhow::ensure!(job["state"] == "completed", "{job}");
    let dir = std::env::temp_dir().join(format!("xora-concat-{}", job["jobId"].as_str().context("an id")?));
    std::fs::create_dir_all(&dir)?;
    let path = dir.join("joined.mp4");
    std::fs::write(&path, client.download(job["output"]["signedUrl"].as_str().context("a URL")?).await?)?;
    let found = probe(&path)?;
    std::fs::remove_dir_all(&dir)?;
    Ok((job, found))
}

#[tokio::test]
async fn inputs_are_joined_in_the_order_of_the_request_copied_where_they_agree() -> Result<()> {
    let origin = Origin::start().await?;
    let short = origin.file(&short_clip()?)?;
    let (job, film) = joined(&[&short, &short]).await?;
    assert_eq!(job["strategy"]["kind"], "copy", "{job}");
    assert_eq!(film.frames("video")?, 100);
    assert!((film.duration()? - 4.0).abs() < 0.05, "{}", film.duration()?);

    let args = "-f lavfi -i testsrc2=s=640x360:r=30:d=1 -c:v libx264";
    let other = origin.file(&clip("other.mp4", &args.split(' ').collect::<Vec<_>>())?)?;
    let (job, film) = joined(&[&other, &short, &origin.file(&sample("small.mp4")?)?]).await?;
    assert_eq!(job["strategy"]["kind"], "encode", "{job}");
    assert_eq!(film.size(), Some((640, 360)), "the size of the first");
    let inputs = job["verification"]["streams"].as_array().context("streams")?.iter().map(|fate| fate["input"].clone());
    assert_eq!(inputs.collect::<std::collections::HashSet<_>>().len(), 3, "{job}");
    Ok(())
}

#[tokio::test]
async fn an_input_that_cannot_be_joined_is_named() -> Result<()> {
    let origin = Origin::start().await?;
    let text = origin.serve("words.mp4", Served::WithoutRanges("hello, this is not a film\n".into()));
    let short = origin.file(&short_clip()?)?;
    let job = edge().await?.client().run(&concat(&[&short, &text]), PATIENCE).await?;
    assert_eq!(job["error"]["code"], "INPUT_UNSUPPORTED", "{job}");
    let message = job["error"]["message"].as_str().context("a message")?;
    assert!(message.starts_with("input 2: "), "{message}");
    let job = edge().await?.client().run(&concat(&[&short, &short, &origin.missing()]), PATIENCE).await?;
    assert_eq!(job["error"]["code"], "INPUT_UNREACHABLE", "{job}");
    let message = job["error"]["message"].as_str().context("a message")?;
    assert!(message.starts_with("input 3: "), "{message}");
    Ok(())
}
