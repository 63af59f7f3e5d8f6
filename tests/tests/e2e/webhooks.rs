//! Webhooks: what they say, when they are sent, again and again, and what receivers cannot do.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use xora_tests::{Client, Edge, EdgeOptions, Hook, Origin, Receiver, Reply, Served, end_with_parent, wait_for};

use crate::{PATIENCE, edge, idle_edge, short_clip, thumbnail, with};

/// A job that nobody takes, ended by cancelling: a terminal state without a node. Answers its id.
pub async fn cancelled(client: &Client, receiver: &str) -> Result<String> {
    let id = client.create(&with(thumbnail("https://media.example.com/a.mp4"), "webhookUrl", receiver)).await?;
    client.cancel(&id).await?.expect(200)?;
    Ok(id)
}

/// The job's newest delivery, as soon as it is in this state.
pub async fn delivery(client: &Client, job: &str, state: &str) -> Result<Value> {
    let mut last = Value::Null;
    let found = wait_for("the delivery", PATIENCE, async || {
        last = client.get(&format!("/v1/jobs/{job}/deliveries")).await?.expect(200)?["deliveries"].take();
        let newest = last.as_array().and_then(|all| all.last()).cloned();
        Ok(newest.filter(|delivery| delivery["state"] == state))
    });
    let found = found.await;
    found.with_context(|| format!("wanted {state}: {last}"))
}

/// What an attempt came to: its number, its status, its class of error.
type Outcome<'a> = (u64, u64, &'a str);

/// What each attempt of a delivery came to.
pub fn outcomes(delivery: &Value) -> Vec<Outcome<'_>> {
    let attempts = delivery["attempts"].as_array().into_iter().flatten();
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    attempts
        .map(|each| (number(&each["attempt"]), number(&each["status"]), each["error"].as_str().unwrap_or_default()))
        .collect()
}

/// From one request to the next, in milliseconds.
fn gap(hooks: &[Hook], from: usize) -> Result<u128> {
    Ok(hooks[from + 1].request.at.duration_since(hooks[from].request.at)?.as_millis())
}

#[tokio::test]
async fn each_terminal_state_has_a_webhook_with_the_job_as_it_stands() -> Result<()> {
    let client = edge().await?.client();
    let (origin, receiver) = (Origin::start().await?, Receiver::start().await?);
    let clip = origin.file(&short_clip()?)?;
    let text = origin.serve("a.txt", Served::Well("not media".into()));
    let mut ids = Vec::new();
    for url in [&clip, &origin.missing(), &text] {
        let job = with(thumbnail(url), "webhookUrl", receiver.url());
        ids.push(client.create(&with(job, "metadata", json!({"order": "7"}))).await?);
    }
    ids.push(cancelled(&idle_edge().await?.client(), &receiver.url()).await?);
    let hooks = receiver.wait(4, PATIENCE).await?;

    let table = [
        ("completed", true, None),
        ("failed", false, Some(("INPUT_UNREACHABLE", "probing", false))),
        ("rejected", false, Some(("INPUT_UNSUPPORTED", "probing", false))),
        ("cancelled", false, None),
    ];
    for (id, (state, has_output, error)) in ids.iter().zip(table) {
        let told = hooks.iter().find(|hook| hook.job()["jobId"] == id.as_str()).context("a webhook")?;
        let keys: Vec<_> = told.json.as_object().context("an object")?.keys().collect();
        assert_eq!(keys, ["data", "timestamp"]);
        assert_eq!(told.request.header("content-type"), Some("application/json"));
        let job = told.job();
        assert_eq!(job["state"], state, "{job}");
        assert_eq!(job["output"]["signedUrl"].is_string(), has_output, "{job}");
        assert_eq!(job["output_files"]["output"]["size_bytes"].is_u64(), has_output, "{job}");
        assert_eq!(job.get("error").is_some(), error.is_some(), "{job}");
        if let Some((code, stage, retryable)) = error {
            let found = (&job["error"]["code"], &job["error"]["stage"], &job["error"]["retryable"]);
            assert_eq!(found, (&json!(code), &json!(stage), &json!(retryable)), "{job}");
            assert!(job["error"]["message"].is_string(), "{job}");
        }
        let ended = iso(told.json["timestamp"].as_i64().context("a time")?)?;
        assert_eq!(job["finishedAt"], ended.as_str());
        let read = if state == "cancelled" { idle_edge().await?.client() } else { client.clone() }.job(id).await?;
        assert_eq!(without_links(job.clone()), without_links(read), "the webhook tells what reading the job tells");
    }
    let link = hooks.iter().find_map(|hook| hook.job()["output"]["signedUrl"].as_str()).context("a link")?;
    assert!(!client.download(link).await?.is_empty());
    Ok(())
}

