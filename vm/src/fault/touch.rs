//! A page of one object, touched without a map: the fault of objects used directly (O11).

use super::chain::{Chain, Found};
use crate::Vm;
use crate::object::limbo::Limbo;
use crate::object::{ObjectError, ObjectHandle};
use crate::page::{Bits, Class};
use bsdvm_machine::{Frame, Machine};

/// What is done with the page.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Touch {
    Read,
    Write,
}

/// Frames that a touch wants freed when it finds none.
const RECLAIM: u32 = 16;

impl<M: Machine> Vm<M> {
    /// Calls `with` with the page at `index` of `object`, under its lock; with `None` for a read
    /// of a page that nobody has written. Pages in what is missing.
    pub(crate) fn touch_page(
        &self,
        object: ObjectHandle,
        index: u64,
        touch: Touch,
        with: &mut dyn FnMut(Option<Frame>),
    ) -> Result<(), ObjectError> {
        loop {
            let mut limbo = Limbo::new(self);
            let mut nodes = self.reserve_page_nodes(1)?;
            let mut chain = Chain::lock(self, object, index);
            let found = chain.walk();
            match found {
                Found::Page(frame) if self.frames.page(frame).is_busy() => {
                    let wait = self.busy_wait(frame);
                    drop(chain);
                    self.wait_busy(wait);
                }
                Found::Page(frame) => {
                    let page = self.frames.page(frame);
                    page.set(Bits::REFERENCED);
                    if touch == Touch::Write {
                        page.set(Bits::DIRTY);
                    }
                    with(Some(frame));
                    return Ok(());
                }
                Found::Nothing if touch == Touch::Read => {
                    with(None);
                    return Ok(());
                }
                Found::Nothing => {
                    if let Some(frame) = self.frames.alloc(Class::Normal) {
                        self.machine().zero(frame);
                        self.frames.page(frame).set(Bits::DIRTY);
                        let front = chain.front();
                        self.insert_page(object, &mut front.state, &mut nodes, index, frame);
                        with(Some(frame));
                        return Ok(());
                    }
                    drop(chain);
                    self.reclaim_for_touch()?;
                }
                Found::Swapped(_) | Found::Pager(_) => {
                    let job = self.begin_page_in(chain.last(), found, &mut nodes);
                    drop(chain);
                    match job {
                        Some(job) => self.page_in(job, &mut limbo).map_err(ObjectError::Pager)?,
                        None => self.reclaim_for_touch()?,
                    }
                }
                Found::BeyondEnd | Found::TooLong => {
                    with(None);
                    return Ok(());
                }
            }
        }
    }

    fn reclaim_for_touch(&self) -> Result<(), ObjectError> {
        if self.pageout_step(RECLAIM) > 0 {
            Ok(())
        } else {
            Err(ObjectError::NoMemory)
        }
    }
}
