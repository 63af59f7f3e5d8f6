//! The document, held against the parsers and against itself.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::document;
use crate::{
    net::Policy,
    preset::{PresetRequest, merge, starters},
    provider::ProviderRequest,
    request::{Invalid, JobRequest},
    route::ROUTES,
    settings::Settings,
    time::UnixMs,
    token::TokenRequest,
    upload::{MAX_BYTES, UploadRequest},
};

const POLICY: Policy = Policy { allow_loopback: false };

fn schema(name: &str) -> Value {
    document()["components"]["schemas"][name].clone()
}

/// The names of an object's fields, as the document has them.
fn described(schema: &Value) -> BTreeSet<String> {
    schema["properties"].as_object().expect("an object").keys().cloned().collect()
}

/// The names of an object's fields, as its parser gives them when it meets one that it does not know.
fn known(result: Result<(), Invalid>, path: &str) -> BTreeSet<String> {
    let problems = result.expect_err("an unknown field").problems;
    let prefix = format!("{path}?: unknown field; known here: ");
    let names = problems.iter().find_map(|problem| problem.strip_prefix(&prefix)).expect("a list of names");
    names.split(", ").map(str::to_owned).collect()
}

fn job(body: &Value) -> Result<(), Invalid> {
    JobRequest::parse(body, POLICY).map(drop)
}

fn preset(body: &Value) -> Result<(), Invalid> {
    PresetRequest::parse(body, POLICY).map(drop)
}

fn settings(body: &Value) -> Result<(), Invalid> {
    Settings::default().merge(body, POLICY, |_| true, UnixMs(0)).map(drop)
}

/// Every alternative of the type `Recipe`, with its name.
fn recipes() -> Vec<(String, Value)> {
    let recipe = schema("Recipe");
    let all = recipe["oneOf"].as_array().expect("alternatives");
    all.iter()
        .map(|one| (one["properties"]["name"]["const"].as_str().expect("a name").to_owned(), one.clone()))
        .collect()
}

#[test]
fn every_parser_knows_the_fields_that_the_document_describes_and_no_others() {
    let all = &described(&schema("RecipeJob")) | &described(&schema("PresetJob"));
    assert_eq!(known(job(&json!({"?": 1})), ""), all);
    assert_eq!(known(job(&json!({"input": {"?": 1}})), "input."), described(&schema("UrlInput")));
    // What is only there to be refused with a word of explanation is not described.
    let refused: BTreeSet<_> = ["url", "headers"].map(str::to_owned).into();
    let known_beside_an_upload = known(job(&json!({"input": {"uploadId": "x", "?": 1}})), "input.");
    assert_eq!(&known_beside_an_upload - &refused, described(&schema("UploadInput")));
    let upload = UploadRequest::parse(&json!({"?": 1}), MAX_BYTES).map(drop);
    assert_eq!(known(upload, ""), described(&schema("CreateUpload")));
    assert_eq!(known(job(&json!({"output": {"?": 1}})), "output."), described(&schema("Output")));
    assert_eq!(known(preset(&json!({"?": 1})), ""), described(&schema("SavePreset")));
    let refused: BTreeSet<_> = ["input", "input_files", "presetId"].map(str::to_owned).into();
    assert_eq!(&known(preset(&json!({"config": {"?": 1}})), "config.") - &refused, described(&schema("PresetConfig")));
    assert_eq!(known(settings(&json!({"?": 1})), ""), described(&schema("ChangeSettings")));
    let provider = ProviderRequest::parse(&json!({"?": 1}), POLICY).map(drop);
    assert_eq!(known(provider, ""), described(&schema("AddStorageProvider")));
    assert_eq!(known(TokenRequest::parse(&json!({"?": 1})).map(drop), ""), described(&schema("CreateToken")));
}

#[test]
fn every_recipe_knows_the_parameters_that_the_document_describes_and_no_others() {
    for (name, recipe) in recipes() {
        let body = json!({"recipe": {"name": name, "?": 1}, "output": {"format": "mp4"}});
        assert_eq!(known(job(&body), "recipe."), described(&recipe), "{name}");
    }
}

