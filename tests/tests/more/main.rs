//! What is too slow for every change: `make test-more`.

mod fuzz;
