//! Benchmarks: programs that print tables, each contender of a table measured in turn in one run.
//!
//! | program | what it measures |
//! |---|---|
//! | `maps` | lookup, churn and first fit in maps of 10 to a million entries |
//! | `pages` | the index of an object's pages; free frames |
//! | `core` | locks, records and frames for each operation of the core |
//! | `hosted` | system calls and faults of the hosted machine against native ones |
//! | `programs` | programs under `bsdvm run` against the same run natively |
//!
//! `cargo xtask bench` runs them all.

pub mod baseline;
pub mod counted;
pub mod flat;
pub mod programs;
pub mod rounds;
pub mod table;