#[test]
fn every_recipe_that_a_parser_knows_is_described() {
    let problems = job(&json!({"recipe": {"name": "?"}})).expect_err("unknown").problems;
    let names = problems.iter().find_map(|problem| problem.strip_prefix("recipe.name: must be one of "));
    for name in names.expect("a list of names").split(", ") {
        let problems = job(&json!({"recipe": {"name": name}})).expect_err("incomplete").problems;
        let offered = !problems.iter().any(|problem| problem.contains("is not offered by this version"));
        assert_eq!(offered, recipes().iter().any(|(known, _)| known == name), "{name}");
    }
}

#[test]
fn the_bounds_that_the_document_gives_are_those_of_the_parser() {
    let problem_at = |body: &Value, path: &str| {
        let problems = job(body).map_or_else(|invalid| invalid.problems, |()| Vec::new());
        problems.iter().any(|problem| problem.starts_with(&format!("{path}: must be")))
    };
    let mut seen = 0;
    for (name, recipe) in recipes() {
        for (field, schema) in recipe["properties"].as_object().expect("an object") {
            let path = format!("recipe.{field}");
            let with = |value: &Value| json!({"recipe": {"name": name, field: value}});
            for (bound, beyond) in [("minimum", -1.0), ("maximum", 1.0)] {
                let Some(bound) = schema[bound].as_f64() else { continue };
                assert!(!problem_at(&with(&number(bound)), &path), "{name}.{field}: {bound}");
                assert!(problem_at(&with(&number(bound + beyond)), &path), "{name}.{field} beyond {bound}");
                seen += 1;
            }
        }
    }
    assert!(seen >= 10, "{seen}");
}

/// Whole numbers stay whole.
#[expect(clippy::cast_possible_truncation, reason = "bounds are small")]
fn number(value: f64) -> Value {
    if value.fract() == 0.0 { json!(value as i64) } else { json!(value) }
}

#[test]
fn every_route_is_described_but_those_of_nodes_and_nothing_is_described_that_is_none() {
    let document = document();
    let described: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .expect("paths")
        .iter()
        .flat_map(|(path, methods)| {
            methods
                .as_object()
                .expect("methods")
                .keys()
                .map(move |method| (method.to_uppercase(), path.replace("{id}", ":id")))
        })
        .filter(|(_, path)| !["/files/{path}", "/docs", "/v1/openapi.json"].contains(&path.as_str()))
        .collect();
    let routes: BTreeSet<_> = ROUTES
        .iter()
        .filter(|(_, path, _)| !path.starts_with("/v1/node/"))
        .map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned()))
        .collect();
    assert_eq!(described, routes);
}

#[test]
fn every_operation_has_an_id_of_its_own_and_a_summary() {
    let mut seen = BTreeSet::new();
    for (path, methods) in document()["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let id = operation["operationId"].as_str().expect("an id").to_owned();
            assert!(seen.insert(id), "{method} {path}");
            assert!(operation["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{method} {path}");
        }
    }
}

#[test]
fn every_example_of_a_body_is_one_that_its_parser_takes() {
    let document = document();
    let mut seen = 0;
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let examples = operation["requestBody"]["content"]["application/json"]["examples"].as_object();
            for (name, example) in examples.into_iter().flatten() {
                let body = &example["value"];
                let taken = match operation["operationId"].as_str().expect("an id") {
                    "createJob" => job(&resolved(body)),
                    "createPreset" | "replacePreset" => preset(body),
                    "changeSettings" | "changeSettingsByPut" => settings(body),
                    "addStorageProvider" => ProviderRequest::parse(body, POLICY).map(drop),
                    "createUpload" => UploadRequest::parse(body, MAX_BYTES).map(drop),
                    "createToken" => TokenRequest::parse(body).map(drop),
                    other => panic!("no parser of {other} is named here"),
                };
                assert_eq!(taken, Ok(()), "{method} {path}, {name}");
                seen += 1;
            }
        }
    }
    assert!(seen >= 7, "{seen}");
}

/// A job with its preset in place, which must be a starter.
fn resolved(body: &Value) -> Value {
    match body["presetId"].as_str() {
        Some(id) => merge(&starters().into_iter().find(|starter| starter.id == id).expect("a starter").config, body),
        None => body.clone(),
    }
}
