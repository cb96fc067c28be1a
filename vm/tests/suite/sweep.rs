//! Every public operation, with the first, second, … allocation and machine call failing until it
//! goes through: each failure leaves map, objects, charges, contents and page tables as they were.

use crate::common::{
    Files, MemorySwap, PAGE, TestVm, anon, at, check, check_empty, get, pages, put, vm,
};
use bsdvm::{
    Access, Advice, FaultError, Inherit, MapError, Mapping, ObjectError, ObjectId, Placement, Prot,
    Sharing, Space, SpaceError, SpaceId, SwapError,
};
use bsdvm_sim::{InjectKind, Sim};
use std::cell::Cell;
use std::fmt::Write as _;
use std::sync::atomic::Ordering;

const SPAN: u64 = 64;

/// One of everything, and what it looks like.
struct Scene {
    vm: TestVm,
    files: &'static Files,
    swap: &'static MemorySwap,
    space: SpaceId,
    child: SpaceId,
    file: ObjectId,
    /// The youngest of a family that is as deep as a chain may be.
    young: Cell<Option<SpaceId>>,
}

impl Scene {
    fn new() -> Scene {
        let vm = vm(3000);
        let files = Files::leak();
        let swap = MemorySwap::leak(256);
        vm.swap_on(swap).unwrap();
        for page in 0..8 {
            files
                .pages
                .lock()
                .unwrap()
                .insert((0, page), vec![page as u8 + 1; PAGE as usize]);
        }
        let file = vm.object_create(files.pager(0), 8 * PAGE).unwrap();
        let space = vm.space_create(pages(0, SPAN)).unwrap();
        let s = vm.space(space);
        anon(s, 0, 8);
        for page in 0..8 {
            put(s, page, 100 + page);
        }
        let map = |first: u64, count: u64, what: Mapping| {
            s.map(count * PAGE, Placement::At(at(first)), what).unwrap();
        };
        map(10, 4, Mapping::object(file, 0, Sharing::Private, Prot::RW));
        map(
            16,
            4,
            Mapping::object(file, PAGE * 2, Sharing::Shared, Prot::RW),
        );
        put(s, 11, 7);
        put(s, 17, 9);
        anon(s, 24, 4);
        s.wire(pages(25, 1)).unwrap();
        s.protect_max(pages(27, 1), Prot::READ).unwrap();
        let child = s.fork().unwrap();
        put(s, 1, 201);
        put(vm.space(child), 2, 302);
        s.stack(at(60), 12 * PAGE, PAGE, Prot::RW).unwrap();
        check(&vm);
        Scene {
            vm,
            files,
            swap,
            space,
            child,
            file,
            young: Cell::new(None),
        }
    }

    fn space(&self) -> Space<'_, Sim<12>> {
        self.vm.space(self.space)
    }

    /// Everything that a failed operation may not change, as text: entries, contents, charges,
    /// counts. Reading contents faults pages in, so residency is not part of it.
    fn portrait(&self) -> String {
        let mut text = String::new();
        for id in [self.space, self.child] {
            let space = self.vm.space(id);
            let mut from = at(0);
            while let Some(info) = space.entry(from) {
                from = info.range.end();
                // Clipping makes objects for entries without one: neither that nor where in it an
                // entry begins is to be seen.
                let _ = write!(
                    text,
                    "{:?} {} {} {:?} {:?} {} {} {}|",
                    info.range,
                    info.prot,
                    info.max_prot,
                    info.inherit,
                    info.sharing,
                    info.wired,
                    info.stack,
                    info.stack_reserve
                );
            }
            // Reading below a stack would make it grow.
            for page in (0..SPAN).filter(|&p| space.covered(pages(p, 1))) {
                let mut bytes = [0; 8];
                let seen = space.read(at(page), &mut bytes).map(|()| bytes);
                let _ = write!(text, "{:?};", seen.ok());
            }
            let _ = writeln!(text, "{}", space.size());
        }
        let mut bytes = [0; 64];
        for page in 0..8 {
            let n = self.vm.object(self.file).read(page * PAGE, &mut bytes);
            let _ = write!(text, "{n:?}{bytes:?}");
        }
        let _ = write!(text, "{}", self.vm.counters().charged_pages);
        text
    }

    fn end(self) {
        self.vm.space(self.space).release();
        self.vm.space(self.child).release();
        if let Some(young) = self.young.take() {
            self.vm.space(young).release();
        }
        self.vm.object(self.file).release();
        check_empty(&self.vm);
    }
}

