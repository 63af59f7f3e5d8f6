//! Faults of the platform on demand, in local builds only: `wrangler dev` has a KV that never lags and objects that never
//! fail. `GET /faults/kv/fails`, `/faults/kv/lags`, `/faults/kv/works`, `/faults/shard/3` and `/faults/shard/none` switch
//! them for this isolate, which locally is the only one.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
};

use worker::{Response, Result};

use crate::error::{ApiError, Code};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kv {
    /// As it is.
    Works,
    /// Every call fails.
    Fails,
    /// A key that was read keeps the value it had, or stays missing, as a location's cache has it.
    Lags,
}

thread_local! {
    static KV: Cell<Kv> = const { Cell::new(Kv::Works) };
    /// What was read of each key while KV worked.
    static READ: RefCell<HashMap<String, Option<String>>> = RefCell::default();
    /// The shard that fails.
    static SHARD: Cell<Option<u16>> = const { Cell::new(None) };
}

/// Switches a fault if that is what the path asks for.
pub fn on_demand(path: &str) -> Option<Result<Response>> {
    match path.strip_prefix("/faults/")?.split_once('/')? {
        ("kv", "works") => KV.set(Kv::Works),
        ("kv", "fails") => KV.set(Kv::Fails),
        ("kv", "lags") => KV.set(Kv::Lags),
        ("shard", number) => SHARD.set(number.parse().ok()),
        _ => return None,
    }
    Some(Response::ok("{}"))
}

/// What a lagging KV answers, if it is asked.
#[expect(clippy::option_option, reason = "not asked, no value, and a value are three things")]
pub fn kv_get(key: &str) -> Result<Option<Option<String>>, ApiError> {
    match KV.get() {
        Kv::Works => Ok(None),
        Kv::Fails => Err(fails("KV")),
        Kv::Lags => Ok(READ.with_borrow(|read| read.get(key).cloned())),
    }
}

/// Remembers what KV answered.
pub fn kv_has(key: &str, value: Option<&String>) {
    READ.with_borrow_mut(|read| read.insert(key.to_owned(), value.cloned()));
}

/// Fails where writing is to fail.
pub fn kv_put() -> Result<(), ApiError> {
    if KV.get() == Kv::Fails { Err(fails("KV")) } else { Ok(()) }
}

/// Fails where this shard is to fail.
pub fn shard(number: u16) -> Result<(), ApiError> {
    if SHARD.get() == Some(number) { Err(fails("the shard")) } else { Ok(()) }
}

fn fails(what: &str) -> ApiError {
    ApiError::new(Code::Internal, format!("{what} fails, as a test wants"))
}
