//! Panics on demand, in local builds only: the tests prove with them that a panic in one request touches no other.

use worker::{Env, Response, Result};

use crate::shard;

/// The path that panics in the Worker.
const WORKER: &str = "/panic/worker";
/// The path that panics in the first shard.
const OBJECT: &str = "/panic/object";

/// Panics if that is what the path asks for, here or in the object that it asks.
pub async fn on_demand(path: &str, env: &Env) -> Result<Option<Response>> {
    assert!(path != WORKER, "on demand, in the Worker");
    if path != OBJECT {
        return Ok(None);
    }
    let stub = shard::stub(env, 0).map_err(|error| worker::Error::RustError(error.to_string()))?;
    stub.fetch_with_str(&format!("https://object{OBJECT}")).await.map(Some)
}

/// Panics if that is what the object is asked.
pub fn in_object(path: &str) {
    assert!(path != OBJECT, "on demand, in the object");
}
