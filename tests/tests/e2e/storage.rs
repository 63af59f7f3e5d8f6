//! Outputs in buckets of the caller's own.

use std::{
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context, Result, ensure};
use futures_util::future::{join, join_all};
use reqwest::Method;
use serde_json::{Value, json};
use xora_shared::{
    s3,
    sign::{Access, Grant},
    time::UnixMs,
};
use xora_tests::{
    Bucket, Client, Edge, EdgeOptions, Ending, Node, NodeOptions, Origin, Reply, Request, Seen, Served, Server, clip,
    free_port, probe, wait_for,
};

use crate::{
    PATIENCE, bytes, compress, edge, end_with_parent, job, own_edge, short_clip, thumbnail, uploads::noise_clip, with,
};

const PROVIDERS: &str = "/v1/settings/storage-providers";

/// Adds a bucket and answers its id.
async fn add(client: &Client, body: &Value) -> Result<String> {
    let added = client.post(PROVIDERS, body).await?.expect(201)?;
    added["id"].as_str().map(str::to_owned).context("an id")
}

async fn test(client: &Client, id: &str) -> Result<Value> {
    client.post(&format!("{PROVIDERS}/{id}/test"), &json!({})).await?.expect(200)
}

/// A film whose output has several parts.
fn large(url: &str, provider: &str) -> Value {
    with(job(url, "mp4", &json!({"name": "compress", "crf": 10})), "storageProviderId", provider)
}

fn storage_url(job: &Value) -> Result<&str> {
    job["output_files"]["output"]["storage_url"].as_str().with_context(|| job.to_string())
}

/// Whether a file, or any below a directory, holds a text.
pub fn holds(path: &Path, text: &str) -> Result<bool> {
    if !path.is_dir() {
        return Ok(fs::read(path).unwrap_or_default().windows(text.len()).any(|window| window == text.as_bytes()));
    }
    for entry in fs::read_dir(path)? {
        if holds(&entry?.path(), text)? {
            return Ok(true);
        }
    }
    Ok(false)
}

#[tokio::test]
async fn a_bucket_is_added_tried_out_and_deleted_and_its_keys_are_never_seen_again() -> Result<()> {
    let edge = edge().await?;
    let (client, bucket) = (edge.client(), Bucket::start().await?);
    let added = client.post(PROVIDERS, &bucket.provider()).await?.expect(201)?;
    let id = added["id"].as_str().context("an id")?;
    assert_eq!(
        (&added["bucket"], &added["prefix"], &added["pathStyle"]),
        (&json!("media"), &json!("made/"), &json!(true))
    );
    let path = format!("{PROVIDERS}/{id}");
    let listed = client.get(PROVIDERS).await?.expect(200)?;
    assert!(listed["storageProviders"].as_array().is_some_and(|all| all.contains(&added)), "{listed}");
    assert_eq!(client.get(&path).await?.expect(200)?, added);
    assert_eq!(test(&client, id).await?, json!({"ok": true}));
    assert_eq!(bucket.left()?, [""; 0]);

    for shown in [&added, &listed] {
        for key in [&bucket.access_key_id, &bucket.secret_access_key] {
            assert!(!shown.to_string().contains(key), "{shown}");
        }
    }
    // Not all that is there: media of any size are.
    let record = edge.dir().join("state/v3/do");
    assert!(holds(&record, id)?, "the record is searched");
    for place in [record, edge.dir().join("state/v3/kv"), edge.dir().join("edge.log"), edge.dir().join("node-1.log")] {
        assert!(place.exists(), "{}", place.display());
        assert!(!holds(&place, &bucket.secret_access_key)?, "the key is kept as it is, or logged");
    }

    let deleted = client.request(Method::DELETE, &path).send().await?;
    assert_eq!(deleted.status(), 204);
    assert_eq!(client.get(&path).await?.status, 404);
    let refused = client.post("/v1/jobs", &large("https://media.example.com/a.mp4", id)).await?;
    assert_eq!((refused.status, refused.code()), (400, "VALIDATION_ERROR"), "{}", refused.json);
    assert!(refused.message().contains("storageProviderId: names no storage provider"), "{}", refused.message());
    Ok(())
}

