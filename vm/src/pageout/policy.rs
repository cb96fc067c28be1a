//! Which page is next: second chance, from the inactive queue, which is kept filled from the
//! active one.

use crate::Vm;
use crate::page::{Bits, Queue};
use bsdvm_machine::{Frame, Machine};

/// How many pages one step looks at, at most: each twice, so that reference bits found set the
/// first time count.
pub(super) fn budget<M: Machine>(vm: &Vm<M>) -> u64 {
    let pages = vm.queues.count(Queue::Active) + vm.queues.count(Queue::Inactive);
    2 * pages + 1
}

/// Pages of the active queue that are looked at together, so that neighbours stay neighbours on
/// their way out.
const REFILL: u64 = 32;

/// The next candidate: an inactive page. `None` when there is none after one look at every active
/// page; with another look there may be.
pub(super) fn next<M: Machine>(vm: &Vm<M>) -> Option<Frame> {
    let active = vm.queues.count(Queue::Active);
    let short = vm.queues.count(Queue::Inactive) * 2 < active;
    for looked in 0..active {
        let enough = !short || looked >= REFILL;
        if enough && vm.queues.count(Queue::Inactive) > 0 {
            break;
        }
        if let Some(frame) = vm.queues.rotate(&vm.frames, Queue::Active) {
            deactivate(vm, frame);
        }
    }
    vm.queues.rotate(&vm.frames, Queue::Inactive)
}

/// Moves a page that was not used since the last look to the inactive queue. The bit of the
/// record alone is looked at; those of its translations are when it is about to go.
fn deactivate<M: Machine>(vm: &Vm<M>, frame: Frame) {
    let page = vm.frames.page(frame);
    let Some((object, index)) = page.identity() else {
        return;
    };
    let _state = vm.lock_object(object);
    // A busy page may be on its way out, and is on no queue then.
    if page.identity() != Some((object, index)) || page.wired() > 0 || page.is_busy() {
        return;
    }
    if page.clear(Bits::REFERENCED).is_empty() {
        vm.queues.put(&vm.frames, frame, Queue::Inactive);
    } else {
        vm.counters.reactivated.bump();
    }
}
