//! What describes the API, as files that the edge serves: `/v1/openapi.json`, and `/docs` for people.

mod page;
mod types;

use std::path::{Path, PathBuf};

/// The prose of the page. Its samples are run by the end-to-end tests.
const GUIDE: &str = include_str!("../guide.md");

/// Every file, with its path from the root of the checkout, and what belongs in it.
pub fn files() -> Vec<(PathBuf, String)> {
    let document = xora_shared::openapi::document();
    let page = page::of(&document, GUIDE);
    let assets = Path::new("edge/assets");
    vec![(assets.join("v1/openapi.json"), format!("{document:#}\n")), (assets.join("docs.html"), page)]
}

/// The root of the checkout.
pub fn root() -> &'static Path {
    // This crate stands directly below it.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new("."))
}
