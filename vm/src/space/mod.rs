//! Address spaces: a map, a pmap, and two counts.
//!
//! `mod.rs` has the record, creation and the two-stage end (S01–S03); `fork.rs` fork (S05, S06);
//! `replace.rs` exec and unshare (S07); `counts.rs` how much a space uses (S04); `tables.rs`
//! translations that a child gets at fork; `user.rs` reading and writing the memory of a program.
//!
//! References are of those who use the contents, holds of those who use the structure; each
//! reference has a hold. At the last reference the contents go, at the last hold the record.

mod counts;
mod fork;
mod replace;
mod tables;
mod user;

use crate::Vm;
use crate::lock::{self, Mutex, RwLock};
use crate::map::tree::Tree;
use crate::map::{GrowthLimits, MapState, Need, Stamp};
use crate::show::Event;
use crate::slab::{Handle, NoRecords, Reservation, cast};
use bsdvm_machine::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use bsdvm_machine::{EnterError, Machine, Pmap, VirtRange};
pub(crate) use counts::Counts;
pub use replace::Image;
pub use user::UserError;

pub(crate) type SpaceHandle = Handle<KindlessSpace>;

/// The type that space handles name, whatever the machine.
pub(crate) enum KindlessSpace {}

/// One address space.
pub(crate) struct SpaceRec<M: Machine> {
    pub(crate) refs: AtomicU32,
    pub(crate) holds: AtomicU32,
    pub(crate) stamp: Stamp,
    pub(crate) map: RwLock<M, MapState, { lock::MAP }>,
    /// The space whose pmap translates the addresses of this one: another for a submap (M06).
    /// Set when the space is made.
    home: AtomicU32,
    /// Whether this is a map of the kernel's own: its changes may draw on the kernel's reserve
    /// (E03), and nothing but its owner makes objects in it. Set when the space is made.
    system: AtomicBool,
    /// The translations, and with them the rmap records of this space. A submap has none.
    pub(crate) pmap: Mutex<M, Option<M::Pmap>, { lock::PMAP }>,
}

/// The name of a space. Valid while a hold on it lasts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpaceId(pub(crate) SpaceHandle);

impl SpaceId {
    /// The id as a number, never zero: for tables and logs of the caller.
    pub fn number(self) -> u32 {
        self.0.raw()
    }
}

impl core::hash::Hash for SpaceId {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self.number().hash(state);
    }
}

/// Why a space could not be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpaceError {
    /// No memory for its records, or for the pages that have to be copied.
    NoMemory,
    /// The machine has no pmap to give.
    NoResources,
    /// The limit on reservations would be passed.
    ChargeLimit,
    /// The space has ended.
    Exiting,
    /// A submap is in it: it cannot be inherited (M06).
    Submap,
}

impl From<NoRecords> for SpaceError {
    fn from(_: NoRecords) -> SpaceError {
        SpaceError::NoMemory
    }
}

/// One space of a VM, to work with. The caller holds the space meanwhile.
pub struct Space<'v, M: Machine> {
    pub(crate) vm: &'v Vm<M>,
    pub(crate) handle: SpaceHandle,
}

impl<M: Machine> Clone for Space<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<M: Machine> Copy for Space<'_, M> {}

impl<M: Machine> Vm<M> {
    fn vacant_space(&self) -> SpaceRec<M> {
        SpaceRec {
            refs: AtomicU32::new(0),
            holds: AtomicU32::new(0),
            stamp: Stamp::new(),
            home: AtomicU32::new(0),
            system: AtomicBool::new(false),
            map: RwLock::new(MapState {
                range: VirtRange::default(),
                tree: Tree::new(self.map_nodes.owner()),
                owner: self.entries.owner(),
                bytes: 0,
                wire_future: false,
                frozen: false,
                exiting: true,
                limits: GrowthLimits::NONE,
            }),
            pmap: Mutex::new(None),
        }
    }

    pub(crate) fn space_rec(&self, space: SpaceHandle) -> &SpaceRec<M> {
        self.spaces.get(cast(space))
    }

