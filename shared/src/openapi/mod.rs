//! The API's description as OpenAPI 3.1, made of the route table, the types that are answered, and types of the bodies
//! that are read. Only compiled with the feature `openapi`: the Worker serves the document as a file.

mod operations;
mod requests;

use schemars::{
    JsonSchema, Schema, SchemaGenerator,
    generate::SchemaSettings,
    transform::{Transform, transform_subschemas},
};
use serde_json::{Map, Value, json};

use crate::{
    refusal::{Code, ErrorBody},
    route::ROUTES,
    token::Scope,
};

/// Adds a type to the document and refers to it.
type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// What the document says of one route.
struct Operation {
    tag: &'static str,
    /// `operationId`, for generated clients.
    id: &'static str,
    summary: &'static str,
    description: &'static str,
    /// What the key must cover. None: no key is needed.
    scope: Option<Scope>,
    /// Query and header parameters, as OpenAPI has them. The id in the path is added from the route.
    parameters: Vec<Value>,
    body: Option<Body>,
    answers: Vec<Answer>,
    /// Refusals besides those that follow from key, body and path.
    refusals: Vec<(Code, &'static str)>,
}

struct Body {
    schema: SchemaOf,
    /// Names and values.
    examples: Vec<(&'static str, Value)>,
}

struct Answer {
    status: u16,
    description: &'static str,
    /// Media type, schema and example. None: no body.
    content: Option<(&'static str, SchemaOf, Option<Value>)>,
}

/// The document.
pub fn document() -> Value {
    let mut schemas = Schemas::new();
    schemas.answered(schema_of::<ErrorBody>());
    let mut paths = Map::new();
    for (method, pattern, route) in ROUTES {
        if let Some(operation) = operations::of(*route) {
            add(&mut paths, method, pattern, operation.json(pattern, &mut schemas));
        }
    }
    for (method, path, operation) in operations::beside_the_table() {
        add(&mut paths, method, path, operation.json(path, &mut schemas));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Xora",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "A media transcoding API that you run yourself. Every path under `/v1` also answers under \
                `/api/v1`.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "Where this document was read"}],
        "tags": operations::TAGS.map(|(name, description)| json!({"name": name, "description": description})),
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer KEY`"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-KEY"},
            },
            "responses": usual_refusals(),
            "schemas": schemas.finish(),
        },
    })
}

/// Adds an operation. Two that do the same share a path; the second is named by its method too.
fn add(paths: &mut Map<String, Value>, method: &str, pattern: &str, mut operation: Value) {
    let path = paths.entry(pattern.replace(":id", "{id}")).or_insert_with(|| json!({}));
    let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
    if path.as_object().is_some_and(|others| others.values().any(|other| other["operationId"] == *id)) {
        operation["operationId"] = format!("{id}By{}{}", &method[..1], method[1..].to_lowercase()).into();
    }
    path[method.to_ascii_lowercase()] = operation;
}

impl Operation {
    fn json(mut self, pattern: &str, schemas: &mut Schemas) -> Value {
        if pattern.contains(":id") {
            let id = json!({"name": "id", "in": "path", "required": true, "schema": {"type": "string"}});
            self.parameters.insert(0, id);
        }
        let refusals = self.refused(pattern);
        let mut answers: Map<_, _> =
            self.answers.into_iter().map(|answer| (answer.status.to_string(), answer.json(schemas))).collect();
        answers.extend(refusals);
        answers.sort_keys();
        let mut operation = json!({
            "tags": [self.tag],
            "operationId": self.id,
            "summary": self.summary,
            "description": self.description,
            "parameters": self.parameters,
            "responses": answers,
            "security": self.scope.map_or_else(|| json!([]), |_| json!([{"bearer": []}, {"apiKey": []}])),
        });
        if let Some(scope) = self.scope {
            operation["x-scope"] = scope.name().into();
        }
        if let Some(Body { schema, examples }) = self.body {
            let examples: Map<_, _> =
                examples.into_iter().map(|(name, value)| (name.to_owned(), json!({"value": value}))).collect();
            let content = json!({"schema": schemas.read(schema), "examples": examples});
            operation["requestBody"] = json!({"required": true, "content": {"application/json": content}});
        }
        operation
    }

    /// What any request with such a key, body and path can be refused with, and what only this one can, by status.
    fn refused(&self, pattern: &str) -> Vec<(String, Value)> {
        let mut usual = vec![Code::Internal, Code::Unavailable];
        if self.body.is_some() {
            usual.extend([Code::ValidationError, Code::PayloadTooLarge, Code::UnsupportedMediaType]);
        }
        if self.scope.is_some() {
            usual.extend([Code::Unauthorized, Code::Forbidden, Code::RateLimited]);
        }
        if pattern.contains(":id") {
            usual.push(Code::NotFound);
        }
        let own = self.refusals.iter().map(|(code, _)| *code).filter(|code| !usual.contains(code)).collect::<Vec<_>>();
        let answer = |code: Code| {
            let reasons: Vec<_> = self.refusals.iter().filter(|(each, _)| *each == code).map(|(_, why)| *why).collect();
            let reference = json!({"$ref": format!("#/components/responses/{}", name(code))});
            let answer = match (reasons.as_slice(), usual.contains(&code)) {
                ([], _) => reference,
                (reasons, true) => refusal(code, &[&[usual_reason(code)], reasons].concat()),
                (reasons, false) => refusal(code, reasons),
            };
            (code.status().to_string(), answer)
        };
        usual.iter().copied().chain(own).map(answer).collect()
    }
}

/// The answers that many operations share.
fn usual_refusals() -> Value {
    let all = [
        Code::ValidationError,
        Code::Unauthorized,
        Code::Forbidden,
        Code::NotFound,
        Code::PayloadTooLarge,
        Code::UnsupportedMediaType,
        Code::RateLimited,
        Code::Internal,
        Code::Unavailable,
    ];
    all.into_iter().map(|code| (name(code), refusal(code, &[usual_reason(code)]))).collect::<Map<_, _>>().into()
}

const fn usual_reason(code: Code) -> &'static str {
    match code {
        Code::ValidationError => {
            "the request is not JSON, or not as this page says; every problem is named by its path"
        }
        Code::Unauthorized => "no API key, or one that is not valid",
        Code::Forbidden => "this key lacks the scope",
        Code::NotFound => "no such thing",
        Code::MethodNotAllowed => "this path exists, but not for this method",
        Code::Conflict => "not in this state",
        Code::PayloadTooLarge => "the body is larger than 1 MiB",
        Code::UnsupportedMediaType => "the body is said to be something else than JSON",
        Code::RangeNotSatisfiable => "the range starts past the end",
        Code::IdempotencyMismatch => "the same idempotency key came with another body",
        Code::StorageRefused => "the bucket refuses",
        Code::RateLimited => {
            "this key asks too often, or too many unknown keys came from this address; `Retry-After` says when to try again"
        }
        Code::Unavailable => "cannot be answered just now; `Retry-After` says when to try again",
        Code::Internal => "something went wrong here; try again",
    }
}

fn refusal(code: Code, reasons: &[&str]) -> Value {
    let content = json!({
        "schema": {"$ref": "#/components/schemas/Error"},
        "example": ErrorBody::new(code, reasons.last().unwrap_or(&"")),
    });
    json!({
        "description": format!("`{}`: {}.", name(code), reasons.join("; or ")),
        "content": {"application/json": content},
    })
}

/// The code as it is on the wire.
fn name(code: Code) -> String {
    json!(code).as_str().unwrap_or_default().to_owned()
}

impl Answer {
    fn json(self, schemas: &mut Schemas) -> Value {
        let mut answer = json!({"description": self.description});
        if let Some((media_type, schema, example)) = self.content {
            let mut content = json!({"schema": schemas.answered(schema)});
            if let Some(example) = example {
                content["example"] = example;
            }
            answer["content"] = json!({media_type: content});
        }
        answer
    }
}

/// Collects the types of the document. What is read and what is answered differ in what may be absent.
struct Schemas {
    read: SchemaGenerator,
    answered: SchemaGenerator,
}

impl Schemas {
    fn new() -> Self {
        let settings = || {
            SchemaSettings::draft2020_12().with(|settings| {
                settings.definitions_path = "/components/schemas".into();
                settings.meta_schema = None;
            })
        };
        let answered = settings().for_serialize().with_transform(AbsentRatherThanNull);
        Self { read: settings().for_deserialize().into_generator(), answered: answered.into_generator() }
    }

    fn read(&mut self, schema: SchemaOf) -> Schema {
        schema(&mut self.read)
    }

    fn answered(&mut self, schema: SchemaOf) -> Schema {
        schema(&mut self.answered)
    }

    fn finish(mut self) -> Map<String, Value> {
        let mut all = self.answered.take_definitions(true);
        all.extend(self.read.take_definitions(true));
        all.sort_keys();
        all
    }
}

/// What an answer leaves out when there is nothing to say is never null either.
#[derive(Clone, Debug)]
struct AbsentRatherThanNull;

impl Transform for AbsentRatherThanNull {
    fn transform(&mut self, schema: &mut Schema) {
        let required: Vec<String> = schema
            .get("required")
            .and_then(|required| serde_json::from_value(required.clone()).ok())
            .unwrap_or_default();
        if let Some(Value::Object(properties)) = schema.get_mut("properties") {
            for (_, property) in properties.iter_mut().filter(|(name, _)| !required.contains(name)) {
                remove_null(property);
            }
        }
        transform_subschemas(self, schema);
    }
}

fn remove_null(schema: &mut Value) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [only] = types.as_slice() {
            schema["type"] = only.clone();
        }
    }
    if let Some(Value::Array(choices)) = schema.get_mut("anyOf") {
        choices.retain(|choice| choice["type"] != "null");
        if let ([Value::Object(only)], Value::Object(schema)) = (choices.clone().as_slice(), schema) {
            schema.shift_remove("anyOf");
            schema.extend(only.clone());
        }
    }
}

fn schema_of<T: JsonSchema>() -> SchemaOf {
    <SchemaGenerator>::subschema_for::<T>
}

#[cfg(test)]
mod tests;
