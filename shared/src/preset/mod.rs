//! Presets: saved job configurations. A job that names one runs its configuration; fields of the job override it.

mod starters;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use starters::starters;

use crate::{
    net::Policy,
    request::{Field, Fields, Invalid, JobRequest},
    time::UnixMs,
};

/// Most presets of an account.
pub const MAX_PRESETS: usize = 200;

/// Largest configuration, in bytes of JSON.
const MAX_CONFIG: usize = 16 * 1024;

/// A preset, as stored and as answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Preset {
    /// What `presetId` names.
    pub id: String,
    /// What its owner calls it.
    pub name: String,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The body of a job without its input.
    pub config: Map<String, Value>,
    /// When it was made, ISO 8601; starters have no times.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schemars(with = "Option<UnixMs>"))]
    pub created_at: Option<String>,
    /// When it was last changed, ISO 8601.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schemars(with = "Option<UnixMs>"))]
    pub updated_at: Option<String>,
}

/// What a caller says of a preset, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct PresetRequest {
    name: String,
    description: Option<String>,
    config: Map<String, Value>,
}

impl PresetRequest {
    /// Reads the body of `POST /v1/presets` and `PUT /v1/presets/:id`.
    pub fn parse(body: &Value, policy: Policy) -> Result<Self, Invalid> {
        let mut fields = Fields::of_body(body)?;
        let name = fields.required("name", |field| field.text(1, 64));
        let description = fields.optional("description", |field| field.text(0, 512));
        let config = fields.required("config", |field| config(field, policy));
        fields.finish()?;
        let (Some(name), Some(config)) = (name, config) else {
            unreachable!("a required part that is missing has been noted as a problem")
        };
        Ok(Self { name, description, config })
    }

    /// The preset that this makes.
    pub fn create(self, id: String, now: UnixMs) -> Preset {
        let Self { name, description, config } = self;
        let now = Some(now.to_iso());
        Preset { id, name, description, config, created_at: now.clone(), updated_at: now }
    }
}

fn config(field: Field, policy: Policy) -> Option<Map<String, Value>> {
    let config = field.map().cloned();
    if serde_json::to_string(&config).is_ok_and(|text| text.len() > MAX_CONFIG) {
        return field.refuse(&format!("must be at most {MAX_CONFIG} bytes of JSON"));
    }
    let mut fields = field.object()?;
    JobRequest::check_config(&mut fields, policy);
    fields.end();
    config
}

/// The preset that a job's body names, if it names one.
pub fn named(body: &Value) -> Option<&str> {
    body.get("presetId").and_then(Value::as_str)
}

/// The body of a job that names a preset, with the preset's configuration in place of the name. Fields of the body win
/// over the preset's; null takes away what the preset says.
pub fn merge(config: &Map<String, Value>, body: &Value) -> Value {
    let Value::Object(body) = body else { return body.clone() };
    let mut merged = config.clone();
    if given(body, "mode").is_some_and(|mode| config.get("mode") != Some(mode)) {
        // Another mode has another configuration.
        for name in ["recipe", "ffmpeg", "input_files", "output_files"] {
            merged.shift_remove(name);
        }
    }
    for (name, value) in body.iter().filter(|(name, _)| *name != "presetId") {
        match (name.as_str(), merged.get_mut(name), value) {
            ("output" | "metadata", Some(Value::Object(below)), Value::Object(above)) => lay_over(below, above),
            ("recipe", Some(Value::Object(below)), Value::Object(above)) if same_recipe(below, above) => {
                forget_the_other_rate(below, above);
                lay_over(below, above);
            }
            _ => set(&mut merged, name, value),
        }
    }
    Value::Object(merged)
}

/// Parameters of one recipe mean nothing to another.
fn same_recipe(below: &Map<String, Value>, above: &Map<String, Value>) -> bool {
    given(above, "name").is_none_or(|name| below.get("name") == Some(name))
}

/// `crf` and `bitrateKbps` are two ways to say one thing, so the one that is given takes the other's place.
fn forget_the_other_rate(below: &mut Map<String, Value>, above: &Map<String, Value>) {
    for (one, other) in [("crf", "bitrateKbps"), ("bitrateKbps", "crf")] {
        if given(above, one).is_some() {
            below.shift_remove(other);
        }
    }
}

fn lay_over(below: &mut Map<String, Value>, above: &Map<String, Value>) {
    for (name, value) in above {
        set(below, name, value);
    }
}

/// Null takes away what is there. Where nothing is, it stays, so that unknown names are still found.
fn set(map: &mut Map<String, Value>, name: &str, value: &Value) {
    if value.is_null() && map.contains_key(name) {
        map.shift_remove(name);
    } else {
        map.insert(name.to_owned(), value.clone());
    }
}

