//! What edge and node agree on.
//!
//! Pure Rust for both targets: no I/O, async, clock or randomness. Time and random bytes are arguments.

pub mod failure;
pub mod job;
pub mod media;
pub mod report;
