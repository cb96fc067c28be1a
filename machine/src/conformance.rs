//! The tests that every machine must pass.
