//! The naive model: a flat list of pages for each space, and the random operations that are done
//! to it and to a real VM side by side.
//!
//! A page holds four words at fixed places; the model knows their values and nothing else.

mod compare;
mod wire;

use super::op::{Op, What, Where};
use super::{Files, MemorySwap, PAGE, TestVm, at, check, pages, touch, vm};
use bsdvm::{
    Access, Backing, FaultError, Inherit, MapError, Mapping, ObjectId, Placement, Prot, Sharing,
    SpaceError, SpaceId, VirtAddr,
};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Pages of a space's map.
pub const SPAN: u64 = 48;
/// Spaces at a time, at most.
pub const SPACES: usize = 4;
/// Files, and pages of one at most.
pub const FILES: usize = 2;
pub const FILE_PAGES: u64 = 12;
/// Where in a page the words are.
const PLACES: [u64; 4] = [0, 8, 2048, 4088];

type Words = [u64; 4];

/// What a page holds.
#[derive(Clone, Debug)]
enum Content {
    Words(Words),
    /// Page of a file, written in place or copied first.
    File {
        file: usize,
        index: u64,
        shared: bool,
    },
    /// Either the file's or these: a wiring that failed may have copied it.
    Either {
        file: usize,
        index: u64,
        words: Words,
    },
}

type Cell = Rc<RefCell<Content>>;

fn cell(content: Content) -> Cell {
    Rc::new(RefCell::new(content))
}

#[derive(Clone)]
struct Page {
    prot: Prot,
    max: Prot,
    inherit: Inherit,
    sharing: Sharing,
    wired: bool,
    cell: Cell,
}

#[derive(Clone)]
struct File {
    bytes: u64,
    pages: Vec<Words>,
}

/// One space of the model: what each page number shows.
#[derive(Default)]
struct Flat(BTreeMap<u64, Page>);

/// A VM and the model of it.
pub struct World {
    pub vm: TestVm,
    pub files: &'static Files,
    spaces: Vec<Option<(SpaceId, Flat)>>,
    file_ids: Vec<ObjectId>,
    file_models: Vec<File>,
    step: u64,
}

fn prot_of(bits: u8) -> Prot {
    Prot::from_bits_truncate(bits)
}

impl World {
    pub fn new() -> World {
        World::with_frames(3000)
    }

    pub fn with_frames(frames: u32) -> World {
        World::of(vm(frames))
    }

    /// The same around a VM that is new.
    pub fn of(vm: TestVm) -> World {
        vm.swap_on(MemorySwap::leak(4096)).expect("a swap device");
        let files = Files::leak();
        let file = File {
            bytes: FILE_PAGES / 2 * PAGE,
            pages: vec![[0; 4]; FILE_PAGES as usize],
        };
        let ids = (0..FILES)
            .map(|i| {
                vm.object_create(files.pager(i as u64), file.bytes)
                    .expect("an object")
            })
            .collect();
        let mut world = World {
            vm,
            files,
            spaces: (0..SPACES).map(|_| None).collect(),
            file_ids: ids,
            file_models: vec![file; FILES],
            step: 0,
        };
        world.create();
        world
    }

    fn create(&mut self) {
        let Some(free) = self.spaces.iter().position(Option::is_none) else {
            return;
        };
        match self.vm.space_create(pages(0, SPAN)) {
            Ok(id) => self.spaces[free] = Some((id, Flat::default())),
            Err(e) => assert_eq!(e, SpaceError::NoMemory),
        }
    }

    fn pick(&self, space: usize) -> Option<usize> {
        let live: Vec<usize> = (0..SPACES).filter(|&i| self.spaces[i].is_some()).collect();
        (!live.is_empty()).then(|| live[space % live.len()])
    }

    fn id(&self, space: usize) -> SpaceId {
        self.spaces[space].as_ref().unwrap().0
    }

    fn flat(&mut self, space: usize) -> &mut BTreeMap<u64, Page> {
        &mut self.spaces[space].as_mut().unwrap().1.0
    }

    fn flat_ref(&self, space: usize) -> &BTreeMap<u64, Page> {
        &self.spaces[space].as_ref().unwrap().1.0
    }

