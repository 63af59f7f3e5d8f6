//! The edge's own speed, without a node: creating, reading and listing jobs beside the same Worker's empty answer.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use xora_tests::{Client, Edge};

use crate::{PAIRS, median, recipe, row, spread};

/// Requests of each kind at a bounded rate, and how many in a second.
const REQUESTS: usize = 200;
const PER_SECOND: u64 = 40;
/// Callers who ask as fast as they can, and how often each.
const CALLERS: usize = 8;
const EACH: usize = 25;

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    /// `GET /healthz`: no key, no shard.
    Nothing,
    Create,
    Read,
    List,
}

/// A caller and a job that there is.
#[derive(Clone)]
struct Caller {
    client: Client,
    job: String,
}

/// Prints the rows.
pub async fn measure(edge: &Edge) -> Result<()> {
    let client = edge.client();
    let job = create(&client).await?;
    let caller = Caller { client, job };
    for (name, what) in [("create", What::Create), ("read", What::Read), ("list, 20 jobs", What::List)] {
        let (empty, ours) = at_a_bounded_rate(&caller, what).await?;
        let measured = format!("{}; empty {}", spread(ours), spread(empty));
        row(&format!("{name}, {PER_SECOND} a second"), &measured, "–");
        let (mut ours, mut empty) = (Vec::new(), Vec::new());
        for _ in 0..PAIRS {
            empty.push(as_fast_as_possible(&caller, What::Nothing).await?);
            ours.push(as_fast_as_possible(&caller, what).await?);
        }
        let (ours, empty) = (median(ours), median(empty));
        let measured = format!("{ours:.0} a second; empty {empty:.0}; {:.2}", ours / empty);
        row(&format!("  {CALLERS} callers at full speed"), &measured, "≥ 0.5");
    }
    Ok(())
}

/// How long each took, in milliseconds: the empty answer, and what is asked in turn with it.
async fn at_a_bounded_rate(caller: &Caller, what: What) -> Result<(Vec<f64>, Vec<f64>)> {
    let mut tick = interval(Duration::from_millis(1000 / PER_SECOND));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut empty, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..REQUESTS {
        for (what, times) in [(What::Nothing, &mut empty), (what, &mut ours)] {
            tick.tick().await;
            let begun = Instant::now();
            caller.ask(what).await?;
            times.push(begun.elapsed().as_secs_f64() * 1000.0);
        }
    }
    Ok((empty, ours))
}

/// Requests in a second.
async fn as_fast_as_possible(caller: &Caller, what: What) -> Result<f64> {
    let begun = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let caller = caller.clone();
        callers.spawn(async move {
            for _ in 0..EACH {
                caller.ask(what).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = callers.join_next().await {
        done??;
    }
    Ok((CALLERS * EACH) as f64 / begun.elapsed().as_secs_f64())
}

impl Caller {
    async fn ask(&self, what: What) -> Result<()> {
        let Self { client, job } = self;
        match what {
            What::Nothing => client.get("/healthz").await?.expect(200).map(drop),
            What::Create => create(client).await.map(drop),
            What::Read => client.job(job).await.map(drop),
            What::List => client.get("/v1/jobs?limit=20").await?.expect(200).map(drop),
        }
    }
}

/// A job that nobody takes.
async fn create(client: &Client) -> Result<String> {
    client.create(&recipe("https://media.example.com/a.mp4", "jpg", "thumbnail")).await
}