/// What a step that failed may say.
trait Short {
    fn is_short(&self) -> bool;
}
impl Short for MapError {
    fn is_short(&self) -> bool {
        matches!(self, MapError::NoMemory | MapError::Pager(_))
    }
}
impl Short for SpaceError {
    fn is_short(&self) -> bool {
        matches!(self, SpaceError::NoMemory | SpaceError::NoResources)
    }
}
impl Short for FaultError {
    fn is_short(&self) -> bool {
        matches!(self, FaultError::NoMemory | FaultError::Pager(_))
    }
}
impl Short for bsdvm::UserError {
    fn is_short(&self) -> bool {
        self.why.is_short()
    }
}
impl Short for ObjectError {
    fn is_short(&self) -> bool {
        matches!(self, ObjectError::NoMemory | ObjectError::Pager(_))
    }
}

/// How many failures one operation is swept through at most.
const MOST: u64 = 400;

/// Runs `op` in a fresh scene for each n with the n-th allocation failing, until it goes through
/// without one that failed.
fn sweep<T, E: Short + std::fmt::Debug>(
    name: &str,
    prepare: impl Fn(&Scene),
    op: impl Fn(&Scene) -> Result<T, E>,
) {
    let mut failures = 0;
    for n in 1..MOST {
        let scene = Scene::new();
        prepare(&scene);
        let before = scene.portrait();
        prepare(&scene);
        scene.vm.inject_failure(n);
        let result = op(&scene);
        let fired = scene.vm.injection_left() == 0;
        scene.vm.inject_failure(0);
        check(&scene.vm);
        if let Err(e) = &result {
            assert!(fired && e.is_short(), "{name}, allocation {n}: {e:?}");
            failures += 1;
            same(
                &scene.portrait(),
                &before,
                &format!("{name}, allocation {n}"),
            );
        }
        scene.end();
        if !fired {
            assert!(failures > 0 || n == 1, "{name}: nothing to fail");
            return;
        }
    }
    panic!("{name}: never went through");
}

/// Says where two portraits differ.
#[track_caller]
fn same(after: &str, before: &str, what: &str) {
    if let Some((at, _)) = after
        .bytes()
        .zip(before.bytes())
        .enumerate()
        .find(|(_, (a, b))| a != b)
        .or((after.len() != before.len()).then_some((0, (0, 0))))
    {
        let part = |s: &str| s[at.saturating_sub(80)..(at + 80).min(s.len())].to_string();
        panic!("{what} changed\n  {}\nto {}", part(before), part(after));
    }
}

fn nothing(_: &Scene) {}

#[test]
fn map_fails_whole() {
    let what = Mapping::anonymous(Prot::RW);
    sweep("map at", nothing, |s| {
        s.space().map(PAGE * 3, Placement::At(at(30)), what)
    });
    sweep("map first fit", nothing, |s| {
        let place = Placement::FirstFit {
            from: at(0),
            align: PAGE,
        };
        s.space().map(PAGE * 3, place, what)
    });
    sweep("map top down", nothing, |s| {
        let place = Placement::TopDown {
            below: at(48),
            align: PAGE,
        };
        s.space().map(PAGE * 3, place, what)
    });
    sweep("map in place of others", nothing, |s| {
        s.space().map(PAGE * 9, Placement::Replace(at(3)), what)
    });
    sweep("map a file in place of others", nothing, |s| {
        let what = Mapping::object(s.file, 0, Sharing::Private, Prot::RW);
        s.space().map(PAGE * 9, Placement::Replace(at(3)), what)
    });
}

#[test]
fn map_in_a_wired_space_fails_whole() {
    sweep(
        "map wired",
        |s| s.space().set_wire_future(true),
        |s| {
            s.space().map(
                PAGE * 3,
                Placement::At(at(30)),
                Mapping::anonymous(Prot::RW),
            )
        },
    );
}

#[test]
fn changes_of_entries_fail_whole() {
    sweep("remove", nothing, |s| s.space().remove(pages(3, 9)));
    sweep("protect", nothing, |s| {
        s.space().protect(pages(3, 9), Prot::READ)
    });
    sweep("protect maximum", nothing, |s| {
        s.space().protect_max(pages(3, 9), Prot::READ)
    });
    sweep("inherit", nothing, |s| {
        s.space().inherit(pages(3, 9), Inherit::Share)
    });
    sweep("discard", nothing, |s| s.space().discard(pages(3, 9)));
    sweep("extend", nothing, |s| s.space().extend(at(8), PAGE * 2));
    sweep("stack", nothing, |s| {
        s.space().stack(at(44), PAGE * 8, PAGE, Prot::RW)
    });
    sweep("grow a stack", nothing, |s| s.space().grow_stack(at(52)));
    sweep("open a stack", nothing, |s| {
        s.space().open_stack(pages(3, 2))
    });
    sweep("mark", nothing, |s| {
        s.space().advise(pages(3, 2), Advice::Mark(1))
    });
}