    fn words(&self, content: &Content) -> Words {
        match *content {
            Content::Words(w) => w,
            Content::File { file, index, .. } | Content::Either { file, index, .. } => {
                self.file_models[file].pages[index as usize]
            }
        }
    }

    fn beyond(&self, content: &Content) -> bool {
        match *content {
            Content::Words(_) => false,
            Content::File { file, index, .. } | Content::Either { file, index, .. } => {
                index >= self.file_models[file].bytes.div_ceil(PAGE)
            }
        }
    }

    /// Whether it is open what an access to a page gives: the page is behind the end of its file,
    /// or a copy that a wiring made before it failed.
    fn is_open(&self, space: usize, page: u64) -> bool {
        let page = self.flat_ref(space).get(&page);
        page.is_some_and(|page| {
            let content = page.cell.borrow();
            matches!(*content, Content::Either { .. }) && self.beyond(&content)
        })
    }

    /// Whether a word lies behind the end of the file that its page shows.
    fn behind_end(&self, space: usize, page: u64, place: usize) -> bool {
        let Some(page) = self.flat_ref(space).get(&page) else {
            return false;
        };
        match *page.cell.borrow() {
            Content::Words(_) => false,
            Content::File { file, index, .. } | Content::Either { file, index, .. } => {
                index * PAGE + PLACES[place] >= self.file_models[file].bytes
            }
        }
    }

    /// What an access to a page gives in the model.
    fn expect(&self, space: usize, page: u64, access: Access) -> Result<(), FaultError> {
        let page = self
            .flat_ref(space)
            .get(&page)
            .ok_or(FaultError::InvalidAddress)?;
        if !page.prot.allows(access) {
            return Err(FaultError::Protection);
        }
        if self.beyond(&page.cell.borrow()) {
            return Err(FaultError::BeyondEnd);
        }
        Ok(())
    }

    /// A write that failed for want of memory may have copied the page of a private file before:
    /// from then on it may show the file as it is or as it was.
    fn may_be_copied(&mut self, space: usize, page: u64) {
        let Some(page) = self.flat_ref(space).get(&page) else {
            return;
        };
        let cell = page.cell.clone();
        let content = cell.borrow().clone();
        if let Content::File {
            file,
            index,
            shared: false,
        } = content
            && !self.beyond(&content)
        {
            let words = self.words(&content);
            *cell.borrow_mut() = Content::Either { file, index, words };
        }
    }

    fn model_write(&mut self, space: usize, page: u64, place: usize, value: u64) {
        let cell = self.flat_ref(space)[&page].cell.clone();
        let content = cell.borrow().clone();
        match content {
            Content::File {
                file,
                index,
                shared: true,
            } => self.file_models[file].pages[index as usize][place] = value,
            Content::Words(mut w) => {
                w[place] = value;
                *cell.borrow_mut() = Content::Words(w);
            }
            ref other => {
                let mut w = self.words(other);
                w[place] = value;
                if let Content::Either { mut words, .. } = *other {
                    words[place] = value;
                    // Now it is copied for certain: from which of the two, what can be read says.
                    if self.words_of(space, page).is_none_or(|seen| seen == words) {
                        w = words;
                    }
                }
                *cell.borrow_mut() = Content::Words(w);
            }
        }
    }

    /// What the VM has, if that may be read.
    fn words_of(&self, space: usize, page: u64) -> Option<Words> {
        self.vm.inject_failure(0);
        let mut words = [0; 4];
        for (word, place) in words.iter_mut().zip(PLACES) {
            let mut bytes = [0; 8];
            let va = VirtAddr(at(page).0 + place);
            let read = self.vm.space(self.id(space)).read(va, &mut bytes);
            read.ok()?;
            *word = u64::from_le_bytes(bytes);
        }
        Some(words)
    }

    fn agrees(&self, content: &Content, place: usize, seen: u64) -> bool {
        let other = match content {
            Content::Either { words, .. } => words[place] == seen,
            _ => false,
        };
        other || self.words(content)[place] == seen
    }

