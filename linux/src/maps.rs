//! The map of a space as text, as `/proc/self/maps` has it. `--map` prints the same.

use crate::platform::Platform;
use crate::space::{AddressSpace, Bounds};
use crate::system::Linux;
use alloc::format;
use alloc::string::String;
use bsdvm::{EntryInfo, Prot, Sharing, VirtAddr};
use core::fmt::Write;

/// The column in which names begin.
const NAME_COLUMN: usize = 73;

/// One line for each entry of the space, in ascending order.
pub(crate) fn text<P: Platform>(sys: &Linux<P>, space: &AddressSpace<P>) -> String {
    let bounds = space.bounds.lock().clone();
    let mut out = String::new();
    let mut at = VirtAddr(0);
    while let Some(entry) = space.core().entry(at) {
        line(sys, &bounds, &entry, &mut out);
        // An entry that does not reach past the question would be asked for again for ever.
        if entry.range.end() <= at {
            break;
        }
        at = entry.range.end();
    }
    if let Some(vdso) = sys.platform.vdso(sys.vm) {
        let (start, end) = (vdso.start().0, vdso.end().0);
        let fixed = format!("{start:08x}-{end:08x} r-xp 00000000 00:00 0 ");
        let _ = writeln!(out, "{fixed:NAME_COLUMN$}[vdso]");
    }
    out
}

fn line<P: Platform>(sys: &Linux<P>, bounds: &Bounds, entry: &EntryInfo, out: &mut String) {
    let bit = |p, c| if entry.prot.contains(p) { c } else { '-' };
    let (inode, offset) = match entry.file {
        Some((object, offset)) => (sys.inodes.of_object(object), offset),
        None => (None, 0),
    };
    let (major, minor, ino) = inode.as_ref().map_or((0, 0, 0), |i| i.key);
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
    let name = match &inode {
        Some(inode) => String::from_utf8_lossy(&inode.path).replace('\n', "\\012"),
        None => own_name(bounds, entry).into(),
    };
    if !name.is_empty() {
        let width = NAME_COLUMN.saturating_sub(out.len() - start);
        out.push_str(&format!("{:width$}{name}", ""));
    }
    out.push('\n');
}

fn own_name(bounds: &Bounds, entry: &EntryInfo) -> &'static str {
    let (start, end) = (entry.range.start().0, entry.range.end().0);
    if entry.stack && end == bounds.stack_top {
        "[stack]"
    } else if start < bounds.brk && end > bounds.brk_start {
        "[heap]"
    } else {
        ""
    }
}
