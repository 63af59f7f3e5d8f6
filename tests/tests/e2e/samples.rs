//! Every sample of the README and of the API page that calls the API, run as it stands: only the addresses of the API, of
//! the input and of the webhook receiver are others.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use futures_util::stream;
use reqwest::Method;
use serde_json::json;
use xora_tests::{Edge, Origin, Receiver, free_port, root, wait_for};

use crate::{PATIENCE, bytes, compress, edge, short_clip, with};

/// Where samples stand, and how many of them call the API there.
const PAGES: [(&str, usize); 2] = [("README.md", 3), ("docs/guide.md", 5)];

struct Sample {
    language: String,
    code: String,
}

/// The fenced blocks of a Markdown file.
fn samples(page: &str) -> Result<Vec<Sample>> {
    let text = fs::read_to_string(root().join(page))?;
    let mut all = Vec::new();
    for block in text.split("\n```").skip(1).step_by(2) {
        let (language, code) = block.split_once('\n').context("a block")?;
        all.push(Sample { language: language.to_owned(), code: format!("{code}\n") });
    }
    Ok(all)
}

/// A directory of its own, below the checkout so that Node finds its modules.
fn scratch(name: &str) -> Result<PathBuf> {
    let dir = root().join("target/samples").join(name);
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(dir.join(".dev"))?;
    Ok(dir)
}

/// The command that runs a sample, in a directory.
fn command(sample: &Sample, edge: &Edge, dir: &Path) -> Result<Command> {
    let (program, file) = match sample.language.as_str() {
        "sh" => ("sh".into(), "sample.sh"),
        "js" => (root().join("node_modules/.bin/node"), "sample.mjs"),
        "python" => ("python3".into(), "sample.py"),
        other => anyhow::bail!("no one runs `{other}`"),
    };
    fs::write(dir.join(file), &sample.code)?;
    fs::write(dir.join(".dev/env"), format!("XORA_URL={}\nXORA_API_KEY={}\n", edge.url, edge.key))?;
    let mut command = Command::new(program);
    if sample.language == "sh" {
        // What fails inside a script must fail the script.
        command.arg("-e");
    }
    command.arg(file).current_dir(dir).env("XORA_URL", &edge.url).env("XORA_API_KEY", &edge.key);
    Ok(command)
}

#[tokio::test]
async fn every_documented_call_works_as_it_stands() -> Result<()> {
    let edge = edge().await?;
    let (origin, receiver) = (Origin::start().await?, Receiver::start().await?);
    let clip = short_clip()?;
    let talk = origin.serve("talk.mov", xora_tests::Served::Well(bytes(&clip)?));
    for (page, expected) in PAGES {
        let calls: Vec<_> = samples(page)?.into_iter().filter(|sample| sample.code.contains("XORA_URL")).collect();
        ensure!(calls.len() == expected, "{page} has {} samples that call the API, not {expected}", calls.len());
        for (index, mut sample) in calls.into_iter().enumerate() {
            sample.code = sample.code.replace("https://media.example/talk.mov", &talk);
            sample.code = sample.code.replace("https://app.example/hook", &receiver.url());
            let dir = scratch(&format!("{}-{index}", page.replace('/', "-")))?;
            // The input of samples that upload one: more than one part.
            fs::write(dir.join("talk.mov"), padded(&clip)?)?;
            let mut command = command(&sample, edge, &dir)?;
            let output = tokio::task::spawn_blocking(move || command.output()).await??;
            let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{page}, sample {index} ({}):\n{}\n{said}", sample.language, sample.code);
            ensure!(!said.contains("\"error\""), "{page}, sample {index} was refused something:\n{said}");
        }
    }
    let made = |file: &str| fs::metadata(root().join("target/samples").join(file)).map(|file| file.len());
    for file in ["docs-guide.md-0/talk.mp4", "docs-guide.md-1/talk.jpg", "docs-guide.md-2/talk.webm"] {
        ensure!(made(file)? > 500, "{file} is no result");
    }
    Ok(())
}

/// A clip of 17 MiB, most of which is a box that says nothing.
fn padded(clip: &Path) -> Result<Vec<u8>> {
    const SIZE: u32 = 17 << 20;
    let mut bytes = fs::read(clip)?;
    bytes.extend(SIZE.to_be_bytes());
    bytes.extend(b"free");
    bytes.resize(bytes.len() + SIZE as usize - 8, 0);
    Ok(bytes)
}

