//! The properties of every machine, at all page sizes of this one.

use bsdvm_machine::Frame;
use bsdvm_machine::conformance::run;
use bsdvm_sim::{Sim, SimConfig};

macro_rules! conforms {
    ($name:ident, $shift:literal) => {
        #[test]
        fn $name() {
            let sim = Sim::<$shift>::new(SimConfig::default());
            let mut next = 0..;
            run(&sim, &mut || Frame(next.next().unwrap()));
            assert_eq!(sim.stale_frames(), []);
            assert_eq!(sim.lost(), []);
        }
    };
}

conforms!(pages_of_4_kib, 12);
conforms!(pages_of_16_kib, 14);
conforms!(pages_of_64_kib, 16);
