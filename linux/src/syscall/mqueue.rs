//! Queues of messages of POSIX: `mq_open` and its kin.

use super::{Answer, Args, Calls};
use crate::creds::cap;
use crate::errno::Errno;
use crate::fs::file::{Kind, OpenFile};
use crate::fs::pipe::Attempt;
use crate::fs::socket::inbox::{Message, Sender};
use crate::fs::table::OnExec;
use crate::ipc::posix::{MessageQueue, Notice, PRIORITIES, QueueFile, Sent, Size};
use crate::platform::Platform;
use crate::signal::{SIGNALS, SigInfo};
use crate::syscall::time::Timespec;
use crate::thread::Task;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general as abi;

/// `NAME_MAX`.
const LONGEST_NAME: usize = 255;
const RLIMIT_MSGQUEUE: u32 = 12;
/// `NOTIFY_COOKIE_LEN`, and what the last byte says of a message that came.
const COOKIE: usize = 32;
const WOKEN_UP: u8 = 1;

/// `struct mq_attr`: flags, most messages, their size, messages now, and nothing.
type Attributes = [i64; 8];

impl<P: Platform> Task<P> {
    pub(super) const MQUEUE: Calls<P> = &[
        (abi::__NR_mq_open, Self::mq_open),
        (abi::__NR_mq_unlink, Self::mq_unlink),
        (abi::__NR_mq_timedsend, Self::mq_timedsend),
        (abi::__NR_mq_timedreceive, Self::mq_timedreceive),
        (abi::__NR_mq_notify, Self::mq_notify),
        (abi::__NR_mq_getsetattr, Self::mq_getsetattr),
    ];

    /// A name as it is in the directory of queues.
    fn queue_name(&self, name: u64) -> Result<Vec<u8>, Errno> {
        let name = self.path(name)?;
        if name.is_empty() {
            return Err(Errno::ENOENT);
        }
        if name.contains(&b'/') || name == b"." || name == b".." {
            return Err(Errno::EACCES);
        }
        match name.len() > LONGEST_NAME {
            true => Err(Errno::ENAMETOOLONG),
            false => Ok(name),
        }
    }

    fn mq_open(&mut self, [name, flags, mode, attributes, ..]: Args) -> Answer {
        let flags = flags as u32;
        let wanted = match attributes {
            0 => None,
            at => Some(self.get::<Attributes>(at)?),
        };
        let name = self.queue_name(name)?;
        let files = self.process.files();
        files.check_room(self.descriptor_limit())?;
        let existing = self.sys.named_queues.table.lock().get(&name).cloned();
        let both = abi::O_CREAT | abi::O_EXCL;
        let queue = match existing {
            Some(_) if flags & both == both => return Err(Errno::EEXIST),
            Some(queue) => {
                queue.check(&self.creds(), flags)?;
                queue
            }
            None if flags & abi::O_CREAT == 0 => return Err(Errno::ENOENT),
            None => self.new_queue(name, mode as u32, wanted)?,
        };
        let special = Kind::Special(Box::new(QueueFile { queue }));
        let kept = flags & (abi::O_ACCMODE | abi::O_NONBLOCK);
        self.install(Arc::new(OpenFile::special(special, kept)), OnExec::Close)
    }

    fn new_queue(
        &self,
        name: Vec<u8>,
        mode: u32,
        wanted: Option<Attributes>,
    ) -> Result<Arc<MessageQueue<P>>, Errno> {
        let number = |name| self.sys.settings.number(name);
        let most = Size {
            messages: number("fs/mqueue/msg_max"),
            bytes: number("fs/mqueue/msgsize_max"),
        };
        let size = match wanted {
            Some([_, messages, bytes, ..]) => Size { messages, bytes },
            None => Size {
                messages: most.messages.min(number("fs/mqueue/msg_default")),
                bytes: most.bytes.min(number("fs/mqueue/msgsize_default")),
            },
        };
        let creds = self.creds();
        let privileged = creds.capable(cap::SYS_RESOURCE);
        size.check(most, privileged)?;
        let limit = self.process.limit(RLIMIT_MSGQUEUE);
        let mode = mode & 0o7777 & !self.process.umask();
        let queues = number("fs/mqueue/queues_max");
        let mut table = self.sys.named_queues.table.lock();
        if table.len() as i64 >= queues && !privileged {
            return Err(Errno::ENOSPC);
        }
        let mine = table.values().filter(|q| q.user == creds.user.files);
        let charged: u64 = mine.map(|q| q.size.charge()).sum();
        if charged + size.charge() > limit {
            return Err(Errno::EMFILE);
        }
        let queue = MessageQueue::new(self.sys, size, mode, &creds);
        table.insert(name, queue.clone());
        Ok(queue)
    }

    /// The directory is everybody's, and each name its owner's to remove.
    fn mq_unlink(&mut self, [name, ..]: Args) -> Answer {
        let name = self.queue_name(name)?;
        let creds = self.creds();
        let removed = {
            let mut table = self.sys.named_queues.table.lock();
            let queue = table.get(&name).ok_or(Errno::ENOENT)?;
            if queue.user != creds.user.files && !creds.capable(cap::DAC_OVERRIDE) {
                return Err(Errno::EPERM);
            }
            table.remove(&name)
        };
        drop(removed);
        Ok(0)
    }

    /// The queue behind a descriptor.
    fn queue_of(file: &OpenFile<P>) -> Result<Arc<MessageQueue<P>>, Errno> {
        match &file.kind {
            Kind::Special(special) => special.as_queue().cloned().ok_or(Errno::EBADF),
            _ => Err(Errno::EBADF),
        }
    }

