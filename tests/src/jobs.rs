//! Bodies of jobs, and clips for them to work on.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use serde_json::{Value, json};

use crate::media::clip;

/// Longest wait for anything that takes an encode of a short clip, on a machine that also compiles.
pub const PATIENCE: Duration = Duration::from_mins(3);

/// A job of the recipe mode.
pub fn job(url: &str, format: &str, recipe: &Value) -> Value {
    json!({"mode": "recipe", "input": {"url": url}, "output": {"format": format}, "recipe": recipe})
}

/// A job that compresses an input to MP4.
pub fn compress(url: &str) -> Value {
    job(url, "mp4", &json!({"name": "compress"}))
}

/// A job that takes a JPEG at one second.
pub fn thumbnail(url: &str) -> Value {
    job(url, "jpg", &json!({"name": "thumbnail", "seekSeconds": 1}))
}

/// The same job with one more field.
pub fn with(mut job: Value, name: &str, value: impl Into<Value>) -> Value {
    job[name] = value.into();
    job
}

/// Two seconds of picture and tone.
pub fn short_clip() -> Result<PathBuf> {
    let args = "-f lavfi -i testsrc2=s=320x180:r=25:d=2 -f lavfi -i sine=d=2 -shortest -c:v libx264 -c:a aac";
    clip("short.mp4", &args.split(' ').collect::<Vec<_>>())
}

/// A minute that takes this machine several seconds to encode.
pub fn long_clip() -> Result<PathBuf> {
    let args = "-f lavfi -i testsrc2=s=1280x720:r=30:d=60 -c:v libx264 -preset ultrafast -crf 35";
    clip("long.mp4", &args.split(' ').collect::<Vec<_>>())
}

/// Half a minute that is small to read and long to encode.
pub fn faint_clip() -> Result<PathBuf> {
    let args = "-f lavfi -i testsrc2=s=1280x720:r=30:d=30 -c:v libx264 -preset ultrafast -crf 45";
    clip("faint.mp4", &args.split(' ').collect::<Vec<_>>())
}

/// What a file holds.
pub fn bytes(path: &Path) -> Result<bytes::Bytes> {
    Ok(fs::read(path)?.into())
}