fn given<'a>(map: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    map.get(name).filter(|value| !value.is_null())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn preset() -> Value {
        json!({
            "mode": "recipe",
            "output": {"format": "mp4"},
            "recipe": {"name": "compress", "bitrateKbps": 900, "codec": "h264"},
            "metadata": {"team": "news", "kind": "draft"},
            "webhookUrl": "https://app.example/hook",
            "priority": 3,
        })
    }

    /// The preset with one top-level field replaced.
    fn preset_with(name: &str, value: Value) -> Value {
        let mut preset = preset();
        preset[name] = value;
        preset
    }

    #[test]
    fn fields_of_the_job_override_those_of_the_preset_as_the_table_says() {
        let without = |name: &str| {
            let mut preset = preset();
            preset.as_object_mut().expect("an object").shift_remove(name);
            preset
        };
        let table = [
            ("nothing given", json!({"presetId": "p"}), preset()),
            ("a plain field", json!({"priority": 9}), preset_with("priority", json!(9))),
            ("null takes away", json!({"webhookUrl": null}), without("webhookUrl")),
            ("null of what is not there", json!({"stageInput": null}), preset_with("stageInput", Value::Null)),
            (
                "metadata by name",
                json!({"metadata": {"kind": "final", "team": null, "by": "me"}}),
                preset_with("metadata", json!({"kind": "final", "by": "me"})),
            ),
            ("the format", json!({"output": {"format": "mov"}}), preset_with("output", json!({"format": "mov"}))),
            (
                "one parameter of the recipe",
                json!({"recipe": {"codec": "hevc"}}),
                preset_with("recipe", json!({"name": "compress", "bitrateKbps": 900, "codec": "hevc"})),
            ),
            (
                "quality instead of a rate",
                json!({"recipe": {"name": "compress", "crf": 20}}),
                preset_with("recipe", json!({"name": "compress", "codec": "h264", "crf": 20})),
            ),
            (
                "another recipe",
                json!({"recipe": {"name": "thumbnail", "width": 320}}),
                preset_with("recipe", json!({"name": "thumbnail", "width": 320})),
            ),
            ("a recipe that is none", json!({"recipe": "compress"}), preset_with("recipe", json!("compress"))),
            ("the same mode", json!({"mode": "recipe"}), preset()),
        ];
        for (what, body, expected) in table {
            let config = preset();
            assert_eq!(merge(config.as_object().expect("an object"), &body), expected, "{what}");
        }
    }

    #[test]
    fn another_mode_takes_nothing_of_the_recipe() {
        let merged = merge(preset().as_object().expect("an object"), &json!({"mode": "ffmpeg"}));
        assert_eq!(merged.get("recipe"), None);
        assert_eq!(merged["output"], json!({"format": "mp4"}));
    }

    #[test]
    fn a_job_with_a_preset_still_needs_its_input() {
        let merged = merge(preset().as_object().expect("an object"), &json!({"presetId": "p"}));
        let problems = JobRequest::parse(&merged, Policy::default()).expect_err("no input").problems;
        assert_eq!(problems, ["input: is required"]);
    }

    #[test]
    fn a_preset_is_checked_like_a_job_and_named_by_path() {
        let valid = json!({"name": "News", "config": preset()});
        let read = PresetRequest::parse(&valid, Policy::default()).expect("valid");
        assert_eq!(Value::Object(read.config), preset());
        let table = [
            (json!({"config": preset()}), "name: is required"),
            (json!({"name": "x"}), "config: is required"),
            (json!({"name": "x", "config": []}), "config: must be an object"),
            (
                json!({"name": "x", "config": {"output": {"format": "mp4"}, "recipe": {"name": "compress"}}}),
                "config.mode: is required",
            ),
            (json!({"name": "x", "config": preset_with("crf", json!(1))}), "config.crf: unknown field"),
            (
                json!({"name": "x", "config": preset_with("recipe", json!({"name": "compress", "crf": 99}))}),
                "config.recipe.crf: must be 0 to 51",
            ),
            (
                json!({"name": "x", "config": preset_with("webhookUrl", json!("http://10.0.0.1/"))}),
                "config.webhookUrl: must not point",
            ),
            (
                json!({"name": "x", "config": preset_with("mode", json!("ffmpeg"))}),
                "config.mode: `ffmpeg` is not offered",
            ),
            (
                json!({"name": "x", "config": preset_with("input", json!({"url": "https://media.example/a"}))}),
                "config.input: belongs to a job",
            ),
            (json!({"name": "x", "config": preset_with("presetId", json!("p"))}), "config.presetId: belongs to a job"),
            (
                json!({"name": "x", "config": preset_with("metadata", json!({"a": "x".repeat(MAX_CONFIG)}))}),
                "config: must be at most",
            ),
        ];
        for (body, expected) in table {
            let problems = PresetRequest::parse(&body, Policy::default()).expect_err("invalid").problems;
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].starts_with(expected), "{problems:?} for {expected}");
        }
    }
}
