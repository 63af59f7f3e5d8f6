//! Webhooks: how soon, how many, how exactly tried again, and what a receiver that hangs does to the others. The jobs are
//! cancelled before anyone takes them: a terminal state that needs no node.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use xora_tests::{Client, Edge, Hook, Receiver, Reply, wait_for};

use crate::{PATIENCE, milliseconds, recipe, row, spread};

/// Jobs of each measurement, and how many end in a second where the rate is bounded.
const JOBS: usize = 200;
const PER_SECOND: u64 = 20;
/// Callers who end jobs as fast as they can.
const CALLERS: usize = 8;
/// Every so manieth job goes to the receiver that hangs.
const HANGING: usize = 5;
/// Waits before the second and the third attempt, in milliseconds.
const WAITS: [f64; 2] = [500.0, 1000.0];

/// Prints the rows.
pub async fn measure(edge: &Edge) -> Result<()> {
    at_a_bounded_rate(edge).await?;
    as_fast_as_possible(edge).await?;
    beside_one_that_hangs(edge).await
}

async fn at_a_bounded_rate(edge: &Edge) -> Result<()> {
    let receiver = Receiver::start().await?;
    let jobs = paced(edge, |_| receiver.url()).await?;
    let hooks = receiver.wait(JOBS, PATIENCE).await?;
    row(&format!("terminal → webhook, {PER_SECOND} a second"), &spread(delays(&hooks)?), "p50 ≤ 25, p99 ≤ 150 ms");
    let sent = recorded(&edge.client(), &jobs).await?;
    tally("  ids", &sent, &receiver.hooks())
}

async fn as_fast_as_possible(edge: &Edge) -> Result<()> {
    let receiver = Receiver::start().await?;
    let client = edge.client();
    let mut jobs = Vec::new();
    for _ in 0..JOBS {
        jobs.push(create(&client, &receiver.url()).await?);
    }
    let mut callers = JoinSet::new();
    for share in jobs.chunks(JOBS.div_ceil(CALLERS)) {
        let (client, share) = (client.clone(), share.to_vec());
        callers.spawn(async move {
            for id in share {
                client.cancel(&id).await?.expect(200)?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller??;
    }
    let hooks = receiver.wait(JOBS, PATIENCE).await?;
    let first = hooks.iter().map(|hook| milliseconds(&hook.json["timestamp"])).collect::<Result<Vec<_>>>()?;
    let first = first.into_iter().fold(f64::INFINITY, f64::min);
    let last = hooks.iter().map(arrived).collect::<Result<Vec<_>>>()?.into_iter().fold(0.0, f64::max);
    let rate = JOBS as f64 / ((last - first) / 1000.0);
    row(&format!("deliveries, {CALLERS} callers at full speed"), &format!("{rate:.0} a second"), "–");
    row("  terminal → webhook", &spread(delays(&hooks)?), "–");
    let sent = recorded(&client, &jobs).await?;
    tally("  ids", &sent, &receiver.hooks())
}

/// One receiver holds every attempt until its timeout, another refuses all three.
async fn beside_one_that_hangs(edge: &Edge) -> Result<()> {
    let hanging = Receiver::answering(vec![Reply::hang(); JOBS]).await?;
    let refusing = Receiver::answering(vec![Reply::status(500); 3 * JOBS]).await?;
    paced(edge, |number| if number % HANGING == 0 { hanging.url() } else { refusing.url() }).await?;
    let hooks = refusing.wait(3 * (JOBS - JOBS / HANGING), PATIENCE).await?;
    let mut attempts = BTreeMap::<&str, Vec<&Hook>>::new();
    for hook in &hooks {
        attempts.entry(id(hook)?).or_default().push(hook);
    }
    let firsts = attempts.values().filter_map(|each| each.first()).map(|hook| (*hook).clone()).collect::<Vec<_>>();
    row("beside a receiver that hangs: first attempt", &spread(delays(&firsts)?), "p99 ≤ 150 ms");
    for (number, wait) in WAITS.into_iter().enumerate() {
        let late = attempts
            .values()
            .filter(|each| each.len() > number + 1)
            .map(|each| Ok(arrived(each[number + 1])? - arrived(each[number])? - wait));
        let what = format!("  attempt {} late, of {wait:.0} ms", number + 2);
        row(&what, &spread(late.collect::<Result<Vec<_>>>()?), "≤ 100 ms");
    }
    Ok(())
}

/// Ends jobs one after the other at [`PER_SECOND`]. Answers their ids.
async fn paced(edge: &Edge, to: impl Fn(usize) -> String) -> Result<Vec<String>> {
    let client = edge.client();
    let mut tick = interval(Duration::from_millis(1000 / PER_SECOND));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut jobs = Vec::new();
    for number in 0..JOBS {
        tick.tick().await;
        let id = create(&client, &to(number)).await?;
        client.cancel(&id).await?.expect(200)?;
        jobs.push(id);
    }
    Ok(jobs)
}

async fn create(client: &Client, receiver: &str) -> Result<String> {
    let mut job = recipe("https://media.example.com/a.mp4", "jpg", "thumbnail");
    job["webhookUrl"] = receiver.into();
    client.create(&job).await
}

/// The ids that the edge has on record as delivered.
async fn recorded(client: &Client, jobs: &[String]) -> Result<BTreeSet<String>> {
    let mut ids = BTreeSet::new();
    for job in jobs {
        let delivered = wait_for("the record of a delivery", PATIENCE, async || {
            let log = client.get(&format!("/v1/jobs/{job}/deliveries")).await?.expect(200)?["deliveries"][0].take();
            Ok((log["state"] == "delivered").then_some(log))
        });
        ids.extend(delivered.await?["id"].as_str().map(str::to_owned));
    }
    Ok(ids)
}

fn tally(what: &str, sent: &BTreeSet<String>, hooks: &[Hook]) -> Result<()> {
    let received = hooks.iter().map(id).collect::<Result<BTreeSet<_>>>()?;
    let lost = sent.iter().filter(|id| !received.contains(id.as_str())).count();
    let twice = hooks.len() - received.len();
    let measured = format!("{} sent, {} received, {twice} twice, {lost} lost", sent.len(), received.len());
    row(what, &measured, "0 lost");
    Ok(())
}

fn id(hook: &Hook) -> Result<&str> {
    hook.request.header("webhook-id").context("an id")
}

/// From the job's end to the webhook's arrival, in milliseconds.
fn delays(hooks: &[Hook]) -> Result<Vec<f64>> {
    hooks.iter().map(|hook| Ok(arrived(hook)? - milliseconds(&hook.json["timestamp"])?)).collect()
}

/// In milliseconds since 1970.
fn arrived(hook: &Hook) -> Result<f64> {
    Ok(hook.request.at.duration_since(UNIX_EPOCH)?.as_secs_f64() * 1000.0)
}
