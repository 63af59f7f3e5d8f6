//! Whole jobs that copy, cut and look, each beside what one would do with the `ffmpeg` command.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde_json::{Value, json};
use xora_tests::{Guard, Line, Node, Served, Sink, root, sample};

use super::{Bench, PAIRS, PATIENCE, ffmpeg, median, recipe, row};

/// Pictures of the row that asks for several.
const PICTURES: u64 = 10;
/// Pairs of the row that takes a minute each.
const LONG_PAIRS: usize = 3;

/// Prints the rows.
pub async fn measure(bench: &Bench) -> Result<()> {
    let film = Bytes::from(fs::read(sample("big-buck-bunny.mp4")?)?);
    let near = bench.origin.serve("near.mp4", Served::Well(film.clone()));
    let far = bench.origin.serve("far.mp4", Served::Far(film, line()));
    println!("remote below: a round trip of 20 ms, 200 Mbit/s in each direction, connections that begin slowly");
    bench.remux("50 MB", PAIRS, &far).await?;
    let long = made("bench-long.mp4");
    let _scratch = Guard::delete_file(&long)?;
    command(format!("-stream_loop 9 -i {} -c copy", sample("big-buck-bunny.mp4")?.display()), long.clone()).await?;
    let long = Served::Far(Bytes::from(fs::read(&long)?), line());
    bench.remux("500 MB", LONG_PAIRS, &bench.origin.serve("long.mp4", long)).await?;
    bench.trim(&near).await?;
    bench.extract("50 MB", &far).await?;
    // As cameras record: half a second of pictures between two places of sound.
    let camera = made("bench-camera.mov");
    let _recording = Guard::delete_file(&camera)?;
    let pictures = "-f lavfi -i testsrc2=s=1280x720:r=2:d=240,noise=alls=40 -f lavfi -i sine=d=240:r=48000";
    command(format!("{pictures} -c:v mjpeg -q:v 4 -pix_fmt yuvj420p -c:a aac -b:a 128k"), camera.clone()).await?;
    let recorded = Served::Far(Bytes::from(fs::read(&camera)?), line());
    let size = format!("{} MB from a camera", fs::metadata(&camera)?.len() / 1_000_000);
    bench.extract(&size, &bench.origin.serve("camera.mov", recorded)).await?;
    bench.thumbnail(&far).await?;
    bench.thumbnails(&far).await
}

fn line() -> Line {
    Line::new(Duration::from_millis(20), 25_000_000)
}

