//! What the edge accepts of nodes: the protocol spoken by hand, rightly and wrongly.

use anyhow::{Context, Result};
use reqwest::Method;
use serde_json::{Value, json};
use xora_tests::{Answer, Bucket, Client, Edge};

use crate::{job, own_edge, thumbnail, uploads, with};

/// A lease that a test took by hand.
struct Held {
    node: Client,
    name: &'static str,
    lease: Value,
}

impl Held {
    async fn take(node: &Client, name: &'static str) -> Result<Self> {
        let asked = json!({"node": info(name)});
        let lease = node.post("/v1/node/lease", &asked).await?.expect(200)?["lease"].take();
        assert!(lease.is_object(), "there is no task to lease");
        Ok(Self { node: node.clone(), name, lease })
    }

    fn about(&self, mut body: Value) -> Value {
        body["hold"] = self.lease["hold"].clone();
        body
    }

    async fn post(&self, path: &str, body: Value) -> Result<Answer> {
        said(&self.node, self.name, path, &self.about(body)).await
    }

    /// The golden completion, changed.
    async fn complete(&self, change: impl FnOnce(&mut Value)) -> Result<Answer> {
        self.post("complete", completion(change)?).await
    }
}

fn info(name: &str) -> Value {
    json!({"name": name, "version": "0", "encoders": []})
}

/// A message of a node that names itself, as `xora-node` does.
async fn said(node: &Client, name: &str, path: &str, body: &Value) -> Result<Answer> {
    let request = node.request(Method::POST, &format!("/v1/node/{path}")).header("x-xora-node", name).json(body);
    let response = request.send().await?;
    let status = response.status().as_u16();
    Ok(Answer { status, json: serde_json::from_slice(&response.bytes().await?).unwrap_or(Value::Null) })
}

fn completion(change: impl FnOnce(&mut Value)) -> Result<Value> {
    let mut said: Value = serde_json::from_str(include_str!("../../../shared/tests/wire/node/complete.json"))?;
    change(&mut said["result"]);
    Ok(said)
}

fn assert_refused(answer: &Answer, what: &str) {
    assert_eq!((answer.status, answer.code()), (409, "CONFLICT"), "{what}: {}", answer.json);
}

async fn node_of(edge: &Edge, name: &str) -> Result<Client> {
    let admin = edge.client();
    Ok(admin.with_key(&admin.mint(name, &["node"]).await?))
}

#[tokio::test]
async fn nothing_is_published_but_an_output_that_stands_and_was_verified() -> Result<()> {
    let edge = own_edge().await?;
    let client = edge.client();
    let id = client.create(&thumbnail("https://media.example.com/film.mp4")).await?;
    let held = Held::take(&node_of(&edge, "node").await?, "n").await?;

    let passed = held.complete(|result| result["strategy"]["kind"] = "passthrough".into()).await?;
    assert_refused(&passed, "a thumbnail is never its input");
    assert_refused(&held.complete(|_| {}).await?, "nothing was begun");
    let begin = json!({"format": "jpg", "partSize": 5 << 20, "single": true});
    let begun = held.post("outputs/begin", begin).await?.expect(200)?;
    assert_refused(&held.complete(|result| result["bytes"] = 5.into()).await?, "nothing was sent");
    let target = begun["targets"][0]["url"].as_str().context("a target")?;
    client.request(Method::PUT, target).body("bytes").send().await?.error_for_status()?;
    assert_refused(&held.complete(|result| result["bytes"] = 6.into()).await?, "it has another size");
    let problem = |result: &mut Value| {
        result["bytes"] = 5.into();
        result["verified"]["problems"] = json!(["the picture is grey"]);
    };
    assert_refused(&held.complete(problem).await?, "it did not verify");
    assert_eq!(client.job(&id).await?["state"], "probing");

    held.complete(|result| result["bytes"] = 5.into()).await?.expect(200)?;
    assert_eq!(client.job(&id).await?["state"], "completed");
    Ok(())
}

#[tokio::test]
async fn an_output_of_one_part_is_written_once() -> Result<()> {
    let edge = own_edge().await?;
    let client = edge.client();
    let id = client.create(&thumbnail("https://media.example.com/film.mp4")).await?;
    let held = Held::take(&node_of(&edge, "node").await?, "n").await?;
    let begin = json!({"format": "jpg", "partSize": 5 << 20, "single": true});
    let begun = held.post("outputs/begin", begin).await?.expect(200)?;
    let target = begun["targets"][0]["url"].as_str().context("a target")?;
    let put = async |bytes: &'static str| {
        anyhow::Ok(client.request(Method::PUT, target).body(bytes).send().await?.status().as_u16())
    };
    assert_eq!(put("first").await?, 200);
    assert_eq!(put("other").await?, 409, "before it is published");
    held.complete(|result| result["bytes"] = 5.into()).await?.expect(200)?;
    assert_eq!(put("other").await?, 409, "after it was published");
    let job = client.job(&id).await?;
    assert_eq!(client.download(job["output"]["signedUrl"].as_str().context("a link")?).await?, b"first");
    Ok(())
}

