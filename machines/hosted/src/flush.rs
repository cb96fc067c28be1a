//! What is to be waited for after a translation was taken away or lowered.

use crate::orders::Decided;
use crate::space::Space;
use bsdvm_machine::Flush;
use std::sync::Arc;

/// Orders that some running guest thread has not carried out yet.
///
/// Empty from the start when no thread of the space runs: what is queued is carried out before
/// one does. Otherwise [`Flush::wait`] uses a parked thread of the space, or kicks a running one,
/// to carry the orders out.
#[derive(Default)]
#[must_use = "a frame may be reused only after the flush has been waited for"]
pub struct HostedFlush(Vec<(Arc<Space>, Decided)>);

impl std::fmt::Debug for HostedFlush {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("HostedFlush").field(&self.0.len()).finish()
    }
}

impl HostedFlush {
    /// The work that ends with order `decided` of `space`.
    pub(crate) fn of(space: Arc<Space>, decided: Decided) -> HostedFlush {
        HostedFlush(vec![(space, decided)])
    }
}

impl Flush for HostedFlush {
    fn join(&mut self, other: HostedFlush) {
        for (space, decided) in other.0 {
            match self.0.iter_mut().find(|(s, _)| Arc::ptr_eq(s, &space)) {
                Some((_, last)) => *last = decided.max(*last),
                None => self.0.push((space, decided)),
            }
        }
    }

    fn wait(self) {
        for (space, decided) in self.0 {
            space.wait_for(decided);
        }
    }

    fn is_done(&self) -> bool {
        self.0.iter().all(|(s, decided)| s.is_flushed(*decided))
    }
}
