//! Trying encoders, and putting hardware before software where the operator allows it.

use xora_av::{AudioEncoding, Encoder, Frame, Packet, Poll, Rational, VideoEncoding, has_encoder};

use crate::job::fault::{Done, Fault};

/// Software encoders that recipes use, those of stills and of plain audio left out: every build of libav has them.
pub const SOFTWARE: [&str; 6] = ["libx264", "libx265", "libvpx-vp9", "aac", "libopus", "libmp3lame"];

/// Filters without which no recipe can encode anything.
pub const FILTERS: [&str; 8] =
    ["buffer", "buffersink", "abuffer", "abuffersink", "scale", "format", "aresample", "aformat"];

/// Hardware encoders of H.264 and HEVC. Those of VAAPI and QSV take pictures in a form of their own, which is not made
/// here: they are tried like the others, and found not to work.
const HARDWARE: [&str; 12] = [
    "h264_nvenc",
    "hevc_nvenc",
    "h264_qsv",
    "hevc_qsv",
    "h264_vaapi",
    "hevc_vaapi",
    "h264_videotoolbox",
    "hevc_videotoolbox",
    "h264_amf",
    "hevc_amf",
    "h264_v4l2m2m",
    "hevc_v4l2m2m",
];

/// All that are worth trying, in sets that are tried in processes of their own: a driver may take its process with it.
pub const TRIALS: [&[&str]; 2] = [&SOFTWARE, &HARDWARE];

/// Whether there is a hardware encoder of this name for us.
pub fn is_hardware(name: &str) -> bool {
    HARDWARE.contains(&name)
}

/// libav's name of what an encoder of recipes makes.
pub fn makes(encoder: &'static str) -> &'static str {
    match encoder {
        "libx264" => "h264",
        "libx265" => "hevc",
        "libvpx-vp9" => "vp9",
        "libopus" => "opus",
        "libmp3lame" => "mp3",
        "libwebp" => "webp",
        other => other,
    }
}

/// Refuses pictures of a size, in pixels, that an encoder cannot make, and says so worse or not at all.
pub fn check_size(encoder: &'static str, (width, height): (u32, u32)) -> Done<()> {
    let (least, most) = match encoder {
        // Version 3.5 writes beyond its memory where pictures are narrower.
        "libx265" => ((64, 16), u32::MAX),
        "libx264" | "libvpx-vp9" => ((1, 1), 16_384),
        "libwebp" => ((1, 1), 16_383),
        _ => return Ok(()),
    };
    if width >= least.0 && height >= least.1 && width.max(height) <= most {
        return Ok(());
    }
    let (codec, (wide, high)) = (makes(encoder), least);
    let limit = if width.max(height) > most {
        format!("have at most {most} pixels on a side; choose a smaller size")
    } else {
        format!("have at least {wide}x{high}; choose a larger size or the codec h264")
    };
    Err(Fault::unsupported(format!("the pictures would be {width}x{height}, and those of {codec} {limit}")))
}

/// Those of `names` that this libav has and that encode.
pub fn working(names: Vec<String>) -> Vec<String> {
    names.into_iter().filter(|name| has_encoder(name) && encodes(name).is_ok_and(|bytes| bytes > 0)).collect()
}

/// Encodes a little, and answers how many bytes it became.
fn encodes(name: &str) -> xora_av::Result<usize> {
    const SAMPLES: u16 = 960;
    let (mut encoder, frame) = if matches!(name, "aac" | "libopus" | "libmp3lame") {
        let frame = Frame::silence(SAMPLES, name == "libopus")?;
        let options = [("b", "128000".to_owned())];
        (Encoder::audio(&AudioEncoding { encoder: name, options: &options, global_header: false }, &frame)?, frame)
    } else {
        let frame = Frame::blank_picture(640, 360)?;
        let quiet = [("x265-params", "log-level=none".to_owned())];
        let options = if name == "libx265" { &quiet[..] } else { &[] };
        let (time_base, frame_rate) = (Rational(1, 25), Rational(25, 1));
        let how = VideoEncoding { encoder: name, time_base, frame_rate, threads: 1, options, global_header: false };
        (Encoder::video(&how, &frame)?, frame)
    };
    let (mut packet, mut bytes) = (Packet::new()?, 0);
    for frame in [Some(&frame), None] {
        encoder.send(frame)?;
        while encoder.receive(&mut packet)? == Poll::Ready {
            bytes += packet.size();
        }
    }
    Ok(bytes)
}

/// Which encoder was taken, where there was a choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// This hardware encoder.
    Hardware(String),
    /// Software, because none of these opened.
    Software(String),
}

impl Choice {
    /// For the caller.
    pub fn note(&self) -> String {
        match self {
            Self::Hardware(name) => format!("encoded in hardware by {name}"),
            Self::Software(names) => {
                format!("encoded in software, because the hardware encoder {names} did not open")
            }
        }
    }
}

