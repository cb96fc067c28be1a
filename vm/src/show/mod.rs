//! What a person sees: maps, spaces, counters, and events as they happen.
//!
//! Everything here is a value that a kernel can print: it implements [`core::fmt::Display`] and
//! allocates nothing. No lock is held while the text is written: a map is copied entry by entry,
//! each with its chain of objects under the map's lock, so a map that others change meanwhile is
//! shown in pieces of which each is right.
//!
//! | file | what |
//! |---|---|
//! | `map.rs` | entries one by one, and `show map` (D01) |
//! | `chain.rs` | the objects behind an entry |
//! | `page.rs` | the pages of an object |
//! | `space.rs` | `procvm`: a space with its map and pmap (D02) |
//! | `counters.rs` | counters (D03) |
//! | `trace.rs` | events as they happen |

mod chain;
mod counters;
mod map;
mod page;
mod space;
mod trace;

pub use chain::ObjectInfo;
pub(crate) use counters::CounterSet;
pub use counters::Counters;
pub use map::{Entries, ShowMap, ShownEntry};
pub use page::{PageInfo, PagePlace, Pages};
pub use space::{ShowSpace, SpaceInfo};
pub use trace::{Event, FaultFor, Store, TraceSink, Verb, WiredBy};
