//! The properties of every machine, on page tables in plain memory.

use bsdvm_machine::Frame;
use bsdvm_machine::conformance::{FRAMES, run};
use bsdvm_x86_64::PlainMachine;

#[test]
fn page_tables_conform() {
    let machine = PlainMachine::new(FRAMES as u32, 2);
    let mut next = 0..;
    run(&machine, &mut || Frame(next.next().unwrap()));
}
