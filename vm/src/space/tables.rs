//! Translations that a child gets at fork (S05): a child that goes on from where its parent was
//! touches the same pages at once, and each would cost a fault.
//!
//! Only short entries are copied, text, data and stacks of ordinary programs: a fork has to look
//! at each page of what it copies and to record each, so what is large is left to faults. It is a
//! hint: a machine copies what it likes, and records and tables that cannot be had are not waited
//! for.

use super::Space;
use crate::object::limbo::Limbo;
use crate::page::Class;
use crate::page::rmap::{Chunk, Mapping};
use bsdvm_machine::{Kind, Machine, Pmap, VirtRange};

/// Pages of the longest entry whose translations are copied.
const SHORT: u64 = 32;

impl<M: Machine> Space<'_, M> {
    /// Enters in `child`, without write access, what this space has entered in `range`, which both
    /// map to the same pages. Both maps are locked: nobody faults on either.
    pub(super) fn copy_translations(
        self,
        child: Space<'_, M>,
        range: VirtRange,
        limbo: &mut Limbo<'_, M>,
    ) {
        let vm = self.vm;
        let pages = M::PAGE.index(range.len());
        if pages > SHORT {
            return;
        }
        let chunks = vm
            .rmap
            .chunks
            .reserve(&vm.frames, pages as u32, Chunk::vacant);
        let Ok(mut chunks) = chunks else { return };
        // The child's first, as nobody else knows it.
        let to = child.rec().pmap.lock();
        let from = self.rec().pmap.lock_nested();
        let (Some(to), Some(from)) = (to.as_ref(), from.as_ref()) else {
            return;
        };
        let mut found = false;
        from.scan(range, &mut |_, t| found |= t.kind == Kind::Managed);
        if !found {
            return;
        }
        let mut copy = || {
            let mut copied = false;
            // The parent's translation of each page is there, under the lock: whoever takes the
            // page's translations away comes after, and finds the child's.
            let flush = to.copy(from, range, &mut |va, frame| {
                let space = child.handle;
                let mapping = Mapping { space, va };
                let page = vm.frames.page(frame);
                vm.rmap.add(frame, page, mapping, &mut chunks);
                copied = true;
            });
            (copied, flush)
        };
        limbo.begin();
        let (copied, flush) = copy();
        limbo.add_flush(flush);
        // Most likely the child lacks a table, which its first fault would give it.
        if !copied && let Some(frame) = vm.frames.alloc(Class::Normal) {
            to.donate(frame);
            limbo.add_flush(copy().1);
        }
    }
}
