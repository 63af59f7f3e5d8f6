//! What a node holds back: time, cores, memory.

use std::fs;

use anyhow::Result;
use bytes::Bytes;
use serde_json::json;
use xora_tests::{Edge, Node, NodeOptions, Origin, Served, clip};

use crate::{PATIENCE, compress, job, long_clip, own_edge, short_clip, thumbnail};

#[tokio::test]
async fn cheap_jobs_run_beside_a_long_encode_and_a_second_encode_waits() -> Result<()> {
    let edge = own_edge().await?;
    let client = edge.client();
    let origin = Origin::start().await?;
    let _node = Node::start(&edge, NodeOptions { slots: Some(3), encodes: Some(1), ..NodeOptions::default() }).await?;
    let (long, short) = (origin.file(&long_clip()?)?, origin.file(&short_clip()?)?);
    let old = "-f lavfi -i testsrc2=s=320x180:r=25:d=2 -c:v mpeg4";
    let old = origin.file(&clip("old.avi", &old.split(' ').collect::<Vec<_>>())?)?;

    let first = client.create(&job(&long, "webm", &json!({"name": "compress"}))).await?;
    client.when(&first, PATIENCE, |job| job["state"] == "transcoding").await?;
    let second = client.create(&compress(&short)).await?;
    // Only a plan can tell that this one encodes.
    let third = client.create(&job(&old, "mp4", &json!({"name": "transcode"}))).await?;
    for cheap in [thumbnail(&short), job(&short, "mp4", &json!({"name": "webReady"}))] {
        let done = client.run(&cheap, PATIENCE).await?;
        assert_eq!(done["state"], "completed", "{done}");
    }
    for waiting in [&second, &third] {
        // The node may just be looking at the third.
        let job = client.when(waiting, PATIENCE, |job| job["state"] == "queued").await?;
        assert!(job.get("attempts").is_none(), "a look is no attempt: {job}");
    }
    assert_eq!(client.job(&first).await?["state"], "transcoding");

    client.cancel(&first).await?.expect(200)?;
    for waiting in [&second, &third] {
        let done = client.finished(waiting, PATIENCE).await?;
        assert_eq!(done["state"], "completed", "{done}");
    }
    Ok(())
}

#[tokio::test]
async fn a_job_over_its_time_ends_with_a_message_that_names_the_limit() -> Result<()> {
    let edge = own_edge().await?;
    let long = Bytes::from(fs::read(long_clip()?)?);
    let wall = ended_by(&edge, &["--grace-seconds=2", "--max-wall-factor=0"], Served::Well(long.clone())).await?;
    assert!(wall.contains("its limit of 2 seconds") && wall.contains("--max-wall-factor"), "{wall}");
    let cpu = ended_by(
        &edge,
        &["--grace-seconds=1", "--max-wall-factor=1000", "--max-cpu-factor=0"],
        Served::Well(long.clone()),
    )
    .await?;
    assert!(cpu.contains("its limit of 1 seconds of CPU time"), "{cpu}");
    // Which the others do not count.
    let waiting = ended_by(&edge, &["--max-attempt-seconds=2"], Served::Slowly(long, 1000)).await?;
    assert!(waiting.contains("its limit of 2 seconds") && waiting.contains("--max-attempt-seconds"), "{waiting}");
    Ok(())
}

#[tokio::test]
async fn an_input_that_takes_too_long_to_open_ends_at_a_limit_of_its_own() -> Result<()> {
    // Texts of ID3v2.4: libav compares each with all before it.
    let texts: Vec<u8> = (0..200_000).flat_map(|n| format!("TXXX\0\0\0\x08\0\0\x03{n:06}\0").into_bytes()).collect();
    let size = [21, 14, 7, 0].map(|bits| u8::try_from(texts.len() >> bits & 0x7f).expect("seven bits"));
    let bomb = [b"ID3\x04\0\0", &size[..], &texts, &[0xff, 0xfb, 0x90, 0]].concat();
    let edge = own_edge().await?;
    let opening = ended_by(&edge, &["--max-open-seconds=1"], Served::Well(bomb.into())).await?;
    assert!(opening.contains("its limit of 1 seconds of CPU time while reading the input"), "{opening}");
    assert!(opening.contains("--max-open-seconds of the node"), "{opening}");
    Ok(())
}

