//! Deliveries: their log, one more attempt by hand, the durable schedule, and what the Queue may bring.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use xora_tests::{
    Client, Edge, EdgeOptions, Node, NodeOptions, ODD, Origin, Producer, Queue, Receiver, Reply, end_with_parent,
    wait_for,
};

use crate::{
    PATIENCE, idle_edge, own_edge, short_clip, thumbnail,
    webhooks::{cancelled, delivery, outcomes},
    with,
};

async fn redeliver(client: &Client, delivery: &Value) -> Result<u16> {
    let id = delivery["id"].as_str().context("an id")?;
    Ok(client.post(&format!("/v1/deliveries/{id}/redeliver"), &json!({})).await?.status)
}

#[tokio::test]
async fn the_log_has_every_attempt_with_its_time_its_duration_and_the_start_of_the_answer() -> Result<()> {
    let client = idle_edge().await?.client();
    let long = "ü".repeat(4000);
    let replies = [Reply::status(500).body(long), Reply::reset(), Reply::status(201).body("thanks")];
    let receiver = Receiver::answering(replies).await?;
    let id = cancelled(&client, &receiver.url()).await?;
    let log = delivery(&client, &id, "delivered").await?;
    assert_eq!((&log["url"], &log["jobState"]), (&json!(receiver.url()), &json!("cancelled")), "{log}");
    assert_eq!(log["id"].as_str(), receiver.hooks()[0].request.header("webhook-id"));
    assert_eq!(outcomes(&log), [(1, 500, "status"), (2, 0, "network"), (3, 201, "")]);
    let attempts = log["attempts"].as_array().context("attempts")?;
    for attempt in attempts {
        assert!(attempt["durationMs"].as_u64().is_some_and(|ms| ms < 10_000), "{attempt}");
        assert!(attempt["startedAt"].as_str() <= attempt["endedAt"].as_str(), "{attempt}");
    }
    assert!(attempts.windows(2).all(|pair| pair[0]["endedAt"].as_str() < pair[1]["startedAt"].as_str()), "{log}");
    let answers: Vec<_> = attempts.iter().map(|attempt| attempt["answer"].as_str().unwrap_or_default()).collect();
    assert_eq!(answers[0], "ü".repeat(2048), "4 KB, whole characters");
    assert_eq!(answers[1..], ["", "thanks"]);
    Ok(())
}

#[tokio::test]
async fn a_job_without_a_webhook_has_an_empty_log_and_unknown_ones_are_not_found() -> Result<()> {
    let client = idle_edge().await?.client();
    let id = client.create(&thumbnail("https://media.example.com/a.mp4")).await?;
    client.cancel(&id).await?.expect(200)?;
    let log = client.get(&format!("/v1/jobs/{id}/deliveries")).await?.expect(200)?;
    assert_eq!(log, json!({"deliveries": []}));
    for wrong in ["01J00000000000000000000000", "x"] {
        assert_eq!(client.get(&format!("/v1/jobs/{wrong}/deliveries")).await?.status, 404);
        assert_eq!(redeliver(&client, &json!({"id": wrong})).await?, 404);
    }
    Ok(())
}

#[tokio::test]
async fn one_more_attempt_can_be_asked_for_after_the_end_and_again() -> Result<()> {
    let client = idle_edge().await?.client();
    let receiver = Receiver::answering(vec![Reply::status(500); 4]).await?;
    let id = cancelled(&client, &receiver.url()).await?;
    let abandoned = delivery(&client, &id, "abandoned").await?;

    assert_eq!(redeliver(&client, &abandoned).await?, 202);
    receiver.wait(4, PATIENCE).await?;
    let fourth = wait_for("the fourth attempt in the log", PATIENCE, async || {
        let log = delivery(&client, &id, "abandoned").await?;
        Ok((outcomes(&log).len() == 4).then_some(log))
    });
    assert_eq!(redeliver(&client, &fourth.await?).await?, 202);
    let log = delivery(&client, &id, "delivered").await?;
    assert_eq!(outcomes(&log)[3..], [(4, 500, "status"), (5, 200, "")]);

    // What was delivered can be sent once more as well.
    assert_eq!(redeliver(&client, &log).await?, 202);
    let hooks = receiver.wait(6, PATIENCE).await?;
    let ids: Vec<_> = hooks.iter().map(|hook| hook.request.header("webhook-id")).collect();
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "{ids:?}");
    assert!(hooks.windows(2).all(|pair| pair[0].json["timestamp"] == pair[1].json["timestamp"]));
    Ok(())
}

#[tokio::test]
async fn nobody_can_ask_for_an_attempt_while_one_is_being_made() -> Result<()> {
    let client = idle_edge().await?.client();
    let receiver = Receiver::answering([Reply::status(200).after(Duration::from_secs(3))]).await?;
    let id = cancelled(&client, &receiver.url()).await?;
    receiver.wait(1, PATIENCE).await?;
    let sending = delivery(&client, &id, "sending").await?;
    assert_eq!(redeliver(&client, &sending).await?, 409);
    assert_eq!(outcomes(&delivery(&client, &id, "delivered").await?), [(1, 200, "")]);
    Ok(())
}