#[tokio::test]
async fn what_is_wrong_with_a_bucket_is_said() -> Result<()> {
    let (client, bucket) = (edge().await?.client(), Bucket::start().await?);
    let nobody = format!("http://127.0.0.1:{}", free_port()?);
    for (name, value, code, step) in
        [("secretAccessKey", "another", "refused", "write"), ("endpoint", nobody.as_str(), "unavailable", "write")]
    {
        let id = add(&client, &with(bucket.provider(), name, value)).await?;
        let told = test(&client, &id).await?;
        assert_eq!(
            (&told["ok"], &told["error"]["code"], &told["error"]["step"]),
            (&json!(false), &json!(code), &json!(step)),
            "{told}"
        );
    }
    let id = add(&client, &bucket.provider()).await?;
    let missing = "<Error><Code>NoSuchBucket</Code><Message>hush</Message></Error>";
    bucket.fail("PUT", "xora-test-", 1, Reply::status(404).body(missing));
    let told = test(&client, &id).await?;
    let message = told["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("404 NoSuchBucket") && !message.contains("hush"), "{told}");
    for (reply, words) in [
        (Reply::status(503).body("<Error><Code>SlowDown</Code></Error>"), "503 SlowDown"),
        (
            Reply::status(301)
                .header("x-amz-bucket-region", "eu-west-1")
                .body("<Error><Code>PermanentRedirect</Code></Error>"),
            "301 PermanentRedirect (the bucket is in the region eu-west-1)",
        ),
    ] {
        bucket.fail("PUT", "xora-test-", 1, reply);
        let told = test(&client, &id).await?;
        assert!(told["error"]["message"].as_str().is_some_and(|message| message.contains(words)), "{told}");
    }
    bucket.fail("GET", "xora-test-", 1, Reply::status(200).body("something else"));
    assert_eq!(test(&client, &id).await?["error"]["code"], "differs");
    assert_eq!(bucket.left()?, [""; 0], "nothing is left behind");

    for (name, value) in
        [("endpoint", json!("https://10.0.0.1")), ("bucket", json!("a/b")), ("secretAccessKey", json!(""))]
    {
        let refused = client.post(PROVIDERS, &with(bucket.provider(), name, value)).await?;
        assert_eq!((refused.status, refused.code()), (400, "VALIDATION_ERROR"), "{}", refused.json);
        assert!(refused.message().starts_with(&format!("{name}: ")), "{}", refused.message());
    }
    Ok(())
}

#[tokio::test]
async fn an_output_of_several_parts_goes_to_the_callers_bucket_by_signed_urls_alone() -> Result<()> {
    let (client, origin, bucket) = (edge().await?.client(), Origin::start().await?, Bucket::start().await?);
    let clip = noise_clip()?;
    let id = add(&client, &bucket.provider()).await?;
    let job = client.run(&large(&origin.file(&clip)?, &id), PATIENCE).await?;
    assert_eq!(job["state"], "completed", "{job}");

    let parts = bucket.parts();
    assert!(parts.len() >= 3, "{} parts", parts.len());
    for part in &parts {
        assert!(part.request.target.contains("X-Amz-Signature="), "{}", part.request.target);
        assert_eq!(part.request.header("authorization"), None, "nodes have no keys");
        assert_eq!(part.status, 200);
    }
    for seen in bucket.seen() {
        assert!(!format!("{:?}", seen.request).contains(&bucket.secret_access_key), "{:?}", seen.request);
    }

    let url = storage_url(&job)?;
    assert_eq!(job["output"]["signedUrl"], url);
    let key = format!("made/outputs/{}/result.mp4", job["jobId"].as_str().context("an id")?);
    assert!(url.starts_with(&format!("{}/media/{key}?", bucket.endpoint())), "{url}");
    let stored = bucket.object(&key).context("the object")?;
    assert_eq!(client.download(url).await?, stored);
    assert_eq!(job["output_files"]["output"]["size_bytes"], stored.len());
    let made = std::env::temp_dir().join(format!("xora-bucket-{}.mp4", std::process::id()));
    fs::write(&made, stored)?;
    assert_eq!(probe(&made)?.frames("video")?, probe(&clip)?.frames("video")?);
    fs::remove_file(&made)?;
    assert_eq!(bucket.left()?, [format!("media/{key}")]);

    let unsigned = url.split('?').next().unwrap_or_default();
    assert_eq!(client.request(Method::GET, unsigned).send().await?.status(), 403);

    // Without the provider the link still names the object, and opens nothing.
    client.request(Method::DELETE, &format!("{PROVIDERS}/{id}")).send().await?;
    assert_eq!(storage_url(&client.job(job["jobId"].as_str().unwrap_or_default()).await?)?, unsigned);
    Ok(())
}

#[tokio::test]
async fn what_stands_in_the_callers_bucket_outlives_its_job() -> Result<()> {
    let (client, origin, bucket) = (edge().await?.client(), Origin::start().await?, Bucket::start().await?);
    let id = add(&client, &bucket.provider()).await?;
    let body = with(thumbnail(&origin.file(&short_clip()?)?), "storageProviderId", id.as_str());
    let job = client.run(&body, PATIENCE).await?;
    assert_eq!(job["state"], "completed", "{job}");
    let (url, before) = (storage_url(&job)?, bucket.left()?);
    assert_eq!(before.len(), 1);
    let picture = client.download(url).await?;
    client.delete(&format!("/v1/jobs/{}", job["jobId"].as_str().context("an id")?)).await?.expect(204)?;
    assert_eq!(bucket.left()?, before);
    assert_eq!(client.download(url).await?, picture, "its link is good as long as it says");
    Ok(())
}

#[tokio::test]
async fn an_output_of_one_part_is_written_by_one_request() -> Result<()> {
    let (client, origin, bucket) = (edge().await?.client(), Origin::start().await?, Bucket::start().await?);
    let id = add(&client, &bucket.provider()).await?;
    let body = with(thumbnail(&origin.file(&short_clip()?)?), "storageProviderId", id.as_str());
    let job = client.run(&body, PATIENCE).await?;
    assert_eq!(job["state"], "completed", "{job}");
    let key = format!("/media/made/outputs/{}/result.jpg", job["jobId"].as_str().context("an id")?);
    let writes: Vec<Seen> = bucket.seen().into_iter().filter(|seen| seen.request.method != "GET").collect();
    let [only] = writes.as_slice() else { panic!("{writes:?}") };
    assert_eq!((only.request.method.as_str(), only.status), ("PUT", 200));
    assert!(only.request.target.starts_with(&format!("{key}?X-Amz-")), "{}", only.request.target);
    assert_eq!(only.request.header("content-type"), Some("image/jpeg"));
    // So that the link cannot replace what was verified: it is signed for this condition.
    assert_eq!(only.request.header("if-none-match"), Some("*"));
    assert!(only.request.target.contains("X-Amz-SignedHeaders=host%3Bif-none-match"), "{}", only.request.target);
    assert_eq!(client.download(storage_url(&job)?).await?.len(), job["output_files"]["output"]["size_bytes"]);
    Ok(())
}

#[tokio::test]
async fn a_bucket_that_knows_no_condition_gets_an_output_of_one_part_as_a_multipart_upload() -> Result<()> {
    for refusal in [501, 400] {
        let (client, origin, bucket) = (edge().await?.client(), Origin::start().await?, Bucket::start().await?);
        let id = add(&client, &bucket.provider()).await?;
        bucket.fail("PUT", "SignedHeaders=host%3Bif-none-match", usize::MAX, Reply::status(refusal));
        let body = with(thumbnail(&origin.file(&short_clip()?)?), "storageProviderId", id.as_str());
        let job = client.run(&body, PATIENCE).await?;
        assert_eq!((&job["state"], job["attempts"].as_array().map(Vec::len)), (&json!("completed"), Some(1)), "{job}");
        assert_eq!(bucket.parts().len(), 1, "{job}");
        assert_eq!(client.download(storage_url(&job)?).await?.len(), job["output_files"]["output"]["size_bytes"]);
    }
    Ok(())
}

#[tokio::test]
async fn an_output_that_becomes_longer_than_its_input_promised_is_written_in_parts() -> Result<()> {
    let (client, origin, bucket) = (edge().await?.client(), Origin::start().await?, Bucket::start().await?);
    let id = add(&client, &bucket.provider()).await?;
    let noise =
        "-f lavfi -i color=gray:s=640x360:r=25:d=11,noise=alls=100:allf=t -c:v libx264 -preset ultrafast -crf 46";
    let small = clip("coarse-noise.mp4", &noise.split(' ').collect::<Vec<_>>())?;
    assert!(bytes(&small)?.len() < 5 << 19, "it promises one part");
    let compress = job(&origin.file(&small)?, "mp4", &json!({"name": "compress", "crf": 1}));
    let job = client.run(&with(compress, "storageProviderId", id.as_str()), PATIENCE).await?;
    assert_eq!(job["state"], "completed", "{job}");
    assert!(bucket.parts().len() >= 2, "{job}");
    let stored = client.download(storage_url(&job)?).await?;
    assert_eq!(job["output_files"]["output"]["size_bytes"], stored.len());
    assert_eq!(job["verification"]["frames"], 275, "{job}");
    assert_eq!(bucket.left()?.len(), 1, "{:?}", bucket.left()?);
    Ok(())
}

/// One request of a node, to a URL that it was given.
async fn put(client: &Client, target: &Value, bytes: &[u8]) -> Result<String> {
    let url = target["url"].as_str().context("a URL")?;
    let sent =
        client.request(Method::PUT, url).header("Content-Type", "image/jpeg").body(bytes.to_vec()).send().await?;
    ensure!(sent.status() == 200, "{}: {}", sent.status(), sent.text().await?);
    Ok(sent.headers()["etag"].to_str()?.to_owned())
}

#[tokio::test]
async fn an_output_that_is_begun_again_stands_where_nothing_late_can_reach_it() -> Result<()> {
    let edge = own_edge().await?;
    let client = edge.client();
    let id = client.create(&thumbnail("https://example.com/film.mp4")).await?;
    let asked = json!({"node": {"name": "n", "version": "0", "encoders": []}});
    let node = client.with_key(&client.mint("node", &["node"]).await?);
    let lease = node.post("/v1/node/lease", &asked).await?.expect(200)?["lease"].take();
    assert_eq!(lease["jobId"], id.as_str(), "{lease}");
    let hold = &lease["hold"];
    let begin = json!({"hold": hold, "format": "jpg", "partSize": 5 << 20, "single": true});
    let said: Value = serde_json::from_str(include_str!("../../../shared/tests/wire/node/complete.json"))?;
    let complete = |bytes: usize| {
        let mut complete = with(said.clone(), "hold", hold.clone());
        complete["result"]["bytes"] = bytes.into();
        complete
    };

    let first = node.post("/v1/node/outputs/begin", &begin).await?.expect(200)?;
    let read_url = first["readUrl"].as_str().context("where to read it back")?;
    assert_eq!(first["targets"].as_array().map(Vec::len), Some(1), "{first}");
    let refused = node.post("/v1/node/complete", &complete(5)).await?;
    assert_eq!((refused.status, refused.code()), (409, "CONFLICT"), "nothing was written: {}", refused.json);
    put(&client, &first["targets"][0], b"first").await?;
    let read = client.request(Method::GET, read_url).send().await?;
    assert_eq!((read.status().as_u16(), &read.headers()["content-type"]), (200, &"image/jpeg".parse()?));
    assert_eq!(read.bytes().await?, "first");

    let again = node.post("/v1/node/outputs/begin", &begin).await?.expect(200)?;
    assert!(again["readUrl"].is_null(), "{again}");
    let again = node.post("/v1/node/outputs/begin", &begin).await?.expect(200)?;
    assert!(again["targets"][0]["url"].as_str().is_some_and(|url| url.contains("/1-again/result.jpg?")), "{again}");
    let etag = put(&client, &again["targets"][0], b"the second").await?;
    let parts = json!([{"number": 1, "etag": etag}]);
    let finish = json!({"hold": hold, "bytes": 10, "parts": parts});
    node.post("/v1/node/outputs/finish", &finish).await?.expect(200)?;
    let gone = wait_for("the first to be removed", PATIENCE, async || {
        Ok((client.request(Method::GET, read_url).send().await?.status() == 404).then_some(()))
    });
    gone.await?;
    put(&client, &first["targets"][0], b"first, and late").await?;
    node.post("/v1/node/complete", &complete(10)).await?.expect(200)?;
    let job = client.job(&id).await?;
    assert_eq!(job["state"], "completed", "{job}");
    assert_eq!(client.download(job["output"]["signedUrl"].as_str().context("a link")?).await?, b"the second");
    Ok(())
}

/// Whether a job failed at once because its provider was deleted.
fn failed_for_want_of_a_provider(job: &Value) -> bool {
    let (error, attempts) = (&job["error"], job["attempts"].as_array().map_or(0, Vec::len));
    let said = error["message"].as_str().is_some_and(|message| message.contains("storage provider"));
    job["state"] == "failed" && error["code"] == "CONFIG_ERROR" && error["retryable"] == false && said && attempts == 1
}

#[tokio::test]
async fn a_job_whose_provider_is_deleted_before_or_while_it_runs_fails_and_says_why() -> Result<()> {
    let edge = own_edge().await?;
    let (client, origin, bucket) = (edge.client(), Origin::start().await?, Bucket::start().await?);
    let body = |id: &str| anyhow::Ok(with(thumbnail(&origin.file(&short_clip()?)?), "storageProviderId", id));
    let id = add(&client, &bucket.provider()).await?;
    let queued = client.create(&body(&id)?).await?;
    client.delete(&format!("{PROVIDERS}/{id}")).await?.expect(204)?;
    assert_eq!(edge.rows("providers")?, 0, "what opens the bucket is forgotten at once");
    let _node = Node::start(&edge, NodeOptions::default()).await?;
    let ended = client.finished(&queued, PATIENCE).await?;
    assert!(failed_for_want_of_a_provider(&ended), "{ended}");

    let id = add(&client, &bucket.provider()).await?;
    let clip = bytes(&noise_clip()?)?;
    let pace = clip.len() / 8;
    let running = client.create(&large(&origin.serve("slow.mp4", Served::Slowly(clip, pace)), &id)).await?;
    let begun = wait_for("a part", PATIENCE, async || Ok((!bucket.parts().is_empty()).then_some(())));
    begun.await?;
    client.delete(&format!("{PROVIDERS}/{id}")).await?.expect(204)?;
    let ended = client.finished(&running, PATIENCE).await?;
    assert!(failed_for_want_of_a_provider(&ended), "{ended}");
    assert_eq!(edge.rows("providers")?, 0);
    Ok(())
}

#[tokio::test]
async fn a_provider_that_is_deleted_while_jobs_are_made_leaves_no_copy_behind() -> Result<()> {
    const JOBS: usize = 12;
    let edge = own_edge().await?;
    let (client, bucket) = (edge.client(), Bucket::start().await?);
    let id = add(&client, &bucket.provider()).await?;
    let body = large("https://media.example.com/a.mp4", &id);
    let making = (0..JOBS).map(|_| client.post("/v1/jobs", &body));
    let path = format!("{PROVIDERS}/{id}");
    let (made, deleted) = join(join_all(making), client.delete(&path)).await;
    deleted?.expect(204)?;
    for answer in made {
        let answer = answer?;
        assert!(answer.status == 202 || answer.message().contains("storageProviderId"), "{}", answer.json);
    }
    edge.tick().await?;
    let gone = wait_for("the copies to go", PATIENCE, async || Ok((edge.rows("providers")? == 0).then_some(())));
    gone.await
}

#[tokio::test]
async fn a_bucket_that_fails_in_the_middle_gets_its_parts_again() -> Result<()> {
    let (client, origin, bucket) = (edge().await?.client(), Origin::start().await?, Bucket::start().await?);
    let id = add(&client, &bucket.provider()).await?;
    bucket.fail("POST", "uploads=", 1, Reply::status(503));
    bucket.fail("PUT", "partNumber=2", 1, Reply::status(500));
    bucket.fail("PUT", "partNumber=1", 1, Reply::reset());
    bucket.fail("PUT", "partNumber=2", 1, Reply { ending: Ending::Close, ..Reply::status(0) });
    bucket.fail("POST", "uploadId=", 1, Reply::status(500));
    let half_done = "<?xml version=\"1.0\"?><Error><Code>InternalError</Code></Error>";
    bucket.fail("POST", "uploadId=", 1, Reply::status(200).body(half_done));
    let job = client.run(&large(&origin.file(&noise_clip()?)?, &id), PATIENCE).await?;
    assert_eq!(job["state"], "completed", "{job}");
    assert_eq!(job["attempts"].as_array().map(Vec::len), Some(1), "{job}");
    let downloaded = client.download(storage_url(&job)?).await?;
    assert_eq!(job["output_files"]["output"]["size_bytes"], downloaded.len());
    let statuses: Vec<_> = bucket.parts().iter().map(|part| part.status).collect();
    assert!(statuses.contains(&500) && statuses.contains(&0), "{statuses:?}");
    assert_eq!(bucket.left()?.len(), 1, "{:?}", bucket.left()?);
    Ok(())
}

#[tokio::test]
async fn a_bucket_that_takes_nothing_fails_the_attempt_and_every_upload_is_aborted() -> Result<()> {
    let (client, origin, bucket) = (edge().await?.client(), Origin::start().await?, Bucket::start().await?);
    let id = add(&client, &bucket.provider()).await?;
    bucket.fail("PUT", "/outputs/", usize::MAX, Reply::status(400));
    let small = with(thumbnail(&origin.file(&short_clip()?)?), "storageProviderId", id.as_str());
    for body in [small, large(&origin.file(&noise_clip()?)?, &id)] {
        let job = client.create(&body).await?;
        // The next attempt is not soon.
        let failed = client.when(&job, PATIENCE, |job| job["attempts"][0]["outcome"] == "failed").await?;
        client.cancel(&job).await?.expect(200)?;
        let error = &failed["attempts"][0]["error"];
        assert_eq!((&error["code"], &error["retryable"]), (&json!("STORAGE_ERROR"), &json!(true)), "{failed}");
    }
    let clean = wait_for("the uploads to be aborted", PATIENCE, async || Ok(bucket.left()?.is_empty().then_some(())));
    clean.await.with_context(|| format!("{:?}", bucket.left()))
}

#[tokio::test]
async fn what_a_bucket_refuses_for_good_fails_the_job_at_once_in_its_words() -> Result<()> {
    let (client, origin, bucket) = (edge().await?.client(), Origin::start().await?, Bucket::start().await?);
    let id = add(&client, &bucket.provider()).await?;
    let body = large(&origin.file(&noise_clip()?)?, &id);
    let table = [
        // Of the node's calls, and of the edge's.
        ("PUT", "partNumber=", 403, "AccessDenied"),
        ("PUT", "partNumber=", 403, "QuotaExceeded"),
        ("PUT", "partNumber=", 403, "RequestTimeTooSkewed"),
        ("POST", "uploads=", 404, "NoSuchBucket"),
        ("POST", "uploadId=", 403, "AccessDenied"),
    ];
    for (method, target, status, code) in table {
        let said = format!("<Error><Code>{code}</Code><Message>hush</Message></Error>");
        bucket.fail(method, target, 1, Reply::status(status).body(said));
        let job = client.run(&body, PATIENCE).await?;
        let error = &job["error"];
        assert_eq!((&error["code"], &error["retryable"]), (&json!("CONFIG_ERROR"), &json!(false)), "{job}");
        assert_eq!(job["attempts"].as_array().map(Vec::len), Some(1), "{job}");
        let message = error["message"].as_str().unwrap_or_default();
        assert!(message.contains(&format!("{status} {code}")) && !message.contains("hush"), "{job}");
    }
    Ok(())
}

#[tokio::test]
async fn a_bucket_that_asks_for_patience_or_is_elsewhere_for_now_gets_its_parts() -> Result<()> {
    let (client, origin, bucket) = (edge().await?.client(), Origin::start().await?, Bucket::start().await?);
    let id = add(&client, &bucket.provider()).await?;
    let slow = "<Error><Code>RequestTimeout</Code></Error>";
    bucket.fail("PUT", "partNumber=1", 1, Reply::status(400).body(slow));
    bucket.fail("PUT", "partNumber=2", 1, Reply::status(507));
    // The same server by another name: whoever goes there needs a signature for that name.
    let elsewhere = bucket.endpoint().replace("127.0.0.1", "localhost");
    let moved = |method, target| {
        let to = format!("{elsewhere}/media/made/anything?{target}");
        bucket.fail(method, target, 1, Reply::status(307).header("Location", &to));
    };
    moved("POST", "uploads=");
    moved("PUT", "partNumber=2");
    moved("POST", "uploadId=");
    let job = client.run(&large(&origin.file(&noise_clip()?)?, &id), PATIENCE).await?;
    assert_eq!(job["state"], "completed", "{job}");
    assert_eq!(job["attempts"].as_array().map(Vec::len), Some(1), "{job}");
    let seen = bucket.seen();
    let followed =
        seen.iter().filter(|seen| seen.request.header("host").is_some_and(|host| host.starts_with("localhost")));
    // The targets that came with it are for there as well.
    let mut followed: Vec<_> = followed.map(|seen| (seen.request.method.as_str(), seen.status)).collect();
    followed.dedup();
    assert_eq!(followed, [("POST", 200), ("PUT", 200), ("POST", 200)]);
    Ok(())
}

#[tokio::test]
async fn one_wrong_bit_in_what_was_stored_fails_the_job() -> Result<()> {
    let (client, origin, bucket) = (edge().await?.client(), Origin::start().await?, Bucket::start().await?);
    let id = add(&client, &bucket.provider()).await?;
    bucket.spoil();
    // Nothing else would tell of a wrong sample, and of six megabytes of them not all are in one request.
    let sound = "-f lavfi -i sine=r=48000:d=65 -c:a libmp3lame";
    let sound = origin.file(&clip("minute.mp3", &sound.split(' ').collect::<Vec<_>>())?)?;
    let film = large(&origin.file(&noise_clip()?)?, &id);
    let short = compress(&origin.file(&short_clip()?)?);
    for wanted in [film, short, job(&sound, "wav", &json!({"name": "transcode"}))] {
        let job = client.run(&with(wanted, "storageProviderId", id.as_str()), PATIENCE).await?;
        assert_eq!((&job["state"], &job["error"]["code"]), (&json!("failed"), &json!("OUTPUT_INVALID")), "{job}");
    }
    let clean = wait_for("what is wrong to be deleted", PATIENCE, async || Ok(bucket.left()?.is_empty().then_some(())));
    clean.await.with_context(|| format!("{:?}", bucket.left()))
}

#[tokio::test]
async fn a_cancelled_job_leaves_nothing_in_the_bucket() -> Result<()> {
    let (client, origin, bucket) = (edge().await?.client(), Origin::start().await?, Bucket::start().await?);
    let id = add(&client, &bucket.provider()).await?;
    let clip = bytes(&noise_clip()?)?;
    let pace = clip.len() / 30;
    let job = client.create(&large(&origin.serve("slow.mp4", Served::Slowly(clip, pace)), &id)).await?;
    let begun = wait_for("an upload", PATIENCE, async || Ok((!bucket.left()?.is_empty()).then_some(())));
    begun.await?;
    client.cancel(&job).await?.expect(200)?;
    let clean = wait_for("the upload to be aborted", PATIENCE, async || Ok(bucket.left()?.is_empty().then_some(())));
    clean.await.with_context(|| format!("{:?}", bucket.left()))
}

#[tokio::test]
async fn the_default_bucket_is_used_and_urls_of_parts_are_renewed_before_they_expire() -> Result<()> {
    end_with_parent();
    let vars = vec![("PART_URL_SECONDS", "3".to_owned())];
    let edge = Edge::start(EdgeOptions { vars, ..EdgeOptions::default() }).await?;
    let _node = Node::start(&edge, NodeOptions::default()).await?;
    let (client, origin, bucket) = (edge.client(), Origin::start().await?, Bucket::start().await?);
    let id = add(&client, &bucket.provider()).await?;
    let set = client.post("/v1/settings", &json!({"defaultStorageProviderId": id})).await?.expect(200)?;
    assert_eq!(set["defaultStorageProviderId"], id.as_str());
    let clip = bytes(&noise_clip()?)?;
    let pace = clip.len() / 8;
    let url = origin.serve("slow.mp4", Served::Slowly(clip, pace));
    let done = client.run(&job(&url, "mp4", &json!({"name": "compress", "crf": 10})), PATIENCE).await?;
    assert_eq!(done["state"], "completed", "{done}");
    let parts = bucket.parts();
    assert!(parts.iter().all(|part| part.status == 200), "none came too late");
    // Those that came with the opening would be too old for the last parts.
    let opening = bucket.seen().into_iter().find(|seen| seen.request.target.contains("uploads="));
    let opened = opening.and_then(|seen| seen.request.header("x-amz-date").map(str::to_owned)).context("an opening")?;
    let signed = |part: &Seen| part.request.target.split("X-Amz-Date=").nth(1).map(|rest| rest[..16].to_owned());
    assert!(parts.iter().filter_map(signed).any(|signed| signed > opened), "all were signed at {opened}");

    client.request(Method::DELETE, &format!("{PROVIDERS}/{id}")).send().await?.error_for_status()?;
    let settings = client.get("/v1/settings").await?.expect(200)?;
    assert_eq!(settings["defaultStorageProviderId"], Value::Null);
    let managed = client.run(&thumbnail(&origin.file(&short_clip()?)?), PATIENCE).await?;
    assert!(storage_url(&managed)?.starts_with(&edge.url), "{managed}");
    Ok(())
}

/// What stands in for the S3 side of the managed bucket: it checks each signature as S3 does and passes the part on to
/// the same bucket, through a link of the edge's own. Counts the parts.
struct Managed {
    bucket: s3::Bucket,
    keys: s3::Keys,
    edge: Mutex<Option<(String, String)>>,
    parts: AtomicUsize,
}

impl Managed {
    async fn take(&self, request: Request) -> Reply {
        match self.put(&request).await {
            Ok(etag) => {
                self.parts.fetch_add(1, Ordering::Relaxed);
                Reply::status(200).header("ETag", &format!("\"{etag}\""))
            }
            Err(_) => Reply::status(403),
        }
    }

    async fn put(&self, request: &Request) -> Result<String> {
        let url = reqwest::Url::parse(&format!("{}{}", self.bucket.endpoint, request.target))?;
        let value = |wanted: &str| {
            let found = url.query_pairs().find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned());
            found.with_context(|| wanted.to_owned())
        };
        let (number, upload) = (value("partNumber")?, value("uploadId")?);
        let key = url.path().strip_prefix("/media/").context("the bucket")?;
        let date = value("X-Amz-Date")?;
        let iso = format!(
            "{}-{}-{}T{}:{}:{}Z",
            &date[..4],
            &date[4..6],
            &date[6..8],
            &date[9..11],
            &date[11..13],
            &date[13..15]
        );
        let now = UnixMs(iso.parse::<jiff::Timestamp>()?.as_millisecond());
        let query = [("partNumber", number.as_str()), ("uploadId", upload.as_str())];
        let call = s3::Call { method: &request.method, key, query: &query };
        let expected = self.bucket.presign(&self.keys, call, value("X-Amz-Expires")?.parse()?, now)?;
        anyhow::ensure!(expected == url.as_str(), "the signature does not fit");

        let (edge, secret) = self.edge.lock().ok().and_then(|edge| edge.clone()).context("the edge")?;
        let (path, expires) = (format!("/files/{key}"), now.0 / 1000 + 600);
        let extra = format!("part={number}&upload={upload}");
        let grant = Grant { access: Access::WritePart, path: &path, extra: &extra, expires };
        let link = format!("{edge}{path}?{extra}&expires={expires}&signature={}", grant.sign(secret.as_bytes()));
        let stored = Client::new("", "").request(Method::PUT, &link).body(request.body.clone()).send().await?;
        Ok(stored.error_for_status()?.headers()["etag"].to_str()?.to_owned())
    }
}

