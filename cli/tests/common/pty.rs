//! A program on a terminal of its own: what is typed, and the transcript.

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// What a terminal shows before it is a failure that it shows nothing more.
const PATIENCE: Duration = Duration::from_secs(30);

/// A session on a terminal.
pub struct Session {
    master: File,
    child: Child,
    /// What the terminal shows, as it comes.
    pieces: Receiver<Vec<u8>>,
    shown: Vec<u8>,
    /// How much of it has been waited for.
    seen: usize,
}

impl Session {
    /// Starts `command` as the leader of a session with a new terminal.
    pub fn start<S: AsRef<OsStr>>(command: &[S]) -> Session {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
        grantpt(&master)
            .and_then(|()| unlockpt(&master))
            .expect("its other end");
        let name = ptsname(&master, Vec::new()).expect("its name");
        let other = || {
            let path = OsStr::from_bytes(name.to_bytes());
            let mut options = OpenOptions::new();
            Stdio::from(options.read(true).write(true).open(path).expect("opens"))
        };
        // Started from a shell in the background, some signals would be ignored.
        let mut env = Command::new("env");
        env.args(["-i", "--default-signal", "PATH=/usr/bin:/bin", "LC_ALL=C"]);
        env.args(["TERM=dumb", "PS1=ready> ", "HISTFILE=/dev/null", "HOME=/"]);
        env.args(["setsid", "--ctty"]).args(command);
        env.stdin(other()).stdout(other()).stderr(other());
        let child = env.spawn().expect("env starts");
        let master = File::from(master);
        let mut reader = master.try_clone().expect("a descriptor");
        let (send, pieces) = channel();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            // The end of the last one on the other side is an error here.
            while let Ok(n @ 1..) = reader.read(&mut piece) {
                if send.send(piece[..n].to_vec()).is_err() {
                    break;
                }
            }
        });
        Session {
            master,
            child,
            pieces,
            shown: Vec::new(),
            seen: 0,
        }
    }

    /// Waits until `text` is shown, behind what was waited for before.
    pub fn wait_for(&mut self, text: &str) {
        loop {
            let rest = &self.shown[self.seen..];
            let found = rest.windows(text.len()).position(|w| w == text.as_bytes());
            if let Some(at) = found {
                self.seen += at + text.len();
                return;
            }
            let Ok(piece) = self.pieces.recv_timeout(PATIENCE) else {
                let shown = self.text();
                self.child.kill().ok();
                panic!("{text:?} is not shown:\n{shown}");
            };
            self.shown.extend(piece);
        }
    }

    /// Types `keys`.
    pub fn type_keys(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("typing");
    }

    /// The number of the process that leads the session.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The other end's settings.
    pub fn settings(&self) -> rustix::termios::Termios {
        rustix::termios::tcgetattr(&self.master).expect("settings")
    }

    /// Everything that was shown.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown).into_owned()
    }

    /// Waits for the end: what was shown, and the status.
    pub fn end(mut self) -> (String, ExitStatus) {
        loop {
            match self.pieces.recv_timeout(PATIENCE) {
                Ok(piece) => self.shown.extend(piece),
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
                Err(_) => {
                    self.child.kill().ok();
                    panic!("no end:\n{}", self.text());
                }
            }
        }
        let status = self.child.wait().expect("an end");
        (self.text(), status)
    }
}
