//! Programs in ELF: what a file says about itself, checked, and its segments into a space.
//!
//! The file is hostile until shown otherwise: every number is checked before it is used, and a
//! file that is cut off or contradicts itself is [`Errno::ENOEXEC`].

use crate::errno::Errno;
use alloc::vec::Vec;
use bsdvm::Prot;
use elf::abi as e;
use elf::endian::{EndianParse, LittleEndian};
use elf::file::{Class, FileHeader, parse_ident};
use elf::segment::{ProgramHeader, SegmentTable};

/// Bytes of a file's beginning that hold the header.
pub(crate) const HEADER_BYTES: usize = 64;
/// The size of one program header.
const PHENT: u16 = 56;
/// Linux refuses tables of program headers beyond this.
const PHDRS_MAX: usize = 65536;
/// The longest name of an interpreter.
const INTERP_MAX: u64 = 4096;

/// One segment to be mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Byte offset in the file.
    pub offset: u64,
    /// Address, before the program's own displacement.
    pub vaddr: u64,
    /// Bytes that come from the file.
    pub file_bytes: u64,
    /// Bytes in memory: at least as many; the rest is zero.
    pub memory_bytes: u64,
    /// What may be done with it.
    pub prot: Prot,
}

impl Segment {
    /// The address after its last byte.
    pub fn end(&self) -> u64 {
        self.vaddr + self.memory_bytes
    }
}

/// What an ELF file's header says, checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Whether it may be placed anywhere (`ET_DYN`).
    pub movable: bool,
    /// Its first instruction, before displacement.
    pub entry: u64,
    /// Where the program headers lie in the file.
    pub phdr_offset: u64,
    /// How many there are.
    pub phdr_count: u16,
}

/// What its program headers say, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    /// The segments, in ascending order, not overlapping.
    pub segments: Vec<Segment>,
    /// The lowest page and the end of the highest.
    pub span: (u64, u64),
    /// The largest alignment asked for.
    pub align: u64,
    /// Where the interpreter's name lies in the file, and its length with the zero.
    pub interpreter: Option<(u64, u64)>,
    /// Where the program headers are in memory, before displacement; 0 when they are not.
    pub phdr_address: u64,
    /// Whether the stack is executable.
    pub executable_stack: bool,
}

/// Reads the header from the first bytes of a file.
///
/// # Errors
/// [`Errno::ENOEXEC`] for anything that is not a whole x86-64 executable's header.
pub fn header(bytes: &[u8]) -> Result<Header, Errno> {
    let bytes = bytes.get(..HEADER_BYTES).ok_or(Errno::ENOEXEC)?;
    let ident = parse_ident::<LittleEndian>(bytes).map_err(|_| Errno::ENOEXEC)?;
    let tail = &bytes[e::EI_NIDENT..];
    let file = FileHeader::parse_tail(ident, tail).map_err(|_| Errno::ENOEXEC)?;
    check_header(&file)?;
    Ok(Header {
        movable: file.e_type == e::ET_DYN,
        entry: file.e_entry,
        phdr_offset: file.e_phoff,
        phdr_count: file.e_phnum,
    })
}

fn check_header<E: EndianParse>(file: &FileHeader<E>) -> Result<(), Errno> {
    let right = file.class == Class::ELF64
        && file.e_machine == e::EM_X86_64
        && matches!(file.e_type, e::ET_EXEC | e::ET_DYN)
        && file.e_phentsize == PHENT
        && file.e_phnum >= 1
        && usize::from(file.e_phnum) * usize::from(PHENT) <= PHDRS_MAX;
    if right { Ok(()) } else { Err(Errno::ENOEXEC) }
}

impl Header {
    /// The size of the table of program headers in bytes.
    pub fn table_bytes(&self) -> usize {
        usize::from(self.phdr_count) * usize::from(PHENT)
    }

