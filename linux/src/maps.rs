//! The map of a space as text, as `/proc/self/maps` has it. `--map` prints the same.

use crate::fs::inode::Key;
use crate::platform::Platform;
use crate::space::{AddressSpace, Bounds, continues};
use crate::system::Linux;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use bsdvm::{EntryInfo, ObjectId, Prot, Sharing, VirtAddr, VirtRange};
use core::fmt::Write;

/// The column in which names begin.
const NAME_COLUMN: usize = 73;

/// One line for each mapping of the space, in ascending order: what Linux keeps as one is one.
pub(crate) fn text<P: Platform>(sys: &Linux<P>, space: &AddressSpace<P>) -> String {
    let bounds = space.bounds.lock().clone();
    let mut out = String::new();
    each(space, |mapping, _| line(sys, &bounds, mapping, &mut out));
    if let Some(vdso) = sys.platform.vdso(sys.vm) {
        let (start, end) = (vdso.start().0, vdso.end().0);
        let fixed = format!("{start:08x}-{end:08x} r-xp 00000000 00:00 0 ");
        let _ = writeln!(out, "{fixed:NAME_COLUMN$}[vdso]");
    }
    out
}

/// Calls `act` for each mapping of a space, and the entries that it is kept in.
pub(crate) fn each<P: Platform>(
    space: &AddressSpace<P>,
    mut act: impl FnMut(&EntryInfo, &[EntryInfo]),
) {
    let mut at = VirtAddr(0);
    let mut parts: Vec<EntryInfo> = Vec::new();
    let mut tell = |parts: &[EntryInfo]| {
        let (Some(first), Some(last)) = (parts.first(), parts.last()) else {
            return;
        };
        let range = VirtRange::new(first.range.start(), last.range.end()).unwrap_or_default();
        act(&EntryInfo { range, ..*first }, parts);
    };
    // An entry that does not reach past the question would be asked for again for ever.
    while let Some(entry) = space.core().entry(at).filter(|e| e.range.end() > at) {
        at = entry.range.end();
        if parts.last().is_some_and(|last| !continues(last, &entry)) {
            tell(&parts);
            parts.clear();
        }
        parts.push(entry);
    }
    tell(&parts);
}

pub(crate) fn line<P: Platform>(
    sys: &Linux<P>,
    bounds: &Bounds,
    entry: &EntryInfo,
    out: &mut String,
) {
    let bit = |p, c| if entry.prot.contains(p) { c } else { '-' };
    let (file, offset) = match entry.file {
        Some((object, offset)) => (file(sys, object), offset),
        None => (None, 0),
    };
    let (major, minor, ino) = file.as_ref().map_or((0, 0, 0), |f| f.0);
    let start = out.len();
    let _ = write!(
        out,
        "{:08x}-{:08x} {}{}{}{} {:08x} {major:02x}:{minor:02x} {ino} ",
        entry.range.start().0,
        entry.range.end().0,
        bit(Prot::READ, 'r'),
        bit(Prot::WRITE, 'w'),
        bit(Prot::EXEC, 'x'),
        if entry.sharing == Sharing::Shared {
            's'
        } else {
            'p'
        },
        offset,
    );
    let name = match &file {
        Some((_, path)) => String::from_utf8_lossy(path).replace('\n', "\\012"),
        None => own_name(bounds, entry).into(),
    };
    if !name.is_empty() {
        let width = NAME_COLUMN.saturating_sub(out.len() - start);
        out.push_str(&format!("{:width$}{name}", ""));
    }
    out.push('\n');
}

/// Device, inode number and name of the file behind a mapping.
fn file<P: Platform>(sys: &Linux<P>, object: ObjectId) -> Option<(Key, Vec<u8>)> {
    if let Some(inode) = sys.memory_inodes.of_object(object) {
        return Some(((0, 1, inode.id), inode.path.clone()));
    }
    if let Some(inode) = sys.inodes.of_object(object) {
        return Some((inode.key, inode.path_now()));
    }
    let (key, id) = sys.segments.of_object(object)?;
    Some((
        (0, 1, id as u64),
        crate::syscall::shm::name(key).into_bytes(),
    ))
}

fn own_name(bounds: &Bounds, entry: &EntryInfo) -> &'static str {
    let (start, end) = (entry.range.start().0, entry.range.end().0);
    if entry.stack && start < bounds.stack_top && end >= bounds.stack_top {
        "[stack]"
    } else if start < bounds.brk && end > bounds.brk_start {
        "[heap]"
    } else {
        ""
    }
}
