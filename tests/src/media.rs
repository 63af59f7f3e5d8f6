//! Clips: real ones, synthesised ones, and what is inside.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::root;

/// A real clip that `scripts/media` fetched.
pub fn sample(name: &str) -> Result<PathBuf> {
    let path = root().join("target/media").join(name);
    ensure!(path.exists(), "{} is missing; run scripts/media", path.display());
    Ok(path)
}

/// A clip that ffmpeg makes once and keeps, from the arguments between `ffmpeg` and the output's name.
pub fn clip(name: &str, args: &[&str]) -> Result<PathBuf> {
    let dir = root().join("target/media/made");
    let path = dir.join(name);
    if !path.exists() {
        fs::create_dir_all(&dir)?;
        // Tests run side by side: whoever is last wins, with the same bytes.
        let temporary = dir.join(format!("{:?}-{name}", std::thread::current().id()));
        ffmpeg(args, &temporary)?;
        fs::rename(temporary, &path)?;
    }
    Ok(path)
}

/// Runs the bare command.
pub fn ffmpeg(args: &[&str], output: &Path) -> Result<()> {
    let run = Command::new("ffmpeg").args(["-v", "error", "-nostdin", "-y"]).args(args).arg(output).output()?;
    ensure!(run.status.success(), "ffmpeg {args:?}: {}", String::from_utf8_lossy(&run.stderr));
    Ok(())
}

/// What ffprobe sees, with every frame decoded.
#[derive(Clone, Debug)]
pub struct Probe(Value);

/// Looks inside a file and decodes all of it.
pub fn probe(path: &Path) -> Result<Probe> {
    let args = ["-v", "error", "-count_frames", "-show_streams", "-show_format", "-of", "json"];
    let run = Command::new("ffprobe").args(args).arg(path).output()?;
    let complaints = String::from_utf8_lossy(&run.stderr);
    ensure!(run.status.success() && complaints.is_empty(), "{}: {complaints}", path.display());
    Ok(Probe(serde_json::from_slice(&run.stdout)?))
}

impl Probe {
    /// The first stream of a kind.
    pub fn stream(&self, kind: &str) -> Option<&Value> {
        self.0["streams"].as_array()?.iter().find(|stream| stream["codec_type"] == kind)
    }

    /// The codec of the first stream of a kind.
    pub fn codec(&self, kind: &str) -> Option<&str> {
        self.stream(kind)?["codec_name"].as_str()
    }

    /// Width and height of the picture.
    pub fn size(&self) -> Option<(u64, u64)> {
        let video = self.stream("video")?;
        Some((video["width"].as_u64()?, video["height"].as_u64()?))
    }

    /// How many frames the first stream of a kind decodes to.
    pub fn frames(&self, kind: &str) -> Result<u64> {
        let frames = self.stream(kind).and_then(|stream| stream["nb_read_frames"].as_str());
        Ok(frames.context("a frame count")?.parse()?)
    }

    /// Seconds, as the container says.
    pub fn duration(&self) -> Result<f64> {
        Ok(self.0["format"]["duration"].as_str().context("a duration")?.parse()?)
    }
}
