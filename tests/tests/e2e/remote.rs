//! How much is read, held and written, of files of any size, and what origins may do meanwhile.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use xora_tests::{Node, NodeOptions, Origin, Served, ffmpeg, sample};

use crate::{PATIENCE, bytes, compress, edge, job, long_clip, own_edge, short_clip, thumbnail, with};

#[tokio::test]
async fn twenty_gigabytes_with_their_index_at_the_end_are_read_where_it_says() -> Result<()> {
    const SIZE: u64 = 20_000_000_000;
    let client = edge().await?.client();
    let origin = Origin::start().await?;
    let path = sparse(&short_clip()?, SIZE, &edge().await?.dir().join("state"))?;
    let url = origin.serve("sparse.mp4", Served::FromDisk(path));
    for wanted in [job(&url, "jpg", &json!({"name": "thumbnail", "seekSeconds": 1})), compress(&url)] {
        let done = client.run(&wanted, PATIENCE).await?;
        assert_eq!(done["state"], "completed", "{done}");
    }
    assert!(origin.sent() < 40_000_000, "{} bytes", origin.sent());
    Ok(())
}

#[tokio::test]
async fn a_thumbnail_from_the_middle_reads_the_index_and_what_leads_up_to_its_picture() -> Result<()> {
    let client = edge().await?.client();
    let origin = Origin::start().await?;
    let url = origin.serve("film.mp4", Served::FromDisk(sample("big-buck-bunny.mp4")?));
    let done = client.run(&job(&url, "jpg", &json!({"name": "thumbnail", "seekSeconds": 300})), PATIENCE).await?;
    assert_eq!(done["state"], "completed", "{done}");
    assert!(origin.sent() <= 600_000, "{} bytes", origin.sent());
    Ok(())
}

/// A clip whose media is followed by nothing, up to this size, and then by its index. Takes no room on the disk.
fn sparse(clip: &Path, size: u64, folder: &Path) -> Result<PathBuf> {
    let plain = fs::read(clip)?;
    let place = |name: &[u8]| plain.windows(4).position(|bytes| bytes == name).map(|at| at - 4).context("a box");
    let (free, media, index) = (place(b"free")?, place(b"mdat")?, place(b"moov")?);
    // The empty box in front of the media is there so that a long length fits in its place.
    ensure!(media == free + 8 && index > media, "laid out as `ffmpeg` does");
    let length = size - free as u64;
    let head = [&1_u32.to_be_bytes()[..], b"mdat", &length.to_be_bytes()].concat();
    let path = folder.join("sparse.mp4");
    let file = File::create(&path)?;
    file.write_all_at(&plain[..index], 0)?;
    file.write_all_at(&head, free as u64)?;
    file.write_all_at(&plain[index..], size)?;
    Ok(path)
}

#[tokio::test]
async fn an_origin_that_drops_every_connection_is_taken_up_where_it_did() -> Result<()> {
    let client = edge().await?.client();
    let origin = Origin::start().await?;
    let film = bytes(&sample("surround.mp4")?)?;
    let size = film.len() as u64;
    let done = client.run(&compress(&origin.serve("drops.mp4", Served::Dropping(film, 150_000))), PATIENCE).await?;
    assert_eq!(done["state"], "completed", "{done}");
    assert_eq!(done["attempts"].as_array().map(Vec::len), Some(1), "{done}");
    assert!(origin.sent() < size * 2, "{} of {size} bytes", origin.sent());
    Ok(())
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_read_fails_with_that_reason() -> Result<()> {
    let client = edge().await?.client();
    let origin = Origin::start().await?;
    let url = origin.serve("changing.mp4", Served::Changing(bytes(&sample("trailer.mp4")?)?));
    let id = client.create(&compress(&url)).await?;
    // The next attempt is not soon: whoever writes the file may need a while.
    let job = client.when(&id, PATIENCE, |job| job["attempts"][0]["outcome"] == "failed").await?;
    client.cancel(&id).await?.expect(200)?;
    let error = &job["attempts"][0]["error"];
    assert_eq!((&error["code"], &error["retryable"]), (&json!("INPUT_UNREACHABLE"), &json!(true)), "{job}");
    assert!(error["message"].to_string().contains("changed while it was read"), "{job}");
    Ok(())
}

#[tokio::test]
async fn a_file_whose_tag_is_another_in_each_answer_is_read_whole() -> Result<()> {
    let client = edge().await?.client();
    let origin = Origin::start().await?;
    let url = origin.serve("tagged.mp4", Served::Tagged(bytes(&sample("trailer.mp4")?)?));
    let done = client.run(&thumbnail(&url), PATIENCE).await?;
    assert_eq!(done["state"], "completed", "{done}");
    assert_eq!(done["attempts"].as_array().map(Vec::len), Some(1), "{done}");
    Ok(())
}

#[tokio::test]
async fn three_hundred_megabytes_pass_through_without_memory_or_disk() -> Result<()> {
    let edge = own_edge().await?;
    let node = Node::start(&edge, NodeOptions::default()).await?;
    let origin = Origin::start().await?;
    let long = edge.dir().join("state/long.mp4");
    let film = sample("big-buck-bunny.mp4")?;
    ffmpeg(&["-stream_loop", "5", "-i", &film.to_string_lossy(), "-c", "copy"], &long)?;
    let url = origin.serve("long.mp4", Served::FromDisk(long));
    let wanted = with(job(&url, "mov", &json!({"name": "transcode"})), "stageInput", false);
    let done = edge.client().run(&wanted, PATIENCE * 2).await?;
    assert_eq!(done["state"], "completed", "{done}");
    let number = |value: &serde_json::Value| value.as_u64().unwrap_or(u64::MAX);
    assert!(number(&done["output_files"]["output"]["size_bytes"]) > 280_000_000, "{done}");
    let (job, supervisor) = (number(&done["usage"]["peakMemoryBytes"]), node.counter("status", "VmHWM")? << 10);
    let written = node.written()?.unwrap_or(0);
    assert!(job <= 400_000_000 && supervisor <= 150_000_000 && written < 10_000_000, "{job} {supervisor} {written}");
    Ok(())
}

#[tokio::test]
async fn progress_goes_on_and_never_back() -> Result<()> {
    let client = edge().await?.client();
    let origin = Origin::start().await?;
    let url = origin.file(&long_clip()?)?;
    let id = client.create(&with(compress(&url), "stageInput", false)).await?;
    let mut seen = vec![0];
    let ended = client.when(&id, PATIENCE, |job| {
        seen.push(job["progress"].as_u64().unwrap_or(0));
        job["state"] == "completed"
    });
    ended.await?;
    assert!(seen.is_sorted(), "{seen:?}");
    seen.dedup();
    assert!(seen.len() > 5, "{seen:?}");
    Ok(())
}
