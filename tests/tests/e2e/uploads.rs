//! A local file to a job in three calls: open, send the parts, name it.

use std::{ops::Range, path::PathBuf};

use anyhow::{Context, Result};
use bytes::Bytes;
use reqwest::{Body, Method};
use serde_json::{Value, json};
use xora_tests::{Answer, Client, Edge, EdgeOptions, Node, NodeOptions, clip, probe, wait_for};

use crate::{PATIENCE, bytes, edge, end_with_parent, short_clip, with};

/// Three seconds of noise that no encoder can make small: three parts.
pub fn noise_clip() -> Result<PathBuf> {
    let args = "-f lavfi -i color=gray:s=640x360:r=25:d=3,noise=alls=100:allf=t -c:v libx264 -preset ultrafast -qp 0";
    clip("noise.mp4", &args.split(' ').collect::<Vec<_>>())
}

async fn open(client: &Client, size: usize) -> Result<Value> {
    client.post("/v1/uploads", &json!({"filename": "film.mp4", "size": size})).await?.expect(201)
}

/// The parts that an answer still wants: number, URL and place in the file.
fn wanted(upload: &Value) -> Result<Vec<(u64, String, Range<usize>)>> {
    let number = |value: &Value| value.as_u64().context("a number");
    let (size, part) = (usize::try_from(number(&upload["size"])?)?, usize::try_from(number(&upload["partSize"])?)?);
    let parts = upload["parts"].as_array().context("parts")?.iter().map(|target| {
        let n = number(&target["number"])?;
        let start = (usize::try_from(n)? - 1) * part;
        Ok((n, target["url"].as_str().context("a URL")?.to_owned(), start..size.min(start + part)))
    });
    parts.collect()
}

fn numbers(upload: &Value) -> Result<Vec<u64>> {
    Ok(wanted(upload)?.into_iter().map(|(number, ..)| number).collect())
}

async fn put(client: &Client, url: &str, body: impl Into<Body>) -> Result<Answer> {
    let response = client.request(Method::PUT, url).body(body).send().await?;
    let status = response.status().as_u16();
    Ok(Answer { status, json: serde_json::from_slice(&response.bytes().await?).unwrap_or(Value::Null) })
}

/// An upload of one part that has arrived.
pub async fn sent(client: &Client, file: impl Into<Bytes>) -> Result<Value> {
    let file = file.into();
    let opened = open(client, file.len()).await?;
    let (_, url, _) = wanted(&opened)?.remove(0);
    put(client, &url, file).await?.expect(200)?;
    Ok(opened)
}

fn thumbnail_of(upload: &Value) -> Value {
    let recipe = json!({"name": "thumbnail", "seekSeconds": 1});
    json!({"mode": "recipe", "input": {"uploadId": upload["uploadId"]}, "output": {"format": "jpg"}, "recipe": recipe})
}

