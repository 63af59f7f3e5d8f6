//! `make bench`: the figures, measured against the real system. Medians of runs that alternate with what they are
//! compared with; losing rows are printed too. Not a test: machines are noisy. `bench webhooks`, `bench api`, `bench
//! jobs`, `bench media`, `bench cost` and `bench large` print those rows alone.
#![allow(clippy::print_stdout, reason = "a command that talks to a person")]

mod api;
mod media;
mod webhooks;

use std::{
    env, fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xora_tests::{Edge, EdgeOptions, Node, NodeOptions, Origin, Receiver, Zygote, end_with_parent, root, sample};

const PATIENCE: Duration = Duration::from_mins(3);
/// Pairs of every comparison.
const PAIRS: usize = 5;
/// Jobs whose times to a node are measured.
const LEASES: usize = 40;
/// Job processes whose start is measured.
const STARTS: usize = 20;

/// `compress` at its default quality as a command: see `COMMAND` in the node's `job/film.rs`.
const X264: &str = "-map 0:v:0 -map 0:a:0? -dn -sn -c:v libx264 -preset veryfast -profile:v high -pix_fmt yuv420p -crf 28 \
     -threads:v 2 -fps_mode passthrough -enc_time_base:v -1 -c:a aac -b:a 128k -ac 2 -ar 48000";

struct Bench {
    edge: Edge,
    origin: Origin,
    receiver: Receiver,
}

#[tokio::main]
async fn main() -> Result<()> {
    end_with_parent();
    let bench = Bench { edge: start_edge().await?, origin: Origin::start().await?, receiver: Receiver::start().await? };
    row("what", "measured", "goal");
    let only = env::args().nth(1);
    let wanted = |name| only.as_deref().is_none_or(|only| only == name);
    // These without a node, which would share the cores.
    if wanted("webhooks") {
        webhooks::measure(&bench.edge).await?;
    }
    if wanted("api") {
        // On an edge of its own: the jobs stay queued.
        api::measure(&start_edge().await?).await?;
    }
    if only.is_none() {
        job_process()?;
    }
    if !["jobs", "media", "cost", "large"].into_iter().any(wanted) {
        return Ok(());
    }
    let node = Node::start(&bench.edge, NodeOptions { release: true, ..NodeOptions::default() }).await?;
    if only.is_none() {
        bench.latencies().await?;
    }
    if wanted("jobs") {
        for name in ["trailer.mp4", "full-hd.mp4"] {
            bench.whole_job(name).await?;
        }
        bench.remote_thumbnail().await?;
    }
    if wanted("media") {
        media::measure(&bench).await?;
    }
    if wanted("cost") {
        bench.cost().await?;
    }
    if wanted("large") { media::large(&bench, &node).await } else { Ok(()) }
}

/// The Worker as it is deployed.
async fn start_edge() -> Result<Edge> {
    Edge::start(EdgeOptions { deployed: true, ..EdgeOptions::default() }).await
}

/// Order → first word of a job process that is locked down.
fn job_process() -> Result<()> {
    let zygote = Zygote::start()?;
    // The first one waits for the libraries, too.
    zygote.ready()?;
    let ready = (0..STARTS).map(|_| Ok(zygote.ready()?.as_secs_f64() * 1000.0)).collect::<Result<Vec<_>>>()?;
    row("job process ready", &format!("{:.1} ms", median(ready)), "≤ 5 ms");
    Ok(())
}

impl Bench {
    /// Create → leased, by thumbnails of a small file on an idle node.
    async fn latencies(&self) -> Result<()> {
        let url = self.origin.file(&sample("small.mp4")?)?;
        let mut queued = Vec::new();
        for _ in 0..LEASES {
            let job = self.edge.client().run(&recipe(&url, "jpg", "thumbnail"), PATIENCE).await?;
            queued.push(milliseconds(&job["timings"]["queueMs"])?);
        }
        row(&format!("create → node has it, {LEASES} jobs"), &spread(queued), "p50 ≤ 25, p99 ≤ 150 ms");
        Ok(())
    }

    /// A whole job, from request to webhook, beside the bare command on the same file.
    async fn whole_job(&self, name: &str) -> Result<()> {
        let path = sample(name)?;
        let url = self.origin.file(&path)?;
        let made = root().join("target/media/bench.mp4");
        let (mut ours, mut theirs, mut ratios, mut memory) = (Vec::new(), Vec::new(), Vec::new(), 0.0_f64);
        let mut same = 0;
        for _ in 0..PAIRS {
            let begun = Instant::now();
            ffmpeg(&format!("-threads 2 -i {} {X264}", path.display()), &made)?;
            theirs.push(begun.elapsed().as_secs_f64() * 1000.0);

            let begun = Instant::now();
            let seen = self.receiver.hooks().len();
            self.edge.client().create(&self.with_webhook(recipe(&url, "mp4", "compress"))).await?;
            let hooks = self.receiver.wait(seen + 1, PATIENCE).await?;
            ours.push(begun.elapsed().as_secs_f64() * 1000.0);

            let job = hooks.last().context("a webhook")?.job();
            ensure!(job["state"] == "completed", "{job}");
            memory = memory.max(milliseconds(&job["usage"]["peakMemoryBytes"])? / 1e6);
            let result = root().join("target/media/bench-job.mp4");
            let signed = job["output"]["signedUrl"].as_str().context("a link")?;
            fs::write(&result, self.edge.client().download(signed).await?)?;
            same += usize::from(frames_of(&result)? == frames_of(&made)?);
            ratios.push(theirs.last().unwrap_or(&0.0) / ours.last().unwrap_or(&1.0));
        }
        let (ours, theirs) = (median(ours), median(theirs));
        row(
            &format!("whole job, {name}, {PAIRS} pairs"),
            &format!("{ours:.0} ms; ffmpeg {theirs:.0} ms; {:+.0} ms", ours - theirs),
            "≤ +300 ms",
        );
        row("  ffmpeg's time / ours", &format!("{:.2}", median(ratios)), "≥ 1.0 for long files");
        row("  frames identical to ffmpeg's", &format!("{same} of {PAIRS}"), "all");
        row("  peak memory of the job process", &format!("{memory:.0} MB"), "≤ 400 MB for 1080p");
        Ok(())
    }

    /// One picture at 300 s of a film of 50 MB behind HTTP, beside the bare command.
    async fn remote_thumbnail(&self) -> Result<()> {
        let url = self.origin.file(&sample("big-buck-bunny.mp4")?)?;
        let made = root().join("target/media/bench.jpg");
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let (mut our_bytes, mut their_bytes) = (0, 0);
        for _ in 0..PAIRS {
            let (begun, sent) = (Instant::now(), self.origin.sent());
            let (command, to) = (format!("-ss 300 -i {url} -frames:v 1"), made.clone());
            tokio::task::spawn_blocking(move || ffmpeg(&command, &to)).await??;
            theirs.push(begun.elapsed().as_secs_f64() * 1000.0);
            their_bytes = self.origin.sent() - sent;

            let (begun, sent) = (Instant::now(), self.origin.sent());
            let mut job = recipe(&url, "jpg", "thumbnail");
            job["recipe"]["seekSeconds"] = 300.into();
            self.job(job).await?;
            ours.push(begun.elapsed().as_secs_f64() * 1000.0);
            our_bytes = self.origin.sent() - sent;
        }
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        let bytes = format!("{:.2} MB; ffmpeg {:.2} MB", megabytes(our_bytes), megabytes(their_bytes));
        row("thumbnail at 300 s of 50 MB: read", &bytes, "≤ 0.6 MB");
        row("  whole job", &format!("{:.0} ms; ffmpeg {:.0} ms", median(ours), median(theirs)), "–");
        Ok(())
    }

    /// Rows and messages of one job, by the line that the shard logs when the cron fires.
    async fn cost(&self) -> Result<()> {
        const JOBS: usize = 10;
        let url = self.origin.file(&sample("small.mp4")?)?;
        let before = self.edge.spent().await?;
        let seen = self.receiver.hooks().len();
        for _ in 0..JOBS {
            self.edge.client().create(&self.with_webhook(recipe(&url, "jpg", "thumbnail"))).await?;
        }
        self.receiver.wait(seen + JOBS, PATIENCE).await?;
        let after = self.edge.spent().await?;
        let each = |count: u64| count as f64 / JOBS as f64;
        row("rows written for a job", &format!("{:.1}", each(after.rows - before.rows)), "≤ 15");
        row("queue operations for a job", &format!("{:.0}", each(3 * (after.messages - before.messages))), "≤ 3");
        Ok(())
    }

    /// A job from its request to its webhook.
    async fn job(&self, job: Value) -> Result<Value> {
        Ok(self.jobs(vec![job]).await?.pop().unwrap_or_default())
    }

    /// Jobs that are asked for together, from the first request to the last webhook.
    async fn jobs(&self, jobs: Vec<Value>) -> Result<Vec<Value>> {
        let (seen, count) = (self.receiver.hooks().len(), jobs.len());
        for job in jobs {
            self.edge.client().create(&self.with_webhook(job)).await?;
        }
        let hooks = self.receiver.wait(seen + count, PATIENCE).await?;
        let jobs: Vec<_> = hooks.iter().skip(seen).map(|hook| hook.job().clone()).collect();
        ensure!(jobs.iter().all(|job| job["state"] == "completed"), "{jobs:?}");
        Ok(jobs)
    }

    fn with_webhook(&self, mut job: Value) -> Value {
        job["webhookUrl"] = self.receiver.url().into();
        job
    }
}

fn recipe(url: &str, format: &str, name: &str) -> Value {
    json!({"mode": "recipe", "input": {"url": url}, "output": {"format": format}, "recipe": {"name": name}})
}

fn ffmpeg(command: &str, output: &Path) -> Result<()> {
    xora_tests::ffmpeg(&command.split_whitespace().collect::<Vec<_>>(), output)
}

/// A digest of every decoded picture.
fn frames_of(path: &Path) -> Result<Vec<u8>> {
    let input = path.to_str().context("a path")?;
    let args =
        ["-v", "error", "-i", input, "-map", "0:v:0", "-f", "md5", "-c:v", "rawvideo", "-fps_mode", "passthrough", "-"];
    let run = Command::new("ffmpeg").args(args).output()?;
    ensure!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    Ok(run.stdout)
}

fn milliseconds(value: &Value) -> Result<f64> {
    value.as_f64().with_context(|| format!("a number, not {value}"))
}

fn median(values: Vec<f64>) -> f64 {
    quantile(values, 0.5)
}

fn quantile(mut values: Vec<f64>, q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index into a short list")]
    let index = ((values.len() as f64 * q) as usize).min(values.len().saturating_sub(1));
    values.get(index).copied().unwrap_or(f64::NAN)
}

fn spread(values: Vec<f64>) -> String {
    format!("p50 {:.1}, p99 {:.1} ms", quantile(values.clone(), 0.5), quantile(values, 0.99))
}

fn row(what: &str, measured: &str, goal: &str) {
    println!("{what:44} {measured:56} {goal}");
}
