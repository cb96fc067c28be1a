//! The guest's memory, copied in and out.
//!
//! Every address here comes from a guest: arithmetic on it is checked, and whatever is wrong with
//! it is [`Errno::EFAULT`]. Structures are plain bytes (`zerocopy`); nothing is transmuted.

use crate::errno::Errno;
use crate::platform::Platform;
use crate::space::AddressSpace;
use crate::system::Linux;
use crate::thread::Task;
use alloc::vec;
use alloc::vec::Vec;
use bsdvm::{FaultError, Prot, UserError, VirtAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// The longest path, with its terminating zero.
pub(crate) const PATH_MAX: usize = 4096;
/// The longest single argument of `execve`.
pub(crate) const ARG_MAX: usize = 128 * 1024;

impl<P: Platform> AddressSpace<P> {
    /// Copies from the guest.
    pub(crate) fn copy_in(&self, from: u64, buf: &mut [u8]) -> Result<(), UserError> {
        if buf.is_empty() {
            return Ok(());
        }
        self.core().read(VirtAddr(from), buf)
    }

    /// Copies to the guest.
    pub(crate) fn copy_out(&self, to: u64, bytes: &[u8]) -> Result<(), UserError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.core().write(VirtAddr(to), bytes)
    }
}

impl<P: Platform> Task<P> {
    /// Tries `copy` again after memory was found for it; any other failure is `EFAULT`.
    fn with_memory(&self, mut copy: impl FnMut() -> Result<(), UserError>) -> Result<(), Errno> {
        let mut tries = 0;
        loop {
            match copy() {
                Ok(()) => return Ok(()),
                Err(UserError {
                    why: FaultError::NoMemory,
                    ..
                }) => self.find_memory(&mut tries)?,
                Err(_) => return Err(Errno::EFAULT),
            }
        }
    }

    /// Fills `buf` from the guest's memory at `from`.
    pub(crate) fn read_user(&self, from: u64, buf: &mut [u8]) -> Result<(), Errno> {
        self.with_memory(|| self.space.copy_in(from, buf))
    }

    /// Writes `bytes` to the guest's memory at `to`.
    pub(crate) fn write_user(&self, to: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.with_memory(|| self.space.copy_out(to, bytes))
    }

    /// `len` bytes at `from`.
    pub(crate) fn bytes(&self, from: u64, len: usize) -> Result<Vec<u8>, Errno> {
        let mut buf = vec![0; len];
        self.read_user(from, &mut buf)?;
        Ok(buf)
    }

    /// As many of `len` bytes at `from` as can be read.
    ///
    /// Errors: `EFAULT` when none can.
    pub(crate) fn bytes_up_to(&self, from: u64, len: usize) -> Result<Vec<u8>, Errno> {
        let mut buf = vec![0; len];
        let mut tries = 0;
        loop {
            match self.space.copy_in(from, &mut buf) {
                Ok(()) => return Ok(buf),
                Err(UserError {
                    why: FaultError::NoMemory,
                    ..
                }) => self.find_memory(&mut tries)?,
                Err(UserError { done: 0, .. }) => return Err(Errno::EFAULT),
                Err(UserError { done, .. }) => {
                    buf.truncate(done);
                    return Ok(buf);
                }
            }
        }
    }

    /// Writes as many of `bytes` to `to` as can be, and says how many they are.
    ///
    /// Errors: `EFAULT` when none can.
    pub(crate) fn write_up_to(&self, to: u64, bytes: &[u8]) -> Result<usize, Errno> {
        let mut tries = 0;
        loop {
            match self.space.copy_out(to, bytes) {
                Ok(()) => return Ok(bytes.len()),
                Err(UserError {
                    why: FaultError::NoMemory,
                    ..
                }) => self.find_memory(&mut tries)?,
                Err(UserError { done: 0, .. }) => return Err(Errno::EFAULT),
                Err(UserError { done, .. }) => return Ok(done),
            }
        }
    }

    /// How many of `len` bytes at `to` lie in mappings that allow writing: what is taken from a
    /// pipe cannot be given back.
    pub(crate) fn writable(&self, to: u64, len: usize) -> usize {
        let mut at = to;
        let end = to.saturating_add(len as u64);
        while at < end {
            let core = self.space.core();
            let mut entry = core.entry(VirtAddr(at));
            if entry.is_some_and(|e| e.stack && e.range.start().0 > at) {
                // A stack grows for whoever comes.
                core.grow_stack(VirtAddr(at)).ok();
                entry = core.entry(VirtAddr(at));
            }
            match entry {
                Some(e) if e.range.start().0 <= at && e.prot.contains(Prot::WRITE) => {
                    at = e.range.end().0;
                }
                _ => break,
            }
        }
        (at.min(end) - to) as usize
    }

    /// The structure at `from`.
    pub(crate) fn get<T: FromBytes + IntoBytes>(&self, from: u64) -> Result<T, Errno> {
        let mut value = T::new_zeroed();
        self.read_user(from, value.as_mut_bytes())?;
        Ok(value)
    }

    /// Stores the structure at `to`.
    pub(crate) fn put<T: IntoBytes + Immutable>(&self, to: u64, value: &T) -> Result<(), Errno> {
        self.write_user(to, value.as_bytes())
    }

    /// Stores the structure at `to` unless `to` is null.
    pub(crate) fn put_optional<T: IntoBytes + Immutable>(
        &self,
        to: u64,
        value: &T,
    ) -> Result<(), Errno> {
        if to == 0 { Ok(()) } else { self.put(to, value) }
    }

    /// The string at `from` without its zero, which must lie in the first `max` bytes;
    /// otherwise `too_long`.
    pub(crate) fn string(&self, from: u64, max: usize, too_long: Errno) -> Result<Vec<u8>, Errno> {
        let page = Linux::<P>::PAGE_BYTES;
        let mut out = Vec::new();
        let mut at = from;
        while out.len() < max {
            // Never past the page: the next one may not be mapped, and need not be.
            let here = (page - at % page).min((max - out.len()) as u64) as usize;
            let piece = self.bytes(at, here)?;
            if let Some(end) = piece.iter().position(|&b| b == 0) {
                out.extend_from_slice(&piece[..end]);
                return Ok(out);
            }
            out.extend_from_slice(&piece);
            at = at.checked_add(here as u64).ok_or(Errno::EFAULT)?;
        }
        Err(too_long)
    }

    /// The path at `from`.
    pub(crate) fn path(&self, from: u64) -> Result<Vec<u8>, Errno> {
        self.string(from, PATH_MAX, Errno::ENAMETOOLONG)
    }

    /// The array of strings that ends with a null pointer, such as `argv`; none when null.
    pub(crate) fn strings(&self, from: u64, budget: &mut usize) -> Result<Vec<Vec<u8>>, Errno> {
        let mut all = Vec::new();
        if from == 0 {
            return Ok(all);
        }
        for i in 0u64.. {
            let at = from.checked_add(i * 8).ok_or(Errno::EFAULT)?;
            let pointer: u64 = self.get(at)?;
            if pointer == 0 {
                break;
            }
            let string = self.string(pointer, ARG_MAX, Errno::E2BIG)?;
            let cost = string.len() + 1 + 8;
            *budget = budget.checked_sub(cost).ok_or(Errno::E2BIG)?;
            all.push(string);
        }
        Ok(all)
    }
}