#[tokio::test]
async fn a_local_file_is_sent_in_parts_taken_up_after_a_break_and_transcoded_whole() -> Result<()> {
    let client = edge().await?.client();
    let path = noise_clip()?;
    let file = bytes(&path)?;
    let opened = open(&client, file.len()).await?;
    assert_eq!(numbers(&opened)?, [1, 2, 3], "{opened}");
    let compress = json!({"mode": "recipe", "input": {"uploadId": opened["uploadId"]}, "output": {"format": "mp4"},
        "recipe": {"name": "compress", "crf": 40}});

    // The second part arrives, the first breaks off in the middle.
    let parts = wanted(&opened)?;
    let (_, url, range) = &parts[1];
    assert_eq!(put(&client, url, file.slice(range.clone())).await?.status, 200);
    let (_, url, range) = &parts[0];
    let half = file.slice(range.start..range.end / 2);
    let broken = futures_util::stream::iter([Ok(half), Err(std::io::Error::other("the line went dead"))]);
    let request =
        client.request(Method::PUT, url).header("Content-Length", range.len()).body(Body::wrap_stream(broken));
    assert!(request.send().await.is_err());

    let path_of = format!("/v1/uploads/{}", opened["uploadId"].as_str().context("an id")?);
    let resumed = client.get(&path_of).await?.expect(200)?;
    assert_eq!((&resumed["arrived"], numbers(&resumed)?), (&json!([2]), vec![1, 3]), "{resumed}");
    let short = client.post("/v1/jobs", &compress).await?;
    assert_eq!((short.status, short.code()), (409, "CONFLICT"), "{}", short.json);
    assert!(short.message().contains("parts 1, 3 have not arrived"), "{}", short.message());

    for (_, url, range) in wanted(&resumed)? {
        assert_eq!(put(&client, &url, file.slice(range)).await?.status, 200);
    }
    let done = client.run(&compress, PATIENCE).await?;
    assert_eq!(done["state"], "completed", "{done}");
    let made = std::env::temp_dir().join(format!("xora-upload-{}.mp4", std::process::id()));
    std::fs::write(&made, client.download(done["output"]["signedUrl"].as_str().context("a URL")?).await?)?;
    assert_eq!(probe(&made)?.frames("video")?, probe(&path)?.frames("video")?);
    std::fs::remove_file(&made)?;

    // The same file serves another job, and takes no more parts.
    let again = client.run(&thumbnail_of(&opened), PATIENCE).await?;
    assert_eq!(again["state"], "completed", "{again}");
    let whole = client.get(&path_of).await?.expect(200)?;
    assert_eq!((&whole["arrived"], numbers(&whole)?.len()), (&json!([1, 2, 3]), 0), "{whole}");
    let late = put(&client, &parts[0].1, file.slice(parts[0].2.clone())).await?;
    assert_eq!((late.status, late.code()), (409, "CONFLICT"), "{}", late.json);
    Ok(())
}

#[tokio::test]
async fn what_does_not_fit_an_upload_is_refused_with_its_reason() -> Result<()> {
    let client = edge().await?.client();
    let over = client.post("/v1/uploads", &json!({"filename": "a.mp4", "size": 1_u64 << 40})).await?;
    assert_eq!((over.status, over.code()), (400, "VALIDATION_ERROR"));
    assert!(over.message().contains("size: must be 1 to 68719476736, in bytes"), "{}", over.message());

    let opened = open(&client, 10).await?;
    let (_, url, _) = wanted(&opened)?.remove(0);
    for wrong in [9, 11] {
        let refused = put(&client, &url, vec![0; wrong]).await?;
        assert_eq!((refused.status, refused.code()), (400, "VALIDATION_ERROR"), "{}", refused.json);
        assert!(refused.message().contains("part 1 must have 10 bytes"), "{}", refused.message());
    }
    assert_eq!(put(&client, &url.replace("part=1", "part=2"), vec![0; 10]).await?.status, 403);

    let unknown = json!({"uploadId": "01M86XHHP6260EWAT1TBY7T000"});
    let missing = client.post("/v1/jobs", &with(thumbnail_of(&opened), "input", unknown.clone())).await?;
    assert_eq!((missing.status, missing.code()), (404, "NOT_FOUND"), "{}", missing.json);
    assert_eq!(client.get("/v1/uploads/01M86XHHP6260EWAT1TBY7T000").await?.status, 404);
    let both = with(unknown, "url", "https://media.example.com/a.mp4");
    assert_eq!(client.post("/v1/jobs", &with(thumbnail_of(&opened), "input", both)).await?.status, 400);
    Ok(())
}

#[tokio::test]
async fn a_key_has_a_hundred_unused_uploads_at_most() -> Result<()> {
    let edge = edge().await?;
    let client = edge.client().with_key(&edge.client().mint("uploader", &["jobs"]).await?);
    for _ in 0..100 {
        open(&client, 10).await?;
    }
    let over = client.post("/v1/uploads", &json!({"filename": "one more", "size": 10})).await?;
    assert_eq!((over.status, over.code()), (409, "CONFLICT"), "{}", over.json);
    open(&edge.client(), 10).await.map(drop)
}

