//! Waiting: for pages, for room, for a range in transition. What happens meanwhile is scripted by
//! whoever is told of low memory.

use super::*;
use bsdvm::{Frame, KernelWatch, KmemError};
use std::sync::Mutex;

/// Does something each time that low memory is announced.
struct Script {
    rounds: Mutex<Vec<u32>>,
    act: Box<dyn Fn(u32) + Send + Sync>,
}

impl KernelWatch for Script {
    fn low_memory(&self, round: u32) {
        self.rounds.lock().unwrap().push(round);
        (self.act)(round);
    }
}

fn script(act: impl Fn(u32) + Send + Sync + 'static) -> &'static Script {
    Box::leak(Box::new(Script {
        rounds: Mutex::default(),
        act: Box::new(act),
    }))
}

fn leak(vm: TestVm) -> &'static TestVm {
    Box::leak(Box::new(vm))
}

/// Takes every frame that those who may wait can have.
fn take_all(vm: &'static TestVm) -> &'static Mutex<Vec<Frame>> {
    let kmem = vm.kmem().unwrap();
    let mut frames = Vec::new();
    while let Ok(frame) = kmem.frame_alloc(Fill::AsIs) {
        frames.push(frame);
    }
    Box::leak(Box::new(Mutex::new(frames)))
}

fn give(vm: &'static TestVm, frames: &Mutex<Vec<Frame>>, count: usize) {
    for _ in 0..count {
        if let Some(frame) = frames.lock().unwrap().pop() {
            vm.kmem().unwrap().frame_free(frame);
        }
    }
}

#[test]
fn k16_low_memory_is_announced_to_whoever_watches() {
    let vm = leak(vm_with_kernel(500, 1024));
    let kmem = kernel(vm);
    let watcher = script(|_| ());
    kmem.low_memory();
    kmem.watch(watcher).unwrap();
    kmem.low_memory();
    vm.set_setting("debug.vm_lowmem", 1).unwrap();
    assert_eq!(
        *watcher.rounds.lock().unwrap(),
        [0, 0],
        "by hand and by its setting"
    );
    assert_eq!(vm.counters().low_memory, 3);
    let others: Vec<_> = (0..15).map(|_| script(|_| ())).collect();
    others.iter().for_each(|w| kmem.watch(*w).unwrap());
    assert!(kmem.watch(script(|_| ())).is_err(), "sixteen are enough");
    kmem.unwatch(watcher).unwrap();
    assert!(kmem.unwatch(watcher).is_err());
    kmem.low_memory();
    assert_eq!(watcher.rounds.lock().unwrap().len(), 2);
    assert_eq!(*others[14].rounds.lock().unwrap(), [0]);

    // A watcher may call back.
    let deep = script(move |_| {
        let kmem = vm.kmem().unwrap();
        let at = kmem.map().alloc_nofault(PAGE).unwrap();
        kmem.map().free(at, PAGE).unwrap();
    });
    kmem.watch(deep).unwrap();
    kmem.low_memory();
    assert_eq!(deep.rounds.lock().unwrap().len(), 1);
    end(vm);
}

#[test]
fn k09_waitok_waits_for_pages() {
    let vm = leak(vm_with_kernel(2000, 1024));
    let kmem = kernel(vm);
    let map = malloc_map(kmem, 64);
    let hoard = take_all(vm);
    // What the allocation has so far stays its own while it waits; its range is in transition.
    let watcher = script(move |_| {
        assert_eq!(draw(map, 64).matches('A').count(), 4, "the range is taken");
        give(vm, hoard, 1);
    });
    kmem.watch(watcher).unwrap();
    let got = map.malloc(4 * PAGE, WAIT).unwrap();
    let rounds = watcher.rounds.lock().unwrap().len();
    assert!(rounds >= 4, "each page was waited for: {rounds}");
    assert_eq!(load(vm, VirtAddr(got.0 + 3 * PAGE)), Some(0));
    assert_eq!(draw(map, 5), "AAAA.");
    check(vm);
    give(vm, hoard, 5000);
    end(vm);
}

#[test]
fn k03_alloc_waits_for_pages() {
    let vm = leak(vm_with_kernel(2000, 1024));
    let kmem = kernel(vm);
    for eager in [false, true] {
        let hoard = take_all(vm);
        let watcher = script(move |_| give(vm, hoard, 1));
        kmem.watch(watcher).unwrap();
        let got = match eager {
            false => kmem.map().alloc(3 * PAGE),
            true => kmem.map().alloc_eager(3 * PAGE),
        };
        let got = got.unwrap();
        assert!(watcher.rounds.lock().unwrap().len() >= 3, "eager: {eager}");
        assert_eq!(load(vm, VirtAddr(got.0 + 2 * PAGE)), Some(0));
        kmem.unwatch(watcher).unwrap();
        give(vm, hoard, 5000);
        kmem.map().free(got, 3 * PAGE).unwrap();
    }
    end(vm);
}

#[test]
fn k10_without_room_there_are_eight_rounds_and_then_an_error() {
    let vm = leak(vm_with_kernel(500, 1024));
    let kmem = kernel(vm);
    let map = malloc_map(kmem, 8);
    let got = map.malloc(6 * PAGE, WAIT).unwrap();
    let watcher = script(|_| ());
    kmem.watch(watcher).unwrap();
    let start = bsdvm::Host::now(vm.machine());
    assert_eq!(map.malloc(3 * PAGE, NOWAIT), Err(KmemError::NoSpace));
    assert!(
        watcher.rounds.lock().unwrap().is_empty(),
        "who may not wait fails at once"
    );
    assert_eq!(map.malloc(3 * PAGE, WAIT), Err(KmemError::NoSpace));
    assert_eq!(*watcher.rounds.lock().unwrap(), [0, 1, 2, 3, 4, 5, 6, 7]);
    // A quarter of a second, and a little longer each time: 36 quarters.
    let slept = bsdvm::Host::now(vm.machine()) - start;
    assert_eq!(slept, 36 * 250_000_000);
    assert_eq!(draw(map, 8), "AAAAAA..");
    kmem.unwatch(watcher).unwrap();

    // Whoever is asked in the third round gives some back.
    let helper = script(move |round| {
        if round == 2 {
            map.free(got, 2 * PAGE).unwrap();
        }
    });
    kmem.watch(helper).unwrap();
    let found = map.malloc(2 * PAGE + 1, WAIT);
    assert_eq!(
        found,
        Err(KmemError::NoSpace),
        "no three pages are adjacent"
    );
    assert_eq!(map.malloc(2 * PAGE, WAIT), Ok(got));
    kmem.unwatch(helper).unwrap();
    end(vm);

    // As in 1996: no rounds at all.
    let config = KernelConfig {
        room_rounds: 0,
        zero_region: 0,
        ..KernelConfig::of(vm.machine())
    };
    let kmem = vm.kmem_init(config).unwrap();
    let map = malloc_map(kmem, 8);
    kmem.watch(watcher).unwrap();
    let before = watcher.rounds.lock().unwrap().len();
    assert_eq!(map.malloc(9 * PAGE, WAIT), Err(KmemError::NoSpace));
    assert_eq!(watcher.rounds.lock().unwrap().len(), before);
    kmem.unwatch(watcher).unwrap();
    end(vm);
}

#[test]
fn k10_room_that_is_given_back_in_a_round_is_found() {
    let vm = leak(vm_with_kernel(500, 1024));
    let kmem = kernel(vm);
    let map = malloc_map(kmem, 8);
    let got = map.malloc(8 * PAGE, WAIT).unwrap();
    let helper = script(move |round| {
        if round == 3 {
            map.free(got, 4 * PAGE).unwrap();
        }
    });
    kmem.watch(helper).unwrap();
    assert_eq!(map.malloc(4 * PAGE, WAIT), Ok(got));
    assert_eq!(*helper.rounds.lock().unwrap(), [0, 1, 2, 3]);
    kmem.unwatch(helper).unwrap();
    end(vm);
}

#[test]
fn k13_alloc_wait_sleeps_until_there_is_room() {
    let vm = leak(vm_with_kernel(500, 1024));
    let kmem = kernel(vm);
    let map = named(kmem, SubmapName::Exec, 8);
    let one = map.alloc_wait(5 * PAGE).unwrap();
    let two = map.alloc_wait(3 * PAGE).unwrap();
    assert_eq!(vm.counters().charged_pages, 8, "charged, and pageable");
    crate::common::touch(vm, kmem.map().id(), 0, two, Some(4)).unwrap();
    // It can never fit: at once, and refunded.
    assert_eq!(map.alloc_wait(9 * PAGE), Err(KmemError::NoSpace));
    assert_eq!(map.alloc_wait(0), Err(KmemError::InvalidArgument));
    vm.set_charge_limit(9);
    assert_eq!(map.alloc_wait(2 * PAGE), Err(KmemError::ChargeLimit));
    assert_eq!(vm.counters().charged_pages, 8);
    vm.set_charge_limit(u64::MAX);

    // Two wait for what neither finds alone; each is woken until it does.
    std::thread::scope(|scope| {
        let waiters = [4, 2].map(|count| scope.spawn(move || map.alloc_wait(count * PAGE)));
        while vm.counters().charged_pages < 14 {
            std::thread::yield_now();
        }
        map.free_wakeup(two, 3 * PAGE).unwrap();
        map.free_wakeup(one, 5 * PAGE).unwrap();
        for waiter in waiters {
            waiter.join().unwrap().unwrap();
        }
    });
    assert_eq!(vm.counters().charged_pages, 6);
    check(vm);
    end(vm);
}

#[test]
fn k11_who_meets_a_range_in_transition_waits_and_is_woken() {
    let vm = leak(vm_with_kernel(2000, 1024));
    let kmem = kernel(vm);
    let map = malloc_map(kmem, 64);
    let hoard = take_all(vm);
    let removed = std::sync::atomic::AtomicBool::new(false);
    let removed: &'static _ = Box::leak(Box::new(removed));
    let watcher = script(move |_| {
        assert!(
            !removed.load(std::sync::atomic::Ordering::SeqCst),
            "nobody moves the range"
        );
        // Frames come only when the other is known to wait for the range.
        if vm.counters().transition_waits > 0 {
            give(vm, hoard, 8);
        } else {
            give(vm, hoard, 1);
            let kmem = vm.kmem().unwrap();
            if let Ok(frame) = kmem.frame_alloc(Fill::AsIs) {
                hoard.lock().unwrap().push(frame);
            }
        }
        std::thread::yield_now();
    });
    kmem.watch(watcher).unwrap();
    std::thread::scope(|scope| {
        let filler = scope.spawn(|| map.back(range(0, 8), WAIT));
        while watcher.rounds.lock().unwrap().is_empty() {
            std::thread::yield_now();
        }
        map.free(at(2), 4 * PAGE).unwrap();
        removed.store(true, std::sync::atomic::Ordering::SeqCst);
        filler.join().unwrap().unwrap();
    });
    kmem.unwatch(watcher).unwrap();
    assert_eq!(draw(map, 9), "AA....BB.");
    give(vm, hoard, 5000);
    end(vm);
}
