//! `--trace FILE`: one line for each event, in the order of their numbers (`docs/trace.md`).

use bsdvm::{Event, TraceSink};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The file, and what is known of it.
struct Lines {
    file: BufWriter<File>,
    /// The number of the last line.
    last: u64,
    /// Why nothing is written any more.
    failed: Option<io::Error>,
}

/// Writes events to a file.
pub(crate) struct TraceFile(Mutex<Lines>);

impl TraceFile {
    /// Makes the file, or empties it.
    pub(crate) fn create(path: &Path) -> io::Result<TraceFile> {
        let lines = Lines {
            file: BufWriter::new(File::create(path)?),
            last: 0,
            failed: None,
        };
        Ok(TraceFile(Mutex::new(lines)))
    }

    /// Writes out what is buffered. Gives the first failure since the file was made.
    pub(crate) fn finish(&self) -> io::Result<()> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match lines.failed.take() {
            Some(failure) => Err(failure),
            None => lines.file.flush(),
        }
    }
}

impl TraceSink for TraceFile {
    fn event(&self, event: Event) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.failed.is_some() {
            return;
        }
        lines.last += 1;
        let number = lines.last;
        // The program goes on; that lines are missing is said at its end.
        lines.failed = writeln!(lines.file, "{number} {event}").err();
    }
}
