//! The host's vDSO in the stubs: an ELF image whose functions tell the time without a trap, and
//! the data pages that it reads.
//!
//! A fresh process has it wherever the host put it. It is moved to one place above the guests'
//! addresses; where the host has sealed it, it stays and is a hole in them. Its own system calls
//! come from outside of the stub's code page, and trap like those of any guest code.

use crate::error::HostedError;
use crate::mailbox::Call;
use crate::stub::CODE_VA;
use bsdvm_machine::{VirtAddr, VirtRange};
use std::io;

/// Where it goes: above all slots, below where the host puts what it maps by itself.
const PLACE: u64 = CODE_VA + 0x600_0000;
/// The code reads its data relative to itself, so that all parts keep their distances; more than
/// this between the first and the last is nothing that we know.
const SPAN: u64 = 1 << 20;

/// A vDSO that guests can use.
#[derive(Debug)]
pub(crate) struct Vdso {
    /// The ELF image.
    pub(crate) image: VirtRange,
    /// The image and its data.
    pub(crate) parts: Vec<VirtRange>,
}

/// The mappings of a vDSO in a process; the image is the last.
pub(crate) type Parts = Vec<VirtRange>;

/// Takes the parts of the vDSO out of the mappings of a process, which come with their names.
pub(crate) fn split(mappings: Vec<(VirtRange, String)>) -> (Parts, Vec<VirtRange>) {
    let (mut image, mut parts, mut others) = (None, Vec::new(), Vec::new());
    for (range, name) in mappings {
        match name.as_str() {
            "[vdso]" => image = Some(range),
            name if name.starts_with("[vvar") => parts.push(range),
            _ => others.push(range),
        }
    }
    match image {
        Some(image) => parts.push(image),
        None => others.append(&mut parts),
    }
    (parts, others)
}

/// Moves the vDSO to its place by orders. Also gives what is of no use and should go.
pub(crate) fn keep(
    mut parts: Parts,
    mut order: impl FnMut(Call) -> Result<io::Result<u64>, HostedError>,
) -> Result<(Option<Vdso>, Vec<VirtRange>), HostedError> {
    let (Some(low), Some(high)) = (
        parts.iter().map(|r| r.start().0).min(),
        parts.iter().map(|r| r.end().0).max(),
    ) else {
        return Ok((None, parts));
    };
    if high - low > SPAN {
        return Ok((None, parts));
    }
    let flags = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64;
    for i in 0..parts.len() {
        let (from, len) = (parts[i].start().0, parts[i].len());
        let to = PLACE + (from - low);
        let call = Call::new(libc::SYS_mremap, [from, len, len, flags, to, 0]);
        match order(call)? {
            Ok(_) => parts[i] = VirtRange::from_len(VirtAddr(to), len).unwrap_or_default(),
            Err(_) if i == 0 => break, // sealed: all of it stays where it is
            Err(_) => return Ok((None, parts)),
        }
    }
    let Some(&image) = parts.last() else {
        return Ok((None, parts));
    };
    Ok((Some(Vdso { image, parts }), Vec::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, pages: u64) -> VirtRange {
        VirtRange::from_len(VirtAddr(start), pages << 12).unwrap()
    }

    fn mappings() -> Vec<(VirtRange, String)> {
        let named = |r, name: &str| (r, name.to_owned());
        vec![
            named(range(0x1000, 1), ""),
            named(range(0x10_0000, 4), "[vvar]"),
            named(range(0x10_4000, 2), "[vvar_vclock]"),
            named(range(0x10_6000, 2), "[vdso]"),
            named(range(0x20_0000, 1), "[stack]"),
        ]
    }

    #[test]
    fn the_parts_move_together() {
        let (parts, others) = split(mappings());
        assert_eq!(others, [range(0x1000, 1), range(0x20_0000, 1)]);
        let mut calls = Vec::new();
        let answer = keep(parts, |c| {
            calls.push((c.args[0], c.args[4]));
            Ok(Ok(c.args[4]))
        });
        let (vdso, spoilt) = answer.unwrap();
        let vdso = vdso.unwrap();
        assert_eq!(spoilt, []);
        assert_eq!(vdso.image, range(PLACE + 0x6000, 2));
        assert_eq!(vdso.parts[0], range(PLACE, 4));
        assert_eq!(calls[1], (0x10_4000, PLACE + 0x4000));
    }

    #[test]
    fn what_is_sealed_stays_and_what_is_torn_apart_goes() {
        let refuse = || Ok(Err(io::Error::from_raw_os_error(libc::EPERM)));
        let (vdso, spoilt) = keep(split(mappings()).0, |_| refuse()).unwrap();
        assert_eq!(vdso.unwrap().image, range(0x10_6000, 2));
        assert_eq!(spoilt, []);
        let mut calls = 0;
        let (vdso, spoilt) = keep(split(mappings()).0, |c| {
            calls += 1;
            if calls == 3 {
                refuse()
            } else {
                Ok(Ok(c.args[4]))
            }
        })
        .unwrap();
        assert!(vdso.is_none());
        assert_eq!(spoilt[2], range(0x10_6000, 2));
        assert_eq!(spoilt[0], range(PLACE, 4));
    }

    #[test]
    fn data_without_an_image_is_nothing() {
        let mut without = mappings();
        without.remove(3);
        let (parts, others) = split(without);
        assert_eq!((parts.len(), others.len()), (0, 4));
        assert!(keep(parts, |_| panic!("an order")).unwrap().0.is_none());
    }
}
