//! JSON schemas as tables.

#![expect(clippy::wildcard_enum_match_arm, reason = "the enum is JSON's own: it will not grow")]

use serde_json::Value;

use crate::page::{entries, escape, inline_prose, items, str};

/// Every type of the document.
pub fn all(schemas: &Value) -> String {
    entries(schemas).map(|(name, schema)| one(name, schema)).collect()
}

fn one(name: &str, schema: &Value) -> String {
    let description = inline_prose(str(&schema["description"]));
    format!("<article id=\"type-{name}\">\n<h3>{name}</h3>\n{description}{}</article>\n", detail(schema))
}

/// What there is to say of a schema besides its name and description.
fn detail(schema: &Value) -> String {
    let properties = properties(schema);
    if !properties.is_empty() {
        return properties;
    }
    let choices = ["oneOf", "anyOf"].into_iter().find(|key| schema[*key].is_array());
    match choices {
        Some(key) if items(&schema[key]).all(|choice| choice.get("const").is_some()) => {
            let rows: String =
                items(&schema[key]).map(|each| choice(&each["const"], str(&each["description"]))).collect();
            table(&rows)
        }
        Some(key) => items(&schema[key]).map(alternative).collect(),
        None => format!("<p>{}</p>\n", name(schema)),
    }
}

/// One form that a value can have: a recipe by its name, say.
fn alternative(schema: &Value) -> String {
    if schema.get("$ref").is_some() {
        return format!("<p>{}</p>\n", name(schema));
    }
    let title = schema["properties"]["name"]["const"].as_str();
    let title = title.map_or_else(String::new, |title| format!("<h4><code>{}</code></h4>\n", escape(title)));
    format!("{title}{}{}", inline_prose(str(&schema["description"])), detail(schema))
}

fn properties(schema: &Value) -> String {
    let required = |name: &str| items(&schema["required"]).any(|each| each == name);
    let rows: String = entries(&schema["properties"])
        .map(|(property, schema)| row(property, &name(schema), required(property), str(&schema["description"])))
        .collect();
    if rows.is_empty() { rows } else { table(&rows) }
}

/// A table of rows.
pub fn table(rows: &str) -> String {
    format!("<div class=\"wide\"><table>\n{rows}</table></div>\n")
}

/// A row: a name, what it holds, and what it means.
pub fn row(name: &str, kind: &str, required: bool, description: &str) -> String {
    let needed = if required { " <small>required</small>" } else { "" };
    let description = inline_prose(description);
    format!("<tr><td><code>{}</code>{needed}</td><td>{kind}</td><td>{description}</td></tr>\n", escape(name))
}

fn choice(value: &Value, description: &str) -> String {
    format!("<tr><td><code>{}</code></td><td>{}</td></tr>\n", escape(str(value)), inline_prose(description))
}

/// What a schema holds, in a few words. Named types are links.
pub fn name(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return format!("<a href=\"#type-{name}\">{name}</a>");
    }
    if let Some(fixed) = schema.get("const") {
        return format!("<code>{}</code>", escape(&fixed.to_string()));
    }
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<_> =
            values.iter().map(|value| format!("<code>{}</code>", escape(&value.to_string()))).collect();
        return values.join(", ");
    }
    for key in ["anyOf", "oneOf"] {
        if schema[key].is_array() {
            return items(&schema[key]).map(name).collect::<Vec<_>>().join(" or ");
        }
    }
    let kinds: Vec<_> = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().map(|kind| plain(str(kind), schema)).collect(),
        Value::String(kind) => vec![plain(kind, schema)],
        _ => vec!["any".to_owned()],
    };
    kinds.join(" or ") + &bounds(schema)
}

fn plain(kind: &str, schema: &Value) -> String {
    match (kind, &schema["items"], &schema["additionalProperties"]) {
        ("array", Value::Object(_), _) => format!("list of {}", name(&schema["items"])),
        ("object", _, Value::Object(_)) => format!("map of {}", name(&schema["additionalProperties"])),
        _ => match schema["format"].as_str() {
            Some("date-time") => "time".to_owned(),
            _ => kind.to_owned(),
        },
    }
}

fn bounds(schema: &Value) -> String {
    let bound = |low: &str, high: &str, unit: &str| match (schema[low].as_f64(), schema[high].as_f64()) {
        (Some(low), Some(high)) => format!(", {low} to {high}{unit}"),
        (None, Some(high)) => format!(", at most {high}{unit}"),
        _ => String::new(),
    };
    bound("minimum", "maximum", "") + &bound("minLength", "maxLength", " characters")
}