    /// Does one operation to both and compares. With `fail` the n-th allocation fails: then the
    /// operation may answer that memory is short, and nothing may have changed.
    pub fn step(&mut self, op: &Op, fail: u64) {
        self.step += 1;
        self.vm.inject_failure(fail);
        self.apply(op, fail > 0);
        self.vm.inject_failure(0);
        check(&self.vm);
        if self.step.is_multiple_of(16) {
            self.compare_all();
        }
    }

    fn apply(&mut self, op: &Op, may_fail: bool) {
        match *op {
            Op::Create => self.create(),
            Op::PageOut { want } => {
                self.vm.pageout_step(want);
            }
            Op::FileWrite {
                file,
                page,
                place,
                value,
            } => {
                self.file_write(file % FILES, page, place, value, may_fail);
            }
            Op::FileRead { file, page, place } => {
                self.file_read(file % FILES, page, place, may_fail)
            }
            Op::Resize { file, bytes } => self.resize(file % FILES, bytes),
            _ => self.apply_to_space(op, may_fail),
        }
    }

    fn apply_to_space(&mut self, op: &Op, may_fail: bool) {
        let number = match *op {
            Op::Map { space, .. }
            | Op::Remove { space, .. }
            | Op::Protect { space, .. }
            | Op::ProtectMax { space, .. }
            | Op::Inherit { space, .. }
            | Op::Discard { space, .. }
            | Op::Wire { space, .. }
            | Op::Unwire { space, .. }
            | Op::Move { space, .. }
            | Op::Fork { space }
            | Op::Exit { space }
            | Op::Write { space, .. }
            | Op::Read { space, .. }
            | Op::Store { space, .. }
            | Op::Load { space, .. }
            | Op::Clean { space, .. }
            | Op::Drop { space, .. }
            | Op::Residency { space, .. } => space,
            _ => return,
        };
        let Some(s) = self.pick(number) else { return };
        match *op {
            Op::Map {
                len,
                place,
                what,
                prot,
                ..
            } => self.map(s, len, place, what, prot_of(prot), may_fail),
            Op::Remove { first, len, .. } => {
                let r = self.vm.space(self.id(s)).remove(pages(first, len));
                if settled(r, may_fail) {
                    self.flat(s).retain(|&p, _| p < first || p >= first + len);
                }
            }
            Op::Protect {
                first, len, prot, ..
            } => self.protect(s, first, len, prot_of(prot), false, may_fail),
            Op::ProtectMax {
                first, len, prot, ..
            } => self.protect(s, first, len, prot_of(prot), true, may_fail),
            Op::Inherit {
                first,
                len,
                inherit,
                ..
            } => {
                let inherit = [Inherit::Share, Inherit::Copy, Inherit::None, Inherit::Zero]
                    [usize::from(inherit % 4)];
                let r = self
                    .vm
                    .space(self.id(s))
                    .inherit(pages(first, len), inherit);
                if settled(r, may_fail) {
                    for (_, page) in self.flat(s).range_mut(first..first + len) {
                        page.inherit = inherit;
                    }
                }
            }
            Op::Discard { first, len, .. } => self.discard(s, first, len, may_fail),
            Op::Wire { first, len, .. } if (first..first + len).any(|p| self.is_open(s, p)) => {}
            Op::Wire { first, len, .. } => self.wire(s, first, len, may_fail),
            Op::Unwire { first, len, .. } => self.unwire(s, first, len, may_fail),
            Op::Move {
                first,
                len,
                new_len,
                place,
                ..
            } => self.move_(s, first, len, new_len, place, may_fail),
            Op::Fork { .. } => self.fork(s, may_fail),
            Op::Exit { .. } => {
                let (id, _) = self.spaces[s].take().unwrap();
                self.vm.space(id).release();
            }
            // What is written behind the end of a file, in its last page, may be lost at any time;
            // that has a test of its own.
            Op::Write { page, place, .. } | Op::Store { page, place, .. }
                if self.behind_end(s, page, place % 4) => {}
            Op::Read { page, .. } | Op::Load { page, .. } if self.is_open(s, page) => {}
            Op::Write {
                page, place, value, ..
            } => {
                let va = VirtAddr(at(page).0 + PLACES[place % 4]);
                let r = self.vm.space(self.id(s)).write(va, &value.to_le_bytes());
                let expected = self.expect(s, page, Access::Write);
                if same(r.map_err(|e| e.why), expected, may_fail) {
                    self.model_write(s, page, place % 4, value);
                } else {
                    self.may_be_copied(s, page);
                }
            }
            Op::Read { page, place, .. } => {
                let va = VirtAddr(at(page).0 + PLACES[place % 4]);
                let mut bytes = [0; 8];
                let r = self.vm.space(self.id(s)).read(va, &mut bytes);
                let expected = self.expect(s, page, Access::Read);
                if same(r.map_err(|e| e.why), expected, may_fail) {
                    self.compare_word(s, page, place % 4, u64::from_le_bytes(bytes));
                }
            }
            Op::Store {
                cpu,
                page,
                place,
                value,
                ..
            } => {
                let va = VirtAddr(at(page).0 + PLACES[place % 4]);
                let r = touch(&self.vm, self.id(s), cpu % 2, va, Some(value));
                let expected = self.expect(s, page, Access::Write);
                if same(r.map(|_| ()), expected, may_fail) {
                    self.model_write(s, page, place % 4, value);
                } else {
                    self.may_be_copied(s, page);
                }
            }
            Op::Load {
                cpu, page, place, ..
            } => {
                let va = VirtAddr(at(page).0 + PLACES[place % 4]);
                let r = touch(&self.vm, self.id(s), cpu % 2, va, None);
                let expected = self.expect(s, page, Access::Read);
                if same(r.map(|_| ()), expected, may_fail) {
                    self.compare_word(s, page, place % 4, r.unwrap());
                }
            }
            Op::Clean {
                first,
                len,
                invalidate,
                ..
            } => {
                let r = self
                    .vm
                    .space(self.id(s))
                    .clean(pages(first, len), invalidate);
                let hole = !self.covered(s, first, len);
                assert_eq!(r, if hole { Err(MapError::Hole) } else { Ok(()) });
            }
            Op::Drop { first, len, .. } => self
                .vm
                .space(self.id(s))
                .drop_translations(pages(first, len)),
            Op::Residency { first, len, .. } => {
                let mut told = 0;
                let r = self
                    .vm
                    .space(self.id(s))
                    .residency(pages(first, len), &mut |_, _| told += 1);
                if self.covered(s, first, len) {
                    assert_eq!((r, told), (Ok(()), len));
                } else {
                    assert_eq!((r, told), (Err(MapError::Hole), 0));
                }
            }
            _ => {}
        }
    }