/// Opens the first allowed hardware encoder that makes what `software` makes, else `software` itself.
pub fn open(software: &VideoEncoding, first: &Frame, allowed: &[String]) -> xora_av::Result<(Encoder, Option<Choice>)> {
    let codec = match software.encoder {
        "libx264" => "h264_",
        "libx265" => "hevc_",
        _ => return Ok((Encoder::video(software, first)?, None)),
    };
    let candidates: Vec<&String> = allowed.iter().filter(|name| name.starts_with(codec)).collect();
    for &name in &candidates {
        let options = options(name, software, first);
        let how = VideoEncoding { encoder: name, options: &options, ..software.clone() };
        if let Ok(encoder) = Encoder::video(&how, first) {
            return Ok((encoder, Some(Choice::Hardware(name.clone()))));
        }
    }
    let names: Vec<&str> = candidates.iter().map(|name| name.as_str()).collect();
    let choice = (!names.is_empty()).then(|| Choice::Software(names.join(", ")));
    Ok((Encoder::video(software, first)?, choice))
}

/// What software was told, in the words of a hardware encoder.
fn options<'a>(name: &str, software: &VideoEncoding<'a>, first: &Frame) -> Vec<(&'a str, String)> {
    let said = |key| software.options.iter().find(|(name, _)| *name == key).map(|(_, value)| value.clone());
    let mut options: Vec<(&str, String)> = match (name.rsplit('_').next(), said("crf")) {
        (Some("nvenc"), Some(crf)) => vec![("rc", "vbr".into()), ("cq", crf), ("b", "0".into())],
        (Some("amf"), Some(crf)) => vec![("rc", "cqp".into()), ("qp_i", crf.clone()), ("qp_p", crf)],
        // The others know rates only.
        (_, Some(crf)) => vec![("b", usual_rate(first, software.frame_rate, crf.parse().unwrap_or(28)).to_string())],
        (_, None) => said("b").map(|rate| ("b", rate)).into_iter().collect(),
    };
    options.extend(said("g").map(|pictures| ("g", pictures)));
    options
}

/// About the rate that x264 comes to at this quality, in bits per second: a tenth of a bit for each pixel at 23, and
/// half as much for every 6 above.
fn usual_rate(first: &Frame, frame_rate: Rational, crf: i32) -> u64 {
    let pixels = u64::from(first.width()) * u64::from(first.height());
    let rate = u64::try_from(frame_rate.0 / frame_rate.1.max(1)).unwrap_or(0).clamp(1, 120);
    let at_23 = pixels * rate / 10;
    let steps = (crf - 23).clamp(-24, 24) / 6;
    let scaled = if steps >= 0 { at_23 >> steps } else { at_23 << -steps };
    scaled.max(100_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn software(options: &[(&'static str, String)]) -> Vec<(&'static str, String)> {
        options.to_vec()
    }

    #[test]
    fn every_software_encoder_works_and_a_name_that_libav_does_not_have_does_not() {
        let names = SOFTWARE.iter().chain(&["h264_of_tomorrow"]).map(|name| (*name).to_owned()).collect();
        assert_eq!(working(names), SOFTWARE);
    }

    #[test]
    fn an_allowed_encoder_that_does_not_open_leaves_software_and_a_note() {
        let options = software(&[("preset", "ultrafast".into()), ("crf", "28".into())]);
        let (time_base, frame_rate) = (Rational(1, 25), Rational(25, 1));
        let how = VideoEncoding {
            encoder: "libx264",
            time_base,
            frame_rate,
            threads: 1,
            options: &options,
            global_header: false,
        };
        let frame = Frame::blank_picture(640, 360).expect("frame");
        let noted = |allowed: &[&str]| {
            let allowed: Vec<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
            open(&how, &frame, &allowed).expect("software opens").1.map(|choice| choice.note())
        };
        assert_eq!(noted(&[]), None);
        assert_eq!(noted(&["hevc_of_tomorrow"]), None, "of another codec");
        let note = noted(&["h264_of_tomorrow"]).expect("a note");
        assert!(note.contains("software") && note.contains("h264_of_tomorrow"), "{note}");
    }

    #[test]
    fn quality_and_rate_are_said_in_the_words_of_each_encoder() {
        let frame = Frame::blank_picture(1280, 720).expect("frame");
        let table: [(&str, &str, &str); 6] = [
            ("h264_nvenc", "crf", "rc=vbr cq=29 b=0"),
            ("hevc_amf", "crf", "rc=cqp qp_i=29 qp_p=29"),
            ("h264_v4l2m2m", "crf", "b=1152000"),
            ("h264_nvenc", "b", "b=29"),
            ("h264_videotoolbox", "b", "b=29"),
            ("h264_nvenc", "g", "g=29"),
        ];
        for (name, key, expected) in table {
            let said =
                software(&[("preset", "veryfast".into()), (if key == "crf" { "crf" } else { key }, "29".into())]);
            let (time_base, frame_rate) = (Rational(1, 25), Rational(25, 1));
            let how = VideoEncoding {
                encoder: "libx264",
                time_base,
                frame_rate,
                threads: 1,
                options: &said,
                global_header: false,
            };
            let found: Vec<String> =
                options(name, &how, &frame).iter().map(|(key, value)| format!("{key}={value}")).collect();
            assert_eq!(found.join(" "), expected, "{name} {key}");
        }
    }
}
