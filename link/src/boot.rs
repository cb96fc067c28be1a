//! What the kernel is to run, and how it ended.

use crate::mirror::Counts;
use alloc::string::String;
use alloc::vec::Vec;
use bsdvm_linux::platform::{Identity, SystemName};
use serde::{Deserialize, Serialize};

/// What the kernel is to run, and the world that the program finds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Boot {
    /// Memory of all programs together, in bytes.
    pub memory: u64,
    /// The same as the person wrote it.
    pub memory_text: String,
    /// Say a line about each unknown system call and each fault that becomes a signal.
    pub verbose: bool,
    /// Keep the program's last map.
    pub map: bool,
    /// Check every invariant at the end.
    pub check: bool,
    /// Where the program lies.
    pub path: Vec<u8>,
    /// Its arguments, the name first.
    pub args: Vec<Vec<u8>>,
    /// Its environment, `NAME=VALUE`.
    pub env: Vec<Vec<u8>>,
    /// The working directory, as an absolute path.
    pub directory: Vec<u8>,
    /// User, effective user, group and effective group.
    pub ids: [u32; 4],
    /// Further groups.
    pub groups: Vec<u32>,
    /// The fields of `uname` in their order.
    pub system_name: [Vec<u8>; 6],
    /// Soft and hard limits by number.
    pub limits: [(u64, u64); 16],
    /// Nanoseconds since 1970.
    pub wall_clock: u64,
    /// A random number.
    pub seed: u64,
    /// Which of standard input, output and error are open.
    pub open: [bool; 3],
}

impl Boot {
    /// Whose rights the program has.
    pub fn identity(&self) -> Identity {
        let [uid, euid, gid, egid] = self.ids;
        Identity {
            uid,
            euid,
            gid,
            egid,
            groups: self.groups.clone(),
            capabilities: if euid == 0 { !0 } else { 0 },
            withheld: 0,
        }
    }

    /// What `uname` tells.
    pub fn uname(&self) -> SystemName {
        let [system, node, release, version, machine, domain] = self.system_name.clone();
        SystemName {
            system,
            node,
            release,
            version,
            machine,
            domain,
        }
    }
}

/// How the run ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ending {
    /// What became of the program.
    pub outcome: Outcome,
    /// Its last map, if it was asked for.
    pub map: Option<String>,
    /// What the VM counted.
    pub counts: Counts,
}

/// What became of the program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It ended with this status.
    Status(u8),
    /// This signal killed it.
    Killed(u8),
    /// It could not be started, because of this error number.
    NotStarted(i32),
    /// The memory is too small to run anything in.
    NoMemory,
    /// The kernel found itself broken: how.
    Broken(String),
}
