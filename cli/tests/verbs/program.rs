//! The program under test as a child process.

use std::{
    io::{Read, Write},
    process::{Child, ChildStderr, Command, Stdio},
};

use crate::fake::Fake;

pub struct Program {
    command: Command,
    stdin: Option<String>,
}

/// How a program ended.
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {} {}", self.stdout, self.stderr))
    }
}

impl Program {
    /// The program with nothing of this machine's settings.
    pub fn new(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gapless"));
        command.args(arguments).env_clear().env("HOME", "/nonexistent");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self { command, stdin: None }
    }

    pub fn at(mut self, fake: &Fake) -> Self {
        self.command.arg("--endpoint").arg(fake.endpoint());
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn stdin(mut self, text: &str) -> Self {
        self.command.stdin(Stdio::piped());
        self.stdin = Some(text.to_string());
        self
    }

    pub fn stdout(mut self, stdout: Stdio) -> Self {
        self.command.stdout(stdout);
        self
    }

    pub fn start(mut self) -> Child {
        let mut child = self.command.spawn().expect("started");
        if let (Some(text), Some(mut stdin)) = (self.stdin, child.stdin.take()) {
            stdin.write_all(text.as_bytes()).expect("written");
        }
        child
    }

    pub fn end(self) -> Ended {
        end(self.start())
    }
}

pub fn end(child: Child) -> Ended {
    let output = child.wait_with_output().expect("ended");
    Ended {
        code: output.status.code().expect("it was not killed"),
        stdout: String::from_utf8(output.stdout).expect("text"),
        stderr: String::from_utf8(output.stderr).expect("text"),
    }
}

pub fn interrupt(child: &Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a signal");
}

/// Reads until the words have been said, and returns what was read.
pub fn read_until(stderr: &mut ChildStderr, words: &str) -> String {
    let mut said = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&said).contains(words) {
        assert_eq!(
            stderr.read(&mut byte).expect("read"),
            1,
            "{}",
            String::from_utf8_lossy(&said)
        );
        said.extend(byte);
    }
    String::from_utf8(said).expect("text")
}

/// Each line as JSON.
pub fn lines(text: &str) -> Vec<serde_json::Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}
