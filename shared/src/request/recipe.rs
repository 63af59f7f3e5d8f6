//! The recipe of a request: names, parameters, and which formats each makes.

use super::{Field, Fields, choose};
use crate::media::{
    Compress, Cut, ExtractAudio, Format, Gop, Proxy, RateControl, Recipe, Resize, Scale, Thumbnail, Trim, VideoCodec,
    WebEncode, WebReady,
};

/// Default quality of `compress`: what x264's authors call visually fine for delivery, at about a third of the bytes of
/// its own default of 23.
const COMPRESS_CRF: u8 = 28;
/// Default quality of `compress` to VP9, whose scale runs to 63: what libvpx's guide for video on demand gives for 1080p.
const COMPRESS_CRF_VP9: u8 = 33;
/// Default quality of `proxy`, as the contract states it.
const PROXY_CRF: u8 = 32;
/// Largest picture side that can be asked for, in pixels.
const MAX_SIDE: u32 = 8192;
/// Formats of films.
const FILMS: &[Format] = &[Format::Mp4, Format::Webm, Format::Mov];
/// Formats of films and of sound.
const MEDIA: &[Format] = &[
    Format::Mp4,
    Format::Webm,
    Format::Mov,
    Format::Mp3,
    Format::Aac,
    Format::Wav,
    Format::M4a,
    Format::Opus,
    Format::Flac,
];

/// Recipes by name.
const NAMES: [&str; 9] =
    ["webReady", "proxy", "compress", "transcode", "resize", "trim", "extractAudio", "thumbnail", "concat"];

/// Reads the recipe, and `stageInput`, which is also accepted inside it.
pub fn parse(field: Field, format: Option<Format>) -> Option<(Recipe, Option<bool>)> {
    let mut fields = field.object()?;
    let name = fields.required("name", |field| choose(field, &NAMES));
    let stage_input = fields.optional("stageInput", Field::boolean);
    let (_, name) = name?;
    let recipe = match name {
        "webReady" => web_ready(&mut fields, format),
        "proxy" => proxy(&mut fields, format),
        "compress" => compress(&mut fields, format),
        "transcode" => makes("transcode", format, MEDIA, &fields).map(|_| Recipe::Transcode),
        "resize" => resize(&mut fields, format),
        "trim" => trim(&mut fields, format),
        "extractAudio" => extract_audio(&mut fields, format),
        "thumbnail" => thumbnail(&mut fields, format),
        _ => makes("concat", format, MEDIA, &fields).map(|_| Recipe::Concat),
    };
    fields.end();
    Some((recipe?, stage_input))
}

fn web_ready(fields: &mut Fields, format: Option<Format>) -> Option<Recipe> {
    let format = makes("webReady", format, &[Format::Mp4], fields);
    let (rate, scale) = (rate(fields), scale(fields));
    format?;
    let chosen = rate.is_some() || scale != Scale::default();
    Some(Recipe::WebReady(WebReady { encode: chosen.then_some(WebEncode { rate, scale }) }))
}

fn proxy(fields: &mut Fields, format: Option<Format>) -> Option<Recipe> {
    let format = makes("proxy", format, &[Format::Mp4], fields);
    let (rate, scale, cut) = (rate(fields), scale(fields), cut(fields));
    let gop = fields.optional("gop", |field| match choose(field, &["per_second", "all_intra"])? {
        (_, "all_intra") => Some(Gop::AllIntra),
        _ => Some(Gop::PerSecond),
    });
    format?;
    let rate = rate.unwrap_or(RateControl::Crf(PROXY_CRF));
    Some(Recipe::Proxy(Proxy { rate, scale, gop: gop.unwrap_or(Gop::PerSecond), cut }))
}

