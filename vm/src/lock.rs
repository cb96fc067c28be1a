//! The ladder of locks: a rank for each, taken in ascending order.
//!
//! | rank | lock | guards |
//! |---|---|---|
//! | 20 | map | entries and tree of one space ([`crate::map::MapState`]) |
//! | 30 | object | pages, chain and size of one object; front before backing |
//! | 40 | pmap | translations of one space, together with their rmap records |
//! | 50 | rmap | who maps a frame; striped by frame |
//! | 60 | queues | the page queues |
//! | 70 | slab | the free list of one slab |
//! | 80 | magazine | free frames of one processor |
//! | 81 | buddy | free runs of frames |
//! | 85 | swap | free slots of the swap space |
//! | 86 | watchers | who hears of shortages |
//! | 87 | zone magazine | items of a zone that one processor has |
//! | 88 | zone | slabs of a zone |
//!
//! Ranks below 20 belong to the caller.

use bsdvm_machine::sync;

pub(crate) const MAP: u8 = 20;
pub(crate) const OBJECT: u8 = 30;
pub(crate) const PMAP: u8 = 40;
pub(crate) const RMAP: u8 = 50;
pub(crate) const QUEUES: u8 = 60;
pub(crate) const SLAB: u8 = 70;
pub(crate) const MAGAZINE: u8 = 80;
pub(crate) const BUDDY: u8 = 81;
pub(crate) const SWAP: u8 = 85;
pub(crate) const WATCHERS: u8 = 86;
pub(crate) const ZONE_MAGAZINE: u8 = 87;
pub(crate) const ZONE: u8 = 88;

pub(crate) use sync::{Mutex, MutexGuard, RwLock, WriteGuard};
