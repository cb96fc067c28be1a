//! Starting a program: find it, follow `#!`, load it and its interpreter into a fresh space.
//!
//! Nothing of the caller changes here: a load that fails leaves no trace, and only its success
//! lets [`crate::syscall`] replace what the process has.

mod stack;

use crate::elf::{self, HEADER_BYTES, Header, Layout, Segment};
use crate::errno::Errno;
use crate::fs::busy::{InUse, Use};
use crate::fs::inode::{Key, key_of};
use crate::fs::path::Start;
use crate::platform::{HostFile, Identity, Platform, Registers};
use crate::space::{AddressSpace, Bounds};
use crate::system::{Linux, Program};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use bsdvm::{Mapping, Placement, Prot, Sharing, VirtAddr, VirtRange};
use linux_raw_sys::general as abi;
use stack::StackImage;

/// How many interpreters may follow each other.
const DEPTH: usize = 5;
/// The first line of a script is looked for in this many bytes.
const LINE: usize = 256;
const RLIMIT_STACK: u32 = 3;
/// Addresses above the stack that stay empty.
const TOP_GUARD: u64 = 16 * 4096;
/// Addresses between the lowest place of the stack and the highest mapping.
const STACK_GAP: u64 = 1 << 20;
/// Addresses that a stack has at least, as its limit may be raised later.
const STACK_ROOM: u64 = 128 << 20;
const STACK_MIN: u64 = 128 << 10;
const STACK_MAX: u64 = 1 << 30;

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExecRequest {
    pub(crate) path: Vec<u8>,
    pub(crate) args: Vec<Vec<u8>>,
    pub(crate) env: Vec<Vec<u8>>,
    /// Who executes it: the user, the effective one, and the groups likewise.
    pub(crate) ids: [u32; 4],
}

impl ExecRequest {
    /// A program that the runner starts.
    pub(crate) fn of_runner(program: Program, id: &Identity) -> ExecRequest {
        ExecRequest {
            path: program.path,
            args: program.args,
            env: program.env,
            ids: [id.uid, id.euid, id.gid, id.egid],
        }
    }
}

/// A program that is ready to run.
pub(crate) struct Image<P: Platform> {
    pub(crate) space: Arc<AddressSpace<P>>,
    pub(crate) regs: Registers,
    /// `comm`.
    pub(crate) name: Vec<u8>,
    /// The absolute path of the file that was loaded.
    pub(crate) exe: Vec<u8>,
}

/// A program's file, open and looked at.
struct Binary<P: Platform> {
    file: Arc<P::File>,
    header: Header,
    layout: Layout,
}

/// Loads a program into a space of its own. `start` is where a relative path begins.
pub(crate) fn load<P: Platform>(
    sys: &'static Linux<P>,
    start: Option<&Start<P>>,
    mut request: ExecRequest,
) -> Result<Image<P>, Errno> {
    let name = request
        .path
        .rsplit(|&b| b == b'/')
        .next()
        .unwrap_or_default();
    let name = name[..name.len().min(15)].to_vec();
    let (file, program) = resolve(sys, start, &mut request)?;
    let main = examine(sys, file)?;
    let interpreter = match main.layout.interpreter {
        Some((at, len)) => Some(examine_interpreter(sys, &main, at, len)?),
        None => None,
    };
    let space = AddressSpace::create(sys, program)?;
    let regs = populate(sys, &space, &main, interpreter.as_ref(), &request)?;
    let exe = main.file.path().unwrap_or(request.path);
    Ok(Image {
        space,
        regs,
        name,
        exe,
    })
}

/// Opens what `request` names, following `#!` lines, which change its arguments. Nobody writes to
/// the file from now on.
fn resolve<P: Platform>(
    sys: &'static Linux<P>,
    start: Option<&Start<P>>,
    request: &mut ExecRequest,
) -> Result<(Arc<P::File>, InUse<P>), Errno> {
    for _ in 0..DEPTH {
        let (file, key) = open_program(sys, start, &request.path)?;
        let program = sys.use_file(key, Use::Executed)?;
        let mut line = [0; LINE];
        let n = file.read_at(0, &mut line)?;
        let Some((interpreter, argument)) = script_line(&line[..n])? else {
            return Ok((Arc::new(file), program));
        };
        let mut args = vec![interpreter.to_vec()];
        args.extend(argument.map(<[u8]>::to_vec));
        args.push(core::mem::take(&mut request.path));
        args.extend(request.args.drain(..).skip(1));
        request.args = args;
        request.path = interpreter.to_vec();
    }
    Err(Errno::ELOOP)
}