#[tokio::test]
async fn where_the_managed_bucket_has_keys_nodes_write_past_the_worker() -> Result<()> {
    end_with_parent();
    let keys = s3::Keys { access_key_id: "managed".to_owned(), secret_access_key: "hush-hush".to_owned() };
    let port = free_port()?;
    let bucket = s3::Bucket {
        endpoint: format!("http://127.0.0.1:{port}"),
        region: "auto".to_owned(),
        bucket: "media".to_owned(),
        prefix: String::new(),
        path_style: true,
    };
    let managed = Arc::new(Managed { bucket, keys, edge: Mutex::default(), parts: AtomicUsize::new(0) });
    let taking = Arc::clone(&managed);
    let server = Server::start_at(port, move |request| {
        let taking = Arc::clone(&taking);
        async move { taking.take(request).await }
    });
    let _server = server.await?;
    let vars = vec![
        ("MEDIA_S3_ENDPOINT", managed.bucket.endpoint.clone()),
        ("MEDIA_S3_BUCKET", "media".to_owned()),
        ("MEDIA_S3_ACCESS_KEY_ID", managed.keys.access_key_id.clone()),
        ("MEDIA_S3_SECRET_ACCESS_KEY", managed.keys.secret_access_key.clone()),
    ];
    let edge = Edge::start(EdgeOptions { vars, ..EdgeOptions::default() }).await?;
    let secret = edge.var("SIGNING_SECRET").context("the secret")?;
    *managed.edge.lock().expect("nobody panics") = Some((edge.url.clone(), secret));
    let _node = Node::start(&edge, NodeOptions::default()).await?;
    let (client, origin) = (edge.client(), Origin::start().await?);
    let clip = origin.file(&noise_clip()?)?;
    let done = client.run(&job(&clip, "mp4", &json!({"name": "compress", "crf": 10})), PATIENCE).await?;
    assert_eq!(done["state"], "completed", "{done}");
    assert!(managed.parts.load(Ordering::Relaxed) >= 3);
    let url = storage_url(&done)?;
    assert!(url.starts_with(&format!("{}/files/", edge.url)), "downloads stay with the edge: {url}");
    assert_eq!(done["output_files"]["output"]["size_bytes"], client.download(url).await?.len());
    Ok(())
}