#[tokio::test]
async fn the_durable_schedule_waits_as_the_receiver_asks_goes_on_after_three_and_ends_at_gone() -> Result<()> {
    let edge = own_edge().await?;
    let client = edge.client();
    client.put("/v1/settings", &json!({"webhookSchedule": "durable"})).await?.expect(200)?;
    let busy = Receiver::answering([Reply::status(503).header("Retry-After", "2"), Reply::status(410)]).await?;
    let failing = Receiver::answering(vec![Reply::status(500); 3]).await?;
    let id = cancelled(&client, &busy.url()).await?;
    let other = cancelled(&client, &failing.url()).await?;

    let log = delivery(&client, &id, "abandoned").await?;
    assert_eq!(outcomes(&log), [(1, 503, "status"), (2, 410, "status")]);
    let hooks = busy.hooks();
    let gap = hooks[1].request.at.duration_since(hooks[0].request.at)?;
    assert!(gap >= Duration::from_millis(1_998), "{gap:?}");
    // The fourth attempt comes about 5 s after the third.
    assert_eq!(outcomes(&delivery(&client, &other, "delivered").await?)[3..], [(4, 200, "")]);
    Ok(())
}

#[tokio::test]
async fn a_message_that_is_not_ours_harms_no_other_and_a_dead_one_leaves_its_trace() -> Result<()> {
    let edge = own_edge().await?;
    let client = edge.client();
    let beside = Producer::beside(&edge).await?;
    let receiver = Receiver::start().await?;
    let strange = [
        json!({}),
        json!({"delivery": 7, "attempt": 1}),
        json!({"delivery": "01J00000000000000000000000", "attempt": 1}),
    ];
    for queue in [Queue::Deliveries, Queue::Dead] {
        for kind in ODD {
            beside.send_odd(queue, kind).await?;
            cancelled(&client, &receiver.url()).await?;
        }
        for json in &strange {
            beside.send_json(queue, json.clone()).await?;
        }
    }
    let hooks = receiver.wait(2 * ODD.len(), PATIENCE).await?;
    assert_eq!(hooks.len(), 2 * ODD.len());
    // All but the well-formed one of a delivery that does not exist.
    let dropped = 2 * (ODD.len() + strange.len() - 1);
    let logged = wait_for("every strange message to be dropped", PATIENCE, async || {
        Ok((edge.log()?.matches("a message that is not ours is dropped").count() == dropped).then_some(()))
    });
    logged.await?;

    let id = cancelled(&client, &receiver.url()).await?;
    let delivered = delivery(&client, &id, "delivered").await?;
    // A repeated message sends nothing.
    beside.send_json(Queue::Deliveries, json!({"delivery": delivered["id"], "attempt": 1})).await?;
    beside.send_json(Queue::Dead, json!({"delivery": delivered["id"], "attempt": 1})).await?;
    let traced = wait_for("the trace of the dead message", PATIENCE, async || {
        let log = delivery(&client, &id, "delivered").await?;
        Ok((outcomes(&log).len() == 2).then_some(log))
    });
    let log = traced.await?;
    assert_eq!(outcomes(&log)[1], (1, 0, "interrupted"), "{log}");
    assert!(log["attempts"][1]["answer"].as_str().unwrap_or_default().contains("queue"), "{log}");
    let told = receiver.hooks().iter().filter(|hook| hook.job()["jobId"] == id.as_str()).count();
    assert_eq!(told, 1);
    Ok(())
}

#[tokio::test]
async fn an_attempt_that_the_queue_gives_up_leaves_its_trace_and_is_sent_when_it_can_be() -> Result<()> {
    end_with_parent();
    let mut edge = Edge::start(EdgeOptions { tries: Some(1), ..EdgeOptions::default() }).await?;
    let client = edge.client();
    let receiver = Receiver::start().await?;
    let id = client.create(&with(thumbnail("https://media.example.com/a.mp4"), "webhookUrl", receiver.url())).await?;
    let secret = edge.var("SIGNING_SECRET").context("the secret")?;
    // Without it no link can be signed, so no payload can be made and no attempt claimed.
    edge.restart_with("SIGNING_SECRET", "").await?;
    assert_eq!(client.cancel(&id).await?.status, 500);
    let traced = wait_for("the trace of the dead message", PATIENCE, async || {
        let log = client.get(&format!("/v1/jobs/{id}/deliveries")).await?.expect(200)?["deliveries"][0].take();
        Ok((!outcomes(&log).is_empty()).then_some(log))
    });
    let log = traced.await?;
    assert_eq!((&log["state"], outcomes(&log)), (&json!("pending"), vec![(1, 0, "interrupted")]), "{log}");
    assert!(log["attempts"][0]["answer"].as_str().unwrap_or_default().contains("queue"), "{log}");
    assert!(receiver.hooks().is_empty());

    edge.restart_with("SIGNING_SECRET", &secret).await?;
    let log = delivery(&client, &id, "delivered").await?;
    assert_eq!(outcomes(&log).last(), Some(&(1, 200, "")), "it cost no attempt: {log}");
    Ok(())
}

#[tokio::test]
async fn a_job_costs_at_most_twenty_rows_and_three_queue_operations() -> Result<()> {
    const JOBS: u64 = 5;
    let edge = own_edge().await?;
    let client = edge.client();
    let _node = Node::start(&edge, NodeOptions::default()).await?;
    let (origin, receiver) = (Origin::start().await?, Receiver::start().await?);
    let body = with(thumbnail(&origin.file(&short_clip()?)?), "webhookUrl", receiver.url());
    let before = edge.spent().await?;
    for _ in 0..JOBS {
        let id = client.create(&body).await?;
        delivery(&client, &id, "delivered").await?;
    }
    let after = edge.spent().await?;
    let rows = after.rows - before.rows;
    assert!(rows <= 20 * JOBS, "{rows} rows written for {JOBS} jobs");
    // A message is written, read and deleted.
    assert_eq!(3 * (after.messages - before.messages), 3 * JOBS);
    Ok(())
}