fn open_program<P: Platform>(
    sys: &'static Linux<P>,
    start: Option<&Start<P>>,
    path: &[u8],
) -> Result<(P::File, Key), Errno> {
    let base = match start {
        Some(start) if path.first() != Some(&b'/') => start.base()?,
        _ => None,
    };
    sys.platform
        .access(base, path, abi::X_OK, abi::AT_EACCESS)?;
    let file = sys
        .platform
        .open(base, path, abi::O_RDONLY | abi::O_NONBLOCK, 0)?;
    let stat = file.stat()?;
    if stat.is_directory() {
        return Err(Errno::EACCES);
    }
    if !stat.is_regular() {
        return Err(Errno::EACCES);
    }
    Ok((file, key_of(&stat)))
}

/// An interpreter and its argument.
type ScriptLine<'a> = (&'a [u8], Option<&'a [u8]>);

/// The interpreter of a script and its argument; `None` when the file is no script.
fn script_line(start: &[u8]) -> Result<Option<ScriptLine<'_>>, Errno> {
    let Some(rest) = start.strip_prefix(b"#!") else {
        return Ok(None);
    };
    let line = rest.split(|&b| b == b'\n').next().unwrap_or_default();
    let line = line.split(|&b| b == 0).next().unwrap_or_default();
    let line = line.trim_ascii();
    let end = line
        .iter()
        .position(|b| matches!(b, b' ' | b'\t'))
        .unwrap_or(line.len());
    if end == 0 {
        return Err(Errno::ENOEXEC);
    }
    let argument = line[end..].trim_ascii();
    Ok(Some((
        &line[..end],
        (!argument.is_empty()).then_some(argument),
    )))
}

