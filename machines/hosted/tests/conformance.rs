//! The properties of every machine.

use bsdvm_hosted::{Hosted, probe};
use bsdvm_machine::Frame;
use bsdvm_machine::conformance::run;

mod common;

#[test]
fn the_hosted_machine_conforms() {
    common::watchdog();
    let machine = Hosted::new(64 << 20).expect("the host gives what a machine needs");
    let mut next = 0..;
    run(&machine, &mut || Frame(next.next().unwrap()));
    probe::forget();
    drop(machine);
    assert_eq!(common::children(), [], "a stub is left");
}
