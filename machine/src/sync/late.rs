//! Atomics of loom that are made where they stand, in constants and statics too: loom's own are
//! known to a running model and so cannot be constants. One of these is given to loom when it is
//! used first.

use core::sync::atomic::Ordering;
use std::sync::OnceLock;

macro_rules! late {
    ($($name:ident: $value:ty),* $(,)?) => {
        $(
            /// An atomic that loom knows from its first use on.
            #[derive(Debug)]
            pub struct $name {
                first: $value,
                known: OnceLock<loom::sync::atomic::$name>,
            }

            impl $name {
                /// A new atomic.
                pub const fn new(value: $value) -> Self {
                    $name {
                        first: value,
                        known: OnceLock::new(),
                    }
                }

                fn known(&self) -> &loom::sync::atomic::$name {
                    self.known
                        .get_or_init(|| loom::sync::atomic::$name::new(self.first))
                }

                /// As of `core`.
                #[track_caller]
                pub fn load(&self, order: Ordering) -> $value {
                    self.known().load(order)
                }

                /// As of `core`.
                #[track_caller]
                pub fn store(&self, value: $value, order: Ordering) {
                    self.known().store(value, order);
                }

                /// As of `core`.
                #[track_caller]
                pub fn swap(&self, value: $value, order: Ordering) -> $value {
                    self.known().swap(value, order)
                }

                /// As of `core`.
                ///
                /// # Errors
                /// What is there, when it is not `old`.
                #[track_caller]
                pub fn compare_exchange(
                    &self,
                    old: $value,
                    new: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    self.known().compare_exchange(old, new, success, failure)
                }

                /// As of `core`, but that it never fails for no reason.
                ///
                /// # Errors
                /// What is there, when it is not `old`.
                #[track_caller]
                pub fn compare_exchange_weak(
                    &self,
                    old: $value,
                    new: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    self.known().compare_exchange(old, new, success, failure)
                }

                /// As of `core`.
                ///
                /// # Errors
                /// What is there, when `with` gives nothing for it.
                #[track_caller]
                pub fn fetch_update(
                    &self,
                    set: Ordering,
                    fetch: Ordering,
                    with: impl FnMut($value) -> Option<$value>,
                ) -> Result<$value, $value> {
                    self.known().fetch_update(set, fetch, with)
                }
            }

            impl Default for $name {
                fn default() -> Self {
                    $name::new(<$value>::default())
                }
            }
        )*
    };
}

macro_rules! numbers {
    ($($name:ident: $value:ty),* $(,)?) => {
        $(
            impl $name {
                /// As of `core`.
                #[track_caller]
                pub fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                    self.known().fetch_add(value, order)
                }

                /// As of `core`.
                #[track_caller]
                pub fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                    self.known().fetch_sub(value, order)
                }

                /// As of `core`.
                #[track_caller]
                pub fn fetch_and(&self, value: $value, order: Ordering) -> $value {
                    self.known().fetch_and(value, order)
                }

                /// As of `core`.
                #[track_caller]
                pub fn fetch_or(&self, value: $value, order: Ordering) -> $value {
                    self.known().fetch_or(value, order)
                }

                /// As of `core`.
                #[track_caller]
                pub fn fetch_max(&self, value: $value, order: Ordering) -> $value {
                    self.known().fetch_max(value, order)
                }
            }
        )*
    };
}

late! {
    AtomicBool: bool,
    AtomicU8: u8,
    AtomicU16: u16,
    AtomicU32: u32,
    AtomicU64: u64,
    AtomicUsize: usize,
}

numbers! {
    AtomicU8: u8,
    AtomicU16: u16,
    AtomicU32: u32,
    AtomicU64: u64,
    AtomicUsize: usize,
}