    /// Reads the table of program headers. `file_bytes` is the size of the file, `page` that of a
    /// page, `limit` the first address that a program cannot have.
    ///
    /// # Errors
    /// [`Errno::ENOEXEC`] for a table that is cut off or contradicts itself.
    pub fn layout(
        &self,
        table: &[u8],
        file_bytes: u64,
        page: u64,
        limit: u64,
    ) -> Result<Layout, Errno> {
        if table.len() < self.table_bytes() {
            return Err(Errno::ENOEXEC);
        }
        let table = SegmentTable::new(LittleEndian, Class::ELF64, &table[..self.table_bytes()]);
        let mut layout = Layout {
            segments: Vec::new(),
            span: (0, 0),
            align: page,
            interpreter: None,
            phdr_address: 0,
            executable_stack: false,
        };
        for header in table.iter() {
            layout.take(&header, file_bytes, page, limit)?;
        }
        layout.finish(self, page)
    }
}

impl Layout {
    fn take(
        &mut self,
        header: &ProgramHeader,
        file_bytes: u64,
        page: u64,
        limit: u64,
    ) -> Result<(), Errno> {
        match header.p_type {
            e::PT_LOAD if header.p_memsz > 0 => {
                let segment = load_segment(header, file_bytes, page, limit)?;
                if header.p_align.is_power_of_two() {
                    self.align = self.align.max(header.p_align);
                }
                self.segments.push(segment);
            }
            e::PT_INTERP if self.interpreter.is_none() => {
                let fits = within(header.p_offset, header.p_filesz, file_bytes);
                if !fits || !(2..=INTERP_MAX).contains(&header.p_filesz) {
                    return Err(Errno::ENOEXEC);
                }
                self.interpreter = Some((header.p_offset, header.p_filesz));
            }
            e::PT_GNU_STACK => self.executable_stack = header.p_flags & e::PF_X != 0,
            _ => {}
        }
        Ok(())
    }

    fn finish(mut self, header: &Header, page: u64) -> Result<Layout, Errno> {
        let (Some(first), Some(last)) = (self.segments.first(), self.segments.last()) else {
            return Err(Errno::ENOEXEC);
        };
        let ascending = self.segments.windows(2).all(|w| w[0].end() <= w[1].vaddr);
        if !ascending {
            return Err(Errno::ENOEXEC);
        }
        let end = last
            .end()
            .checked_next_multiple_of(page)
            .ok_or(Errno::ENOEXEC)?;
        self.span = (first.vaddr & !(page - 1), end);
        let table_end = header.phdr_offset.checked_add(header.table_bytes() as u64);
        let holder = self.segments.iter().find(|s| {
            s.offset <= header.phdr_offset
                && table_end.is_some_and(|t| t <= s.offset + s.file_bytes)
        });
        self.phdr_address = holder.map_or(0, |s| s.vaddr + (header.phdr_offset - s.offset));
        Ok(self)
    }
}

fn within(offset: u64, bytes: u64, file_bytes: u64) -> bool {
    offset
        .checked_add(bytes)
        .is_some_and(|end| end <= file_bytes)
}

fn load_segment(
    header: &ProgramHeader,
    file_bytes: u64,
    page: u64,
    limit: u64,
) -> Result<Segment, Errno> {
    let end = header.p_vaddr.checked_add(header.p_memsz);
    let right = header.p_filesz <= header.p_memsz
        && within(header.p_offset, header.p_filesz, file_bytes)
        && header.p_vaddr % page == header.p_offset % page
        && end.is_some_and(|end| end <= limit);
    if !right {
        return Err(Errno::ENOEXEC);
    }
    let mut prot = Prot::NONE;
    for (flag, bit) in [
        (e::PF_R, Prot::READ),
        (e::PF_W, Prot::RW),
        (e::PF_X, Prot::RX),
    ] {
        if header.p_flags & flag != 0 {
            prot |= bit;
        }
    }
    Ok(Segment {
        offset: header.p_offset,
        vaddr: header.p_vaddr,
        file_bytes: header.p_filesz,
        memory_bytes: header.p_memsz,
        prot,
    })
}

#[cfg(test)]
#[path = "elf_tests.rs"]
mod tests;
