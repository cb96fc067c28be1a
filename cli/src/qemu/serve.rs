//! What the kernel asks of us over the link while it runs.
//!
//! One thread, the caller's, reads what the kernel sends. What may block on a standard file is
//! done by a thread of that file, and each watch has a thread until it ends.

use crate::interrupt::TooEarly;
use bsdvm_host::{HostPlatform, OpenHostFile};
use bsdvm_link::{
    Act, Answer, Ask, Boot, Ending, Inbox, MOST, Request, Stat, StatFs, ToKernel, encode,
};
use bsdvm_linux::Errno;
use bsdvm_linux::platform::{HostFile, Platform};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{ChildStdin, ChildStdout};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long the kernel may take to pass a signal on, or to boot.
const PATIENCE: Duration = Duration::from_secs(20);

/// The way to the kernel. What cannot be written is lost with the kernel.
#[derive(Clone)]
struct Line(Arc<Mutex<Option<ChildStdin>>>);

impl Line {
    fn send(&self, message: &ToKernel) {
        let mut line = self.0.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(line) = line.as_mut() {
            let _ = line.write_all(&encode(message)).and_then(|()| line.flush());
        }
    }

    fn answer(&self, tag: u32, answer: Answer) {
        self.send(&ToKernel::Answer(tag, answer));
    }
}

/// A standard file that is open, and the thread that waits for it.
struct Lent {
    file: Arc<OpenHostFile>,
    acts: Sender<(u32, Act)>,
}

/// The host's side of the link.
pub(crate) struct Server {
    line: Line,
    boot: Option<Boot>,
    files: [Option<Lent>; 3],
    booted: Arc<Mutex<bool>>,
    signalled: Sender<()>,
    passed: Arc<Mutex<Receiver<()>>>,
}

/// Passes signals on to the kernel.
pub(crate) struct Passer {
    started: Instant,
    line: Line,
    booted: Arc<Mutex<bool>>,
    passed: Arc<Mutex<Receiver<()>>>,
}

impl Passer {
    /// Sends a signal and waits until the kernel has it. A kernel that does not take it is stuck,
    /// and is ended with us.
    pub(crate) fn pass(&self, number: u32) -> Result<(), TooEarly> {
        let stuck = || std::process::exit(128 + number.cast_signed());
        if !*self.booted.lock().unwrap_or_else(|e| e.into_inner()) {
            if self.started.elapsed() > PATIENCE {
                stuck();
            }
            return Err(TooEarly);
        }
        self.line.send(&ToKernel::Signal(number));
        let passed = self.passed.lock().unwrap_or_else(|e| e.into_inner());
        if passed.recv_timeout(PATIENCE).is_err() {
            stuck();
        }
        Ok(())
    }
}

impl Server {
    /// Lends the standard files of `host` to a kernel that listens at `line`.
    pub(crate) fn new(host: HostPlatform, boot: Boot, line: Option<ChildStdin>) -> Server {
        let line = Line(Arc::new(Mutex::new(line)));
        let files = [0, 1, 2].map(|n| host.standard(n).map(|file| lend(file, line.clone())));
        let (signalled, passed) = channel();
        Server {
            line,
            boot: Some(boot),
            files,
            booted: Arc::default(),
            signalled,
            passed: Arc::new(Mutex::new(passed)),
        }
    }

    /// What passes signals on.
    pub(crate) fn passer(&self) -> Passer {
        Passer {
            started: Instant::now(),
            line: self.line.clone(),
            booted: self.booted.clone(),
            passed: self.passed.clone(),
        }
    }

    /// Serves until the kernel says how the run ended; `None` when it goes without a word.
    pub(crate) fn serve(mut self, from: Option<ChildStdout>) -> Option<Ending> {
        let mut from = from?;
        let mut inbox = Inbox::new();
        let mut piece = vec![0; 64 << 10];
        loop {
            let n = match from.read(&mut piece) {
                Ok(0) | Err(_) => return None,
                Ok(n) => n,
            };
            inbox.add(&piece[..n]);
            while let Some(request) = inbox.take::<Request>().ok()? {
                if let Some(ending) = self.answer(request) {
                    return Some(ending);
                }
            }
        }
    }