#[test]
fn move_fails_whole() {
    sweep("move", nothing, |s| {
        s.space()
            .move_(pages(2, 4), PAGE * 4, Placement::At(at(30)))
    });
    sweep("move and grow", nothing, |s| {
        s.space()
            .move_(pages(2, 4), PAGE * 6, Placement::At(at(30)))
    });
    sweep("move in place of others", nothing, |s| {
        s.space()
            .move_(pages(2, 4), PAGE * 3, Placement::Replace(at(11)))
    });
    sweep("move a file and grow", nothing, |s| {
        s.space()
            .move_(pages(10, 4), PAGE * 5, Placement::At(at(30)))
    });
}

#[test]
fn wire_fails_whole() {
    sweep("wire", nothing, |s| s.space().wire(pages(2, 4)));
    sweep("wire what is paged out", page_all_out, |s| {
        s.space().wire(pages(2, 4))
    });
    sweep("wire a file", nothing, |s| s.space().wire(pages(10, 4)));
    sweep("wire around what is wired", nothing, |s| {
        s.space().wire(pages(24, 4))
    });
    sweep("wire on fault", nothing, |s| {
        s.space().wire_on_fault(pages(2, 6))
    });
    sweep("unwire", nothing, |s| s.space().unwire(pages(25, 1)));
}

fn page_all_out(s: &Scene) {
    for _ in 0..4 {
        s.vm.pageout_step(500);
    }
}

fn drop_all(s: &Scene) {
    for id in [s.space, s.child] {
        s.vm.space(id).drop_translations(pages(0, SPAN));
    }
}

#[test]
fn faults_fail_whole() {
    for (name, page) in [
        ("zero-fill", 24),
        ("copy", 3),
        ("copy of a file", 12),
        ("shared file", 18),
        ("resident", 0),
    ] {
        for access in [Access::Read, Access::Write] {
            sweep(name, drop_all, |s| s.space().fault(at(page), access));
            sweep(name, page_all_out, |s| s.space().fault(at(page), access));
        }
    }
}

/// A stack grows before its page is brought: when the page cannot be had, it has grown, which
/// nobody can tell but by looking at the map.
#[test]
fn a_fault_below_a_stack_keeps_what_was_there() {
    for n in 1..12 {
        let scene = Scene::new();
        scene.vm.inject_failure(n);
        let done = scene.space().fault(at(55), Access::Write);
        scene.vm.inject_failure(0);
        assert!(
            matches!(done, Ok(_) | Err(FaultError::NoMemory)),
            "{done:?}"
        );
        check(&scene.vm);
        assert_eq!(get(scene.space(), 55), 0);
        assert_eq!(get(scene.space(), 1), 201);
        scene.end();
    }
}

#[test]
fn reads_and_writes_fail_whole() {
    let value = 100u64.to_le_bytes();
    // What is written is what is there, so that a word that went through is no change.
    sweep("write", page_all_out, |s| s.space().write(at(0), &value));
    sweep("forced write", page_all_out, |s| {
        s.space().write_forced(at(0), &value)
    });
    sweep("read", page_all_out, |s| {
        s.space().read(at(3), &mut [0; 4096 * 3])
    });
    sweep("load", page_all_out, |s| s.space().load_u32(at(0)));
    sweep("exchange", page_all_out, |s| {
        s.space().compare_exchange_u32(at(0), 1, 2)
    });
}

#[test]
fn fork_fails_whole() {
    let fork = |s: &Scene| {
        let child = s.space().fork()?;
        s.vm.space(child).release();
        Ok::<(), SpaceError>(())
    };
    sweep("fork", nothing, fork);
    sweep("fork of what is paged out", page_all_out, fork);
    sweep(
        "fork with shared ranges",
        |s| s.space().inherit(pages(0, 14), Inherit::Share).unwrap(),
        fork,
    );
}

#[test]
fn a_deep_fork_fails_whole() {
    let family = |s: &Scene| {
        if s.young.get().is_some() {
            return;
        }
        let mut last = s.space().fork().unwrap();
        for n in 0..12 {
            put(s.vm.space(last), 0, n);
            let child = s.vm.space(last).fork().unwrap();
            // The parent writes, too, so that the chain cannot be made shorter.
            put(s.vm.space(last), 1, n);
            s.vm.space(last).release();
            last = child;
        }
        s.young.set(Some(last));
    };
    sweep("deep fork", family, |s| {
        let child = s.vm.space(s.young.get().unwrap()).fork()?;
        s.vm.space(child).release();
        Ok::<(), SpaceError>(())
    });
}