    fn covered(&self, s: usize, first: u64, len: u64) -> bool {
        self.flat_ref(s).range(first..first + len).count() as u64 == len
    }

    /// The naive placement, and the real one's argument.
    fn place(&self, s: usize, len: u64, place: Where) -> (Placement, Result<u64, MapError>) {
        let free = |first: u64| {
            first + len <= SPAN && self.flat_ref(s).range(first..first + len).next().is_none()
        };
        let inside = |first: u64| first + len <= SPAN;
        match place {
            Where::At(p) => (
                Placement::At(at(p)),
                if !inside(p) {
                    Err(MapError::InvalidAddress)
                } else if free(p) {
                    Ok(p)
                } else {
                    Err(MapError::Overlap)
                },
            ),
            Where::Replace(p) => (
                Placement::Replace(at(p)),
                if inside(p) {
                    Ok(p)
                } else {
                    Err(MapError::InvalidAddress)
                },
            ),
            Where::Up(p) => (
                Placement::FirstFit {
                    from: at(p),
                    align: PAGE,
                },
                (p..SPAN).find(|&p| free(p)).ok_or(MapError::NoSpace),
            ),
            Where::Down(p) => (
                Placement::TopDown {
                    below: at(p),
                    align: PAGE,
                },
                (0..SPAN)
                    .rev()
                    .find(|&x| x + len <= p && free(x))
                    .ok_or(MapError::NoSpace),
            ),
        }
    }