#[tokio::test]
async fn a_sample_whose_request_is_refused_ends_with_the_reason() -> Result<()> {
    let edge = edge().await?;
    let mut tried = 0;
    for page in ["README.md", "docs/guide.md"] {
        for (index, mut sample) in
            samples(page)?.into_iter().filter(|sample| sample.code.contains("XORA_URL")).enumerate()
        {
            sample.code = sample.code.replace(r#""output": {"format""#, r#""outptu": {"format""#);
            sample.code = sample.code.replace("output: { format", "outptu: { format");
            if !sample.code.contains("outptu") {
                continue;
            }
            let dir = scratch(&format!("refused-{}-{index}", page.replace('/', "-")))?;
            fs::copy(short_clip()?, dir.join("talk.mov"))?;
            let mut command = tokio::process::Command::from(command(&sample, edge, &dir)?);
            let output = tokio::time::timeout(PATIENCE, command.kill_on_drop(true).output()).await;
            let output = output.with_context(|| format!("{page}, sample {index} did not end"))??;
            let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
            ensure!(!output.status.success(), "{page}, sample {index} took a refusal for success:\n{said}");
            ensure!(said.contains("outptu"), "{page}, sample {index} does not give the reason:\n{said}");
            tried += 1;
        }
    }
    assert_eq!(tried, 7);
    Ok(())
}

#[tokio::test]
async fn the_documented_receivers_take_our_webhooks_and_refuse_forged_ones() -> Result<()> {
    let edge = edge().await?;
    let client = edge.client();
    let origin = Origin::start().await?;
    let secret = client.get("/v1/settings/webhook/secret").await?.expect(200)?;
    let secret = secret["secret"].as_str().context("a secret")?;
    let receivers: Vec<_> =
        samples("docs/guide.md")?.into_iter().filter(|sample| sample.code.contains("XORA_WEBHOOK_SECRET")).collect();
    assert_eq!(receivers.iter().map(|sample| sample.language.as_str()).collect::<Vec<_>>(), ["js", "python"]);
    for sample in receivers {
        let dir = scratch(&format!("receiver-{}", sample.language))?;
        let port = free_port()?;
        let url = format!("http://127.0.0.1:{port}/");
        let mut command = command(&sample, edge, &dir)?;
        command.env("XORA_WEBHOOK_SECRET", secret).env("PORT", port.to_string());
        let log = dir.join("log");
        let _group = xora_tests::Group::spawn(command, &log)?;
        let forged = async || {
            let request =
                client.request(Method::POST, &url).json(&json!({"data": {"jobId": "x", "state": "completed"}}));
            let request = request
                .header("webhook-id", "x")
                .header("webhook-timestamp", "1")
                .header("webhook-signature", "v1,AA==");
            Ok(request.send().await.ok().map(|response| response.status().as_u16()))
        };
        assert_eq!(wait_for("the receiver to listen", PATIENCE, forged).await?, 400, "{}", sample.language);
        let unsigned = client.request(Method::POST, &url).json(&json!({"data": {}})).send().await?;
        assert_eq!(unsigned.status(), 400, "{}: a request without a signature", sample.language);

        let id = client.create(&with(compress(&origin.file(&short_clip()?)?), "webhookUrl", url.as_str())).await?;
        let told = format!("{id} completed");
        wait_for("the receiver to take the webhook", PATIENCE + Duration::from_secs(5), async || {
            Ok(fs::read_to_string(&log)?.contains(&told).then_some(()))
        })
        .await?;

        if sample.language == "js" {
            // As the network may split it: a chunk ends in the middle of a character.
            let signed = signed_webhook(edge).await?;
            let middle = signed.body.iter().position(|byte| *byte == 0xc3).context("a letter of two bytes")? + 1;
            let (first, second) = signed.body.split_at(middle);
            let chunks = [first.to_vec(), second.to_vec()].map(anyhow::Ok);
            let mut request = client.request(Method::POST, &url).body(reqwest::Body::wrap_stream(stream::iter(chunks)));
            for (name, value) in signed.headers.iter().filter(|(name, _)| name.starts_with("webhook-")) {
                request = request.header(name, value);
            }
            assert_eq!(request.send().await?.status(), 204, "a character between two chunks");
        }
    }
    Ok(())
}

/// A webhook about a job whose metadata has a letter that is two bytes in UTF-8.
async fn signed_webhook(edge: &Edge) -> Result<xora_tests::Request> {
    let (origin, receiver) = (Origin::start().await?, Receiver::start().await?);
    let job = with(compress(&origin.missing()), "webhookUrl", receiver.url());
    edge.client().create(&with(job, "metadata", json!({"name": "Zoé"}))).await?;
    let hooks = receiver.wait(1, PATIENCE).await?;
    Ok(hooks.into_iter().next().context("a webhook")?.request)
}
