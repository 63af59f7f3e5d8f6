//! Presets that every account has.

use serde_json::{Value, json};

use super::Preset;

/// The starters, most useful first. Their ids can be used as `presetId`; they cannot be changed.
pub fn starters() -> Vec<Preset> {
    let recipe =
        |format: &str, recipe: Value| json!({"mode": "recipe", "output": {"format": format}, "recipe": recipe});
    let table = [
        (
            "web-ready",
            "Web ready",
            "An MP4 that plays in every browser. What plays already is left alone, what is only packed wrongly is packed \
             anew, the rest is encoded.",
            recipe("mp4", json!({"name": "webReady"})),
        ),
        (
            "smaller-mp4",
            "Smaller file",
            "The same picture in fewer bytes: H.264 in MP4, for sharing and archives that must play everywhere.",
            recipe("mp4", json!({"name": "compress", "crf": 28})),
        ),
        (
            "hevc-archive",
            "HEVC archive",
            "H.265 in MP4: fewer bytes than H.264 at the same quality, for players of the last decade.",
            recipe("mp4", json!({"name": "compress", "codec": "hevc", "crf": 26})),
        ),
        (
            "webm",
            "WebM for the web",
            "VP9 with Opus in WebM, for browsers and pages without licensed codecs.",
            recipe("webm", json!({"name": "compress", "crf": 33})),
        ),
        (
            "hd-720p",
            "720p",
            "H.264 in MP4, 720 lines, the aspect kept.",
            recipe("mp4", json!({"name": "resize", "height": 720})),
        ),
        (
            "editing-proxy",
            "Editing proxy",
            "A light copy to edit with: at most 540 lines, every picture a keyframe.",
            recipe("mp4", json!({"name": "proxy", "height": 540, "scaleDown": true, "gop": "all_intra"})),
        ),
        (
            "preview-clip",
            "Preview clip",
            "The first ten seconds. `recipe.startSeconds` and `recipe.durationSeconds` pick others.",
            recipe("mp4", json!({"name": "trim", "durationSeconds": 10})),
        ),
        (
            "podcast-audio",
            "Podcast audio",
            "The sound alone, copied where it fits into a file of its own, else as MP3.",
            recipe("mp3", json!({"name": "extractAudio"})),
        ),
        (
            "thumbnail",
            "Thumbnail",
            "The first picture as a JPEG, 640 pixels wide. `recipe.seekSeconds` picks another.",
            recipe("jpg", json!({"name": "thumbnail", "width": 640})),
        ),
        (
            "lossless-still",
            "Lossless still",
            "One picture in full size as a PNG, for retouching and print.",
            recipe("png", json!({"name": "thumbnail"})),
        ),
    ];
    let preset = |(id, name, description, config): (&str, &str, &str, Value)| Preset {
        id: id.to_owned(),
        name: name.to_owned(),
        description: Some(description.to_owned()),
        config: if let Value::Object(config) = config { config } else { unreachable!("each is written as an object") },
        created_at: None,
        updated_at: None,
    };
    table.map(preset).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        net::Policy,
        preset::{PresetRequest, merge},
        request::JobRequest,
    };

    #[test]
    fn every_starter_runs_with_nothing_but_an_input() {
        for starter in starters() {
            let body = json!({"presetId": starter.id, "input": {"url": "https://media.example/a.mov"}});
            let parsed = JobRequest::parse(&merge(&starter.config, &body), Policy::default());
            assert!(parsed.is_ok(), "{}: {parsed:?}", starter.id);
        }
    }

    #[test]
    fn every_starter_can_be_saved_under_another_name_and_no_id_stands_twice() {
        let mut seen = std::collections::HashSet::new();
        for starter in starters() {
            let body = json!({"name": starter.name, "description": starter.description, "config": starter.config});
            let parsed = PresetRequest::parse(&body, Policy::default());
            assert!(parsed.is_ok(), "{}: {parsed:?}", starter.id);
            assert!(seen.insert(starter.id));
        }
        assert_eq!(seen.len(), 10);
    }
}
