//! The page: prose first, then every operation by group, then every type. No script, nothing from elsewhere.

#![expect(clippy::wildcard_enum_match_arm, reason = "the enums are Markdown's, not ours")]

use pulldown_cmark::{CowStr, Event, Options, Parser, Tag, TagEnd, html::push_html};
use serde_json::{Map, Value};

use crate::types;

const STYLE: &str = include_str!("page.css");

/// The page of a document and its prose.
pub fn of(document: &Value, guide: &str) -> String {
    let groups = groups(document);
    let (prose, chapters) = prose(guide);
    let reference: String = groups.iter().map(|group| group.html(&document["components"]["responses"])).collect();
    let schemas = &document["components"]["schemas"];
    format!(
        r##"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title} API</title>
<link rel="icon" href="data:,">
<style>
{STYLE}</style>
</head>
<body>
<nav>
<input type="checkbox" id="menu">
<p class="title"><a href="#top">{title} API</a> <small>{version}</small> <label for="menu">Contents</label></p>
<div class="contents">
{contents}
</div>
</nav>
<main id="top">
{prose}
{reference}
<section id="types">
<h2>Types</h2>
{types}
</section>
<footer>This page is generated from <a href="/v1/openapi.json">openapi.json</a>, which is generated from the types that
the service is made of.</footer>
</main>
</body>
</html>
"##,
        title = text(&document["info"]["title"]),
        version = text(&document["info"]["version"]),
        contents = contents(&chapters, &groups),
        types = types::all(schemas),
    )
}

/// The operations of one tag.
struct Group<'a> {
    name: &'a str,
    description: &'a str,
    operations: Vec<Operation<'a>>,
}

/// What one or more methods of a path do.
struct Operation<'a> {
    methods: Vec<String>,
    path: &'a str,
    json: &'a Value,
}

fn groups(document: &Value) -> Vec<Group<'_>> {
    items(&document["tags"])
        .map(|tag| Group {
            name: str(&tag["name"]),
            description: str(&tag["description"]),
            operations: operations(document, &tag["name"]),
        })
        .collect()
}

fn operations<'a>(document: &'a Value, tag: &Value) -> Vec<Operation<'a>> {
    let mut all: Vec<Operation<'_>> = Vec::new();
    for (path, methods) in entries(&document["paths"]) {
        for (method, json) in entries(methods).filter(|(_, json)| json["tags"][0] == *tag) {
            match all.last_mut() {
                Some(before) if before.path == path && before.json["summary"] == json["summary"] => {
                    before.methods.push(method.to_uppercase());
                }
                _ => all.push(Operation { methods: vec![method.to_uppercase()], path, json }),
            }
        }
    }
    all
}

fn contents(chapters: &[(String, String)], groups: &[Group<'_>]) -> String {
    let link = |id: &str, name: &str| format!("<li><a href=\"#{id}\">{}</a></li>\n", escape(name));
    let chapters: String = chapters.iter().map(|(id, name)| link(id, name)).collect();
    let group = |group: &Group<'_>| {
        let links = group.operations.iter().map(|operation| link(&operation.id(), str(&operation.json["summary"])));
        let (id, name, links) = (group.id(), escape(group.name), links.collect::<String>());
        format!("<p><a href=\"#{id}\">{name}</a></p>\n<ul>\n{links}</ul>\n")
    };
    let groups: String = groups.iter().map(group).collect();
    format!("<ul>\n{chapters}</ul>\n{groups}<p><a href=\"#types\">Types</a></p>\n")
}

impl Group<'_> {
    fn id(&self) -> String {
        self.name.to_lowercase()
    }

    fn html(&self, usual: &Value) -> String {
        let operations: String = self.operations.iter().map(|operation| operation.html(usual)).collect();
        let (id, name, description) = (self.id(), escape(self.name), escape(self.description));
        format!("<section id=\"{id}\">\n<h2>{name}</h2>\n<p>{description}</p>\n{operations}</section>\n")
    }
}

impl Operation<'_> {
    fn id(&self) -> String {
        str(&self.json["operationId"]).to_owned()
    }

    /// `usual` are the answers that many operations share.
    fn html(&self, usual: &Value) -> String {
        let Self { methods, path, json } = self;
        let badge = |method: &String| format!("<b class=\"{}\">{method}</b> ", method.to_lowercase());
        let methods: String = methods.iter().map(badge).collect();
        let scope = match json["x-scope"].as_str() {
            Some(scope) => format!("<p class=\"scope\">Needs a key with the scope <code>{scope}</code>.</p>\n"),
            None => "<p class=\"scope\">Needs no key.</p>\n".to_owned(),
        };
        format!(
            "<article id=\"{id}\">\n<h3>{summary}</h3>\n<p class=\"call\">{methods}\
             <code>{path}</code></p>\n{description}{scope}{parameters}{body}{answers}</article>\n",
            id = self.id(),
            summary = text(&json["summary"]),
            path = escape(path).replace('/', "/<wbr>"),
            description = inline_prose(str(&json["description"])),
            parameters = parameters(&json["parameters"]),
            body = body(&json["requestBody"]["content"]["application/json"]),
            answers = answers(&json["responses"], usual),
        )
    }
}

