//! Programs with damaged headers, loaded but not run: an error or a success, never a panic, and
//! nothing is left behind.

use bsdvm::{Config, Vm};
use bsdvm_host::HostPlatform;
use bsdvm_hosted::Hosted;
use bsdvm_linux::{Errno, Linux, Options, Program};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Repeatable chance.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Changes one field of the headers in `bytes`: a byte, or a whole word to something extreme.
    fn damage(&mut self, bytes: &mut [u8]) {
        let word = [0, 1, 0xfff, 0x1000, 1 << 31, 1 << 47, 1 << 63, u64::MAX];
        match self.below(3) {
            0 => {
                let at = self.below(bytes.len());
                bytes[at] = self.next() as u8;
            }
            1 => {
                let at = self.below(bytes.len() / 8) * 8;
                bytes[at..at + 8].copy_from_slice(&word[self.below(8)].to_le_bytes());
            }
            _ => {
                let at = self.below(bytes.len() / 8) * 8;
                let near = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
                let near = near.wrapping_add(self.next() % 0x2001).wrapping_sub(0x1000);
                bytes[at..at + 8].copy_from_slice(&near.to_le_bytes());
            }
        }
    }
}

fn linux() -> &'static Linux<HostPlatform> {
    let machine = Hosted::new(64 << 20).expect("a machine");
    let vm = Vm::new(machine, Config::default()).expect("a core");
    Linux::new(
        Box::leak(Box::new(vm)),
        HostPlatform::new(),
        Options::default(),
    )
}

fn load(linux: &'static Linux<HostPlatform>, path: &Path) -> Result<(), Errno> {
    linux.try_load(Program {
        path: path.as_os_str().as_bytes().to_vec(),
        args: vec![b"program".to_vec()],
        env: vec![b"A=1".to_vec()],
    })
}

/// Loads damaged copies of `program`; gives back how many were loaded all the same.
fn damage_all(linux: &'static Linux<HostPlatform>, program: &str, rounds: u32) -> u32 {
    let whole = std::fs::read(program).unwrap();
    let copy: PathBuf = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("hostile-{}", program.replace('/', "-")));
    std::fs::write(&copy, &whole).unwrap();
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(load(linux, &copy), Ok(()), "{program} as it is");
    let count = u16::from_le_bytes([whole[56], whole[57]]);
    let headers = 64 + usize::from(count) * 56;
    let file = std::fs::OpenOptions::new().write(true).open(&copy).unwrap();
    let mut chance = Chance(0x2545_f491_4f6c_dd1d);
    let mut loaded = 0;
    for _ in 0..rounds {
        let mut damaged = whole[..headers].to_vec();
        for _ in 0..1 + chance.below(3) {
            chance.damage(&mut damaged);
        }
        file.write_all_at(&damaged, 0).unwrap();
        loaded += u32::from(load(linux, &copy).is_ok());
    }
    std::fs::remove_file(&copy).unwrap();
    loaded
}

#[test]
fn damaged_headers_are_refused_or_loaded_and_leave_nothing_behind() {
    let linux = linux();
    for (program, rounds) in [("/bin/true", 1000), ("/bin/busybox", 1000)] {
        let loaded = damage_all(linux, program, rounds);
        assert!(loaded > 0 && loaded < rounds, "{program}: {loaded}");
    }
    linux.vm.check().expect("every invariant");
    let c = linux.vm.counters();
    assert_eq!(
        (c.spaces, c.objects, c.entries, c.charged_pages),
        (0, 0, 0, 0)
    );
}
