//! Devices, advice and entering ahead against faults and page-out, under a checker that chooses the
//! interleaving, as in `shuttle.rs`:
//! `RUSTFLAGS="--cfg shuttle" CARGO_TARGET_DIR=target/shuttle cargo test -p bsdvm
//! --test shuttle_rows --release`.

#![cfg(shuttle)]

mod common;

use bsdvm::{
    Access, Advice, Config, DevicePage, Frame, Mapping, Memory, MemoryAttr, PageBytes, Pager,
    PagerError, PagerOps, Pmap, Prot, Sharing, SwapDevice, Vm,
};
use bsdvm_sim::{Sim, SimConfig};
use common::{PAGE, TestVm, anon, at, check, get, map_at, pages, put, space, touch};
use shuttle::thread;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

fn explore(body: fn()) {
    let set = std::env::var("BSDVM_SHUTTLE_RUNS").ok();
    let runs = set.and_then(|n| n.parse().ok()).unwrap_or(300);
    shuttle::check_random(body, runs);
    shuttle::check_pct(body, runs, 3);
}

const FRAMES: u32 = 200;

/// A VM that leaves a few frames of the machine to a device.
fn vm() -> Arc<TestVm> {
    let machine = Sim::new(SimConfig {
        frames: FRAMES + 4,
        cpus: 4,
        ..SimConfig::default()
    });
    let config = Config {
        frame_limit: Some(FRAMES),
        ..Config::default()
    };
    Arc::new(Vm::new(machine, config).unwrap())
}

/// Swap that keeps the first word of each page. No lock is held over a switch.
#[derive(Default)]
struct Swap(Mutex<HashMap<u32, u64>>);

impl SwapDevice for Swap {
    fn slots(&self) -> u32 {
        64
    }

    fn read(&self, slot: u32, page: &mut dyn PageBytes) -> Result<(), PagerError> {
        let word = self.0.lock().unwrap()[&slot];
        page.write(0, &word.to_le_bytes());
        Ok(())
    }

    fn write(&self, slot: u32, page: &dyn PageBytes) -> Result<(), PagerError> {
        let mut bytes = [0; 8];
        page.read(0, &mut bytes);
        let word = u64::from_le_bytes(bytes);
        self.0.lock().unwrap().insert(slot, word);
        Ok(())
    }
}

fn swap() -> &'static Swap {
    Box::leak(Box::default())
}

type Part = Box<dyn FnOnce(&TestVm) + Send>;

