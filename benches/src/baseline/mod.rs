//! The algorithms of the source documents, written anew: what bsdvm is measured against.
//!
//! | file | what |
//! |---|---|
//! | `red_black.rs` | a red-black tree by start, its entries also in a list |
//! | `first_fit.rs` | the search of that list for free space, entry after entry |
//! | `buddy.rs` | free frames as buddy lists and nothing before them |

pub mod buddy;
pub mod first_fit;
pub mod red_black;

pub use buddy::Buddy;
pub use red_black::RedBlack;
