//! `execve`: the process goes on as another program.

use super::{Answer, Args, Calls};
use crate::blocking::all_channel;
use crate::creds::Creds;
use crate::errno::Errno;
use crate::exec::{self, ExecRequest, Image};
use crate::fs::proc::Node;
use crate::platform::{Follow, GuestThread, Platform};
use crate::signal::AltStack;
use crate::thread::Task;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bsdvm::SpaceId;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as abi;

/// What arguments and environment may take together.
const ARGUMENTS_MAX: usize = 2 << 20;

impl<P: Platform> Task<P> {
    pub(super) const EXECUTE: Calls<P> = &[
        (abi::__NR_execve, Self::execve),
        (abi::__NR_execveat, Self::execveat),
    ];

    fn execve(&mut self, [path, args, env, ..]: Args) -> Answer {
        let path = self.path(path)?;
        self.execute(path, args, env)
    }

    fn execveat(&mut self, [dir, path, args, env, flags, _]: Args) -> Answer {
        let path = self.path(path)?;
        if flags as u32 & !(abi::AT_EMPTY_PATH | abi::AT_SYMLINK_NOFOLLOW) != 0 {
            return Err(Errno::EINVAL);
        }
        if flags as u32 & abi::AT_SYMLINK_NOFOLLOW != 0 && self.is_link(dir, &path)? {
            return Err(Errno::ELOOP);
        }
        if path.is_empty() && flags as u32 & abi::AT_EMPTY_PATH != 0 {
            if dir as i32 == abi::AT_FDCWD {
                return Err(Errno::EACCES);
            }
            let name = self.file(dir)?.name()?;
            return self.execute(name, args, env);
        }
        // The interpreter of a script is told a name that it can open.
        let path = match path.first() {
            None | Some(b'/') => path,
            Some(_) if dir as i32 == abi::AT_FDCWD => path,
            Some(_) => {
                let base = self.file(dir)?;
                if !base.stat()?.is_directory() {
                    return Err(Errno::ENOTDIR);
                }
                [&base.name()?[..], b"/", &path].concat()
            }
        };
        self.execute(path, args, env)
    }

    /// Whether a path relative to `dir` is that of a symbolic link.
    fn is_link(&self, dir: u64, path: &[u8]) -> Result<bool, Errno> {
        if path.is_empty() {
            return Ok(false);
        }
        if let Some((own, _)) = self.own_path_at(dir, path) {
            return Ok(matches!(self.node(&own)?, Node::Link(_)));
        }
        let start = self.start_for(dir, path)?;
        let stat = self.sys.platform.stat(start.base()?, path, Follow::No)?;
        Ok(stat.kind() == abi::S_IFLNK)
    }

    fn execute(&mut self, path: Vec<u8>, args: u64, env: u64) -> Answer {
        let mut budget = ARGUMENTS_MAX;
        let mut args = self.strings(args, &mut budget)?;
        let env = self.strings(env, &mut budget)?;
        if args.is_empty() {
            args.push(Vec::new());
        }
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        let name = path
            .rsplit(|&b| b == b'/')
            .next()
            .unwrap_or_default()
            .to_vec();
        let path = self.program_path(path)?;
        let start = self.start_for(abi::AT_FDCWD as u64, &path)?;
        let Creds { user, group, .. } = self.creds();
        let ids = [user.real, user.effective, group.real, group.effective];
        let request = ExecRequest {
            path,
            args,
            env,
            ids,
        };
        let mut image = exec::load(self.sys, Some(&start), request)?;
        image.name = name[..name.len().min(15)].to_vec();
        self.enter_space(image.space.id())?;
        self.become_image(image);
        Ok(self.regs.rax)
    }

    /// Gives this thread, as the only one of its process, a machine's thread in another space: the
    /// one it has, if that can go there.
    fn enter_space(&mut self, space: SpaceId) -> Result<(), Errno> {
        // Nobody but this thread can make another one.
        let alone = {
            let table = self.sys.processes.lock();
            let record = table.get(self.process.pid).ok_or(Errno::EINTR)?;
            record.threads.len() == 1
        };
        if alone && self.cpu.move_to(self.sys.vm, space) {
            self.thread.set_kicker(self.cpu.kicker());
            self.thread.set_tid(self.process.pid);
            return Ok(());
        }
        let cpu = self.sys.platform.guest_thread(self.sys.vm, space)?;
        self.dismiss_others()?;
        self.keep_user_time();
        self.thread.set_kicker(cpu.kicker());
        // The old guest thread goes before the space that it ran in.
        self.cpu = cpu;
        Ok(())
    }

    /// Ends every other thread of the process; this one takes the process's number.
    fn dismiss_others(&self) -> Result<(), Errno> {
        loop {
            let ticket = self.sys.ticket(all_channel());
            let others: Vec<_> = {
                let table = self.sys.processes.lock();
                let record = table.get(self.process.pid).ok_or(Errno::EINTR)?;
                let others = record
                    .threads
                    .iter()
                    .filter(|t| !Arc::ptr_eq(t, &self.thread));
                others.cloned().collect()
            };
            if others.is_empty() {
                break;
            }
            for thread in others {
                thread.dismissed.store(true, Ordering::SeqCst);
                thread.poke(self.sys);
            }
            self.thread
                .sleeping
                .store(all_channel().0, Ordering::SeqCst);
            // Another thread may have called exec or exit first.
            if self.must_end() {
                return Err(Errno::EINTR);
            }
            self.sys.sleep(all_channel(), ticket, None);
        }
        self.thread.sleeping.store(0, Ordering::SeqCst);
        self.thread.set_tid(self.process.pid);
        Ok(())
    }

    /// The point of no return.
    fn become_image(&mut self, image: Image<P>) {
        self.release_futexes();
        let files = self.process.files();
        let alone = Arc::strong_count(&files) <= 2;
        let files = if alone {
            files
        } else {
            Arc::new(files.forked())
        };
        let closed = files.take_on_exec();
        let (old_space, old_files) = {
            let mut shared = self.process.shared.lock();
            shared.name = image.name;
            shared.exe = image.exe;
            let space = shared.space.replace(image.space.clone());
            (space, core::mem::replace(&mut shared.files, files))
        };
        self.reset_signals();
        self.process.traits.executed();
        self.process.timers.lock().posix.clear();
        // What exec changes is no more than it was: nothing can refuse it.
        let creds = self.creds().executed();
        self.become_who(creds).ok();
        self.note_memory();
        self.space = image.space;
        self.process.limits_changed();
        self.regs = image.regs;
        self.closed_all(closed);
        drop((old_space, old_files));
        self.sys.segments.sweep(self.sys, self.process.pid);
        if let Some(record) = self.sys.processes.lock().get_mut(self.process.pid) {
            record.executed = true;
            record.exit_signal = abi::SIGCHLD;
        }
        self.process.left_space.store(true, Ordering::SeqCst);
        self.sys.wake(all_channel());
        self.sys.inodes.sweep(self.sys);
    }

    fn reset_signals(&self) {
        self.process.signals.lock().reset_for_exec();
        let mut own = self.thread.signals.lock();
        own.alt_stack = AltStack::default();
        if let Some(mask) = own.saved_mask.take() {
            own.mask = mask;
        }
    }
}
