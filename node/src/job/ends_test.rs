//! Both ends of every parameter of every recipe, in every format and with every codec. The parameters are those of the
//! API's description. Tests of `xora_shared::openapi` hold it against the parser in both directions, and one of `docs`
//! against the committed file: a parameter that is added there is walked here.

use std::path::PathBuf;

use serde_json::{Map, Value, json};
use xora_shared::{
    failure::FailureKind,
    media::{FileType, Format},
    net::Policy,
    request::JobRequest,
};

use super::media_test::{LIMITS, X264, entry, film, judged, run_all, synth};
use crate::ipc::{JobFailure, Up};

const DESCRIPTION: &str = include_str!("../../../edge/assets/v1/openapi.json");

/// Names and values of a recipe.
type Parameters = Map<String, Value>;

/// A moment. Where a side is asked for, the film is so wide or so high that the other one is small at either end of the
/// range, and is one frame long.
fn strip(parameters: &Parameters) -> PathBuf {
    film(); // The folder.
    let (size, seconds) = match ["width", "height"].map(|side| parameters.contains_key(side)) {
        [true, _] => ("128x16", "0.04"),
        [false, true] => ("16x128", "0.04"),
        [false, false] => ("128x64", "0.12"),
    };
    let inputs = format!("-f lavfi -i testsrc2=s={size}:r=25:d={seconds} -f lavfi -i sine=440:d={seconds}:r=48000");
    synth(&format!("strip-{size}-{seconds}.mp4"), &format!("{inputs} -c:a aac {X264}"))
}

/// A schema that another refers to, or itself.
fn resolved<'a>(schema: &'a Value, all: &'a Value) -> &'a Value {
    let reference = schema["$ref"].as_str().or_else(|| schema["anyOf"][0]["$ref"].as_str());
    match reference.and_then(|path| path.strip_prefix("#/components/schemas/")) {
        Some(name) => &all[name],
        None => schema,
    }
}

/// The names of an enumeration; none for what is no enumeration.
fn names(schema: &Value) -> Vec<Value> {
    let constants = schema["oneOf"].as_array().into_iter().flatten().map(|one| one["const"].clone());
    let listed = schema["enum"].as_array().into_iter().flatten().cloned();
    constants.chain(listed).filter(Value::is_string).collect()
}

/// Both ends of a range, or both answers to a question.
fn ends(schema: &Value) -> Vec<Value> {
    let is = |kind: &str| {
        let types = &schema["type"];
        types == kind || types.as_array().is_some_and(|types| types.iter().any(|one| one == kind))
    };
    if is("boolean") {
        return vec![json!(false), json!(true)];
    }
    let whole = |bound: &Value| bound.as_f64().filter(|bound| bound.fract() == 0.0 && is("integer"));
    #[expect(clippy::cast_possible_truncation, reason = "bounds are small")]
    let bound = |bound: &Value| whole(bound).map_or_else(|| bound.clone(), |whole| json!(whole as i64));
    ["minimum", "maximum"].into_iter().map(|name| bound(&schema[name])).filter(|bound| !bound.is_null()).collect()
}

/// Every parameter at each of its ends, with every codec that a recipe offers.
fn walk(recipe: &Value, all: &Value) -> Vec<Parameters> {
    let properties = recipe["properties"].as_object().expect("an object");
    let parameters = properties.iter().filter(|(name, _)| !["name", "stageInput"].contains(&name.as_str()));
    let (mut choices, mut single) = (vec![Parameters::new()], Vec::new());
    for (name, schema) in parameters {
        let schema = resolved(schema, all);
        let values = [names(schema), ends(schema)].concat();
        assert!(values.len() >= 2, "{name} has no ends that could be walked: {schema}");
        if name == "codec" {
            choices.extend(values.into_iter().map(|value| Parameters::from_iter([(name.clone(), value)])));
        } else {
            single.extend(values.into_iter().map(|value| (name.clone(), value)));
        }
    }
    let each = choices.iter().flat_map(|choice| {
        let ends = single.iter().map(move |(name, value)| {
            let mut parameters = choice.clone();
            parameters.insert(name.clone(), value.clone());
            parameters
        });
        [choice.clone()].into_iter().chain(ends)
    });
    each.collect()
}

/// Makes it, and tells what is wrong with what came of it. None where the parser refuses the combination, or where it is no
/// other than one that is walked: `extractAudio` takes any format, and makes audio.
fn ends_well(name: &str, format: Format, parameters: &Parameters) -> Option<Result<(), String>> {
    if name == "extractAudio" && format.file_type() != FileType::Audio && !parameters.is_empty() {
        return None;
    }
    let mut recipe = parameters.clone();
    recipe.insert("name".into(), name.into());
    if name == "resize" && !parameters.contains_key("width") && !parameters.contains_key("height") {
        recipe.insert("width".into(), 64.into());
    }
    let output = json!({"format": format.extension()});
    let mut body = json!({"mode": "recipe", "output": output, "recipe": recipe});
    let inputs = if name == "concat" { "input_files" } else { "input" };
    let url = "https://media.example/film.mp4";
    body[inputs] = if name == "concat" { json!({"in_1": url, "in_2": url}) } else { json!({"url": url}) };
    let told = format!("{name} to {}: {}", format.extension(), Value::Object(parameters.clone()));
    let request = match JobRequest::parse(&body, Policy { allow_loopback: false }) {
        Ok(request) => request,
        Err(invalid) => {
            let of_format = |problem: &String| problem.contains("cannot make") || problem.contains("does not fit");
            assert!(invalid.problems.iter().all(of_format), "{told}: {:?}", invalid.problems);
            return None;
        }
    };
    let input = strip(parameters);
    let inputs = [input.as_path(), input.as_path()];
    let inputs = &inputs[..request.inputs.len()];
    let run = run_all(inputs, request.wanted.clone(), LIMITS);
    match run.messages.last() {
        Some(Up::Produced(_)) => {
            let made = judged(&input, run);
            if let (Some(width), true) = (parameters.get("width"), format.extension() != "webm") {
                assert_eq!(entry(&made.file, "v:0", "width"), width.to_string(), "{told}");
            }
        }
        Some(Up::Unchanged(_)) => {}
        // The part begins behind the end of this input; of a longer one it would not.
        Some(Up::Failed(JobFailure::Known { kind: FailureKind::InputUnsupported, message }))
            if message.contains("startSeconds") && parameters["startSeconds"] == 10_000_000.0 => {}
        other => return Some(Err(format!("{told}: {other:?}"))),
    }
    Some(Ok(()))
}

#[test]
fn both_ends_of_every_parameter_make_a_file_that_verifies() {
    let document: Value = serde_json::from_str(DESCRIPTION).expect("JSON");
    let all = &document["components"]["schemas"];
    let mut ended = Vec::new();
    for recipe in all["Recipe"]["oneOf"].as_array().expect("recipes") {
        let name = recipe["properties"]["name"]["const"].as_str().expect("a name");
        for parameters in walk(recipe, all) {
            ended.extend(Format::ALL.iter().filter_map(|format| ends_well(name, *format, &parameters)));
        }
    }
    let walked = ended.len();
    let failed: Vec<String> = ended.into_iter().filter_map(Result::err).collect();
    assert!(walked > 150 && failed.is_empty(), "{} of {walked}:\n{}", failed.len(), failed.join("\n"));
}
