//! Swap on a file of the host: what is written comes back, what the host refuses is told.

#![forbid(unsafe_code)]

use bsdvm::{Config, Mapping, PageBytes, PagerError, Placement, Prot, SwapDevice, VirtAddr, Vm};
use bsdvm_host::SwapFile;
use bsdvm_hosted::Hosted;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

const PAGE: usize = 4096;

struct Bytes(Vec<u8>);

impl PageBytes for Bytes {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn read(&self, offset: usize, buf: &mut [u8]) {
        buf.copy_from_slice(&self.0[offset..offset + buf.len()]);
    }

    fn write(&mut self, offset: usize, buf: &[u8]) {
        self.0[offset..offset + buf.len()].copy_from_slice(buf);
    }
}

fn page(byte: u8) -> Bytes {
    Bytes(vec![byte; PAGE])
}

fn open(path: &str, flags: OFlags) -> OwnedFd {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

/// A file without a name, and the same again.
fn file(name: &str) -> (OwnedFd, OwnedFd) {
    let name = format!("{name}.{}", std::process::id());
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut options = std::fs::File::options();
    let options = options.read(true).write(true).create_new(true);
    let file: OwnedFd = options.open(&path).unwrap().into();
    std::fs::remove_file(&path).unwrap();
    let again = file.as_fd().try_clone_to_owned().unwrap();
    (file, again)
}

#[test]
fn clusters_and_pages_come_back_and_holes_take_nothing() {
    let (ours, again) = file("clusters");
    let swap = SwapFile::on(ours, 1 << 40, PAGE);
    assert_eq!(swap.slots(), 1 << 28);
    let pages = [page(1), page(2), page(3)];
    let cluster: Vec<&dyn PageBytes> = pages.iter().map(|p| p as &dyn PageBytes).collect();
    swap.write_cluster(1000, &cluster).unwrap();
    swap.write(200_000_000, &page(4)).unwrap();
    let mut got = [page(0), page(0)];
    let [a, b] = &mut got;
    swap.read_cluster(1001, &mut [a, b]).unwrap();
    assert_eq!((&got[0].0, &got[1].0), (&vec![2; PAGE], &vec![3; PAGE]));
    let mut one = page(0);
    swap.read(200_000_000, &mut one).unwrap();
    assert_eq!(one.0, vec![4; PAGE]);
    let blocks = || rustix::fs::fstat(&again).unwrap().st_blocks;
    let before = blocks();
    assert!(before < 1000, "holes take nothing");
    swap.discard(1000, 3);
    assert!(blocks() < before, "and what is not needed becomes one");
}

#[test]
fn what_the_host_refuses_is_told_apart() {
    let full = SwapFile::on(open("/dev/full", OFlags::RDWR), 1 << 20, PAGE);
    assert_eq!(full.write(1, &page(1)), Err(PagerError::NoSpace));
    let closed = SwapFile::on(open("/dev/null", OFlags::RDONLY), 1 << 20, PAGE);
    let refused = Err(PagerError::Io(Errno::BADF.raw_os_error()));
    assert_eq!(closed.write(1, &page(1)), refused);
    let cut = Err(PagerError::Io(Errno::IO.raw_os_error()));
    assert_eq!(closed.read(1, &mut page(0)), cut);
}

/// The core on the hosted machine, without a guest: memory four times over.
#[test]
fn memory_goes_to_the_file_and_comes_back() {
    let vm = Vm::new(Hosted::new(8 << 20).unwrap(), Config::default()).unwrap();
    let swap = SwapFile::temporary(64 << 20, PAGE).unwrap();
    vm.swap_on(Box::leak(Box::new(swap))).unwrap();
    let id = vm.space_create(bsdvm::Machine::user_range(vm.machine()));
    let space = vm.space(id.unwrap());
    let place = Placement::At(VirtAddr(1 << 30));
    let at = space.map(32 << 20, place, Mapping::anonymous(Prot::RW));
    let at = at.unwrap();
    for n in 0..8192_u64 {
        space
            .write(VirtAddr(at.0 + n * 4096), &n.to_le_bytes())
            .unwrap();
    }
    for n in 0..8192_u64 {
        let mut word = [0; 8];
        space.read(VirtAddr(at.0 + n * 4096), &mut word).unwrap();
        assert_eq!(u64::from_le_bytes(word), n);
    }
    let c = vm.counters();
    assert!(c.swap_out > 6000 && c.swap_writes * 16 < c.swap_out, "{c}");
    assert!(c.swap_in > 6000 && c.swap_reads * 8 < c.swap_in, "{c}");
    vm.check().unwrap();
    space.release();
    assert_eq!(vm.counters().swap_used, 0);
}