    fn answer(&mut self, Request { tag, ask }: Request) -> Option<Ending> {
        match ask {
            Ask::Boot => {
                let boot = self.boot.take().unwrap_or_default();
                self.line.answer(tag, Answer::Boot(Box::new(boot)));
                *self.booted.lock().unwrap_or_else(|e| e.into_inner()) = true;
            }
            // One write for one line; a standard error that is closed loses it.
            Ask::Message(line) => {
                let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
            }
            Ask::Signalled => {
                let _ = self.signalled.send(());
            }
            Ask::Ended(ending) => return Some(*ending),
            Ask::File { file, act } => self.act(tag, file, act),
        }
        None
    }

    fn act(&self, tag: u32, file: u8, act: Act) {
        let lent = self.files.get(usize::from(file)).and_then(Option::as_ref);
        let Some(lent) = lent else {
            return self.line.answer(tag, Answer::Failed(Errno::EBADF.0));
        };
        match act {
            Act::Read(_) | Act::Write(_) | Act::ReadAt(..) | Act::WriteAt(..) | Act::Sync(_) => {
                // The thread lives as long as the sender does.
                let _ = lent.acts.send((tag, act));
            }
            Act::Watch(bits) => {
                let (file, line) = (lent.file.clone(), self.line.clone());
                let watch = move || line.answer(tag, ready(&file, bits, None));
                let thread = std::thread::Builder::new().name("watch".into());
                drop(thread.spawn(watch));
            }
            act => self.line.answer(tag, carry_out(&lent.file, act)),
        }
    }
}

/// A file with a thread that does what may block.
fn lend(file: OpenHostFile, line: Line) -> Lent {
    let file = Arc::new(file);
    let (acts, wanted) = channel::<(u32, Act)>();
    let own = file.clone();
    std::thread::spawn(move || {
        for (tag, act) in wanted {
            line.answer(tag, carry_out(&own, act));
        }
    });
    Lent { file, acts }
}

/// Those of the bits of `poll` that are on; without a timeout, waits for one.
fn ready(file: &OpenHostFile, bits: u16, timeout: Option<&Timespec>) -> Answer {
    let flags = PollFlags::from_bits_truncate(bits);
    let mut asked = [PollFd::from_borrowed_fd(file.as_fd(), flags)];
    loop {
        match poll(&mut asked, timeout) {
            Ok(_) => return Answer::Number(u64::from(asked[0].revents().bits())),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Answer::Failed(e.raw_os_error()),
        }
    }
}

fn carry_out(file: &OpenHostFile, act: Act) -> Answer {
    try_act(file, act).unwrap_or_else(|e| Answer::Failed(e.0))
}

fn try_act(file: &OpenHostFile, act: Act) -> Result<Answer, Errno> {
    let number = |n: usize| Answer::Number(n as u64);
    let fill = |most: u32, read: &dyn Fn(&mut [u8]) -> Result<usize, Errno>| {
        let mut bytes = vec![0; (most as usize).min(MOST)];
        let n = read(&mut bytes)?;
        bytes.truncate(n);
        Ok::<_, Errno>(Answer::Bytes(bytes))
    };
    let done = |()| Answer::Done;
    match act {
        Act::Read(most) => fill(most, &|buf| file.read(buf)),
        Act::ReadAt(at, most) => fill(most, &|buf| file.read_at(at, buf)),
        Act::Write(bytes) => file.write(&bytes).map(number),
        Act::WriteAt(at, bytes) => file.write_at(at, &bytes).map(number),
        Act::Seek(offset, whence) => file.seek(offset, whence).map(Answer::Number),
        Act::Stat => Ok(Answer::Stat(Box::new(Stat::from(&file.stat()?)))),
        Act::StatFs => Ok(Answer::StatFs(Box::new(StatFs::from(&file.statfs()?)))),
        Act::Truncate(bytes) => file.truncate(bytes).map(done),
        Act::Sync(data_only) => file.sync(data_only).map(done),
        Act::Chmod(mode) => file.chmod(mode).map(done),
        Act::Chown(uid, gid) => file.chown(uid, gid).map(done),
        Act::Path => file.path().map(Answer::Bytes),
        Act::Flags => file.flags().map(|f| Answer::Number(u64::from(f))),
        Act::Terminal(call) => {
            let call = call.seam().ok_or(Errno::EINVAL)?;
            Ok(Answer::Terminal(file.terminal(call)?.into()))
        }
        Act::Poll(bits) | Act::Watch(bits) => Ok(ready(file, bits, Some(&Timespec::default()))),
    }
}
