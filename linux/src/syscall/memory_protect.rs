//! `mprotect` and its relatives with keys, of which this processor has none.

use super::memory::protection;
use super::{Answer, Args, Calls};
use crate::errno::Errno;
use crate::platform::Platform;
use crate::space::ON_FAULT;
use crate::thread::Task;
use bsdvm::{Access, Prot, Sharing, VirtRange};
use linux_raw_sys::general as abi;

const PROT_KNOWN: u32 = abi::PROT_READ | abi::PROT_WRITE | abi::PROT_EXEC | abi::PROT_SEM;
/// `pkey_alloc`'s access rights.
const KEY_RIGHTS: u64 = 3;

impl<P: Platform> Task<P> {
    pub(super) const PROTECTION: Calls<P> = &[
        (abi::__NR_mprotect, Self::mprotect),
        (abi::__NR_pkey_mprotect, Self::pkey_mprotect),
        (abi::__NR_pkey_alloc, Self::pkey_alloc),
        (abi::__NR_pkey_free, Self::pkey_free),
    ];

    fn mprotect(&mut self, [addr, len, prot, ..]: Args) -> Answer {
        let both = abi::PROT_GROWSDOWN | abi::PROT_GROWSUP;
        let grows = prot as u32 & both;
        let bits = prot & !u64::from(both);
        if grows == both {
            return Err(Errno::EINVAL);
        }
        let range = self.space.pages(addr, len, Errno::ENOMEM)?;
        if range.is_empty() {
            return Ok(0);
        }
        if bits & !u64::from(PROT_KNOWN) != 0 {
            return Err(Errno::EINVAL);
        }
        let prot = protection(bits);
        let core = self.space.core();
        let writes = prot.contains(Prot::WRITE);
        if grows == 0 && !writes && core.covered(range) && core.protect(range, prot).is_ok() {
            return Ok(0);
        }
        let range = self.range_that_grows(range, grows)?;
        // Piece by piece, so that what lies before a hole or a refusal is done.
        self.each_piece(range, |piece, entry| {
            let private = entry.sharing == Sharing::Private;
            let begins = private && writes && !entry.prot.contains(Prot::WRITE);
            if begins && !entry.stack {
                self.check_data_limit(piece.len())?;
            }
            core.protect(piece, prot)?;
            if begins && entry.user_wired && entry.marks & ON_FAULT == 0 {
                // What is locked is to cause no fault: copies are made now.
                self.populate(piece, Access::Write).ok();
            }
            Ok(())
        })
    }

    /// The range down to the beginning of the stack that it begins in, if it is to grow.
    fn range_that_grows(&self, range: VirtRange, grows: u32) -> Result<VirtRange, Errno> {
        let first = self
            .space
            .core()
            .entry(range.start())
            .ok_or(Errno::ENOMEM)?;
        if grows == abi::PROT_GROWSDOWN {
            if first.range.start() >= range.end() {
                return Err(Errno::ENOMEM);
            }
            if !first.stack {
                return Err(Errno::EINVAL);
            }
            let start = self.start_of(&first);
            return VirtRange::new(start, range.end()).ok_or(Errno::ENOMEM);
        }
        if first.range.start() > range.start() {
            return Err(Errno::ENOMEM);
        }
        match grows {
            0 => Ok(range),
            _ => Err(Errno::EINVAL),
        }
    }

    fn pkey_mprotect(&mut self, [addr, len, prot, key, ..]: Args) -> Answer {
        match key as u32 as i32 {
            // The key that every page has when it was given no other.
            -1 | 0 => self.mprotect([addr, len, prot, 0, 0, 0]),
            _ => Err(Errno::EINVAL),
        }
    }

    fn pkey_alloc(&mut self, [flags, rights, ..]: Args) -> Answer {
        Err(match flags != 0 || rights & !KEY_RIGHTS != 0 {
            true => Errno::EINVAL,
            false => Errno::ENOSPC,
        })
    }

    fn pkey_free(&mut self, _: Args) -> Answer {
        Err(Errno::EINVAL)
    }
}
