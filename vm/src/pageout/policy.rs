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

/// The next candidate.
pub(super) fn next<M: Machine>(vm: &Vm<M>) -> Option<Frame> {
    let (active, inactive) = (
        vm.queues.count(Queue::Active),
        vm.queues.count(Queue::Inactive),
    );
    if inactive * 2 < active
        && let Some(frame) = vm.queues.rotate(&vm.frames, Queue::Active)
    {
        deactivate(vm, frame);
    }
    vm.queues
        .rotate(&vm.frames, Queue::Inactive)
        .or_else(|| vm.queues.rotate(&vm.frames, Queue::Active))
}

/// Moves a page that was not used since the last look to the inactive queue. The bit of the
/// record alone is looked at; those of its translations are when it is about to go.
fn deactivate<M: Machine>(vm: &Vm<M>, frame: Frame) {
    let page = vm.frames.page(frame);
    let Some((object, index)) = page.identity() else {
        return;
    };
    let _state = vm.lock_object(object);
    let ours = page.identity() == Some((object, index));
    if ours && page.wired() == 0 && page.clear(Bits::REFERENCED).is_empty() {
        vm.queues.put(&vm.frames, frame, Queue::Inactive);
    }
}
