//! The node.
#![allow(dead_code)]
mod ipc;
fn main() {}
