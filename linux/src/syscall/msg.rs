//! System V queues of messages: `msgget`, `msgsnd`, `msgrcv`, `msgctl`.

use super::{Answer, Args, Calls};
use crate::blocking::message_channel;
use crate::creds::cap;
use crate::errno::Errno;
use crate::ipc::msg::{Message, Queue, QueueStat, Wanted};
use crate::ipc::{IPC_INFO, IPC_NOWAIT, IPC_RMID, IPC_SET, IPC_STAT, READ, Request, WRITE};
use crate::platform::Platform;
use crate::thread::Task;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as abi;

const MSG_NOERROR: u32 = 0o10000;
const MSG_EXCEPT: u32 = 0o20000;
const MSG_COPY: u32 = 0o40000;
const MSG_STAT: u32 = 11;
const MSG_INFO: u32 = 12;
const MSG_STAT_ANY: u32 = 13;

impl<P: Platform> Task<P> {
    pub(super) const MSG: Calls<P> = &[
        (abi::__NR_msgget, Self::msgget),
        (abi::__NR_msgsnd, Self::msgsnd),
        (abi::__NR_msgrcv, Self::msgrcv),
        (abi::__NR_msgctl, Self::msgctl),
    ];

    fn msgget(&mut self, [key, flags, ..]: Args) -> Answer {
        let (creds, now) = (self.creds(), self.seconds_now());
        let request = Request {
            key: key as i32,
            flags: flags as u32,
        };
        let queues = &self.sys.queues;
        let most = queues.in_a_queue.load(Ordering::Relaxed);
        let mut table = queues.table.lock();
        table.most = queues.most.load(Ordering::Relaxed);
        let fits = |_: &Queue| Ok(());
        let id = table.obtain(request, &creds, fits, |_| {
            Ok(Queue {
                most,
                changed_at: now,
                ..Queue::default()
            })
        })?;
        Ok(id as u64)
    }

    fn msgsnd(&mut self, [id, from, bytes, flags, ..]: Args) -> Answer {
        let id = id as i32;
        let kind: i64 = self.get(from)?;
        let longest = self.sys.queues.longest.load(Ordering::Relaxed);
        if bytes > longest || id < 0 || kind < 1 {
            return Err(Errno::EINVAL);
        }
        let place = from.checked_add(8).ok_or(Errno::EFAULT)?;
        let text = self.bytes(place, bytes as usize)?;
        self.sys.queues.table.lock().get(id)?;
        let (creds, now, pid) = (self.creds(), self.seconds_now(), self.process.pid);
        let mut message = Some(Message { kind, text });
        let sent = self.wait_on(message_channel(id), None, || {
            let mut table = self.sys.queues.table.lock();
            let Ok(entry) = table.get(id) else {
                return Some(Err(Errno::EIDRM));
            };
            if let Err(e) = entry.perm.check(&creds, WRITE) {
                return Some(Err(e));
            }
            let queue = &mut entry.value;
            if !queue.has_room(bytes) {
                let now = flags as u32 & IPC_NOWAIT != 0;
                return now.then_some(Err(Errno::EAGAIN));
            }
            queue.messages.extend(message.take());
            queue.bytes += bytes;
            (queue.sender, queue.sent_at) = (pid, now);
            Some(Ok(()))
        });
        sent.map_err(|_| Errno::RESTART_NO_HANDLER)??;
        self.sys.wake(message_channel(id));
        Ok(0)
    }

    /// Which message the type and the flags ask for.
    fn wanted(kind: i64, flags: u32) -> Result<Wanted, Errno> {
        if flags & MSG_COPY != 0 {
            if flags & MSG_EXCEPT != 0 || flags & IPC_NOWAIT == 0 {
                return Err(Errno::EINVAL);
            }
            return Ok(Wanted::Copy(kind));
        }
        Ok(match kind {
            0 => Wanted::Any,
            i64::MIN => Wanted::UpTo(i64::MAX),
            n if n < 0 => Wanted::UpTo(-n),
            n if flags & MSG_EXCEPT != 0 => Wanted::Not(n),
            n => Wanted::Kind(n),
        })
    }

