use super::*;

const PHYSICAL: u64 = 0x12_3456_7000;

#[test]
fn an_entry_says_what_it_was_made_of() {
    let attrs = [
        MemoryAttr::WriteBack,
        MemoryAttr::WriteThrough,
        MemoryAttr::WriteCombining,
        MemoryAttr::Uncached,
    ];
    for prot in [Prot::NONE, Prot::READ, Prot::RW, Prot::RX, Prot::ALL] {
        for attr in attrs {
            for kind in [Kind::Managed, Kind::Manual] {
                let e = Entry::leaf(PHYSICAL, prot, attr, kind, true);
                assert!(e.is_valid());
                let parts = (e.physical(), e.prot(), e.attr(), e.kind(), e.usage());
                assert_eq!(parts, (PHYSICAL, prot, attr, kind, Usage::empty()));
                let again = e.with_usage(Usage::all()).with_prot(Prot::NONE);
                let parts = (again.physical(), again.attr(), again.kind(), again.usage());
                assert_eq!(parts, (PHYSICAL, attr, kind, Usage::all()));
                assert!(!again.is_present());
            }
        }
    }
}

#[test]
fn known_bits_are_where_the_processor_wants_them() {
    let e = Entry::leaf(
        0x5000,
        Prot::READ,
        MemoryAttr::WriteBack,
        Kind::Managed,
        true,
    );
    assert_eq!(e.0, 1 << 63 | 0x5000 | 1 << 9 | 1 << 2 | 1);
    let e = Entry::leaf(
        0x5000,
        Prot::ALL,
        MemoryAttr::WriteCombining,
        Kind::Manual,
        false,
    );
    assert_eq!(
        e.0,
        0x5000 | 1 << 10 | 1 << 9 | 1 << 8 | 1 << 7 | 1 << 1 | 1
    );
    assert_eq!(Entry::table(0x6000, true).0, 0x6007);
}

#[test]
fn without_access_the_address_in_the_entry_lies_in_no_memory() {
    let e = Entry::leaf(
        0x5000,
        Prot::NONE,
        MemoryAttr::WriteBack,
        Kind::Managed,
        true,
    );
    assert_eq!(e.0 & ADDRESS, 0x000f_ffff_ffff_a000);
}
