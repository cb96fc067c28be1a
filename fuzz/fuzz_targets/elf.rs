//! Any bytes as an ELF file: what is taken for a program must be one that can be placed.

#![no_main]

use bsdvm_linux::elf::header;

const PAGE: u64 = 4096;
const LIMIT: u64 = 0x7fff_ffff_f000;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(found) = header(data) else { return };
    let at = usize::try_from(found.phdr_offset).unwrap_or(usize::MAX);
    let table = data.get(at..).unwrap_or_default();
    // The bytes of a large file need not all be there: its size is drawn from its last bytes.
    let size = data.len() as u64 + u64::from(data[data.len() - 1]) * 0x1000;
    let Ok(layout) = found.layout(table, size, PAGE, LIMIT) else {
        return;
    };
    assert!(!layout.segments.is_empty());
    assert!(layout.align.is_power_of_two() && layout.align >= PAGE);
    let (low, high) = layout.span;
    assert!(low % PAGE == 0 && high % PAGE == 0 && low < high);
    let mut before = low;
    for s in &layout.segments {
        assert!(before <= s.vaddr && s.end() <= high && s.end() <= LIMIT);
        assert!(s.file_bytes <= s.memory_bytes);
        assert!(
            s.offset
                .checked_add(s.file_bytes)
                .is_some_and(|end| end <= size)
        );
        before = s.end();
    }
    if let Some((offset, bytes)) = layout.interpreter {
        assert!(offset + bytes <= size);
    }
    assert!(layout.phdr_address == 0 || (low..high).contains(&layout.phdr_address));
});
