//! How many pages of zeroes a write makes at once (O05, O06): where a program writes to private
//! memory page after page, the next ones are made with the one that it writes to, in adjacent
//! frames, and entered in one go.
//!
//! ```text
//!  pages below that are in memory     0  1  2-3  4-7  8-15  ...
//!  pages that are made                1  2   4    8    16       as far as Config::zero_run goes
//! ```
//!
//! So a lone page stays alone, and memory that is used in order holds at most as much again as was
//! used, and never more than the limit too much. It is a guess, made only where it harms nobody: a
//! quarter of memory has to be free, nothing is wired, and all is private to the entry.

use super::chain::Chain;
use super::{Fault, Purpose};
use crate::map::{Behavior, Entry, Flags, Kind};
use bsdvm_machine::{Access, FrameRun, Machine};

/// Pages whose slots lie in one node of an object's index: what is reserved for one page is enough
/// for all of them.
const NODE: u64 = 64;

impl<'v, M: Machine> Fault<'v, '_, M> {
    /// Frames for the page that is wanted and for those after it; `None` where it is to be alone.
    pub(super) fn zero_run(&self, entry: &Entry, chain: &mut Chain<'v, M>) -> Option<FrameRun> {
        let vm = self.space.vm;
        let most = vm.zero_run.min(NODE as u32);
        let alone = most < 2
            || self.spare.is_some()
            || self.access != Access::Write
            || !matches!(self.purpose, Purpose::Enter)
            || chain.is_behind()
            || entry.wired > 0
            || entry.has(Flags::SHARED)
            || !matches!(entry.kind(), Kind::Normal);
        if alone || !vm.frames.has_plenty() {
            return None;
        }
        let front = chain.front();
        if !front.state.is_anonymous() || front.state.own_wirings() > 0 {
            return None;
        }
        let room = M::PAGE.index(entry.end.0 - self.va.0);
        let size = front.state.size::<M>().saturating_sub(front.index);
        let room = room.min(size).min(NODE - front.index % NODE);
        let pages = &front.state.pages;
        let held = |index| pages.get(&vm.page_nodes, index).is_some();
        let wish = match entry.behavior {
            Behavior::Random => return None,
            Behavior::Sequential => u64::from(most),
            Behavior::Normal => {
                let below = (1..=u64::from(most) / 2).take_while(|n| {
                    let index = front.index.checked_sub(*n);
                    index.is_some_and(held)
                });
                2 * below.count() as u64
            }
        };
        let empty = (1..wish.min(room)).take_while(|n| !held(front.index + n));
        let count = empty.count() as u64 + 1;
        let order = count.ilog2();
        if order == 0 {
            return None;
        }
        vm.frames.alloc_run(order)
    }
}
