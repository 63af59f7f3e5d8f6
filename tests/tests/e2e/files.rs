//! Signed downloads.

use anyhow::{Context, Result};
use reqwest::{Method, StatusCode};
use xora_tests::{Origin, wait_for};

use crate::{PATIENCE, edge, short_clip, thumbnail};

/// A finished picture's URL.
async fn url() -> Result<String> {
    let client = edge().await?.client();
    let origin = Origin::start().await?;
    let job = client.run(&thumbnail(&origin.file(&short_clip()?)?), PATIENCE).await?;
    job["output"]["signedUrl"].as_str().map(str::to_owned).with_context(|| job.to_string())
}

#[tokio::test]
async fn a_file_is_read_whole_in_part_or_only_described() -> Result<()> {
    let (client, url) = (edge().await?.client(), url().await?);
    let whole = client.request(Method::GET, &url).send().await?;
    assert_eq!(whole.status(), 200);
    assert_eq!(whole.headers()["content-type"], "image/jpeg");
    assert!(whole.headers().contains_key("content-disposition"));
    let length = whole.headers()["content-length"].to_str()?.to_owned();
    let bytes = whole.bytes().await?;
    assert_eq!(length, bytes.len().to_string());

    let head = client.request(Method::HEAD, &url).send().await?;
    assert_eq!((head.status(), head.headers()["content-length"].to_str()?), (StatusCode::OK, length.as_str()));

    for (range, want) in
        [("bytes=0-9", 0..10), ("bytes=100-", 100..bytes.len()), ("bytes=-7", bytes.len() - 7..bytes.len())]
    {
        let part = client.request(Method::GET, &url).header("Range", range).send().await?;
        assert_eq!(part.status(), 206, "{range}");
        let said = format!("bytes {}-{}/{}", want.start, want.end - 1, bytes.len());
        assert_eq!(part.headers()["content-range"].to_str()?, said);
        assert_eq!(part.bytes().await?, bytes.slice(want));
    }
    let beyond = client.request(Method::GET, &url).header("Range", "bytes=99999999-").send().await?;
    assert_eq!(beyond.status(), 416);
    assert_eq!(beyond.headers()["content-range"].to_str()?, format!("bytes */{}", bytes.len()));
    Ok(())
}

#[tokio::test]
async fn a_link_that_was_changed_or_has_no_signature_does_not_open() -> Result<()> {
    let (client, url) = (edge().await?.client(), url().await?);
    let (path, query) = url.split_once('?').context("a query")?;
    let flipped = if url.ends_with('A') { "B" } else { "A" };
    let later = query.replacen("expires=1", "expires=2", 1);
    for bad in [
        path.to_owned(),
        format!("{}{flipped}", &url[..url.len() - 1]),
        format!("{path}?{later}"),
        url.replace("result.jpg", "result.png"),
    ] {
        let response = client.request(Method::GET, &bad).send().await?;
        assert_eq!(response.status(), 403, "{bad}");
        let error: serde_json::Value = serde_json::from_slice(&response.bytes().await?)?;
        assert_eq!(error["error"]["code"], "FORBIDDEN");
    }
    let written = client.request(Method::PUT, &url).body("mine now").send().await?;
    assert!([403, 405].contains(&written.status().as_u16()), "{}", written.status());
    Ok(())
}

#[tokio::test]
async fn an_expired_link_does_not_open_and_a_fresh_read_gives_another() -> Result<()> {
    let options = xora_tests::EdgeOptions { vars: vec![("FILE_URL_SECONDS", "2".to_owned())], ..Default::default() };
    let edge = xora_tests::Edge::start(options).await?;
    let _node = xora_tests::Node::start(&edge, xora_tests::NodeOptions::default()).await?;
    let client = edge.client();
    let origin = Origin::start().await?;
    let job = client.run(&thumbnail(&origin.file(&short_clip()?)?), PATIENCE).await?;
    let old = job["output"]["signedUrl"].as_str().with_context(|| job.to_string())?;
    let refused = wait_for("the link to expire", PATIENCE, async || {
        Ok(Some(client.request(Method::GET, old).send().await?.status()).filter(|status| *status != 200))
    });
    assert_eq!(refused.await?, 403);
    let again = client.job(job["jobId"].as_str().context("an id")?).await?;
    client.download(again["output"]["signedUrl"].as_str().context("a URL")?).await.map(drop)
}