    fn map(&mut self, s: usize, len: u64, place: Where, what: What, prot: Prot, may_fail: bool) {
        let (placement, expected) = self.place(s, len, place);
        let (mapping, sharing) = match what {
            What::Anonymous => (Mapping::anonymous(prot), Sharing::Private),
            What::AnonymousShared => (
                Mapping {
                    sharing: Sharing::Shared,
                    inherit: Inherit::Share,
                    ..Mapping::anonymous(prot)
                },
                Sharing::Shared,
            ),
            What::FilePrivate { file, from } => (
                self.file_mapping(file, from, Sharing::Private, prot),
                Sharing::Private,
            ),
            What::FileShared { file, from } => (
                self.file_mapping(file, from, Sharing::Shared, prot),
                Sharing::Shared,
            ),
        };
        let r = self
            .vm
            .space(self.id(s))
            .map(len * PAGE, placement, mapping);
        let Some(first) = settled_place(r, expected, may_fail) else {
            return;
        };
        for i in 0..len {
            let content = match what {
                What::Anonymous | What::AnonymousShared => Content::Words([0; 4]),
                What::FilePrivate { file, from } | What::FileShared { file, from } => {
                    Content::File {
                        file: file % FILES,
                        index: (from + i).min(FILE_PAGES - 1),
                        shared: sharing == Sharing::Shared,
                    }
                }
            };
            let page = Page {
                prot,
                max: Prot::ALL,
                inherit: mapping.inherit,
                sharing,
                wired: false,
                cell: cell(content),
            };
            self.flat(s).insert(first + i, page);
        }
    }

    fn file_mapping(&self, file: usize, from: u64, sharing: Sharing, prot: Prot) -> Mapping {
        let mapping = Mapping::object(self.file_ids[file % FILES], from * PAGE, sharing, prot);
        assert!(matches!(mapping.backing, Backing::Object { .. }));
        mapping
    }

    fn protect(&mut self, s: usize, first: u64, len: u64, prot: Prot, max: bool, may_fail: bool) {
        let space = self.vm.space(self.id(s));
        let r = if max {
            space.protect_max(pages(first, len), prot)
        } else {
            space.protect(pages(first, len), prot)
        };
        let allowed = self
            .flat_ref(s)
            .range(first..first + len)
            .all(|(_, p)| p.max.contains(prot));
        if !allowed {
            return assert!(
                r == Err(MapError::Protection) || (may_fail && r == Err(MapError::NoMemory)),
                "{r:?}"
            );
        }
        if settled(r, may_fail) {
            for (_, page) in self.flat(s).range_mut(first..first + len) {
                if max {
                    page.max = prot;
                    page.prot &= prot;
                } else {
                    page.prot = prot;
                }
            }
        }
    }

    fn discard(&mut self, s: usize, first: u64, len: u64, may_fail: bool) {
        let r = self.vm.space(self.id(s)).discard(pages(first, len));
        let wired = self
            .flat_ref(s)
            .range(first..first + len)
            .any(|(_, p)| p.wired);
        if wired {
            return assert!(
                r == Err(MapError::Wired) || (may_fail && r == Err(MapError::NoMemory)),
                "{r:?}"
            );
        }
        if settled(r, may_fail) {
            for (_, page) in self.flat(s).range_mut(first..first + len) {
                if page.sharing == Sharing::Private {
                    page.cell = cell(Content::Words([0; 4]));
                }
            }
            self.restore_files(s, first, len);
        }
    }

    /// After a discard the private pages of files show the file again. Which file was behind a
    /// page is asked of the real map: the model forgets it at the first write.
    fn restore_files(&mut self, s: usize, first: u64, len: u64) {
        for p in first..first + len {
            let Some(info) = self.vm.space(self.id(s)).entry(at(p)) else {
                return;
            };
            let Some((object, offset)) = info.file.filter(|_| info.range.contains(at(p))) else {
                continue;
            };
            let index = (offset + at(p).0 - info.range.start().0) / PAGE;
            let file = self.file_ids.iter().position(|&f| f == object).unwrap();
            let page = self.flat(s).get_mut(&p).unwrap();
            if page.sharing == Sharing::Private {
                page.cell = cell(Content::File {
                    file,
                    index: index.min(FILE_PAGES - 1),
                    shared: false,
                });
            }
        }
    }