/// Prints what a node needs for 5 GiB of full HD that pass through it, from a disk to a bucket that only counts them.
pub async fn large(bench: &Bench, node: &Node) -> Result<()> {
    const LENGTH: u64 = 5 << 30;
    let (clip, film) = (made("bench-clip.mp4"), made("bench-large.mp4"));
    let _scratch = Guard::delete_file(&film)?;
    // Its pictures alone: the other track is one that no decoder knows.
    command(format!("-i {} -map 0:v:0 -c copy", sample("full-hd.mp4")?.display()), clip.clone()).await?;
    let loops = LENGTH / fs::metadata(&clip)?.len();
    command(format!("-stream_loop {loops} -i {} -c copy", clip.display()), film.clone()).await?;
    let bytes = fs::metadata(&film)?.len();
    let (sink, client) = (Sink::start(None).await?, bench.edge.client());
    let provider = bench.provider(&sink).await?;
    let mut wanted = recipe(&bench.origin.serve("large.mp4", Served::FromDisk(film)), "mov", "transcode");
    (wanted["stageInput"], wanted["storageProviderId"]) = (false.into(), provider);
    let begun = Instant::now();
    let id = client.create(&wanted).await?;
    let job = client.finished(&id, PATIENCE * 10).await?;
    ensure!(job["state"] == "completed", "{job}");
    let seconds = begun.elapsed().as_secs_f64();
    let rate =
        format!("{seconds:.0} s, {:.0} MB/s; {:.2} GiB written", bytes as f64 / 1e6 / seconds, gib(sink.bytes()));
    row(&format!("remux of {:.2} GiB of 1080p", gib(bytes)), &rate, "–");
    let peak = job["usage"]["peakMemoryBytes"].as_f64().context("bytes")? / 1e6;
    row("  peak memory of the job process", &format!("{peak:.0} MB"), "≤ 400 MB");
    let peak = (node.counter("status", "VmHWM")? << 10) as f64 / 1e6;
    row("  of the supervisor, since it started", &format!("{peak:.0} MB"), "≤ 150 MB");
    let written =
        node.written()?.map_or("root alone can tell".to_owned(), |bytes| format!("{:.1} MB", bytes as f64 / 1e6));
    row("  written to disk by the supervisor", &written, "0");
    Ok(())
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

/// Times of pairs, in milliseconds: ours and the command's.
#[derive(Default)]
struct Pairs(Vec<f64>, Vec<f64>);

impl Pairs {
    fn print(self, what: &str, goal: &str) {
        let ratios = self.0.iter().zip(&self.1).map(|(ours, theirs)| theirs / ours).collect();
        let (ours, theirs, ratio) = (median(self.0), median(self.1), median(ratios));
        row(what, &format!("{ours:.0} ms; ffmpeg {theirs:.0} ms; {ratio:.2}×"), goal);
    }
}

fn since(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1000.0
}

fn made(name: &str) -> PathBuf {
    root().join("target/media").join(name)
}

/// Runs the command without holding up what serves its input.
async fn command(command: String, output: PathBuf) -> Result<()> {
    tokio::task::spawn_blocking(move || ffmpeg(&command, &output)).await?
}

impl Bench {
    /// A film from one server to another in a new container, beside fetching, remuxing and sending it.
    async fn remux(&self, size: &str, pairs: usize, url: &str) -> Result<()> {
        let sink = Sink::start(Some(line())).await?;
        let provider = self.provider(&sink).await?;
        let mut times = Pairs::default();
        for _ in 0..pairs {
            let begun = Instant::now();
            let (fetched, remuxed) = (made("bench-fetched.mp4"), made("bench-remuxed.mov"));
            fs::write(&fetched, self.edge.client().download(url).await?)?;
            command(format!("-i {} -c copy -movflags +faststart", fetched.display()), remuxed.clone()).await?;
            let put = xora_tests::http_client().build()?.put(sink.url()).body(fs::read(&remuxed)?);
            put.send().await?.error_for_status()?;
            times.1.push(since(begun));
            sink.empty();

            let begun = Instant::now();
            let mut wanted = recipe(url, "mov", "transcode");
            (wanted["stageInput"], wanted["storageProviderId"]) = (false.into(), provider.clone());
            self.job(wanted).await?;
            times.0.push(since(begun));
            sink.empty();
        }
        times.print(&format!("remux of {size}, remote to remote, {pairs} pairs"), "≥ 2×");
        Ok(())
    }

    /// Adds it as a storage provider, and answers its id.
    async fn provider(&self, sink: &Sink) -> Result<Value> {
        let added = self.edge.client().post("/v1/settings/storage-providers", &sink.provider()).await?;
        Ok(added.expect(201)?["id"].take())
    }

    /// One minute out of ten, beside encoding it.
    async fn trim(&self, url: &str) -> Result<()> {
        let mut times = Pairs::default();
        for _ in 0..PAIRS {
            let begun = Instant::now();
            let encoding = "-c:v libx264 -preset veryfast -crf 23 -c:a aac";
            command(format!("-ss 120 -t 60 -i {url} {encoding}"), made("bench-trimmed.mp4")).await?;
            times.1.push(since(begun));

            let begun = Instant::now();
            let mut wanted = recipe(url, "mp4", "trim");
            wanted["recipe"] = json!({"name": "trim", "startSeconds": 120, "durationSeconds": 60});
            let job = self.job(wanted).await?;
            times.0.push(since(begun));
            ensure!(job["verification"]["frames"] == 1440, "{job}");
        }
        times.print(&format!("trim of 1 minute of 10, {PAIRS} pairs"), "≥ 5×");
        Ok(())
    }

    /// The sound as it is, beside the command that copies it.
    async fn extract(&self, what: &str, url: &str) -> Result<()> {
        let (mut times, mut bytes) = (Pairs::default(), (0, 0));
        for _ in 0..PAIRS {
            let (begun, sent) = (Instant::now(), self.origin.sent());
            command(format!("-i {url} -vn -c:a copy"), made("bench-sound.aac")).await?;
            times.1.push(since(begun));
            bytes.1 = self.origin.sent() - sent;

            let (begun, sent) = (Instant::now(), self.origin.sent());
            let mut wanted = recipe(url, "aac", "extractAudio");
            wanted["stageInput"] = false.into();
            self.job(wanted).await?;
            times.0.push(since(begun));
            bytes.0 = self.origin.sent() - sent;
        }
        times.print(&format!("extract audio, {what}, {PAIRS} pairs"), "≥ 1.0×");
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        let read = format!("{:.1} MB; ffmpeg {:.1} MB", megabytes(bytes.0), megabytes(bytes.1));
        row("  read", &read, "no more");
        Ok(())
    }

    /// One picture at 300 s.
    async fn thumbnail(&self, url: &str) -> Result<()> {
        let mut times = Pairs::default();
        for _ in 0..PAIRS {
            let begun = Instant::now();
            command(format!("-ss 300 -i {url} -frames:v 1"), made("bench.jpg")).await?;
            times.1.push(since(begun));

            let begun = Instant::now();
            self.job(thumbnail(url, 300)).await?;
            times.0.push(since(begun));
        }
        times.print(&format!("thumbnail at 300 s, {PAIRS} pairs"), "≥ 3×");
        Ok(())
    }

    /// Pictures from all over a film, all asked for at once, beside one command after the other.
    async fn thumbnails(&self, url: &str) -> Result<()> {
        let mut times = Pairs::default();
        for _ in 0..PAIRS {
            let begun = Instant::now();
            for at in (1..=PICTURES).map(|number| number * 55) {
                command(format!("-ss {at} -i {url} -frames:v 1"), made("bench.jpg")).await?;
            }
            times.1.push(since(begun));

            let begun = Instant::now();
            self.jobs((1..=PICTURES).map(|number| thumbnail(url, number * 55)).collect()).await?;
            times.0.push(since(begun));
        }
        times.print(&format!("{PICTURES} thumbnails, {PAIRS} pairs"), "≥ 5×");
        Ok(())
    }
}

fn thumbnail(url: &str, seconds: u64) -> Value {
    let mut job = recipe(url, "jpg", "thumbnail");
    job["recipe"]["seekSeconds"] = seconds.into();
    job
}