#[tokio::test]
async fn a_text_that_unpacks_to_a_gigabyte_takes_no_such_memory() -> Result<()> {
    let edge = own_edge().await?;
    let origin = Origin::start().await?;
    let _node = Node::start(&edge, NodeOptions::default()).await?;
    let plain =
        fs::read(clip("dot.png", &"-f lavfi -i color=red:s=16x16 -frames:v 1".split(' ').collect::<Vec<_>>())?)?;
    let text = [b"Comment\0\0".to_vec(), deflated_gigabyte()].concat();
    let text = [&u32::try_from(text.len())?.to_be_bytes()[..], b"zTXt", &text, &[0; 4]].concat();
    // Behind the header, with its signature, length, name and checksum.
    let bomb = origin.serve("bomb.png", Served::Well([&plain[..33], &text, &plain[33..]].concat().into()));
    let job = edge.client().run(&thumbnail(&bomb), PATIENCE).await?;
    assert_eq!(job["state"], "completed", "{job}");
    let peak = job["usage"]["peakMemoryBytes"].as_u64().unwrap_or(u64::MAX);
    assert!(peak < 500 << 20, "{job}");
    Ok(())
}

/// A zlib stream (RFC 1950 and 1951) of one letter and then the 258 before, again and again: thirteen bits for each.
fn deflated_gigabyte() -> Vec<u8> {
    // The last block, with fixed codes, and the letter.
    let begin = [1_u8, 1, 0].into_iter().chain((0..8).rev().map(|bit| (0x30 + b'a') >> bit & 1));
    let again = (0..8).rev().map(|bit| 0xc5_u8 >> bit & 1).chain([0; 5]);
    let bits: Vec<u8> = begin.chain(std::iter::repeat_n(again, (1 << 30) / 258).flatten()).collect();
    let byte = |bits: &[u8]| bits.iter().rev().fold(0, |byte, bit| byte << 1 | bit);
    [0x78, 0x01].into_iter().chain(bits.chunks(8).map(byte)).collect()
}

#[tokio::test]
async fn a_hardware_encoder_that_does_not_open_leaves_its_work_to_software_and_a_note() -> Result<()> {
    let edge = own_edge().await?;
    let origin = Origin::start().await?;
    let flags = vec!["--hardware=h264_nvenc".to_owned()];
    let node = Node::start(&edge, NodeOptions { flags, ..NodeOptions::default() }).await?;
    let works = node.health().await?["encoders"].clone();
    for name in ["libx264", "libx265", "libvpx-vp9", "aac", "libopus", "libmp3lame"] {
        assert!(works.as_array().is_some_and(|works| works.contains(&json!(name))), "{name}: {works}");
    }
    let job = edge.client().run(&compress(&origin.file(&short_clip()?)?), PATIENCE).await?;
    assert_eq!(
        (&job["state"], &job["output_files"]["output"]["codec"]),
        (&json!("completed"), &json!("h264")),
        "{job}"
    );
    let note = job["verification"]["warnings"].to_string();
    // Where there is such hardware, it did the work.
    let in_hardware = works.to_string().contains("h264_nvenc");
    assert!(note.contains(if in_hardware { "in hardware by h264_nvenc" } else { "h264_nvenc did not open" }), "{job}");
    Ok(())
}

/// Encodes a file on a node with these flags, sees it fail as the contract says, and answers the message.
async fn ended_by(edge: &Edge, flags: &[&str], input: Served) -> Result<String> {
    let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    let _node = Node::start(edge, NodeOptions { flags, ..NodeOptions::default() }).await?;
    let origin = Origin::start().await?;
    let url = origin.serve("input.mkv", input);
    let job = edge.client().run(&job(&url, "webm", &json!({"name": "compress"})), PATIENCE).await?;
    assert_eq!((&job["state"], &job["error"]["code"]), (&json!("failed"), &json!("ENGINE_INVOCATION_ERROR")), "{job}");
    assert_eq!(job["attempts"].as_array().map(Vec::len), Some(2), "tried once more: {job}");
    Ok(job["error"]["message"].as_str().unwrap_or_default().to_owned())
}
