//! The process of a program: started in a group of its own, killed with it, and its end put into words.

use std::{
    io::{self, PipeReader, PipeWriter, Read},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use gapless_common::error::{ErrorClass, TaskError};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process_group, set_parent_process_death_signal, waitid,
};

use super::{Environment, Inherited, said};

/// What threads beside a program that is gone may take to notice. A process that left the group may hold a
/// pipe open for longer; the thread ends with it.
const THREADS_END: Duration = Duration::from_secs(2);
/// A running program and its threads. Dropped, the whole group is killed.
pub(super) struct Process {
    child: Child,
    name: String,
    stdin: Option<PipeWriter>,
    /// The other end of its input, to see what it has left unread. While it is held, writing to a program that does not
    /// read any more waits instead of failing.
    unread: Option<PipeReader>,
    stdout: Option<ChildStdout>,
    said: Arc<Mutex<said::Said>>,
    threads: Vec<JoinHandle<()>>,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts `run` in `folder`, whose name it takes where it holds a `/`.
    ///
    /// Errors: `Config` where there is no such program, or it may not be executed; `Resource` else.
    pub fn start(
        run: &[String],
        folder: &Path,
        inherited: &Inherited,
        environment: &Environment,
    ) -> Result<Process, TaskError> {
        let (program, arguments) = run
            .split_first()
            .ok_or_else(|| TaskError::new(ErrorClass::Config, "`transform.command.run` names no program"))?;
        let mut command = match program.contains('/') {
            true => Command::new(folder.join(program)),
            false => Command::new(program),
        };
        let no_pipe =
            |error: io::Error| TaskError::new(ErrorClass::Resource, format!("no pipe for a program: {error}"));
        let (its_end, stdin) = io::pipe().map_err(no_pipe)?;
        let unread = its_end.try_clone().map_err(no_pipe)?;
        command
            .args(arguments)
            .current_dir(folder)
            .stdin(its_end)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        for (name, value) in std::env::vars_os() {
            if !inherited.passes(&name.to_string_lossy(), &value.to_string_lossy()) {
                command.env_remove(name);
            }
        }
        command.envs(environment);
        let parent = rustix::process::getpid();
        // SAFETY: between fork and exec only two system calls are made, and nothing is allocated.
        unsafe {
            command.pre_exec(move || {
                set_parent_process_death_signal(Some(Signal::KILL))?;
                // Had the worker died before, nobody would send the signal any more.
                match rustix::process::getppid() == Some(parent) {
                    true => Ok(()),
                    false => Err(io::Error::from_raw_os_error(rustix::io::Errno::SRCH.raw_os_error())),
                }
            });
        }
        let name = shown(run, folder);
        let mut child = command.spawn().map_err(|error| cannot_start(&name, folder, &error))?;
        let said = Arc::default();
        let mut process = Process {
            name,
            stdin: Some(stdin),
            unread: Some(unread),
            stdout: child.stdout.take(),
            said: Arc::clone(&said),
            threads: Vec::new(),
            status: None,
            child,
        };
        if let Some(stderr) = process.child.stderr.take() {
            process.beside("stderr", move || said::listen(stderr, &said))?;
        }
        Ok(process)
    }

    pub fn stdin(&mut self) -> PipeWriter {
        self.stdin.take().expect("piped, and taken once")
    }

    pub fn stdout(&mut self) -> ChildStdout {
        self.stdout.take().expect("piped, and taken once")
    }

    /// How many bytes the program has left unread, at most `limit` of them. It has ended, and whoever writes to it will
    /// write no more than what is on its way.
    pub fn left_unread(&mut self, limit: usize) -> usize {
        let Some(unread) = self.unread.take() else { return 0 };
        let mut bytes = Vec::new();
        // An error leaves what was found until then.
        unread.take(limit as u64).read_to_end(&mut bytes).ok();
        bytes.len()
    }

    /// Runs `work` on a thread that logs as the attempt does and ends with the program.
    pub fn beside(&mut self, what: &str, work: impl FnOnce() + Send + 'static) -> Result<(), TaskError> {
        let span = tracing::Span::current();
        let thread = thread::Builder::new()
            .name(format!("gapless-{what}"))
            .spawn(move || span.in_scope(work))
            .map_err(|error| TaskError::new(ErrorClass::Resource, format!("no thread for a program: {error}")))?;
        self.threads.push(thread);
        Ok(())
    }

    /// How the program ended, once it has. What it has left running is killed.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        // Reaped only after its group was killed: before, the group's number is its own.
        if self.end_group_with_program() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    /// Kills what a program that has ended left behind, which may hold the pipes open. Answers whether it has
    /// ended just now: it is to be reaped.
    pub fn end_group_with_program(&self) -> bool {
        if self.status.is_some() {
            return false;
        }
        let Some(pid) = self.pid() else { return false };
        let gone = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        let ended = matches!(waitid(WaitId::Pid(pid), gone), Ok(Some(_)));
        if ended {
            kill_process_group(pid, Signal::KILL).ok();
        }
        ended
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(self.child.id() as i32)
    }

