//! The operations of the model test, as they are drawn.

/// What to map, as drawn.
#[derive(Clone, Copy, Debug)]
pub enum What {
    Anonymous,
    AnonymousShared,
    FilePrivate { file: usize, from: u64 },
    FileShared { file: usize, from: u64 },
}

/// Where, as drawn.
#[derive(Clone, Copy, Debug)]
pub enum Where {
    At(u64),
    Replace(u64),
    Up(u64),
    Down(u64),
}

/// One random operation. Numbers are taken modulo what there is.
#[derive(Clone, Debug)]
pub enum Op {
    Map {
        space: usize,
        len: u64,
        place: Where,
        what: What,
        prot: u8,
    },
    Remove {
        space: usize,
        first: u64,
        len: u64,
    },
    Protect {
        space: usize,
        first: u64,
        len: u64,
        prot: u8,
    },
    ProtectMax {
        space: usize,
        first: u64,
        len: u64,
        prot: u8,
    },
    Inherit {
        space: usize,
        first: u64,
        len: u64,
        inherit: u8,
    },
    Discard {
        space: usize,
        first: u64,
        len: u64,
    },
    Wire {
        space: usize,
        first: u64,
        len: u64,
    },
    Unwire {
        space: usize,
        first: u64,
        len: u64,
    },
    Move {
        space: usize,
        first: u64,
        len: u64,
        new_len: u64,
        place: Where,
    },
    Fork {
        space: usize,
    },
    Exit {
        space: usize,
    },
    Create,
    /// Through the VM, as a system call does.
    Write {
        space: usize,
        page: u64,
        place: usize,
        value: u64,
    },
    Read {
        space: usize,
        page: u64,
        place: usize,
    },
    /// Through the TLB of a processor, as a program does.
    Store {
        space: usize,
        cpu: usize,
        page: u64,
        place: usize,
        value: u64,
    },
    Load {
        space: usize,
        cpu: usize,
        page: u64,
        place: usize,
    },
    FileWrite {
        file: usize,
        page: u64,
        place: usize,
        value: u64,
    },
    FileRead {
        file: usize,
        page: u64,
        place: usize,
    },
    Resize {
        file: usize,
        bytes: u64,
    },
    Clean {
        space: usize,
        first: u64,
        len: u64,
        invalidate: bool,
    },
    PageOut {
        want: u32,
    },
    Drop {
        space: usize,
        first: u64,
        len: u64,
    },
    Residency {
        space: usize,
        first: u64,
        len: u64,
    },
}
