//! A page of one object, touched without a map: the fault of objects used directly (O11).

use super::chain::{Chain, Found};
use super::device::{Answer, Question};
use super::pagein::PageIn;
use crate::Vm;
use crate::map::Behavior;
use crate::object::limbo::Limbo;
use crate::object::pages::BusyWait;
use crate::object::radix;
use crate::object::{ObjectError, ObjectHandle};
use crate::page::{Bits, Class};
use crate::slab::Reservation;
use bsdvm_machine::{Frame, Machine};

/// What is done with the page.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Touch {
    Read,
    Write,
}

/// How an attempt ended: done, or what is to be done with no lock held before the next one.
enum Touched {
    Done,
    Busy(BusyWait),
    PageIn(PageIn),
    Ask(Question),
    Again,
    NoFrame,
}

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
        let mut answer = None;
        loop {
            let mut limbo = Limbo::new(self);
            let mut nodes = self.reserve_page_nodes(1)?;
            let mut chain = Chain::lock(self, object, index);
            let touched = match chain.walk() {
                Found::Device(question) => self.touch_device(question, answer.take(), with)?,
                found => self.touch_once(&mut chain, found, touch, &mut nodes, &mut limbo, with),
            };
            drop(chain);
            match touched {
                Touched::Done => return Ok(()),
                Touched::Busy(wait) => self.wait_busy(wait),
                Touched::PageIn(job) => {
                    self.page_in(job, &mut limbo).map_err(ObjectError::Pager)?
                }
                Touched::Ask(question) => {
                    let asked = self.ask_device(question, &mut limbo);
                    answer = asked.map_err(ObjectError::Pager)?;
                }
                Touched::Again => {}
                Touched::NoFrame => self.reclaim_for_touch()?,
            }
        }
    }

    /// One attempt, under the locks of the chain.
    fn touch_once<'v>(
        &'v self,
        chain: &mut Chain<'v, M>,
        found: Found,
        touch: Touch,
        nodes: &mut Reservation<'_, M, radix::Node>,
        limbo: &mut Limbo<'_, M>,
        with: &mut dyn FnMut(Option<Frame>),
    ) -> Touched {
        let frame = match found {
            Found::Page(frame) if self.frames.page(frame).is_busy() => {
                return Touched::Busy(self.busy_wait(frame));
            }
            Found::Page(frame) if touch == Touch::Write && chain.is_behind() => {
                self.copy_to_front(chain, frame, nodes, limbo)
            }
            Found::Page(frame) => Some(frame),
            Found::Nothing if touch == Touch::Write => self.fill_front(chain, nodes),
            Found::Swapped(_) | Found::Pager(_) => {
                let job = self.begin_page_in(chain.last(), found, nodes, Behavior::Normal);
                return job.map_or(Touched::NoFrame, Touched::PageIn);
            }
            Found::Unfilled => {
                let Some(frame) = self.frames.alloc(Class::Normal) else {
                    return Touched::NoFrame;
                };
                self.fill_physical(chain.last(), nodes, frame);
                return Touched::Again;
            }
            Found::Nothing | Found::BeyondEnd | Found::Device(_) | Found::TooLong => {
                with(None);
                return Touched::Done;
            }
        };
        let Some(frame) = frame else {
            return Touched::NoFrame;
        };
        let page = self.frames.page(frame);
        page.set(Bits::REFERENCED);
        if touch == Touch::Write {
            page.clear(Bits::NO_SYNC);
            page.set(Bits::DIRTY);
        }
        with(Some(frame));
        Touched::Done
    }

    /// One attempt at a page of a device, under the lock of its object.
    fn touch_device(
        &self,
        question: Question,
        answer: Option<Answer>,
        with: &mut dyn FnMut(Option<Frame>),
    ) -> Result<Touched, ObjectError> {
        match self.answered(question, answer) {
            Ok(Some(page)) => {
                with(Some(page.frame));
                Ok(Touched::Done)
            }
            Ok(None) => Ok(Touched::Ask(question)),
            Err(e) => Err(ObjectError::Pager(e)),
        }
    }

    /// A fresh page in the front of a chain.
    fn fill_front(
        &self,
        chain: &mut Chain<'_, M>,
        nodes: &mut Reservation<'_, M, radix::Node>,
    ) -> Option<Frame> {
        let frame = self.frames.alloc(Class::Normal)?;
        self.machine().zero(frame);
        let front = chain.front();
        self.insert_page(front.object, &mut front.state, nodes, front.index, frame);
        Some(frame)
    }

    /// Gives the front of a chain a copy of a page that others see behind it, to be written.
    /// Whoever looks through the front must not see the old page any more.
    fn copy_to_front(
        &self,
        chain: &mut Chain<'_, M>,
        old: Frame,
        nodes: &mut Reservation<'_, M, radix::Node>,
        limbo: &mut Limbo<'_, M>,
    ) -> Option<Frame> {
        let new = self.frames.alloc(Class::Normal)?;
        self.machine().copy(old, new);
        self.frames.page(new).set(Bits::DIRTY | Bits::REFERENCED);
        let front = chain.front();
        let (object, index) = (front.object, front.index);
        self.insert_page(object, &mut front.state, nodes, index, new);
        self.unmap_page(old, limbo);
        if let Some((front, behind)) = chain.neighbours()
            && let Some(backing) = front.state.backing
        {
            self.drop_unreachable(object, index, backing, &mut behind.state, limbo);
        }
        Some(new)
    }

    /// Makes room for a frame.
    fn reclaim_for_touch(&self) -> Result<(), ObjectError> {
        let frame = self
            .wait_frame(Class::Normal)
            .ok_or(ObjectError::NoMemory)?;
        self.frames.free(frame);
        Ok(())
    }
}
