//! A client of 9P2000.L, the file protocol that QEMU's `virtio-9p` speaks.
//!
//! * [`message`]: requests and answers as bytes;
//! * [`client`]: one call for each request.
//!
//! One request is under way at a time, and waited for without giving way: the server is a part of
//! QEMU and answers at once.
//!
//! What is absent: extended attributes, locks, authentication, and names with more than one
//! server.

pub(crate) mod client;
mod message;

pub(crate) use client::{Client, Fid, SetAttr, Time};
pub(crate) use message::Qid;
