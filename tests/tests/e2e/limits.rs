//! What a node holds back: time, cores, memory.

use std::fs;

use anyhow::{Context, Result};
use bytes::Bytes;
use serde_json::json;
use xora_tests::{Edge, Node, NodeOptions, Origin, Served, clip, wait_for};

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

#[tokio::test]
async fn a_limit_of_the_only_node_rejects_the_job_at_once_with_the_limit_and_the_value() -> Result<()> {
    let edge = own_edge().await?;
    let origin = Origin::start().await?;
    let short = origin.file(&short_clip()?)?;
    let table: [(&[&str], bool, &str, &[&str]); 3] = [
        (
            &["--max-duration-seconds=1"],
            true,
            "INPUT_TOO_LARGE",
            &["2 seconds long", "1 second", "--max-duration-seconds"],
        ),
        (&["--max-input-bytes=1000"], true, "INPUT_TOO_LARGE", &["1000 bytes", "--max-input-bytes"]),
        (&[], false, "INPUT_UNREACHABLE", &["policy", "--allow-loopback"]),
    ];
    for (flags, allow_loopback, code, words) in table {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let _node = Node::start(&edge, NodeOptions { flags, allow_loopback, ..NodeOptions::default() }).await?;
        let job = edge.client().run(&compress(&short), PATIENCE).await?;
        assert_eq!((&job["state"], &job["error"]["code"]), (&json!("rejected"), &json!(code)), "{job}");
        assert_eq!(job["attempts"].as_array().map(Vec::len), Some(1), "{job}");
        for word in words {
            assert!(job["error"]["message"].as_str().is_some_and(|message| message.contains(word)), "{word}: {job}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_job_that_one_node_may_not_do_is_done_by_another() -> Result<()> {
    let edge = own_edge().await?;
    let (client, origin) = (edge.client(), Origin::start().await?);
    // The edge has heard of another node, so that the strict one is not the only one.
    let other = client.with_key(&client.mint("other", &["node"]).await?);
    other.post("/v1/node/lease", &json!({"node": node_info("lax")})).await?.expect(200)?;
    let strict = NodeOptions { name: "strict".to_owned(), allow_loopback: false, ..NodeOptions::default() };
    let _strict = Node::start(&edge, strict).await?;
    let id = client.create(&thumbnail(&origin.file(&short_clip()?)?)).await?;
    let given_back = client.when(&id, PATIENCE, |job| job["attempts"][0]["outcome"] == "released").await?;
    assert_eq!(given_back["state"], "queued", "{given_back}");
    assert_eq!(given_back["attempts"][0]["error"]["code"], "INPUT_UNREACHABLE", "{given_back}");
    let _lax = Node::start(&edge, NodeOptions { name: "lax".to_owned(), ..NodeOptions::default() }).await?;
    let done = client.finished(&id, PATIENCE).await?;
    assert_eq!(done["state"], "completed", "{done}");
    let nodes: Vec<_> = done["attempts"].as_array().into_iter().flatten().map(|attempt| &attempt["node"]).collect();
    assert_eq!(nodes, ["strict", "lax"], "{done}");
    Ok(())
}

#[tokio::test]
async fn a_task_is_not_offered_again_soon_to_the_node_that_could_not_do_it() -> Result<()> {
    let edge = own_edge().await?;
    let client = edge.client();
    let node = client.with_key(&client.mint("nodes", &["node"]).await?);
    let lease = async |name: &str| {
        let answer = node.post("/v1/node/lease", &json!({"node": node_info(name)})).await?.expect(200)?;
        anyhow::Ok(Some(answer["lease"].clone()).filter(serde_json::Value::is_object))
    };
    let give_back = async |lease: &serde_json::Value, lasting: bool| {
        let failure = json!({"kind": "no_encoder", "stage": "plan", "message": "no libx264"});
        let reason = json!({"lack": "encoder", "lasting": lasting, "failure": failure});
        node.post("/v1/node/release", &json!({"hold": lease["hold"], "reason": reason})).await?.expect(200)
    };
    assert!(lease("b").await?.is_none());
    let id = client.create(&thumbnail("https://example.com/film.mp4")).await?;
    let first = lease("a").await?.context("a lease")?;
    give_back(&first, true).await?;
    let stale = node.post("/v1/node/release", &json!({"hold": first["hold"]})).await?;
    assert_eq!((stale.status, stale.code()), (409, "CONFLICT"), "given back once only");
    // From its second offer on it is ready, but not for the first node.
    let second = wait_for("another offer", PATIENCE, async || {
        assert!(lease("a").await?.is_none());
        lease("b").await
    });
    // Nothing that passes ends a job, whoever else cannot do it.
    give_back(&second.await?, false).await?;
    let waiting = client.job(&id).await?;
    assert_eq!(waiting["state"], "queued", "{waiting}");
    let third = wait_for("a third offer", PATIENCE, async || lease("c").await);
    give_back(&third.await?, true).await?;
    assert_eq!(client.job(&id).await?["state"], "queued", "one of three may do it later");
    Ok(())
}

fn node_info(name: &str) -> serde_json::Value {
    json!({"name": name, "version": "0", "encoders": []})
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