    /// Makes an empty space over `range`, cut to what the machine can translate, with one
    /// reference and its hold (S01, M01).
    ///
    /// Errors: [`SpaceError::NoMemory`], [`SpaceError::NoResources`].
    pub fn space_create(&self, range: VirtRange) -> Result<SpaceId, SpaceError> {
        let mut records = self.reserve_space()?;
        let pmap = self.machine().pmap_create()?;
        let range = range.intersect(self.machine().user_range());
        self.begin_space(&mut records, range, Pmaps::Own(pmap))
    }

    /// Makes the kernel's own space over `range`, cut to what the machine gives the kernel (K14).
    /// The machine makes its pmap once.
    pub(crate) fn space_create_kernel(&self, range: VirtRange) -> Result<SpaceId, SpaceError> {
        let mut records = self.reserve_space()?;
        let pmap = self.machine().pmap_kernel()?;
        let range = range.intersect(self.machine().kernel_range());
        self.begin_space(&mut records, range, Pmaps::Kernel(pmap))
    }

    /// Sets a record for a space aside.
    pub(crate) fn reserve_space(&self) -> Result<Reservation<'_, M, SpaceRec<M>>, NoRecords> {
        self.spaces.reserve(&self.frames, 1, || self.vacant_space())
    }

    /// Fills in the record of a new space.
    pub(crate) fn begin_space(
        &self,
        records: &mut Reservation<'_, M, SpaceRec<M>>,
        range: VirtRange,
        pmaps: Pmaps<M>,
    ) -> Result<SpaceId, SpaceError> {
        let handle: SpaceHandle = cast(self.spaces.alloc(records));
        if !crate::page::rmap::can_record::<M>(handle, range) {
            self.spaces.free(cast(handle));
            return Err(SpaceError::NoResources);
        }
        let rec = self.space_rec(handle);
        let mut map = rec.map.write();
        map.range = range;
        map.wire_future = false;
        map.frozen = false;
        map.exiting = false;
        map.limits = GrowthLimits::NONE;
        drop(map);
        let (home, system, pmap) = match pmaps {
            Pmaps::Own(pmap) => (handle, false, Some(pmap)),
            Pmaps::Kernel(pmap) => (handle, true, Some(pmap)),
            Pmaps::Of(home) => (home, self.space(SpaceId(home)).is_system(), None),
        };
        rec.system.store(system, Ordering::Release);
        rec.home.store(home.raw(), Ordering::Release);
        *rec.pmap.lock() = pmap;
        rec.refs.store(1, Ordering::Release);
        rec.holds.store(1, Ordering::Release);
        let space = SpaceId(handle);
        self.trace(|| Event::Create { space, range });
        Ok(space)
    }

    /// The space behind an id, which the caller holds.
    pub fn space(&self, id: SpaceId) -> Space<'_, M> {
        Space {
            vm: self,
            handle: id.0,
        }
    }
}

impl<M: Machine> SpaceRec<M> {
    /// One hold more, by somebody who has none: false when the space has ended.
    pub(crate) fn try_hold(&self) -> bool {
        self.holds
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| {
                (n > 0).then(|| n.saturating_add(1))
            })
            .is_ok()
    }
}

/// Which pmap translates the addresses of a new space.
pub(crate) enum Pmaps<M: Machine> {
    /// One of its own.
    Own(M::Pmap),
    /// The kernel's.
    Kernel(M::Pmap),
    /// That of another space, of which it is a submap.
    Of(SpaceHandle),
}

impl From<EnterError> for SpaceError {
    fn from(e: EnterError) -> SpaceError {
        match e {
            EnterError::NeedFrames(_) => SpaceError::NoMemory,
            EnterError::BadAddress | EnterError::NoResources => SpaceError::NoResources,
        }
    }
}

fn count_up(count: &AtomicU32) {
    let counted = count
        .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| {
            (n > 0).then(|| n.saturating_add(1))
        })
        .is_ok();
    debug_assert!(counted, "the caller has a count of its own");
}