    /// What an end means.
    ///
    /// Errors: by the exit code, in the classes of `sysexits.h`; `Transient` after a signal.
    pub fn judge(&mut self, status: ExitStatus) -> Result<(), TaskError> {
        let Some(code) = status.code() else {
            let signal = status.signal().unwrap_or_default();
            return Err(self.error(ErrorClass::Transient, &format!("was killed by signal {signal}")));
        };
        let (class, meaning) = match code {
            0 => return Ok(()),
            64 | 66 | 67 | 68 | 72 | 77 | 78 => (ErrorClass::Config, "configuration"),
            126 | 127 => (ErrorClass::Config, "something that it was to execute is not there"),
            69 | 74 | 75 | 76 => (ErrorClass::Transient, "may pass"),
            71 | 73 => (ErrorClass::Resource, "resources"),
            // 65 and 70, and what an uncaught exception ends with.
            _ => (ErrorClass::Data, "data"),
        };
        Err(self.error(class, &format!("ended with exit code {code} ({meaning})")))
    }

    /// What it has written is not what it should be.
    pub fn wrong(&mut self, what: &str) -> TaskError {
        self.error(ErrorClass::Data, what)
    }

    /// An error of this program, with what it said last.
    pub fn error(&mut self, class: ErrorClass, what: &str) -> TaskError {
        self.kill();
        let last = match self.last() {
            last if last.is_empty() => String::new(),
            last => format!("; the last that it said: {last}"),
        };
        TaskError::new(class, format!("the program {} {what}{last}", self.name))
    }

    /// What it said last, once it has ended; `None` where it said nothing.
    pub fn last_words(&mut self) -> Option<String> {
        let last = self.last();
        (!last.is_empty()).then(|| format!("the program {} said: {last}", self.name))
    }

    fn last(&mut self) -> String {
        // So that its last words are in.
        self.join();
        self.said.lock().unwrap_or_else(PoisonError::into_inner).last()
    }

    fn kill(&mut self) {
        // Who writes to it is to notice.
        self.unread = None;
        if self.status.is_some() {
            return;
        }
        if let Some(pid) = self.pid() {
            kill_process_group(pid, Signal::KILL).ok();
        }
        self.status = self.child.wait().ok();
    }

    fn join(&mut self) {
        let end = Instant::now() + THREADS_END;
        for thread in self.threads.drain(..) {
            while !thread.is_finished() && Instant::now() < end {
                thread::sleep(Duration::from_millis(1));
            }
            match thread.is_finished() {
                true => drop(thread.join()),
                false => tracing::warn!(
                    program = self.name,
                    "a process that the program left holds its pipes open"
                ),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        (self.stdin, self.stdout) = (None, None);
        self.kill();
    }
}

/// Bytes of a command line in a message.
const SHOWN: usize = 100;

/// A program as messages name it, with what it was told to run: `python3 clean.py`. Its arguments may hold what is
/// nobody's business, so of them only plain options and the first file are shown.
fn shown(run: &[String], folder: &Path) -> String {
    let mut words: Vec<&str> = Vec::new();
    let mut left = run.iter().peekable();
    words.extend(left.next().map(String::as_str));
    while let Some(argument) = left.peek() {
        let is_file = !argument.is_empty() && !argument.starts_with('-') && folder.join(argument).is_file();
        let is_letter = argument.len() == 2 && argument.starts_with('-');
        if !(is_file || is_letter) {
            break;
        }
        words.extend(left.next().map(String::as_str));
        if is_file {
            break;
        }
    }
    if left.peek().is_some() {
        words.push("…");
    }
    let text = words.join(" ");
    match words.len() {
        0 | 1 => text,
        _ if text.len() > SHOWN => format!("`{}…`", &text[..text.floor_char_boundary(SHOWN)]),
        _ => format!("`{text}`"),
    }
}

fn cannot_start(program: &str, folder: &Path, error: &io::Error) -> TaskError {
    let class = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => ErrorClass::Config,
        // Not a program.
        _ if error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => ErrorClass::Config,
        _ => ErrorClass::Resource,
    };
    let remedy = match class {
        ErrorClass::Config => {
            "; it must be on the PATH of the worker, or a path with `/` from the folder of the job file, and executable"
        }
        _ => "",
    };
    TaskError::new(
        class,
        format!(
            "the program {program} cannot be started in {}: {error}{remedy}",
            folder.display()
        ),
    )
}