/// Runs the parts at the same time, each on a processor of its own.
fn together(vm: &Arc<TestVm>, parts: Vec<Part>) {
    let threads: Vec<_> = parts
        .into_iter()
        .enumerate()
        .map(|(cpu, part)| {
            let vm = vm.clone();
            thread::spawn(move || {
                vm.machine().set_cpu(cpu);
                part(&vm);
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

/// A device that shows one frame.
struct Device(AtomicU32);

impl PagerOps for Device {
    fn get(&self, _: u64, _: u64, _: &mut [&mut dyn PageBytes]) -> Result<usize, PagerError> {
        Err(PagerError::Io(5))
    }

    fn put(&self, _: u64, _: u64, _: &dyn PageBytes, _: usize) -> Result<(), PagerError> {
        Err(PagerError::Io(5))
    }

    fn device(&self, _: u64, _: u64) -> Result<DevicePage, PagerError> {
        Ok(DevicePage {
            frame: Frame(self.0.load(Ordering::Relaxed)),
            attr: MemoryAttr::Uncached,
        })
    }
}

fn word_of(vm: &TestVm, frame: u32) -> u64 {
    let mut bytes = [0; 8];
    vm.machine().read(Frame(frame), 0, &mut bytes);
    u64::from_le_bytes(bytes)
}

/// Once a revocation is over, nobody reaches the frame that was shown before.
#[test]
fn a_revocation_meets_stores() {
    explore(|| {
        let vm = vm();
        let device: &'static Device = Box::leak(Box::new(Device(AtomicU32::new(FRAMES))));
        let pager = Pager {
            ops: device,
            cookie: 0,
        };
        let object = vm.object_create_device(pager, PAGE).unwrap();
        let id = space(&vm, 8).id();
        let shared = Mapping::object(object, 0, Sharing::Shared, Prot::RW);
        map_at(vm.space(id), 0, 1, shared).unwrap();
        let store = move |cpu: usize| -> Part {
            Box::new(move |vm| {
                for value in 1..4 {
                    let value = value * 10 + cpu as u64;
                    touch(vm, id, cpu, at(0), Some(value)).unwrap();
                }
            })
        };
        let revoke: Part = Box::new(move |vm| {
            for other in [1, 0, 1] {
                device.0.store(FRAMES + other, Ordering::Relaxed);
                vm.object(object).revoke(0, PAGE);
                let last = FRAMES + 1 - other;
                let before = word_of(vm, last);
                for _ in 0..8 {
                    thread::yield_now();
                }
                assert_eq!(word_of(vm, last), before, "somebody still writes there");
            }
        });
        together(&vm, vec![store(0), store(1), revoke]);
        check(&vm);
        let shown = vm.space(id).with_pmap(|pmap| pmap.extract(at(0))).unwrap();
        assert!(
            shown.is_none_or(|t| t.frame == Frame(FRAMES + 1)),
            "entered after"
        );
        vm.space(id).release();
        vm.object(object).release();
    });
}

/// What is written after memory was freed stays; what was there before it was written is never
/// seen again.
#[test]
fn freeing_meets_stores_and_page_out() {
    explore(|| {
        let vm = vm();
        vm.swap_on(swap()).unwrap();
        let id = space(&vm, 8).id();
        anon(vm.space(id), 0, 2);
        put(vm.space(id), 0, 1);
        put(vm.space(id), 1, 1);
        vm.pageout_step(2);
        let free: Part = Box::new(move |vm| {
            put(vm.space(id), 0, 2);
            vm.space(id).advise(pages(0, 2), Advice::Free).unwrap();
            touch(vm, id, 0, at(0), Some(3)).unwrap();
        });
        let store: Part = Box::new(move |vm| {
            touch(vm, id, 1, at(1), Some(5)).unwrap();
        });
        let page_out: Part = Box::new(|vm| {
            vm.pageout_step(2);
            vm.pageout_step(2);
        });
        together(&vm, vec![free, store, page_out]);
        vm.pageout_step(2);
        assert_eq!(get(vm.space(id), 0), 3);
        let other = get(vm.space(id), 1);
        assert!(
            [0, 5].contains(&other),
            "{other} is older than what was written"
        );
        check(&vm);
        vm.space(id).release();
    });
}

/// Entering ahead, and translations copied at fork, show what faults would.
#[test]
fn entering_ahead_meets_a_removal_a_fork_and_page_out() {
    explore(|| {
        let vm = vm();
        vm.swap_on(swap()).unwrap();
        let id = space(&vm, 16).id();
        anon(vm.space(id), 0, 8);
        for page in 0..8 {
            touch(&vm, id, 0, at(page), Some(page)).unwrap();
        }
        vm.space(id).drop_translations(pages(2, 4));
        let ahead: Part = Box::new(move |vm| {
            vm.space(id).advise(pages(0, 8), Advice::WillNeed).unwrap();
        });
        let remove: Part = Box::new(move |vm| {
            vm.space(id).remove(pages(3, 2)).unwrap();
            anon(vm.space(id), 3, 2);
            assert_eq!(
                touch(vm, id, 1, at(3), None),
                Ok(0),
                "what was there is gone"
            );
        });
        let fork: Part = Box::new(move |vm| {
            let child = vm.space(vm.space(id).fork().unwrap());
            touch(vm, id, 2, at(0), Some(100)).unwrap();
            assert_eq!(touch(vm, child.id(), 2, at(0), None), Ok(0));
            assert_eq!(touch(vm, child.id(), 2, at(7), None), Ok(7));
            child.release();
        });
        let page_out: Part = Box::new(|vm| {
            vm.pageout_step(8);
        });
        together(&vm, vec![ahead, remove, fork, page_out]);
        let now = [0, 1, 3, 7].map(|page| touch(&vm, id, 3, at(page), None).unwrap());
        assert_eq!(now, [100, 1, 0, 7]);
        vm.space(id).fault(at(3), Access::Write).unwrap();
        check(&vm);
        vm.space(id).release();
    });
}

/// A store to a page that swap has the same contents of is never lost, whenever the page leaves.
#[test]
fn a_page_that_is_on_swap_too_meets_stores_and_page_out() {
    explore(|| {
        let vm = vm();
        vm.swap_on(swap()).unwrap();
        let id = space(&vm, 8).id();
        anon(vm.space(id), 0, 2);
        (0..2).for_each(|page| put(vm.space(id), page, 1 + page));
        while vm.pageout_step(4) > 0 {}
        for page in 0..2 {
            assert_eq!(touch(&vm, id, 0, at(page), None), Ok(1 + page));
        }
        assert_eq!(vm.counters().swap_cached, 2);
        let stores: Part = Box::new(move |vm| {
            for value in 3..6 {
                touch(vm, id, 0, at(0), Some(value)).unwrap();
                assert_eq!(touch(vm, id, 0, at(0), None), Ok(value));
            }
        });
        let page_out: Part = Box::new(|vm| {
            vm.pageout_step(2);
            vm.pageout_step(2);
        });
        let loads: Part = Box::new(move |vm| {
            assert_eq!(touch(vm, id, 2, at(1), None), Ok(2));
            vm.pageout_step(1);
            assert_eq!(touch(vm, id, 2, at(1), None), Ok(2));
        });
        together(&vm, vec![stores, page_out, loads]);
        check(&vm);
        while vm.pageout_step(4) > 0 {}
        assert_eq!([0, 1].map(|page| get(vm.space(id), page)), [5, 2]);
        vm.space(id).release();
        assert_eq!(vm.counters().swap_used, 0);
    });
}