impl<'v, M: Machine> Space<'v, M> {
    pub(crate) fn rec(self) -> &'v SpaceRec<M> {
        self.vm.space_rec(self.handle)
    }

    /// The space whose pmap translates the addresses of this one: itself, but for a submap.
    pub(crate) fn home(self) -> SpaceHandle {
        Handle::from_raw(self.rec().home.load(Ordering::Acquire)).unwrap_or(self.handle)
    }

    /// Whether this is a map of the kernel's own.
    pub(crate) fn is_system(self) -> bool {
        self.rec().system.load(Ordering::Acquire)
    }

    /// The record that has the pmap.
    pub(crate) fn home_rec(self) -> &'v SpaceRec<M> {
        self.vm.space_rec(self.home())
    }

    /// The id.
    pub fn id(self) -> SpaceId {
        SpaceId(self.handle)
    }

    /// One reference and its hold more (S02). The caller has a reference.
    pub fn reference(self) {
        count_up(&self.rec().holds);
        count_up(&self.rec().refs);
    }

    /// Gives up a reference and its hold. With the last reference the contents go, with the last
    /// hold the space (S02).
    pub fn release(self) {
        self.release_exit();
        self.unhold();
    }

    /// Gives up a reference and keeps its hold: what an exiting process does (S02).
    pub fn release_exit(self) {
        if self.rec().refs.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.end_contents();
            self.vm.trace(|| Event::End { space: self.id() });
        }
    }

    /// One hold more. The caller has one.
    pub fn hold(self) {
        count_up(&self.rec().holds);
    }

    /// Gives up a hold. With the last one the space is gone.
    pub fn unhold(self) {
        if self.rec().holds.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.end_structure();
        }
    }

    /// References to the contents: 0 once they have gone.
    pub fn references(self) -> u32 {
        self.rec().refs.load(Ordering::Acquire)
    }

    /// Holds, those of references among them: 0 once the space is gone.
    pub fn holds(self) -> u32 {
        self.rec().holds.load(Ordering::Acquire)
    }

    /// Removes everything (S03). The map stays, empty, and takes nothing more.
    fn end_contents(self) {
        let all = VirtRange::new(
            bsdvm_machine::VirtAddr(0),
            bsdvm_machine::VirtAddr(u64::MAX),
        )
        .unwrap_or_default();
        self.end_submaps();
        // Entries begin and end within the map: nothing is clipped, so nothing is needed.
        let Ok(mut edit) = self.edit_without_reserve(all) else {
            return;
        };
        edit.map.exiting = true;
        edit.delete_all();
    }

    fn edit_without_reserve(
        self,
        range: VirtRange,
    ) -> Result<crate::map::Edit<'v, M>, crate::map::MapError> {
        self.edit(range, Need::default())
    }

    fn end_structure(self) {
        let vm = self.vm;
        let pmap = self.rec().pmap.lock().take();
        if let Some(pmap) = pmap {
            let mut limbo = crate::object::limbo::Limbo::new(vm);
            limbo.begin();
            let flush = pmap.reclaim(&mut |frame| limbo.add_frame(frame));
            limbo.add_flush(flush);
            debug_assert_eq!(pmap.resident(), 0, "an ended space maps nothing");
        }
        vm.spaces.free(cast(self.handle));
    }

    /// Calls `f` with the machine's pmap of the space, if the space has not ended. Nothing else
    /// changes the pmap meanwhile; `f` may not call back.
    pub fn with_pmap<R>(self, f: impl FnOnce(&M::Pmap) -> R) -> Option<R> {
        self.home_rec().pmap.lock().as_ref().map(f)
    }

    /// Pages that the pmap maps.
    pub fn resident(self) -> u64 {
        self.with_pmap(|p| p.resident()).unwrap_or(0)
    }

    /// Drops the translations of `range`, as may happen to a managed translation at any moment:
    /// the next fault enters them again. For tests, and for a machine that has too many.
    pub fn drop_translations(self, range: VirtRange) {
        let vm = self.vm;
        let mut limbo = crate::object::limbo::Limbo::new(vm);
        let home = self.home();
        let pmap = self.home_rec().pmap.lock();
        if let Some(pmap) = pmap.as_ref() {
            limbo.begin();
            let flush = pmap.remove(range, &mut |gone| vm.translation_gone(home, gone));
            limbo.add_flush(flush);
        }
    }
}