#[tokio::test]
async fn an_input_is_accepted_as_the_result_only_where_its_url_serves_everyone() -> Result<()> {
    let edge = own_edge().await?;
    let client = edge.client();
    let node = node_of(&edge, "node").await?;
    let bucket = Bucket::start().await?;
    let provider = client.post("/v1/settings/storage-providers", &bucket.provider()).await?.expect(201)?["id"].take();
    let url = "https://media.example.com/film.mp4";
    let web_ready = job(url, "mp4", &json!({"name": "webReady"}));
    let upload = uploads::sent(&client, "not film").await?;
    let chosen = job(url, "mp4", &json!({"name": "webReady", "crf": 20}));
    let joined = json!({"mode": "recipe", "output": {"format": "mp4"}, "recipe": {"name": "concat"},
        "input_files": {"in_1": url, "in_2": url}});
    let table = [
        ("public", web_ready.clone(), true),
        ("headers", with(web_ready.clone(), "input", json!({"url": url, "headers": {"Authorization": "x"}})), false),
        ("upload", with(web_ready.clone(), "input", json!({"uploadId": upload["uploadId"]})), false),
        ("provider", with(web_ready.clone(), "storageProviderId", provider.clone()), false),
        ("settings", chosen, false),
        ("transcode", job(url, "mp4", &json!({"name": "transcode"})), false),
        ("concat", joined, false),
    ];
    for (what, body, may) in table {
        let id = client.create(&body).await?;
        let held = Held::take(&node, "n").await?;
        assert_eq!((&held.lease["jobId"], &held.lease["passThrough"]), (&json!(id), &json!(may)), "{what}");
        let passed = held.complete(|result| result["strategy"]["kind"] = "passthrough".into()).await?;
        if may {
            passed.expect(200)?;
            assert_eq!(client.job(&id).await?["output"]["signedUrl"], url, "{what}");
        } else {
            assert_refused(&passed, what);
            client.cancel(&id).await?.expect(200)?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_lease_answers_to_the_key_and_the_name_that_took_it() -> Result<()> {
    let edge = own_edge().await?;
    let client = edge.client();
    let id = client.create(&thumbnail("https://media.example.com/film.mp4")).await?;
    let (node, other) = (node_of(&edge, "one").await?, node_of(&edge, "two").await?);
    let held = Held::take(&node, "n").await?;
    let beat = async |node: &Client, name: &str| {
        let lease = held.about(json!({"stage": "transcode", "progress": 1}));
        let heartbeat = json!({"node": info(name), "leases": [lease]});
        let answer = node.post("/v1/node/heartbeat", &heartbeat).await?.expect(200)?;
        anyhow::Ok(answer["words"][0].as_str().unwrap_or_default().to_owned())
    };
    let failure = json!({"kind": "transcode", "stage": "transcode", "message": "not yours"});
    let messages = [
        ("outputs/begin", json!({"format": "jpg", "partSize": 5 << 20, "single": true})),
        ("outputs/targets", json!({"from": 1})),
        ("outputs/finish", json!({"bytes": 1, "parts": []})),
        ("inputs/begin", json!({"input": 0, "parts": 1})),
        ("inputs/finish", json!({"input": 0, "bytes": 1, "parts": []})),
        ("complete", completion(|_| {})?),
        ("fail", json!({"failure": failure})),
        ("release", json!({})),
    ];
    for (who, node, name) in [("another key", &other, "n"), ("another name", &node, "m")] {
        for (path, body) in &messages {
            let answer = said(node, name, path, &held.about(body.clone())).await?;
            assert_refused(&answer, &format!("{path} by {who}"));
        }
        assert_eq!(beat(node, name).await?, "lost", "a heartbeat by {who}");
    }
    assert_eq!(client.job(&id).await?["state"], "probing", "nothing that others said changed it");

    assert_eq!(beat(&node, "n").await?, "continue");
    held.post("release", json!({})).await?.expect(200)?;
    assert_eq!(client.job(&id).await?["state"], "queued");
    Ok(())
}

#[tokio::test]
async fn a_node_reads_an_input_in_storage_by_the_link_in_its_lease_and_no_key_opens_it() -> Result<()> {
    let edge = own_edge().await?;
    let client = edge.client();
    let upload = uploads::sent(&client, "a film").await?;
    let input = json!({"uploadId": upload["uploadId"]});
    client.create(&with(thumbnail("https://media.example.com/film.mp4"), "input", input)).await?;
    let (node, other) = (node_of(&edge, "one").await?, node_of(&edge, "two").await?);
    let held = Held::take(&node, "n").await?;
    let link = held.lease["inputs"][0]["url"].as_str().context("a link")?;
    assert_eq!(client.download(link).await?, b"a film");
    let path = link.strip_prefix(&edge.url).and_then(|path| path.split('?').next()).context("a path")?;
    for stranger in [&other, &node, &client] {
        assert_eq!(stranger.get(path).await?.status, 403, "{path}");
        let upload = stranger.get(&format!("/v1/uploads/{}", upload["uploadId"].as_str().unwrap_or_default())).await?;
        assert!(upload.status == 403 || !upload.json.to_string().contains("signature="), "{}", upload.json);
    }
    Ok(())
}
