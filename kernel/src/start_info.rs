//! What the firmware tells a PVH kernel: where memory is, and the command line.

use crate::layout::{direct, early};

/// `struct hvm_start_info`, version 1.
#[repr(C)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    modules: u32,
    module_list: u64,
    command_line: u64,
    rsdp: u64,
    memory_map: u64,
    memory_entries: u32,
    reserved: u32,
}

/// `struct hvm_memmap_table_entry`.
#[derive(Clone, Copy)]
#[repr(C)]
struct MemoryEntry {
    start: u64,
    bytes: u64,
    kind: u32,
    reserved: u32,
}

const MAGIC: u32 = 0x336e_c578;
/// A memory map entry of ordinary memory.
const RAM: u32 = 1;

/// The command line at a physical address that [`Start::command_line`] gave, once there is a
/// direct map.
pub(crate) fn command_line(physical: u64) -> &'static [u8] {
    if physical == 0 {
        return &[];
    }
    // SAFETY: a string with a zero at its end, as the protocol says, in memory that nobody changes.
    unsafe { core::ffi::CStr::from_ptr(direct(physical).as_ptr()) }.to_bytes()
}

/// The start information at a physical address of the first GiB. It is not to be used once the
/// boot code's mapping is gone.
pub(crate) struct Start(&'static StartInfo);

impl Start {
    /// Panics when there is none.
    pub(crate) fn at(physical: u64) -> Start {
        // SAFETY: the firmware put it there, and nobody changes it.
        let info: &'static StartInfo = unsafe { &*early(physical) };
        assert!(
            info.magic == MAGIC && info.version >= 1,
            "not started as a PVH kernel"
        );
        Start(info)
    }

    /// The ranges of ordinary memory: first byte and length.
    pub(crate) fn memory(&self) -> impl Iterator<Item = (u64, u64)> {
        let first: *const MemoryEntry = early(self.0.memory_map);
        (0..self.0.memory_entries as usize)
            // SAFETY: the table has that many entries.
            .map(move |i| unsafe { first.add(i).read() })
            .filter(|e| e.kind == RAM)
            .map(|e| (e.start, e.bytes))
    }

    /// Where the command line is; 0 where there is none.
    pub(crate) fn command_line(&self) -> u64 {
        self.0.command_line
    }
}