    fn msgrcv(&mut self, [id, to, room, kind, flags, _]: Args) -> Answer {
        let (id, flags) = (id as i32, flags as u32);
        if id < 0 || (room as i64) < 0 {
            return Err(Errno::EINVAL);
        }
        let wanted = Self::wanted(kind as i64, flags)?;
        self.sys.queues.table.lock().get(id)?;
        let (creds, now, pid) = (self.creds(), self.seconds_now(), self.process.pid);
        let got = self.wait_on(message_channel(id), None, || {
            let mut table = self.sys.queues.table.lock();
            let Ok(entry) = table.get(id) else {
                return Some(Err(Errno::EIDRM));
            };
            if let Err(e) = entry.perm.check(&creds, READ) {
                return Some(Err(e));
            }
            let queue = &mut entry.value;
            let Some(place) = queue.find(wanted) else {
                let now = flags & IPC_NOWAIT != 0;
                return now.then_some(Err(Errno::ENOMSG));
            };
            let bytes = queue.messages.get(place).map_or(0, |m| m.text.len() as u64);
            if bytes > room && flags & MSG_NOERROR == 0 {
                return Some(Err(Errno::E2BIG));
            }
            if let Wanted::Copy(_) = wanted {
                return queue.messages.get(place).cloned().map(Ok);
            }
            queue.bytes -= bytes;
            (queue.receiver, queue.received_at) = (pid, now);
            queue.messages.remove(place).map(Ok)
        });
        let message = got.map_err(|_| Errno::RESTART_NO_HANDLER)??;
        self.sys.wake(message_channel(id));
        let n = message.text.len().min(room as usize);
        self.put(to, &message.kind)?;
        let place = to.checked_add(8).ok_or(Errno::EFAULT)?;
        self.write_user(place, &message.text[..n])?;
        Ok(n as u64)
    }

    fn msgctl(&mut self, [id, command, to, ..]: Args) -> Answer {
        let (id, command) = (id as i32, command as u32);
        if id < 0 || (command as i32) < 0 {
            return Err(Errno::EINVAL);
        }
        match command {
            IPC_INFO | MSG_INFO => self.queue_limits(command == MSG_INFO, to),
            IPC_STAT | MSG_STAT | MSG_STAT_ANY => self.queue_stat(id, command, to),
            IPC_SET => self.set_queue(id, to),
            IPC_RMID => {
                let creds = self.creds();
                let mut table = self.sys.queues.table.lock();
                table.get(id)?.perm.check_owner(&creds)?;
                drop(table.remove(id));
                drop(table);
                self.sys.wake(message_channel(id));
                Ok(0)
            }
            _ => Err(Errno::EINVAL),
        }
    }

    /// `struct msginfo`.
    fn queue_limits(&self, in_use: bool, to: u64) -> Answer {
        let queues = &self.sys.queues;
        let (count, messages, bytes, highest) = {
            let table = queues.table.lock();
            let messages = table.all().map(|(_, e)| e.value.messages.len() as u32);
            let bytes = table.all().map(|(_, e)| e.value.bytes as u32);
            let sums = (messages.sum::<u32>(), bytes.sum::<u32>());
            (table.len() as u32, sums.0, sums.1, table.highest())
        };
        let in_a_queue = queues.in_a_queue.load(Ordering::Relaxed) as u32;
        let most = queues.most.load(Ordering::Relaxed);
        const QUEUE: u32 = 16_384;
        const POOL: u32 = 32_000 * (QUEUE / 1024);
        const SEGMENTS: u32 = 0xffff;
        let (pool, map, all) = if in_use {
            (count, messages, bytes)
        } else {
            (POOL, QUEUE, QUEUE)
        };
        let longest = queues.longest.load(Ordering::Relaxed) as u32;
        let info = [pool, map, longest, in_a_queue, most, 16, all, SEGMENTS];
        self.put(to, &info)?;
        Ok(u64::from(highest))
    }

    fn queue_stat(&self, id: i32, command: u32, to: u64) -> Answer {
        let creds = self.creds();
        let (answer, stat) = {
            let mut table = self.sys.queues.table.lock();
            let (answer, entry) = if command == IPC_STAT {
                (0, table.get(id)?)
            } else {
                table.at_place(id)?
            };
            if command != MSG_STAT_ANY {
                entry.perm.check(&creds, READ)?;
            }
            let q = &entry.value;
            let stat = QueueStat {
                perm: entry.perm,
                sent_at: q.sent_at,
                received_at: q.received_at,
                changed_at: q.changed_at,
                bytes: q.bytes,
                count: q.messages.len() as u64,
                most: q.most,
                sender: q.sender,
                receiver: q.receiver,
                unused: [0; 2],
            };
            (answer, stat)
        };
        self.put(to, &stat)?;
        Ok(answer as u64)
    }

    fn set_queue(&self, id: i32, from: u64) -> Answer {
        let new: QueueStat = self.get(from)?;
        let (creds, now) = (self.creds(), self.seconds_now());
        let usual = self.sys.queues.in_a_queue.load(Ordering::Relaxed);
        {
            let mut table = self.sys.queues.table.lock();
            let entry = table.get(id)?;
            entry.perm.check_owner(&creds)?;
            if new.most > usual && !creds.capable(cap::SYS_RESOURCE) {
                return Err(Errno::EPERM);
            }
            entry.perm.update(&new.perm)?;
            entry.value.most = new.most;
            entry.value.changed_at = now;
        }
        self.sys.wake(message_channel(id));
        Ok(0)
    }
}
