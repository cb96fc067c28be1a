//! The world below the personality.

use crate::files::standard::Standard;
use crate::files::{File, Tree, device};
use crate::guest::{BareKicker, BareThread};
use crate::link::{self, WATCHERS};
use crate::machine::Bare;
use crate::ninep::Client;
use crate::{clock, threads};
use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use bsdvm::{SpaceId, Vm};
use bsdvm_link::{Ask, Boot};
use bsdvm_linux::Errno;
use bsdvm_linux::platform::{
    Base, FileStat, Follow, FsStat, Identity, PathChange, Platform, PollBits, SystemName,
};
use bsdvm_machine::Wait;

/// The kernel behind the personality.
pub(crate) struct BarePlatform {
    tree: Tree,
    boot: Boot,
    identity: Identity,
    /// Nanoseconds since 1970 when the clock was 0.
    epoch: u64,
}

impl BarePlatform {
    /// The world that `boot` describes, with the files of `client`.
    ///
    /// Errors: the file server's.
    pub(crate) fn new(client: &'static Client, boot: Boot) -> Result<BarePlatform, Errno> {
        let identity = boot.identity();
        let who = (identity.euid, identity.egid);
        let epoch = boot.wall_clock.saturating_sub(clock::now());
        Ok(BarePlatform {
            tree: Tree::new(client, who, &boot.directory)?,
            boot,
            identity,
            epoch,
        })
    }
}

impl Platform for BarePlatform {
    type Machine = Bare;
    type Thread = BareThread;
    type Kicker = BareKicker;
    type File = File;

    fn guest_thread(&self, _vm: &Vm<Bare>, space: SpaceId) -> Result<BareThread, Errno> {
        Ok(BareThread::new(space))
    }

    fn spawn(&self, body: Box<dyn FnOnce() + Send>) -> Result<(), Errno> {
        threads::spawn(body).map_err(|_| Errno::EAGAIN)
    }

    fn wait_files(
        &self,
        kicker: &BareKicker,
        files: &[(&File, PollBits)],
        deadline: Option<u64>,
    ) -> Result<Vec<PollBits>, Errno> {
        loop {
            let ticket = Bare.ticket(WATCHERS);
            let ready: Vec<PollBits> = files
                .iter()
                .map(|(file, bits)| file.poll(*bits))
                .collect::<Result<_, _>>()?;
            let late = deadline.is_some_and(|d| d <= clock::now());
            if kicker.take() || late || ready.iter().any(|bits| *bits != 0) {
                return Ok(ready);
            }
            for (file, bits) in files {
                if let File::Standard(Standard(number)) = file {
                    link::watch(*number, *bits);
                }
            }
            Bare.sleep(WATCHERS, ticket, deadline);
        }
    }

    fn standard(&self, number: u32) -> Option<File> {
        let open = self.boot.open.get(number as usize).copied()?;
        open.then_some(File::Standard(Standard(number as u8)))
    }

    fn open(
        &self,
        base: Base<'_, File>,
        path: &[u8],
        flags: u32,
        mode: u32,
    ) -> Result<File, Errno> {
        self.tree.open(base, path, flags, mode)
    }

    fn stat(&self, base: Base<'_, File>, path: &[u8], follow: Follow) -> Result<FileStat, Errno> {
        self.tree.stat(base, path, follow)
    }

    fn read_link(&self, base: Base<'_, File>, path: &[u8]) -> Result<Vec<u8>, Errno> {
        let place = self.tree.walk(base, path, Follow::No)?;
        if !place.qid.is_link() {
            return Err(Errno::EINVAL);
        }
        place.fid.read_link()
    }

    fn access(
        &self,
        base: Base<'_, File>,
        path: &[u8],
        mode: u32,
        flags: u32,
    ) -> Result<(), Errno> {
        self.tree.access(base, path, mode, flags, &self.identity)
    }

    fn change(
        &self,
        base: Base<'_, File>,
        path: &[u8],
        change: PathChange<'_>,
    ) -> Result<(), Errno> {
        self.tree.change(base, path, change)
    }

    fn rename(
        &self,
        from: (Base<'_, File>, &[u8]),
        to: (Base<'_, File>, &[u8]),
        flags: u32,
    ) -> Result<(), Errno> {
        self.tree.rename(from, to, flags)
    }

    fn link(
        &self,
        from: (Base<'_, File>, &[u8]),
        to: (Base<'_, File>, &[u8]),
        flags: u32,
    ) -> Result<(), Errno> {
        self.tree.link(from, to, flags)
    }

    /// The client of the file protocol has no such request.
    fn xattr(
        &self,
        _path: &[u8],
        _name: &[u8],
        _follow: Follow,
        _buf: &mut [u8],
    ) -> Result<usize, Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    fn statfs(&self, path: &[u8]) -> Result<FsStat, Errno> {
        self.tree.walk(None, path, Follow::Yes)?.fid.stat_fs()
    }

    fn wall_clock(&self) -> u64 {
        self.epoch.saturating_add(clock::now())
    }

    fn cpu_time(&self) -> u64 {
        threads::time_used()
    }

    fn random(&self, buf: &mut [u8]) {
        device::fill_random(buf);
    }

    fn identity(&self) -> Identity {
        self.identity.clone()
    }

    fn system_name(&self) -> SystemName {
        self.boot.uname()
    }

    fn limit(&self, resource: u32) -> (u64, u64) {
        let limit = self.boot.limits.get(resource as usize).copied();
        limit.unwrap_or((u64::MAX, u64::MAX))
    }

    fn message(&self, line: &str) {
        link::tell(Ask::Message(line.to_owned()));
    }

    fn name(&self) -> String {
        "qemu".to_owned()
    }
}
