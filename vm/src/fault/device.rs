//! The frame of a device (O01).
//!
//! The device is asked with no lock held, and its answer is for one attempt: were the object's
//! translations revoked meanwhile, the attempt asks again. Nothing is inserted anywhere: a device
//! has no pages.

use super::{Fault, FaultError, Faulted, Next, Purpose};
use crate::Vm;
use crate::map::Entry;
use crate::object::limbo::Limbo;
use crate::object::{ObjectHandle, Owned};
use crate::pager::{DevicePage, Pager, PagerError};
use bsdvm_machine::{Frame, FrameRun, Kind, Machine};

/// What a device is to be asked.
#[derive(Clone, Copy)]
pub(crate) struct Question {
    pub(crate) object: ObjectHandle,
    pub(crate) index: u64,
    /// The count of the object when the question came up.
    pub(crate) revokes: u64,
    pub(crate) pager: Pager,
    pub(crate) owned: Owned,
}

/// What a device said, and what it had been asked.
#[derive(Clone, Copy)]
pub(crate) struct Answer {
    question: Question,
    page: DevicePage,
}

impl Answer {
    /// The answer, if it still is one to `question`.
    fn to(self, question: Question) -> Option<DevicePage> {
        let asked = self.question;
        let same = (asked.object, asked.index, asked.revokes)
            == (question.object, question.index, question.revokes);
        same.then_some(self.page)
    }
}

impl<M: Machine> Vm<M> {
    /// Asks a device, whose object a chain that the caller has found refers to. No lock is held.
    pub(super) fn ask_device(
        &self,
        question: Question,
        limbo: &mut Limbo<'_, M>,
    ) -> Result<Option<Answer>, PagerError> {
        M::assert_none_held();
        // The object may have ended since: then whoever looks again does not find it.
        if !self.reference(question.object) {
            return Ok(None);
        }
        let current = {
            let state = self.lock_object(question.object);
            state.revokes == question.revokes
        };
        let offset = M::PAGE.offset(question.index).unwrap_or(u64::MAX);
        let page = current.then(|| question.pager.ops.device(question.pager.cookie, offset));
        self.release(question.object, limbo);
        limbo.settle();
        let page = page.transpose()?;
        Ok(page.map(|page| Answer { question, page }))
    }

    /// Whether a device may show `frame`: a device none of the VM's, a managed device only one
    /// that stays where it is.
    fn may_show(&self, owned: Owned, frame: Frame) -> bool {
        match owned {
            Owned::Elsewhere => self.frames.is_beyond(frame),
            Owned::Here => self.frames.is_managed(frame) && self.frames.page(frame).wired() > 0,
        }
    }

    /// The frame that answers `question`; `None` when the device has to be asked (again). Under
    /// the lock of the device's object.
    pub(super) fn answered(
        &self,
        question: Question,
        answer: Option<Answer>,
    ) -> Result<Option<DevicePage>, PagerError> {
        let Some(page) = answer.and_then(|answer| answer.to(question)) else {
            return Ok(None);
        };
        if self.may_show(question.owned, page.frame) {
            Ok(Some(page))
        } else {
            Err(PagerError::BadFrame)
        }
    }
}

impl<M: Machine> Fault<'_, '_, M> {
    /// Enters or visits the frame of a device. Wiring it is nothing more: it stays anyway.
    pub(super) fn device(&mut self, entry: &Entry, question: Question) -> Result<Next, FaultError> {
        let answered = self.space.vm.answered(question, self.answer);
        let Some(page) = answered.map_err(FaultError::Pager)? else {
            return Ok(Next::Ask(question));
        };
        if let Purpose::Visit { with, .. } = &mut self.purpose {
            with(page.frame);
        } else if !entry.prot.is_empty() {
            let kind = match question.owned {
                Owned::Elsewhere => Kind::Manual,
                Owned::Here => Kind::Managed,
            };
            let run = FrameRun::one(page.frame);
            if let Some(next) = self.enter(self.va, run, entry.prot, page.attr, kind)? {
                return Ok(next);
            }
        }
        self.space.vm.counters.resident_faults.bump();
        Ok(Next::Done(Faulted::Resident))
    }
}
