//! The files that programs see.
//!
//! * [`walk`]: from a path to a file of the host, links followed on the way;
//! * [`open`]: opening and making files;
//! * [`names`]: changes to names;
//! * [`nine`]: an open file of the host;
//! * [`device`]: the memory devices, which the server does not open;
//! * [`standard`]: the runner's standard input, output and error;
//! * [`file`]: any of them, as the personality has it.

pub(crate) mod device;
pub(crate) mod file;
pub(crate) mod names;
pub(crate) mod nine;
pub(crate) mod open;
pub(crate) mod standard;
pub(crate) mod walk;

pub(crate) use file::File;
pub(crate) use walk::Tree;