#[tokio::test]
async fn an_upload_that_no_job_names_is_deleted_when_its_time_is_over_and_a_used_one_is_not() -> Result<()> {
    end_with_parent();
    let vars = vec![("UPLOAD_SECONDS", "4".to_owned())];
    let edge = Edge::start(EdgeOptions { vars, ..EdgeOptions::default() }).await?;
    let client = edge.client();
    let clip = bytes(&short_clip()?)?;
    let send = async |file: Bytes| {
        let opened = open(&client, file.len()).await?;
        let (_, url, _) = wanted(&opened)?.remove(0);
        assert_eq!(put(&client, &url, file).await?.status, 200);
        anyhow::Ok(opened)
    };
    let (used, unused) = (send(clip.clone()).await?, send(clip).await?);
    client.create(&thumbnail_of(&used)).await?;
    let path = |upload: &Value| format!("/v1/uploads/{}", upload["uploadId"].as_str().unwrap_or_default());
    let gone = wait_for("the unused upload to be deleted", PATIENCE, async || {
        Ok(Some(client.get(&path(&unused)).await?).filter(|answer| answer.status == 404))
    });
    gone.await?;
    assert_eq!(client.post("/v1/jobs", &thumbnail_of(&unused)).await?.status, 404);
    client.get(&path(&used)).await?.expect(200).map(drop)
}

#[tokio::test]
async fn an_upload_outlives_every_job_that_names_it_and_a_retry_takes_it_up_again() -> Result<()> {
    end_with_parent();
    let vars = vec![("UPLOAD_SECONDS", "2".to_owned())];
    let edge = Edge::start(EdgeOptions { vars, ..EdgeOptions::default() }).await?;
    // Jobs in other shards than their upload.
    edge.put_shard_map(&json!({"epochs": [{"shards": 4}]})).await?;
    let client = edge.client();
    client.put("/v1/settings", &json!({"inputRetentionDays": 0})).await?.expect(200)?;
    let status = async |upload: &Value| {
        let path = format!("/v1/uploads/{}", upload["uploadId"].as_str().unwrap_or_default());
        anyhow::Ok(client.get(&path).await?.status)
    };
    let used = sent(&client, bytes(&short_clip()?)?).await?;
    // Whoever looks at uploads has looked at the used one when one is gone that was opened after its last use.
    let looked_at = async || {
        let unused = open(&client, 10).await?;
        wait_for("the unused upload to go", PATIENCE, async || Ok((status(&unused).await? == 404).then_some(()))).await
    };
    let (one, two) = (client.create(&thumbnail_of(&used)).await?, client.create(&thumbnail_of(&used)).await?);
    looked_at().await?;
    client.cancel(&one).await?.expect(200)?;
    looked_at().await?;
    assert_eq!(status(&used).await?, 200, "the second job waits");

    client.post(&format!("/v1/jobs/{one}/retry"), &json!({})).await?.expect(202)?;
    client.cancel(&two).await?.expect(200)?;
    looked_at().await?;
    looked_at().await?;
    assert_eq!(status(&used).await?, 200, "the first job waits again");
    let _node = Node::start(&edge, NodeOptions::default()).await?;
    assert_eq!(client.finished(&one, PATIENCE).await?["state"], "completed");
    wait_for("the upload to go", PATIENCE, async || Ok((status(&used).await? == 404).then_some(()))).await?;

    let retried = client.post(&format!("/v1/jobs/{two}/retry"), &json!({})).await?;
    assert_eq!((retried.status, retried.code()), (409, "CONFLICT"), "{}", retried.json);
    let id = used["uploadId"].as_str().context("an id")?;
    assert!(retried.message().contains(id), "{}", retried.message());
    assert_eq!(client.job(&two).await?["state"], "cancelled");
    assert_eq!(client.post("/v1/jobs", &thumbnail_of(&used)).await?.status, 404);
    Ok(())
}
