//! What the simulated machine adds to the seam: stale translations, failures, traces.

#[cfg(debug_assertions)]
use bsdvm_machine::sync::Mutex;
use bsdvm_machine::*;
use bsdvm_sim::{Event, InjectKind, Sim, SimConfig, SimPmap};

const VA: VirtAddr = VirtAddr(0x10_0000);

fn machine() -> (Sim, SimPmap) {
    let sim = Sim::new(SimConfig::default());
    let pmap = sim.pmap_create().unwrap();
    (sim, pmap)
}

fn enter(pmap: &SimPmap, frame: u32, prot: Prot) -> Result<bsdvm_sim::SimFlush, EnterError> {
    let run = FrameRun::one(Frame(frame));
    pmap.enter(
        VA,
        run,
        prot,
        MemoryAttr::WriteBack,
        Kind::Managed,
        &mut |_| (),
    )
}

fn page() -> VirtRange {
    VirtRange::from_len(VA, 4096).unwrap()
}

#[test]
fn a_replaced_translation_is_used_until_flushed() {
    let (sim, pmap) = machine();
    pmap.donate(Frame(0));
    enter(&pmap, 1, Prot::RW).unwrap().wait();
    sim.store(&pmap, 1, VA, &[7]).unwrap();
    let flush = enter(&pmap, 2, Prot::RW).unwrap();
    sim.store(&pmap, 1, VA, &[8]).unwrap();
    let mut byte = [0];
    sim.read(Frame(1), 0, &mut byte);
    assert_eq!(byte, [8], "the old frame was written");
    assert_eq!(sim.stale_frames(), [Frame(1)]);
    flush.wait();
    assert_eq!(sim.stale_frames(), []);
    sim.load(&pmap, 1, VA, &mut byte).unwrap();
    assert_eq!(byte, [0]);
}

#[test]
#[should_panic(expected = "nobody waited for it")]
fn a_dropped_flush_panics() {
    let (_sim, pmap) = machine();
    pmap.donate(Frame(0));
    assert!(enter(&pmap, 1, Prot::RW).unwrap().is_done());
    drop(pmap.remove(page(), &mut |_| ()));
}

#[test]
fn failures_come_when_asked_for() {
    let (sim, pmap) = machine();
    assert!(matches!(
        enter(&pmap, 1, Prot::RW),
        Err(EnterError::NeedFrames(1))
    ));
    pmap.donate(Frame(0));
    sim.injector().fail_nth(InjectKind::PmapEnter, 2);
    enter(&pmap, 1, Prot::READ).unwrap().wait();
    assert!(matches!(
        enter(&pmap, 1, Prot::RW),
        Err(EnterError::NoResources)
    ));
    enter(&pmap, 1, Prot::RW).unwrap().wait();
    sim.injector().fail_nth(InjectKind::PmapCreate, 1);
    assert!(sim.pmap_create().is_err());
    assert_eq!(sim.injector().fired(InjectKind::PmapEnter), 1);
}

#[test]
fn the_trace_tells_what_was_done() {
    let (sim, pmap) = machine();
    pmap.donate(Frame(0));
    sim.trace_start();
    sim.zero(Frame(3));
    enter(&pmap, 3, Prot::RW).unwrap().wait();
    pmap.remove(page(), &mut |_| ()).wait();
    let events = sim.trace_take();
    assert_eq!(events.len(), 4);
    assert_eq!(events[0], Event::Zero { frame: Frame(3) });
    assert!(matches!(events[3], Event::Flush { .. }));
}

// Release builds do not look at ranks.
#[cfg(debug_assertions)]
#[test]
#[should_panic(expected = "lock of rank 1 taken while 2 is held")]
fn locks_out_of_order_panic() {
    let low: Mutex<Sim, (), 1> = Mutex::new(());
    let high: Mutex<Sim, (), 2> = Mutex::new(());
    let _high = high.lock();
    let _low = low.lock();
}

#[test]
fn time_moves_without_sleeping() {
    let (sim, _pmap) = machine();
    let ticket = sim.ticket(Channel(9));
    sim.sleep(Channel(9), ticket, Some(1_000_000));
    assert_eq!(sim.now(), 1_000_000);
    sim.advance(5);
    assert_eq!(sim.now(), 1_000_005);
    sim.sleep(Channel(9), ticket, None);
}

#[test]
fn a_pmap_that_ends_full_is_noticed() {
    let (sim, pmap) = machine();
    pmap.donate(Frame(0));
    enter(&pmap, 1, Prot::RW).unwrap().wait();
    drop(pmap);
    assert_eq!(sim.lost(), [(1, 1)]);
}
