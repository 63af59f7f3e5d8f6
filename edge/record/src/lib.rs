//! The record of a shard: its schema, and the statements that read and change it, as text.
//!
//! They stand apart from the Worker so that a native test can run them over a real SQLite and count what each costs
//! (`tests/cost.rs`): a statement must cost the same in a shard with 100,000 jobs as in one with 100.

pub mod schema;
pub mod statements;