/// Links are signed afresh each time they are shown.
fn without_links(mut job: Value) -> Value {
    job["output"].take();
    if job["output_files"].is_object() {
        job["output_files"]["output"]["storage_url"].take();
    }
    job
}

/// Milliseconds since 1970 as the API writes times.
fn iso(milliseconds: i64) -> Result<String> {
    let run = std::process::Command::new("date")
        .args(["-u", "-d", &format!("@{}", milliseconds / 1000), "+%Y-%m-%dT%H:%M:%S"])
        .output()?;
    Ok(format!("{}.{:03}Z", String::from_utf8(run.stdout)?.trim(), milliseconds % 1000))
}

#[tokio::test]
async fn a_failed_webhook_is_sent_again_after_half_a_second_and_a_second_and_no_more() -> Result<()> {
    let client = idle_edge().await?.client();
    let receiver = Receiver::answering(vec![Reply::status(500).body("try later"); 3]).await?;
    let id = cancelled(&client, &receiver.url()).await?;
    let hooks = receiver.wait(3, PATIENCE).await?;
    // The contract: 500 ms and 1 s from the end of the failed attempt. How exactly is for `make bench` to say.
    let (first, second) = (gap(&hooks, 0)?, gap(&hooks, 1)?);
    assert!((498..900).contains(&first), "{first} ms");
    assert!((998..1400).contains(&second), "{second} ms");

    let of = |name: &str| hooks.iter().map(|hook| hook.request.header(name).unwrap_or_default()).collect::<Vec<_>>();
    let (ids, times) = (of("webhook-id"), of("webhook-timestamp"));
    assert!(ids.iter().all(|id| *id == ids[0] && !id.is_empty()), "{ids:?}");
    assert!(times[2].parse::<u64>()? > times[0].parse::<u64>()?, "each attempt has its own time: {times:?}");
    assert!(hooks.iter().all(|hook| hook.json["timestamp"] == hooks[0].json["timestamp"]), "{:?}", hooks[0].json);

    // The log says that it was given up, so a fourth cannot come.
    let log = delivery(&client, &id, "abandoned").await?;
    assert_eq!(outcomes(&log), [(1, 500, "status"), (2, 500, "status"), (3, 500, "status")]);
    assert!(log.get("nextAttemptAt").is_none(), "{log}");
    assert_eq!(log["attempts"][0]["answer"], "try later");
    assert_eq!(receiver.hooks().len(), 3);
    assert_eq!(client.job(&id).await?["state"], "cancelled", "the job stays readable");
    Ok(())
}

#[tokio::test]
async fn the_wait_counts_from_the_end_of_the_failed_attempt() -> Result<()> {
    let client = idle_edge().await?.client();
    let receiver = Receiver::answering([Reply::status(503).after(Duration::from_millis(700))]).await?;
    let id = cancelled(&client, &receiver.url()).await?;
    let gap = gap(&receiver.wait(2, PATIENCE).await?, 0)?;
    assert!((1198..1600).contains(&gap), "{gap} ms");
    let log = delivery(&client, &id, "delivered").await?;
    assert_eq!(outcomes(&log), [(1, 503, "status"), (2, 200, "")]);
    assert!(log["attempts"][0]["durationMs"].as_u64() >= Some(700), "{log}");
    Ok(())
}