fn compress(fields: &mut Fields, format: Option<Format>) -> Option<Recipe> {
    let format = makes("compress", format, FILMS, fields);
    let vp9 = format == Some(Format::Webm);
    let codec = fields.optional("codec", |field| match choose(field, &["h264", "hevc", "vp9"])? {
        (_, "vp9") if vp9 => Some(VideoCodec::Vp9),
        (_, "h264") if !vp9 => Some(VideoCodec::H264),
        (_, "hevc") if !vp9 => Some(VideoCodec::Hevc),
        (field, _) => field.refuse("does not fit output.format: mp4 and mov take h264 or hevc, webm takes vp9"),
    });
    let rate = rate(fields);
    format?;
    let (default_crf, default_codec) =
        if vp9 { (COMPRESS_CRF_VP9, VideoCodec::Vp9) } else { (COMPRESS_CRF, VideoCodec::H264) };
    Some(Recipe::Compress(Compress {
        rate: rate.unwrap_or(RateControl::Crf(default_crf)),
        codec: codec.unwrap_or(default_codec),
    }))
}

fn resize(fields: &mut Fields, format: Option<Format>) -> Option<Recipe> {
    let format = makes("resize", format, FILMS, fields);
    if !fields.has("width") && !fields.has("height") {
        fields.problem("width", "is required, or `height`: give at least one");
    }
    let (width, height) = sides(fields);
    format?;
    Some(Recipe::Resize(Resize { scale: Scale { width, height, only_down: false } }))
}

fn trim(fields: &mut Fields, format: Option<Format>) -> Option<Recipe> {
    let format = makes("trim", format, MEDIA, fields);
    let cut = cut(fields);
    format?;
    Some(Recipe::Trim(Trim { cut }))
}

/// Any format may be asked for: what is no sound becomes mp3 when the time comes.
fn extract_audio(fields: &mut Fields, format: Option<Format>) -> Option<Recipe> {
    let cut = cut(fields);
    let copy = fields.optional("copy", Field::boolean).unwrap_or(true);
    format?;
    Some(Recipe::ExtractAudio(ExtractAudio { cut, copy }))
}

fn thumbnail(fields: &mut Fields, format: Option<Format>) -> Option<Recipe> {
    /// A common middle of size and looks; what many encoders take as their own default is 75 to 90.
    const QUALITY: u32 = 85;
    let format = makes("thumbnail", format, &[Format::Jpg, Format::Png, Format::Webp], fields);
    let seek_us = fields.optional("seekSeconds", Field::seconds);
    let (width, height) = sides(fields);
    let quality = fields.optional("quality", |field| field.integer(1, 100)).unwrap_or(QUALITY);
    format?;
    Some(Recipe::Thumbnail(Thumbnail {
        seek_us: seek_us.unwrap_or(0),
        width,
        height,
        quality: u8::try_from(quality).unwrap_or(u8::MAX),
    }))
}

/// `bitrateKbps` wins over `crf`.
fn rate(fields: &mut Fields) -> Option<RateControl> {
    let crf = fields.optional("crf", |field| field.integer(0, 51));
    let bitrate = fields.optional("bitrateKbps", |field| field.integer(16, 200_000));
    let crf = crf.and_then(|crf| u8::try_from(crf).ok()).map(RateControl::Crf);
    bitrate.map(RateControl::BitrateKbps).or(crf)
}

fn scale(fields: &mut Fields) -> Scale {
    let only_down = fields.optional("scaleDown", Field::boolean).unwrap_or(false);
    let (width, height) = sides(fields);
    Scale { width, height, only_down }
}

fn sides(fields: &mut Fields) -> (Option<u32>, Option<u32>) {
    let mut side = |name| fields.optional(name, |field| field.integer(2, MAX_SIDE));
    (side("width"), side("height"))
}

fn cut(fields: &mut Fields) -> Cut {
    let start_us = fields.optional("startSeconds", Field::seconds);
    let duration_us = fields.optional("durationSeconds", Field::length);
    Cut { start_us: start_us.unwrap_or(0), duration_us }
}

/// The format, if the recipe makes it.
fn makes(recipe: &str, format: Option<Format>, made: &[Format], fields: &Fields) -> Option<Format> {
    let format = format?;
    if made.contains(&format) {
        return Some(format);
    }
    let names: Vec<_> = made.iter().map(|format| format.extension()).collect();
    let problem = format!("`{recipe}` cannot make {}; output.format may be {}", format.extension(), names.join(", "));
    fields.problem("name", &problem);
    None
}
