//! The runner's standard input, output and error, over the link.

use crate::link;
use alloc::vec::Vec;
use bsdvm_link::{Act, Answer, Ask, MOST};
use bsdvm_linux::Errno;
use bsdvm_linux::platform::{FileStat, FsStat, TerminalAnswer, TerminalCall};

/// A standard file, by its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Standard(pub(crate) u8);

impl Standard {
    fn ask(self, act: Act) -> Result<Answer, Errno> {
        let file = self.0;
        match link::ask(Ask::File { file, act }) {
            Answer::Failed(number) => Err(Errno(number)),
            answer => Ok(answer),
        }
    }

    /// Asks for something that answers with nothing.
    pub(crate) fn act(self, act: Act) -> Result<(), Errno> {
        self.ask(act).map(drop)
    }

    /// Asks for a number.
    pub(crate) fn number(self, act: Act) -> Result<u64, Errno> {
        match self.ask(act)? {
            Answer::Number(n) => Ok(n),
            _ => Err(Errno::EIO),
        }
    }

    /// Asks for bytes.
    pub(crate) fn bytes(self, act: Act) -> Result<Vec<u8>, Errno> {
        match self.ask(act)? {
            Answer::Bytes(bytes) => Ok(bytes),
            _ => Err(Errno::EIO),
        }
    }

    /// Asks for bytes for `buf`.
    pub(crate) fn fill(self, buf: &mut [u8], act: impl FnOnce(u32) -> Act) -> Result<usize, Errno> {
        let bytes = self.bytes(act(buf.len().min(MOST) as u32))?;
        let to = buf.get_mut(..bytes.len()).ok_or(Errno::EIO)?;
        to.copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    pub(crate) fn write(
        self,
        bytes: &[u8],
        act: impl FnOnce(Vec<u8>) -> Act,
    ) -> Result<usize, Errno> {
        let bytes = &bytes[..bytes.len().min(MOST)];
        self.number(act(bytes.to_vec())).map(|n| n as usize)
    }

    pub(crate) fn stat(self) -> Result<FileStat, Errno> {
        match self.ask(Act::Stat)? {
            Answer::Stat(stat) => Ok(FileStat::from(&*stat)),
            _ => Err(Errno::EIO),
        }
    }

    pub(crate) fn stat_fs(self) -> Result<FsStat, Errno> {
        match self.ask(Act::StatFs)? {
            Answer::StatFs(stat) => Ok(FsStat::from(&*stat)),
            _ => Err(Errno::EIO),
        }
    }

    pub(crate) fn terminal(self, call: TerminalCall) -> Result<TerminalAnswer, Errno> {
        match self.ask(Act::Terminal(call.into()))? {
            Answer::Terminal(answer) => answer.seam().ok_or(Errno::EIO),
            _ => Err(Errno::EIO),
        }
    }
}