#[tokio::test]
async fn a_redirect_and_a_reset_are_failures_and_success_ends_it() -> Result<()> {
    let client = idle_edge().await?.client();
    let receiver = Receiver::answering([Reply::redirect("/elsewhere"), Reply::reset(), Reply::status(204)]).await?;
    let id = cancelled(&client, &receiver.url()).await?;
    let log = delivery(&client, &id, "delivered").await?;
    assert_eq!(outcomes(&log), [(1, 302, "redirect"), (2, 0, "network"), (3, 204, "")]);
    let hooks = receiver.hooks();
    assert_eq!(hooks.len(), 3);
    assert!(hooks.iter().all(|hook| hook.request.target == "/hook"), "a redirect was followed");
    Ok(())
}

#[tokio::test]
async fn a_retried_job_has_a_webhook_of_its_own_for_each_end() -> Result<()> {
    let client = idle_edge().await?.client();
    let receiver = Receiver::start().await?;
    let id = cancelled(&client, &receiver.url()).await?;
    client.post(&format!("/v1/jobs/{id}/retry"), &json!({})).await?.expect(202)?;
    client.cancel(&id).await?.expect(200)?;
    let hooks = receiver.wait(2, PATIENCE).await?;
    let of = |hook: &Hook| hook.request.header("webhook-id").map(str::to_owned);
    assert_ne!(of(&hooks[0]), of(&hooks[1]));
    let log = client.get(&format!("/v1/jobs/{id}/deliveries")).await?.expect(200)?;
    assert_eq!(log["deliveries"].as_array().map(Vec::len), Some(2), "{log}");
    Ok(())
}