    /// A time of the day as one of the machine's clock.
    fn queue_deadline(&self, at: u64) -> Result<Option<u64>, Errno> {
        if at == 0 {
            return Ok(None);
        }
        let nanos = self.get::<Timespec>(at)?.nanos()?;
        let left = nanos.saturating_sub(self.sys.platform.wall_clock());
        Ok(Some(self.sys.now().saturating_add(left)))
    }

    fn mq_timedsend(&mut self, [fd, from, len, priority, timeout, _]: Args) -> Answer {
        let deadline = self.queue_deadline(timeout)?;
        let priority = priority as u32;
        if priority >= PRIORITIES {
            return Err(Errno::EINVAL);
        }
        let file = self.file(fd)?;
        let queue = Self::queue_of(&file)?;
        if !file.may_write() {
            return Err(Errno::EBADF);
        }
        if len > queue.size.bytes as u64 {
            return Err(Errno::EMSGSIZE);
        }
        let bytes = self.bytes(from, len as usize)?;
        let attempt = || match queue.add(priority, &bytes) {
            Sent::Full if file.is_nonblocking() => Some(Err(Errno::EAGAIN)),
            Sent::Full => None,
            sent => Some(Ok(sent)),
        };
        let sent = self.wait_on(queue.channel(), deadline, attempt)??;
        if let Sent::Tell(pid, notice) = sent {
            self.tell_of_message(pid, notice);
        }
        Ok(0)
    }

    fn tell_of_message(&self, pid: u32, notice: Notice<P>) {
        match notice {
            Notice::Nothing => {}
            Notice::Signal { number, value } => {
                let (me, user) = (self.process.pid, self.creds().user.real);
                let mut info = SigInfo::sent(number, abi::SI_MESGQ, me, user);
                info.fields[1] = value;
                self.sys.signal_process(pid, info).ok();
            }
            Notice::Bytes(socket, mut bytes) => {
                if let Some(last) = bytes.last_mut() {
                    *last = WOKEN_UP;
                }
                let mut message = Some(Message {
                    bytes,
                    files: Vec::new(),
                    sender: Sender::default(),
                    from: Vec::new(),
                });
                let added = socket.inbox.add_message(&mut message);
                debug_assert!(added != Attempt::Wait, "one message at a time");
            }
        }
    }

    fn mq_timedreceive(&mut self, [fd, to, room, priority, timeout, _]: Args) -> Answer {
        let deadline = self.queue_deadline(timeout)?;
        let file = self.file(fd)?;
        let queue = Self::queue_of(&file)?;
        if !file.may_read() {
            return Err(Errno::EBADF);
        }
        if room < queue.size.bytes as u64 {
            return Err(Errno::EMSGSIZE);
        }
        let attempt = || match queue.take() {
            None if file.is_nonblocking() => Some(Err(Errno::EAGAIN)),
            taken => taken.map(Ok),
        };
        queue.contents.lock().receivers += 1;
        let taken = self.wait_on(queue.channel(), deadline, attempt);
        queue.contents.lock().receivers -= 1;
        let (level, bytes) = taken??;
        self.put_optional(priority, &level)?;
        self.write_user(to, &bytes)?;
        Ok(bytes.len() as u64)
    }

    fn mq_notify(&mut self, [fd, event, ..]: Args) -> Answer {
        let notice = match event {
            0 => None,
            at => Some(self.notice_at(at)?),
        };
        let queue = Self::queue_of(&*self.file(fd)?)?;
        let me = self.process.pid;
        let Some(notice) = notice else {
            queue.forget(me);
            return Ok(0);
        };
        let mut contents = queue.contents.lock();
        if contents.notice.is_some() {
            drop(contents);
            return Err(Errno::EBUSY);
        }
        contents.notice = Some((me, notice));
        Ok(0)
    }

    /// What a `struct sigevent` asks for.
    fn notice_at(&self, at: u64) -> Result<Notice<P>, Errno> {
        let [value, words]: [u64; 2] = self.get(at)?;
        let (number, how) = (words as u32, (words >> 32) as u32);
        match how {
            abi::SIGEV_NONE => Ok(Notice::Nothing),
            abi::SIGEV_SIGNAL if number <= SIGNALS => Ok(Notice::Signal { number, value }),
            // The value is where the bytes are, the number the descriptor of a socket.
            abi::SIGEV_THREAD => {
                let bytes = self.bytes(value, COOKIE)?;
                let file = self.file(u64::from(number))?;
                match &file.kind {
                    Kind::Socket(socket) => Ok(Notice::Bytes(socket.clone(), bytes)),
                    _ => Err(Errno::ENOTSOCK),
                }
            }
            _ => Err(Errno::EINVAL),
        }
    }

    fn mq_getsetattr(&mut self, [fd, new, old, ..]: Args) -> Answer {
        let nonblocking = i64::from(abi::O_NONBLOCK);
        let wanted = match new {
            0 => None,
            at => Some(self.get::<Attributes>(at)?[0]),
        };
        if wanted.is_some_and(|flags| flags & !nonblocking != 0) {
            return Err(Errno::EINVAL);
        }
        let file = self.file(fd)?;
        let queue = Self::queue_of(&file)?;
        let flags = file.flags();
        let (count, size) = (queue.contents.lock().count(), queue.size);
        if let Some(wanted) = wanted {
            file.set_flags(flags & !abi::O_NONBLOCK | wanted as u32)?;
        }
        let now = i64::from(flags) & nonblocking;
        let attributes = [now, size.messages, size.bytes, count, 0, 0, 0, 0];
        self.put_optional(old, &attributes).map(|()| 0)
    }
}