    fn move_(
        &mut self,
        s: usize,
        first: u64,
        len: u64,
        new_len: u64,
        place: Where,
        may_fail: bool,
    ) {
        // Growth is of plain private memory alone: what follows the rest is tested elsewhere.
        let plain = self.flat_ref(s).get(&(first + len - 1)).is_some_and(|p| {
            p.sharing == Sharing::Private
                && !p.wired
                && matches!(*p.cell.borrow(), Content::Words(_))
        }) && self
            .vm
            .space(self.id(s))
            .entry(at(first + len - 1))
            .is_some_and(|i| i.file.is_none());
        let new_len = if plain { new_len } else { new_len.min(len) };
        let (placement, expected) = self.place(s, new_len, place);
        let r = self
            .vm
            .space(self.id(s))
            .move_(pages(first, len), new_len * PAGE, placement);
        let expected = if !self.covered(s, first, len) {
            Err(MapError::Hole)
        } else {
            expected.and_then(|to| {
                if to < first + len && first < to + new_len {
                    Err(MapError::InvalidAddress)
                } else {
                    Ok(to)
                }
            })
        };
        let Some(to) = settled_place(r, expected, may_fail) else {
            return;
        };
        let flat = self.flat(s);
        let moved: Vec<Page> = (first..first + len)
            .map(|p| flat.remove(&p).unwrap())
            .collect();
        for p in to..to + new_len {
            flat.remove(&p);
        }
        let last = moved.last().unwrap().clone();
        for i in 0..new_len {
            let page = moved.get(i as usize).cloned().unwrap_or_else(|| Page {
                cell: cell(Content::Words([0; 4])),
                ..last.clone()
            });
            flat.insert(to + i, page);
        }
    }

    fn fork(&mut self, s: usize, may_fail: bool) {
        let Some(free) = self.spaces.iter().position(Option::is_none) else {
            return;
        };
        match self.vm.space(self.id(s)).fork() {
            Ok(child) => {
                let flat = self.fork_flat(s);
                self.spaces[free] = Some((child, flat));
            }
            Err(e) => assert!(may_fail && e == SpaceError::NoMemory, "{e:?}"),
        }
    }

    fn fork_flat(&mut self, s: usize) -> Flat {
        let mut child = BTreeMap::new();
        for (&n, page) in self.flat(s).iter_mut() {
            let copy = page.cell.borrow().clone();
            let new = match page.inherit {
                Inherit::None => continue,
                Inherit::Zero => cell(Content::Words([0; 4])),
                Inherit::Share => {
                    page.sharing = Sharing::Shared;
                    page.cell.clone()
                }
                // A private copy of a shared file page shows the file until it is written.
                Inherit::Copy => cell(match copy {
                    Content::File { file, index, .. } => Content::File {
                        file,
                        index,
                        shared: false,
                    },
                    other => other,
                }),
            };
            let sharing = match page.inherit {
                Inherit::Copy => Sharing::Private,
                _ => page.sharing,
            };
            child.insert(
                n,
                Page {
                    cell: new,
                    wired: false,
                    sharing,
                    ..page.clone()
                },
            );
        }
        Flat(child)
    }
}

/// Whether the operation was done. A failure is right only when one was injected.
fn settled(result: Result<(), MapError>, may_fail: bool) -> bool {
    match result {
        Ok(()) => true,
        Err(e) => {
            assert!(may_fail && e == MapError::NoMemory, "{e:?}");
            false
        }
    }
}

fn settled_place(
    result: Result<VirtAddr, MapError>,
    expected: Result<u64, MapError>,
    may_fail: bool,
) -> Option<u64> {
    match (result, expected) {
        (Ok(va), Ok(page)) => {
            assert_eq!(va, at(page), "another place than the first that fits");
            Some(page)
        }
        (Err(MapError::NoMemory), _) if may_fail => None,
        (Err(a), Err(b)) if a == b => None,
        (r, e) => panic!("{r:?}, the model says {e:?}"),
    }
}

/// Whether an access was done, and rightly.
fn same(result: Result<(), FaultError>, expected: Result<(), FaultError>, may_fail: bool) -> bool {
    match (result, expected) {
        (Ok(()), Ok(())) => true,
        (Err(FaultError::NoMemory), _) if may_fail => false,
        (r, e) => {
            assert_eq!(r, e);
            false
        }
    }
}