fn parameters(parameters: &Value) -> String {
    let rows: String = items(parameters)
        .map(|parameter| {
            let place = format!("{}, {}", str(&parameter["in"]), types::name(&parameter["schema"]));
            let required = parameter["required"] == true;
            types::row(str(&parameter["name"]), &place, required, str(&parameter["description"]))
        })
        .collect();
    if rows.is_empty() { rows } else { format!("<h4>Parameters</h4>\n{}", types::table(&rows)) }
}

fn body(content: &Value) -> String {
    if content.is_null() {
        return String::new();
    }
    let examples: String =
        entries(&content["examples"]).map(|(name, example)| sample(name, &example["value"])).collect();
    format!("<h4>Body</h4>\n<p>{}</p>\n{examples}", types::name(&content["schema"]))
}

fn answers(responses: &Value, usual: &Value) -> String {
    let all: Vec<_> = entries(responses).map(|(status, response)| (status, resolved(response, usual))).collect();
    let row = |(status, response): &(&str, &Value)| {
        let kind = content(response).map_or_else(String::new, |content| types::name(&content["schema"]));
        let description = inline_prose(str(&response["description"]));
        format!("<tr><td><code>{status}</code></td><td>{kind}</td><td>{description}</td></tr>\n")
    };
    let rows: String = all.iter().map(row).collect();
    let good = all.iter().filter(|(status, _)| status.starts_with('2'));
    let examples: String = good
        .filter_map(|(status, response)| Some((status, content(response)?.get("example")?)))
        .map(|(status, example)| sample(&format!("{status}, for example"), example))
        .collect();
    format!("<h4>Answers</h4>\n<div class=\"wide\"><table>\n{rows}</table></div>\n{examples}")
}

/// The response that is meant, which may stand among those that many operations share.
fn resolved<'a>(response: &'a Value, usual: &'a Value) -> &'a Value {
    let name = response["$ref"].as_str().and_then(|path| path.rsplit('/').next());
    name.map_or(response, |name| &usual[name])
}

/// What a response carries, whatever its media type.
fn content(response: &Value) -> Option<&Value> {
    entries(&response["content"]).next().map(|(_, content)| content)
}

fn sample(name: &str, value: &Value) -> String {
    let json = escape(&format!("{value:#}"));
    format!("<details><summary>{}</summary>\n<pre><code>{json}</code></pre></details>\n", escape(name))
}

/// The prose as HTML, and its chapters as id and name.
fn prose(markdown: &str) -> (String, Vec<(String, String)>) {
    let mut chapters = Vec::new();
    let mut events: Vec<Event<'_>> = Parser::new_ext(markdown, Options::ENABLE_TABLES).collect();
    for index in 0..events.len() {
        let Event::Start(Tag::Heading { level, .. }) = events[index] else { continue };
        let name: String = events[index..]
            .iter()
            .take_while(|event| !matches!(event, Event::End(TagEnd::Heading(_))))
            .filter_map(|event| match event {
                Event::Text(text) | Event::Code(text) => Some(text.as_ref()),
                _ => None,
            })
            .collect();
        let id = name.to_lowercase().replace(|letter: char| !letter.is_alphanumeric(), "-");
        if let Event::Start(Tag::Heading { id: anchor, .. }) = &mut events[index] {
            *anchor = Some(CowStr::from(id.clone()));
        }
        if level == pulldown_cmark::HeadingLevel::H2 {
            chapters.push((id, name));
        }
    }
    let mut html = String::new();
    push_html(&mut html, events.into_iter());
    (html.replace("<table>", "<div class=\"wide\"><table>").replace("</table>", "</table></div>"), chapters)
}

/// Descriptions are Markdown too.
pub fn inline_prose(markdown: &str) -> String {
    let mut html = String::new();
    push_html(&mut html, Parser::new(markdown));
    html
}

/// Text that HTML shows as it stands.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn text(value: &Value) -> String {
    escape(str(value))
}

/// The text of a value that should be text; nothing otherwise.
pub fn str(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The entries of a value that should be an object; none otherwise.
pub fn entries(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter).map(|(name, value)| (name.as_str(), value))
}

/// The items of a value that should be a list; none otherwise.
pub fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
