//! Guest threads of the hosted machine, and what interrupts them.

use crate::errno;
use crate::file::OpenHostFile;
use bsdvm::{Host, Vm};
use bsdvm_hosted as machine;
use bsdvm_hosted::{Hosted, HostedPmap};
use bsdvm_linux::Errno;
use bsdvm_linux::platform::{GuestThread, Kicker, PollBits, Registers, Trap};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::OwnedFd;
use std::os::fd::AsFd;
use std::sync::Arc;

/// A thread of a stub, with the pmap that it runs on.
#[derive(Debug)]
pub struct HostThread {
    // Fields go in this order: the thread before the pmap that it needs.
    thread: machine::GuestThread,
    pmap: HostedPmap,
    kicker: HostKicker,
}

impl HostThread {
    pub(crate) fn new(
        thread: machine::GuestThread,
        pmap: HostedPmap,
    ) -> Result<HostThread, rustix::io::Errno> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let kicker = HostKicker {
            kicker: thread.kicker(),
            bell: Arc::new(bell),
        };
        Ok(HostThread {
            thread,
            pmap,
            kicker,
        })
    }
}

impl GuestThread for HostThread {
    type Machine = Hosted;
    type Kicker = HostKicker;

    fn run(&mut self, vm: &Vm<Hosted>, regs: &mut Registers) -> Trap {
        let mut theirs = to_machine(regs);
        let trap = self.thread.run(vm.machine(), &self.pmap, &mut theirs);
        *regs = from_machine(&theirs);
        match trap {
            machine::Trap::Syscall => Trap::Syscall,
            machine::Trap::Fault {
                address,
                access,
                present,
            } => Trap::Fault {
                address,
                access,
                present,
            },
            machine::Trap::Exception {
                signal,
                code,
                address,
            } => Trap::Exception {
                signal,
                code,
                address,
            },
            machine::Trap::Kicked => Trap::Kicked,
            // Whatever else a machine may come to say, the thread cannot go on.
            _ => Trap::Gone,
        }
    }

    fn fpu(&mut self) -> &mut [u8] {
        self.thread.fpu()
    }

    fn kicker(&self) -> HostKicker {
        self.kicker.clone()
    }
}

macro_rules! same_registers {
    ($to:ident, $from:expr) => {{
        let r = $from;
        $to {
            rax: r.rax,
            rbx: r.rbx,
            rcx: r.rcx,
            rdx: r.rdx,
            rsi: r.rsi,
            rdi: r.rdi,
            rbp: r.rbp,
            rsp: r.rsp,
            r8: r.r8,
            r9: r.r9,
            r10: r.r10,
            r11: r.r11,
            r12: r.r12,
            r13: r.r13,
            r14: r.r14,
            r15: r.r15,
            rip: r.rip,
            rflags: r.rflags,
            fs_base: r.fs_base,
            gs_base: r.gs_base,
        }
    }};
}

fn to_machine(regs: &Registers) -> machine::Registers {
    use machine::Registers as Theirs;
    same_registers!(Theirs, regs)
}

fn from_machine(regs: &machine::Registers) -> Registers {
    same_registers!(Registers, regs)
}

/// Ends a thread's run, and its wait for files by a bell that is waited for beside them.
#[derive(Clone, Debug)]
pub struct HostKicker {
    kicker: machine::Kicker,
    bell: Arc<OwnedFd>,
}

impl Kicker for HostKicker {
    fn cpu_time(&self) -> u64 {
        self.kicker.cpu_time()
    }

    fn kick(&self) {
        self.kicker.kick();
        // Full means rung already.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }
}

impl HostKicker {
    /// Waits for one of `files`, `deadline`, or a kick.
    pub(crate) fn wait_files(
        &self,
        files: &[(&OpenHostFile, PollBits)],
        deadline: Option<u64>,
    ) -> Result<Vec<PollBits>, Errno> {
        let mut asked: Vec<PollFd<'_>> = files
            .iter()
            .map(|(f, bits)| {
                PollFd::from_borrowed_fd(f.as_fd(), PollFlags::from_bits_truncate(*bits))
            })
            .collect();
        asked.push(PollFd::new(&self.bell, PollFlags::IN));
        let timeout = deadline.map(left_until);
        match poll(&mut asked, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(errno(e)),
        }
        let bits: Vec<u16> = asked.iter().map(|p| p.revents().bits()).collect();
        let (rung, ready) = bits.split_last().ok_or(Errno::EIO)?;
        if *rung != 0 {
            let _ = rustix::io::read(&self.bell, &mut [0u8; 8]);
        }
        Ok(ready.to_vec())
    }
}

/// The time left until a moment on the machine's clock.
fn left_until(deadline: u64) -> Timespec {
    let left = deadline.saturating_sub(now());
    Timespec {
        tv_sec: (left / 1_000_000_000) as i64,
        tv_nsec: (left % 1_000_000_000) as i64,
    }
}

fn now() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    t.tv_sec
        .unsigned_abs()
        .saturating_mul(1_000_000_000)
        .saturating_add(t.tv_nsec.unsigned_abs())
}

/// The machine's clock is the host's monotonic one; this fails to compile when it has none.
const _: fn(&Hosted) -> u64 = Host::now;
