//! Faults at an exact point: the program under strace, which lets a system call on a path be the moment
//! at which it is killed, stopped or held up.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{Process, World, gapless, wait_for, without_settings};

/// What happens when one of the system calls touches the path.
pub struct Fault<'a> {
    /// Names joined by commas; a `?` before one that not every machine has.
    pub calls: &'a str,
    /// As strace's `inject` takes it, such as `signal=KILL:when=1`. Occurrences are counted for each
    /// thread on its own.
    pub action: &'a str,
    pub path: &'a Path,
}

/// A program with a fault before it. The tracer ends with it.
pub struct Faulty {
    pub process: Process,
    trace: PathBuf,
}

impl World {
    /// Starts the program so that it meets this fault.
    pub fn start_with(&self, fault: &Fault, name: &str, arguments: &[&str]) -> Faulty {
        let (log, trace) = (self.path(&format!("{name}.log")), self.path(&format!("{name}.trace")));
        let (calls, action) = (fault.calls, fault.action);
        let mut command = Command::new("strace");
        // -D: the tracer is the grandchild, so that the child is the program itself.
        command.args(["-D", "-f", "-qq", "-e", &format!("trace={calls}")]);
        command.args(["-e", &format!("inject={calls}:{action}")]);
        command.arg("-P").arg(fault.path).arg("-o").arg(&trace);
        command.arg(gapless()).args(arguments).current_dir(self.path("."));
        without_settings(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(fs::File::create(&log).expect("made"));
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("strace: {error}. These tests need it: install the package strace (Debian, Ubuntu)")
        });
        Faulty {
            process: Process::new(child, log),
            trace,
        }
    }
}

impl Faulty {
    /// What strace saw: system calls on the path, and signals.
    pub fn trace(&self) -> String {
        fs::read_to_string(&self.trace).unwrap_or_default()
    }

    /// Waits until the program has met its end by SIGKILL.
    pub fn wait_killed(&mut self) {
        let signal = self.process.signal_of_end();
        assert_eq!(
            signal,
            Some(9),
            "killed by the fault: {}\n{}",
            self.trace(),
            self.process.log()
        );
        assert!(self.trace().contains("killed by SIGKILL"), "{}", self.trace());
    }

    /// Waits until the fault has stopped the program, all threads of it.
    pub fn wait_stopped(&self) {
        wait_for("the fault to stop the program", || {
            self.trace().contains("stopped by SIGSTOP").then_some(())
        });
        self.process.wait_still();
    }
}