#[tokio::test]
async fn endless_and_slow_answers_are_cut_and_cost_at_most_the_timeout() -> Result<()> {
    const TIMEOUT: u64 = 15_000;
    let client = idle_edge().await?.client();
    let flood = Receiver::answering([Reply::endless(200, None)]).await?;
    let trickle = Receiver::answering([Reply::endless(200, Some(50))]).await?;
    let refusal = Receiver::answering([Reply::endless(500, Some(50))]).await?;
    let silent = Receiver::answering([Reply::hang()]).await?;
    let mut ids = Vec::new();
    for receiver in [&flood, &trickle, &refusal, &silent] {
        ids.push(cancelled(&client, &receiver.url()).await?);
    }
    let table: [(_, &[Outcome<'_>]); 4] = [
        // A status that came in time stands.
        (&ids[0], &[(1, 200, "")]),
        (&ids[1], &[(1, 200, "")]),
        (&ids[2], &[(1, 500, "status"), (2, 200, "")]),
        (&ids[3], &[(1, 0, "timeout"), (2, 200, "")]),
    ];
    for (id, expected) in table {
        let log = delivery(&client, id, "delivered").await?;
        assert_eq!(outcomes(&log), expected, "{log}");
        let first = &log["attempts"][0];
        let (took, kept) = (first["durationMs"].as_u64().context("a duration")?, first["answer"].as_str());
        assert!(took < TIMEOUT + 3_000, "{log}");
        assert!(kept.unwrap_or_default().len() <= 4096, "{log}");
        if id == &ids[0] {
            assert_eq!(kept.map(str::len), Some(4096));
            assert!(took < TIMEOUT, "{log}");
        }
    }
    // What was on its way when the edge hung up is far from endless.
    assert!(flood.sent() < 64 << 20, "{}", flood.sent());
    Ok(())
}

#[tokio::test]
async fn a_receiver_that_speaks_badly_is_judged_by_the_status_if_it_said_one() -> Result<()> {
    let client = idle_edge().await?.client();
    let ok = "HTTP/1.1 200 OK\r\n";
    // What it says, and what its attempt comes to: a status and a class of error, and the start of the answer.
    let table = [
        (format!("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{ok}Content-Length: 2\r\n\r\nok"), (200, ""), "ok"),
        ("HTTP/1.0 200 OK\r\n\r\nbye".into(), (200, ""), "bye"),
        (format!("{ok}Content-Length: 100\r\n\r\ncut"), (200, ""), "cut"),
        (format!("{ok}Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello"), (200, ""), ""),
        (format!("{ok}Transfer-Encoding: chunked\r\n\r\nZZ\r\nabc\r\n"), (200, ""), ""),
        ("HTTP/1.1 500 no\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nZZ\r\n".into(), (500, "status"), "hello"),
        ("HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n".into(), (101, "status"), ""),
        ("HTTP/1.1 304 Not Modified\r\n\r\n".into(), (304, "redirect"), ""),
        ("HTTP/1.1 100 Continue\r\n\r\n".into(), (0, "network"), ""),
        (format!("{ok}Content-Length: 2\r\nContent-Length: 5\r\n\r\nabcde"), (0, "network"), ""),
        ("hello world".into(), (0, "network"), ""),
        (String::new(), (0, "network"), ""),
    ];
    let mut asked = Vec::new();
    for (said, ..) in &table {
        let receiver = Receiver::answering([Reply::raw(said.clone())]).await?;
        asked.push((cancelled(&client, &receiver.url()).await?, receiver));
    }
    for ((said, (status, error), answer), (id, _)) in table.iter().zip(&asked) {
        // It takes the next one, if there is one.
        let log = delivery(&client, id, "delivered").await.with_context(|| said.clone())?;
        assert_eq!(outcomes(&log)[0], (1, *status, *error), "{said}");
        assert_eq!(log["attempts"][0]["answer"].as_str().unwrap_or_default(), *answer, "{said}");
        assert_eq!(outcomes(&log).len(), if error.is_empty() { 1 } else { 2 }, "{said}");
    }
    Ok(())
}

#[tokio::test]
async fn a_receiver_that_hangs_holds_up_neither_the_attempts_nor_the_retries_of_others() -> Result<()> {
    let client = idle_edge().await?.client();
    let hanging = Receiver::answering(vec![Reply::hang(); 40]).await?;
    for _ in 0..12 {
        cancelled(&client, &hanging.url()).await?;
    }
    hanging.wait(12, PATIENCE).await?;
    let quick = Receiver::answering([Reply::status(500), Reply::status(500)]).await?;
    let id = cancelled(&client, &quick.url()).await?;
    // All three come before the first attempt at the other is over.
    let hooks = quick.wait(3, Duration::from_secs(8)).await?;
    assert!(gap(&hooks, 0)? < 1000 && gap(&hooks, 1)? < 1500, "{} {}", gap(&hooks, 0)?, gap(&hooks, 1)?);
    assert_eq!(outcomes(&delivery(&client, &id, "delivered").await?).len(), 3);
    assert_eq!(hanging.hooks().len(), 12, "the others still hang");
    Ok(())
}

#[tokio::test]
async fn a_url_that_is_no_longer_allowed_is_not_called() -> Result<()> {
    end_with_parent();
    let mut edge = Edge::start(EdgeOptions::default()).await?;
    let client = edge.client();
    let receiver = Receiver::start().await?;
    client.put("/v1/settings", &json!({"defaultWebhookUrl": receiver.url()})).await?.expect(200)?;
    let id = client.create(&with(thumbnail("https://media.example.com/a.mp4"), "webhookUrl", receiver.url())).await?;
    edge.restart_with("ALLOW_LOOPBACK", "false").await?;

    client.cancel(&id).await?.expect(200)?;
    let log = delivery(&client, &id, "abandoned").await?;
    let refused = |attempt| (attempt, 0, "refused_by_policy");
    assert_eq!(outcomes(&log), [refused(1), refused(2), refused(3)]);
    let tested = client.post("/v1/settings/webhook/test", &json!({})).await?.expect(200)?;
    assert_eq!((&tested["ok"], &tested["status"]), (&json!(false), &json!(0)), "{tested}");
    assert_eq!(tested["error"]["code"], "refused_by_policy", "{tested}");
    let again = client.put("/v1/settings", &json!({"defaultWebhookUrl": receiver.url()})).await?;
    assert_eq!(again.status, 400, "{}", again.json);
    assert!(receiver.hooks().is_empty());
    Ok(())
}