#[test]
fn objects_fail_whole() {
    sweep("create", nothing, |s| {
        let id = s.vm.object_create_anonymous(PAGE * 4)?;
        s.vm.object(id).release();
        Ok::<(), ObjectError>(())
    });
    sweep("create a file's", nothing, |s| {
        let id = s.vm.object_create(s.files.pager(9), PAGE * 4)?;
        s.vm.object(id).release();
        Ok::<(), ObjectError>(())
    });
    sweep("object read", page_all_out, |s| {
        s.vm.object(s.file).read(PAGE, &mut [0; 5000])
    });
    sweep("object write", page_all_out, |s| {
        s.vm.object(s.file).write(0, &[1; 100])
    });
    sweep("create a space", nothing, |s| {
        let id = s.vm.space_create(pages(0, 4))?;
        s.vm.space(id).release();
        Ok::<(), SpaceError>(())
    });
}

/// The machine's own failures: entering a translation, making a pmap, wanting more table frames.
#[test]
fn the_machine_fails() {
    for kind in [InjectKind::PmapEnter, InjectKind::NeedFrames] {
        for n in 1..6 {
            let scene = Scene::new();
            drop_all(&scene);
            let before = scene.portrait();
            scene.vm.machine().injector().fail_nth(kind, n);
            for page in [0, 3, 12, 18, 24] {
                let done = scene.space().fault(at(page), Access::Read);
                assert!(
                    matches!(done, Ok(_) | Err(FaultError::NoMemory)),
                    "{kind:?} {n}: {done:?}"
                );
                check(&scene.vm);
            }
            scene.vm.machine().injector().clear();
            same(&scene.portrait(), &before, "the machine failed");
            scene.end();
        }
    }
    let scene = Scene::new();
    let before = scene.portrait();
    scene
        .vm
        .machine()
        .injector()
        .fail_nth(InjectKind::PmapCreate, 1);
    assert_eq!(scene.space().fork(), Err(SpaceError::NoResources));
    scene.vm.machine().injector().clear();
    same(&scene.portrait(), &before, "the machine failed");
    scene.end();
}

/// Pagers fail: the fault says so, and the next one finds the page.
#[test]
fn the_pager_fails() {
    let scene = Scene::new();
    page_all_out(&scene);
    scene.files.fail_get.store(true, Ordering::Relaxed);
    scene.swap.fail.store(true, Ordering::Relaxed);
    for page in [0, 11, 12, 18] {
        let done = scene.space().fault(at(page), Access::Read);
        assert!(matches!(done, Err(FaultError::Pager(_))), "{done:?}");
        check(&scene.vm);
    }
    assert!(matches!(
        scene.space().wire(pages(0, 4)),
        Err(MapError::Pager(_))
    ));
    check(&scene.vm);
    scene.files.fail_get.store(false, Ordering::Relaxed);
    scene.swap.fail.store(false, Ordering::Relaxed);
    assert_eq!(get(scene.space(), 0), 100);
    assert_eq!(get(scene.space(), 11), 7);
    assert_eq!(get(scene.space(), 17), 9);
    scene.end();
}

/// A pager that cannot write: the page stays, dirty, and goes when it can be written.
#[test]
fn the_pager_cannot_write() {
    let scene = Scene::new();
    scene.files.fail_put.store(true, Ordering::Relaxed);
    scene.swap.fail.store(true, Ordering::Relaxed);
    page_all_out(&scene);
    assert!(matches!(
        scene.space().clean(pages(16, 4), false),
        Err(MapError::Pager(_))
    ));
    assert!(matches!(
        scene.vm.object(scene.file).clean(0, 8 * PAGE),
        Err(ObjectError::Pager(_))
    ));
    check(&scene.vm);
    assert_eq!(get(scene.space(), 17), 9);
    assert_eq!(scene.vm.counters().swap_used, 0);
    scene.files.fail_put.store(false, Ordering::Relaxed);
    scene.swap.fail.store(false, Ordering::Relaxed);
    scene.space().clean(pages(16, 4), false).unwrap();
    assert_eq!(
        scene.files.pages.lock().unwrap()[&(0, 3)][..8],
        9u64.to_le_bytes()
    );
    scene.end();
}

/// Swap: the table of slots fails whole, and the device can be added then.
#[test]
fn adding_swap_fails_whole() {
    for n in 1.. {
        let vm = vm(200);
        let before = vm.frames_in_use();
        vm.inject_failure(n);
        let done = vm.swap_on(MemorySwap::leak(3000));
        let fired = vm.injection_left() == 0;
        vm.inject_failure(0);
        if !fired {
            assert_eq!(done, Ok(()));
            break;
        }
        assert_eq!(done, Err(SwapError::NoMemory));
        assert_eq!(vm.frames_in_use(), before);
        vm.swap_on(MemorySwap::leak(3000)).unwrap();
        assert_eq!(vm.swap_on(MemorySwap::leak(1)), Err(SwapError::InUse));
        check_empty(&vm);
    }
}
