//! What is removed when its time is over.

use anyhow::{Context, Result};
use reqwest::Method;
use serde_json::json;
use xora_tests::{Node, NodeOptions, Origin, wait_for};

use crate::{PATIENCE, faint_clip, job, own_edge, short_clip, thumbnail};

#[tokio::test]
async fn outputs_and_then_jobs_are_removed_when_their_time_is_over() -> Result<()> {
    let edge = own_edge().await?;
    let _node = Node::start(&edge, NodeOptions::default()).await?;
    let client = edge.client();
    let fresh = client.get("/v1/settings").await?.expect(200)?;
    let days = |name: &str| fresh[name].as_u64();
    assert_eq!(
        (days("outputRetentionDays"), days("inputRetentionDays"), days("jobRetentionDays")),
        (Some(7), Some(1), Some(30))
    );

    let origin = Origin::start().await?;
    let done = client.run(&thumbnail(&origin.file(&short_clip()?)?), PATIENCE).await?;
    let id = done["jobId"].as_str().context("an id")?;
    let link = done["output"]["signedUrl"].as_str().context("a link")?;
    edge.tick().await?;
    client.download(link).await?;

    // The shortest retention: gone at the first clean-up after the end.
    client.put("/v1/settings", &json!({"outputRetentionDays": 0})).await?.expect(200)?;
    let gone = wait_for("the output to go", PATIENCE, async || {
        edge.tick().await?;
        Ok((edge.stored()? == 0).then_some(()))
    });
    gone.await?;
    let after = client.job(id).await?;
    assert_eq!(after["state"], "completed");
    assert!(after.get("output").is_none() && after.get("output_files").is_none(), "{after}");
    assert!(after["outputExpiredAt"].as_str() >= after["finishedAt"].as_str(), "{after}");
    assert_eq!(after["verification"], done["verification"], "what is known of it stays");
    let file = client.request(Method::GET, link).send().await?;
    assert_eq!(file.status(), 404);
    assert!(file.text().await?.contains("time was over"), "it says why");

    client.put("/v1/settings", &json!({"jobRetentionDays": 0})).await?.expect(200)?;
    let gone = wait_for("the job to go", PATIENCE, async || {
        edge.tick().await?;
        Ok(Some(client.get(&format!("/v1/jobs/{id}")).await?.status).filter(|status| *status != 200))
    });
    assert_eq!(gone.await?, 404);
    assert_eq!(client.get("/v1/jobs?state=completed").await?.expect(200)?["jobs"], json!([]));
    Ok(())
}

#[tokio::test]
async fn copies_of_inputs_stay_after_a_job_for_as_long_as_the_settings_say() -> Result<()> {
    let edge = own_edge().await?;
    let _node = Node::start(&edge, NodeOptions::default()).await?;
    let (client, origin) = (edge.client(), Origin::start().await?);
    let slow = job(&origin.file(&faint_clip()?)?, "mp4", &json!({"name": "compress", "codec": "hevc"}));
    // Runs until its input is kept for the `nth` time, and is cancelled then.
    let cancelled = async |nth: usize| {
        let id = client.create(&slow).await?;
        let log = edge.dir().join("node-1.log");
        wait_for("the input to be kept", PATIENCE, async || {
            Ok((std::fs::read_to_string(&log)?.matches("input kept").count() == nth).then_some(()))
        })
        .await?;
        client.cancel(&id).await?.expect(200)?;
        anyhow::Ok(id)
    };
    let left = async |what: &str, copies: u64| {
        let found = wait_for(what, PATIENCE, async || {
            // A copy may have several parts.
            let as_said = edge.rows("uploads")? == copies && (edge.stored()? > 0) == (copies > 0);
            Ok(as_said.then_some(()))
        });
        found.await
    };
    let id = cancelled(1).await?;
    edge.tick().await?;
    left("the copy alone", 1).await?;
    client.delete(&format!("/v1/jobs/{id}")).await?.expect(204)?;
    left("nothing of a job that was deleted", 0).await?;

    client.put("/v1/settings", &json!({"inputRetentionDays": 0})).await?.expect(200)?;
    cancelled(2).await?;
    left("nothing", 0).await
}
