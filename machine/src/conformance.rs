//! The tests that every machine must pass.
//!
//! A port implements [`Probe`], which uses memory as a program does, and calls [`run`] from a
//! test. Each property is a function of its own in one of the modules below; a failure panics
//! with a message that names the property and says what was seen.
//!
//! The properties use a few pages at the start, in the middle and at the end of
//! [`Machine::user_range`], and [`FRAMES`] frames, three of them adjacent. They take back all that
//! they gave: after a run each frame is the caller's again. They run on one thread; races are for
//! the checkers.

use crate::{Access, Frame, Machine, VirtAddr};

pub mod changes;
pub mod enter;
mod rig;
pub mod usage;
pub mod world;

pub use rig::{FRAMES, Rig, Space};

/// An access that did not happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProbeFault {
    /// The address that could not be reached.
    pub va: VirtAddr,
    /// What was tried.
    pub access: Access,
}

/// Uses memory as a program does, on the processor that the caller runs on.
pub trait Probe: Machine {
    /// Code that returns at once: what the page that [`Probe::fetch`] is asked for begins with.
    const RETURN: &'static [u8] = &[0xc3];

    /// Whether a translation can allow loads and forbid instruction fetches. Where it cannot, the
    /// properties do not look at fetches.
    const EXEC_IS_SEPARATE: bool = true;

    /// Whether the processor sees each use by itself. A machine that cannot see reports more than
    /// was done ([`crate::Usage`]); the properties then ask only that nothing goes unreported.
    const USAGE_IS_EXACT: bool = true;

    /// Loads the byte at `va`. Errors: there is no translation that allows it.
    fn load(&self, pmap: &Self::Pmap, va: VirtAddr) -> Result<u8, ProbeFault>;

    /// Stores `value` at `va`. Errors: there is no translation that allows it.
    fn store(&self, pmap: &Self::Pmap, va: VirtAddr, value: u8) -> Result<(), ProbeFault>;

    /// Executes, or fetches, what is at `va`. Errors: there is no translation that allows it.
    fn fetch(&self, pmap: &Self::Pmap, va: VirtAddr) -> Result<(), ProbeFault>;
}

/// A property: its name and the function that panics when it does not hold.
type Property<M> = (&'static str, fn(&Rig<'_, M>));

/// Lists functions of a module under their own names.
macro_rules! properties {
    ($($module:ident :: $name:ident),* $(,)?) => {
        &[$((concat!(stringify!($module), "::", stringify!($name)), $module::$name)),*]
    };
}

struct Properties<M>(core::marker::PhantomData<M>);

impl<M: Probe> Properties<M> {
    const ALL: &'static [Property<M>] = properties![
        enter::a_mapped_page_is_its_frame,
        enter::a_run_maps_its_frames_in_order,
        enter::a_run_crosses_tables,
        enter::a_frame_can_be_mapped_twice,
        enter::protection_is_honoured,
        enter::what_is_replaced_is_told,
        enter::a_fault_can_be_answered_with_more_rights,
        enter::frames_asked_for_are_enough,
        enter::a_refusal_for_frames_changes_nothing,
        enter::the_edges_of_the_range_can_be_mapped,
        enter::outside_of_the_range_is_a_bad_address,
        enter::two_pmaps_know_nothing_of_each_other,
        changes::remove_tells_each_once_in_order,
        changes::remove_leaves_the_rest,
        changes::removed_pages_cannot_be_reached,
        changes::a_flush_ends_the_use_of_a_replaced_frame,
        changes::flushes_join,
        changes::protect_lowers,
        changes::protect_never_raises,
        changes::protect_none_keeps_translations,
        changes::a_copy_cannot_be_written,
        changes::reclaim_gives_all_frames_back,
        changes::reclaim_leaves_what_is_mapped,
        usage::extract_tells_what_was_entered,
        usage::scan_is_in_order_and_agrees_with_extract,
        usage::resident_counts_pages,
        usage::use_is_seen,
        usage::use_is_taken_once_and_seen_again,
        usage::only_the_named_bits_are_taken,
        usage::remove_and_replace_tell_of_use,
        usage::protect_keeps_use,
        usage::a_store_after_entering_again_is_seen,
        world::zero_clears_all_of_a_frame,
        world::copy_copies_all_of_a_frame,
        world::bytes_are_read_as_written,
        world::words_are_exchanged_in_one_piece,
        world::a_discarded_frame_can_be_used_again,
        world::record_memory_is_a_page_that_stays,
        world::a_wake_before_the_sleep_ends_it,
        world::a_deadline_that_is_past_ends_a_sleep,
        world::locks_exclude,
        world::time_and_processors_make_sense,
    ];
}

/// Runs every property on `machine`. `frames` gives frames that nobody else uses, each once;
/// [`FRAMES`] are asked for.
///
/// Panics when a property does not hold.
pub fn run<M: Probe>(machine: &M, frames: &mut dyn FnMut() -> Frame) {
    let mut rig = Rig::new(machine, frames);
    for (name, property) in Properties::<M>::ALL {
        rig.begin(name);
        property(&rig);
    }
}
