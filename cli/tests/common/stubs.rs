//! The processes of the host that guests run in, and what they have mapped.

/// Where the machine's own pages and mailboxes begin in a stub.
const STUB_OWN: u64 = 0x7fff_f000_0000;

/// What `/proc/PID/stat` says of a process behind its name: one of the fields, from 0.
fn field(pid: u32, number: usize) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(number).map(str::to_owned)
}

/// The parent of a process.
pub fn parent(pid: u32) -> Option<u32> {
    field(pid, 1)?.parse().ok()
}

/// Whether there is a process that has not ended. One that only waits for its first process to
/// take note of its end, which some containers' never does, has.
pub fn runs(pid: u32) -> bool {
    field(pid, 0).is_some_and(|state| state != "Z" && state != "X")
}

/// The processes whose parent is `pid`.
pub fn below(pid: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let numbers = entries.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    numbers.filter(|&p| parent(p) == Some(pid)).collect()
}

/// Whether a process is a stub that is ready: the program of all of them is a file in memory, and
/// the first one loses its stack before guests' stubs are made of it.
fn is_stub(pid: u32, maps: &str) -> bool {
    let program = std::fs::read_link(format!("/proc/{pid}/exe"));
    program.is_ok_and(|p| p.to_string_lossy().starts_with("/memfd:")) && !maps.contains("[stack]")
}

/// How many mappings of guest memory a stub has; 0 when it has ended meanwhile, or is not ready.
///
/// Panics when it has memory that is not ours.
pub fn mappings_of_ours(stub: u32) -> usize {
    let path = format!("/proc/{stub}/maps");
    let maps = std::fs::read_to_string(path).unwrap_or_default();
    if !is_stub(stub, &maps) {
        return 0;
    }
    let guests = maps.lines().filter(|line| {
        let start = line.split('-').next();
        let start = start.and_then(|s| u64::from_str_radix(s, 16).ok());
        start.expect("an address") < STUB_OWN
    });
    let mut seen = 0;
    for line in guests {
        let name = line.split_whitespace().nth(5).unwrap_or("");
        assert!(name.starts_with("/memfd:"), "not ours: {line}");
        seen += 1;
    }
    seen
}
