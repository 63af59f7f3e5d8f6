//! What edge and node agree on.
//!
//! Pure Rust for both targets: no I/O, async, clock or randomness. Time and random bytes are arguments.

pub mod answer;
pub mod cors;
pub mod delivery;
pub mod failure;
pub mod id;
pub mod job;
pub mod json;
pub mod known;
pub mod media;
pub mod net;
pub mod nodes;
#[cfg(feature = "openapi")]
pub mod openapi;
pub mod preset;
pub mod protocol;
pub mod provider;
pub mod refusal;
pub mod removal;
pub mod report;
pub mod request;
pub mod route;
pub mod s3;
pub mod seal;
pub mod settings;
pub mod shards;
pub mod sign;
pub mod time;
pub mod token;
pub mod upload;
pub mod webhook;