fn read_exactly<F: HostFile>(file: &F, offset: u64, len: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; len];
    let mut done = 0;
    while done < len {
        let at = offset.checked_add(done as u64).ok_or(Errno::ENOEXEC)?;
        match file.read_at(at, &mut bytes[done..]) {
            Ok(0) => return Err(Errno::ENOEXEC),
            Ok(n) => done += n,
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(bytes)
}

fn examine<P: Platform>(sys: &'static Linux<P>, file: Arc<P::File>) -> Result<Binary<P>, Errno> {
    let header = elf::header(&read_exactly(&*file, 0, HEADER_BYTES)?)?;
    let table = read_exactly(&*file, header.phdr_offset, header.table_bytes())?;
    let size = file.stat()?.size;
    let limit = sys.user_range().end().0;
    let layout = header.layout(&table, size, Linux::<P>::PAGE_BYTES, limit)?;
    Ok(Binary {
        file,
        header,
        layout,
    })
}

fn examine_interpreter<P: Platform>(
    sys: &'static Linux<P>,
    main: &Binary<P>,
    at: u64,
    len: u64,
) -> Result<Binary<P>, Errno> {
    let name = read_exactly(
        &*main.file,
        at,
        usize::try_from(len).map_err(|_| Errno::ENOEXEC)?,
    )?;
    let name = name.strip_suffix(b"\0").ok_or(Errno::ENOEXEC)?;
    let (file, _) = open_program(sys, None, name)?;
    examine(sys, Arc::new(file)).map_err(|e| {
        if e == Errno::ENOEXEC {
            Errno::ELIBBAD
        } else {
            e
        }
    })
}

/// Maps everything and writes the first stack; gives back the first registers.
fn populate<P: Platform>(
    sys: &'static Linux<P>,
    space: &Arc<AddressSpace<P>>,
    main: &Binary<P>,
    interpreter: Option<&Binary<P>>,
    request: &ExecRequest,
) -> Result<Registers, Errno> {
    let page = Linux::<P>::PAGE_BYTES;
    let user = sys.user_range();
    let stack_top = user.end().0.checked_sub(TOP_GUARD).ok_or(Errno::ENOMEM)?;
    let limit = sys
        .platform
        .limit(RLIMIT_STACK)
        .0
        .clamp(STACK_MIN, STACK_MAX);
    let limit = limit
        .next_multiple_of(page)
        .min(user.len() / 4 / page * page);
    let room = limit.max(STACK_ROOM).min(user.len() / 4 / page * page);
    let mmap_top = stack_top.saturating_sub(room).saturating_sub(STACK_GAP);
    let bias = if main.header.movable {
        movable_base(user, main)
    } else {
        0
    };
    map_binary(sys, space, main, bias)?;
    let (entry, interpreter_base) = match interpreter {
        Some(binary) => {
            let base = place_interpreter(space, binary, mmap_top)?;
            map_binary(sys, space, binary, base)?;
            (base.wrapping_add(binary.header.entry), base)
        }
        None => (bias.wrapping_add(main.header.entry), 0),
    };
    let auxv = auxiliary(sys, main, bias, interpreter_base, request.ids);
    let mut random = [0; 16];
    sys.platform.random(&mut random);
    let image = StackImage::build(stack_top, request, &auxv, &random)?;
    let prot = if main.layout.executable_stack {
        Prot::ALL
    } else {
        Prot::RW
    };
    place_stack(space, stack_top, limit, &image, prot)?;
    space.limit_growth(limit, u64::MAX);
    let brk = bias + main.layout.span.1;
    *space.bounds.lock() = Bounds {
        brk_start: brk,
        brk,
        stack_top,
        mmap_top,
        lock_future: None,
        args: image.args,
        env: image.env,
        code: extent(main, bias, |s| s.prot.contains(Prot::EXEC)),
        data: extent(main, bias, |s| s.prot.contains(Prot::WRITE)),
        stack_start: image.sp,
        auxv: image.auxv,
    };
    Ok(Registers {
        rip: entry,
        rsp: image.sp,
        rflags: 0x202,
        ..Registers::default()
    })
}

/// From the first to the last address of some of a program's segments.
fn extent<P: Platform>(
    main: &Binary<P>,
    bias: u64,
    which: impl Fn(&Segment) -> bool,
) -> (u64, u64) {
    let segments = main.layout.segments.iter().filter(|s| which(s));
    let ends = segments.map(|s| (s.vaddr, s.vaddr.saturating_add(s.file_bytes)));
    let both = ends.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
    both.map_or((0, 0), |(a, b)| {
        (bias.wrapping_add(a), bias.wrapping_add(b))
    })
}

/// Where a program goes that may go anywhere: at two thirds of the user's addresses, as on Linux.
fn movable_base<P: Platform>(user: VirtRange, main: &Binary<P>) -> u64 {
    let two_thirds = user.end().0 / 3 * 2;
    let base = two_thirds & !(main.layout.align - 1);
    base.wrapping_sub(main.layout.span.0)
}

/// Finds room for an interpreter below the other mappings, or takes the addresses it asks for.
fn place_interpreter<P: Platform>(
    space: &AddressSpace<P>,
    binary: &Binary<P>,
    mmap_top: u64,
) -> Result<u64, Errno> {
    if !binary.header.movable {
        return Ok(0);
    }
    let (low, high) = binary.layout.span;
    let placement = Placement::TopDown {
        below: VirtAddr(mmap_top),
        align: binary.layout.align,
    };
    let at = space
        .core()
        .map(high - low, placement, Mapping::anonymous(Prot::NONE))?;
    let range = VirtRange::from_len(at, high - low).ok_or(Errno::ENOMEM)?;
    // The space has no thread yet: nobody can take the room between this and the mapping.
    space.core().remove(range)?;
    Ok(at.0.wrapping_sub(low))
}

fn map_binary<P: Platform>(
    sys: &'static Linux<P>,
    space: &AddressSpace<P>,
    binary: &Binary<P>,
    bias: u64,
) -> Result<(), Errno> {
    let inode = sys.inodes.obtain(sys, &binary.file)?;
    let object = inode.object().id();
    for segment in &binary.layout.segments {
        let vaddr = bias.wrapping_add(segment.vaddr);
        let end = vaddr
            .checked_add(segment.memory_bytes)
            .ok_or(Errno::ENOEXEC)?;
        if end > sys.user_range().end().0 {
            return Err(Errno::ENOEXEC);
        }
        let file = |offset| Mapping::object(object, offset, Sharing::Private, segment.prot);
        map_segment(space, segment, vaddr, &file).map_err(|e| match e {
            Errno::EINVAL => Errno::ENOEXEC,
            e => e,
        })?;
    }
    Ok(())
}

/// Maps one segment at `vaddr`: pages of the file, the rest of the last one cleared, and plain
/// memory after it.
fn map_segment<P: Platform>(
    space: &AddressSpace<P>,
    segment: &Segment,
    vaddr: u64,
    file: &dyn Fn(u64) -> Mapping,
) -> Result<(), Errno> {
    let page = Linux::<P>::PAGE_BYTES;
    let start = vaddr & !(page - 1);
    let file_end = vaddr + segment.file_bytes;
    let end = (vaddr + segment.memory_bytes).next_multiple_of(page);
    let mut at = start;
    if segment.file_bytes > 0 {
        let mapped = file_end.next_multiple_of(page);
        let offset = segment.offset & !(page - 1);
        space.core().map(
            mapped - start,
            Placement::Replace(VirtAddr(start)),
            file(offset),
        )?;
        if segment.memory_bytes > segment.file_bytes && mapped > file_end {
            let zeroes = vec![0; (mapped - file_end) as usize];
            space.core().write_forced(VirtAddr(file_end), &zeroes)?;
        }
        at = mapped;
    }
    if end > at {
        let what = Mapping::anonymous(segment.prot);
        space
            .core()
            .map(end - at, Placement::Replace(VirtAddr(at)), what)?;
    }
    Ok(())
}

fn place_stack<P: Platform>(
    space: &AddressSpace<P>,
    top: u64,
    limit: u64,
    image: &StackImage,
    prot: Prot,
) -> Result<(), Errno> {
    let page = Linux::<P>::PAGE_BYTES;
    let used = (top - image.sp).next_multiple_of(page);
    if used > limit / 2 {
        return Err(Errno::E2BIG);
    }
    let initial = (used + STACK_MIN).min(limit);
    let start = VirtAddr(top.checked_sub(initial).ok_or(Errno::ENOMEM)?);
    let range = VirtRange::from_len(start, initial).ok_or(Errno::ENOMEM)?;
    space
        .core()
        .map(initial, Placement::At(start), Mapping::anonymous(prot))?;
    space.core().open_stack(range)?;
    space.copy_out(image.sp, &image.bytes)?;
    Ok(())
}

fn auxiliary<P: Platform>(
    sys: &Linux<P>,
    main: &Binary<P>,
    bias: u64,
    interpreter_base: u64,
    ids_of: [u32; 4],
) -> Vec<(u32, u64)> {
    use linux_raw_sys::auxvec as av;
    let phdr = match main.layout.phdr_address {
        0 => 0,
        at => bias.wrapping_add(at),
    };
    let mut pairs = vec![
        (av::AT_PAGESZ, Linux::<P>::PAGE_BYTES),
        (av::AT_CLKTCK, 100),
        (av::AT_PHDR, phdr),
        (av::AT_PHENT, 56),
        (av::AT_PHNUM, u64::from(main.header.phdr_count)),
        (av::AT_BASE, interpreter_base),
        (av::AT_FLAGS, 0),
        (av::AT_ENTRY, bias.wrapping_add(main.header.entry)),
        (av::AT_SECURE, 0),
    ];
    let ids = [av::AT_UID, av::AT_EUID, av::AT_GID, av::AT_EGID];
    pairs.extend(ids.into_iter().zip(ids_of.map(u64::from)));
    if let Some(vdso) = sys.platform.vdso(sys.vm) {
        pairs.insert(0, (av::AT_SYSINFO_EHDR, vdso.start().0));
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn script_lines_are_taken_apart_as_linux_does() {
        type Line<'a> = Result<Option<ScriptLine<'a>>, Errno>;
        let cases: [(&[u8], Line<'_>); 6] = [
            (b"#!/bin/sh\necho", Ok(Some((b"/bin/sh", None)))),
            (b"#! /bin/sh -e  \n", Ok(Some((b"/bin/sh", Some(b"-e"))))),
            (
                b"#!/usr/bin/env a b\n",
                Ok(Some((b"/usr/bin/env", Some(b"a b")))),
            ),
            (b"#!\n", Err(Errno::ENOEXEC)),
            (b"echo hello", Ok(None)),
            (b"#", Ok(None)),
        ];
        for (line, expected) in cases {
            assert_eq!(script_line(line), expected);
        }
    }
}
