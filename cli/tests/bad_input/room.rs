//! A folder with a job and its input, and what the real program makes of them.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// Whatever takes longer hangs, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Between two looks at a process.
const LOOK: Duration = Duration::from_millis(2);

pub struct Room {
    /// What the case is about, for the message of a failed assertion.
    what: String,
    folder: TempDir,
    /// A program to start the program with.
    before: Vec<String>,
}

/// How the program ended.
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    /// The greatest resident set that was seen, in MiB.
    pub peak_mib: u64,
}

impl Room {
    pub fn new(what: &str) -> Room {
        Room {
            what: what.to_string(),
            folder: tempfile::tempdir().expect("a folder"),
            before: Vec::new(),
        }
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    pub fn file(self, relative: &str, content: impl AsRef<[u8]>) -> Room {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, content).expect("written");
        self
    }

    pub fn job(self, text: &str) -> Room {
        self.file("job.yaml", text)
    }

    /// Starts the program by this one.
    pub fn by(mut self, before: &[&str]) -> Room {
        self.before = before.iter().map(ToString::to_string).collect();
        self
    }

    pub fn start(&self, arguments: &[&str]) -> Child {
        let program = env!("CARGO_BIN_EXE_gapless");
        let mut line: Vec<&str> = self.before.iter().map(String::as_str).collect();
        line.push(program);
        line.extend(arguments);
        let out = |name: &str| File::create(self.folder.path().join(name)).expect("made");
        let mut command = Command::new(line[0]);
        command
            .args(&line[1..])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", "/nonexistent")
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(out(STDOUT))
            .stderr(out(STDERR));
        command.spawn().expect("started")
    }

    pub fn end(&self, mut child: Child) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        let mut peak_mib = 0;
        let status = loop {
            // The mark only rises, so the last look before the end has nearly all of it.
            peak_mib = peak_mib.max(high_water(child.id()));
            if let Some(status) = child.try_wait().expect("waited") {
                break status;
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                panic!("{}: it hangs: {}", self.what, self.read(STDERR));
            }
            thread::sleep(LOOK);
        };
        Ended {
            code: status.code(),
            stdout: self.read(STDOUT),
            stderr: self.read(STDERR),
            peak_mib,
        }
    }

    pub fn gapless(&self, arguments: &[&str]) -> Ended {
        self.end(self.start(arguments))
    }

    fn read(&self, name: &str) -> String {
        let mut bytes = Vec::new();
        let mut file = File::open(self.path(name)).expect("there");
        file.read_to_end(&mut bytes).expect("readable");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// `validate`, `plan` and `run` all say this, with exit code 3, and leave the folder as it is: no run begins.
    pub fn is_refused(&self, says: &str) {
        for verb in ["validate", "plan", "run"] {
            self.refuses(&[verb, "job.yaml"], 3, says);
        }
    }

    /// The verb says this, with this exit code, and leaves the folder as it is.
    pub fn refuses(&self, arguments: &[&str], code: i32, says: &str) {
        let before = self.paths();
        let ended = self.gapless(arguments);
        self.check_end(arguments, &ended, code, says);
        assert_eq!(ended.stdout, "", "{}: {arguments:?}: data", self.what);
        assert_eq!(self.paths(), before, "{}: {arguments:?} leaves something", self.what);
    }

    /// A run begins, and fails with this message and exit code 1; nothing is published.
    pub fn fails(&self, says: &str) -> Ended {
        self.fails_as(&["run", "job.yaml"], says)
    }

    pub fn fails_as(&self, arguments: &[&str], says: &str) -> Ended {
        let ended = self.gapless(arguments);
        self.check_end(arguments, &ended, 1, says);
        self.check_nothing_published();
        ended
    }

    /// A run completes, and its output has these lines after the header.
    pub fn makes(&self, lines: &[&str]) -> Ended {
        let ended = self.gapless(&["run", "job.yaml"]);
        assert_eq!(ended.code, Some(0), "{}: {}", self.what, ended.stderr);
        let mut found: Vec<String> = Vec::new();
        for file in self.paths().iter().filter(|path| is_data(path)) {
            let text = fs::read_to_string(self.path(file)).expect("readable");
            found.extend(text.lines().skip(1).map(str::to_string));
        }
        found.sort();
        assert_eq!(found, lines, "{}", self.what);
        ended
    }

    fn check_end(&self, arguments: &[&str], ended: &Ended, code: i32, says: &str) {
        let what = &self.what;
        let said: Vec<&str> = ended.stderr.split("gapless: ").collect();
        // The last words, which stand behind all progress.
        let last = said.last().copied().unwrap_or_default();
        assert!(
            last.contains(says),
            "{what}: {arguments:?} says\n{}\nand not\n{says}",
            ended.stderr
        );
        assert_eq!(ended.code, Some(code), "{what}: {arguments:?}: {}", ended.stderr);
    }

    /// The outputs of jobs here are in `out`. Of a failed run there may be what it staged and the records that it
    /// rejected, in control folders; no output and no verdict.
    pub fn check_nothing_published(&self) {
        let visible: Vec<_> = self
            .paths()
            .into_iter()
            .filter(|path| path.starts_with("out/") && path != "out/" && !is_staged(path) && !self.is_abort(path))
            .collect();
        assert_eq!(visible, Vec::<String>::new(), "{}", self.what);
    }

    /// Whether a file is the verdict that nothing of a plan will be published.
    fn is_abort(&self, path: &str) -> bool {
        let is_verdict = path.contains(".gapless/published/") && path.ends_with(".json");
        is_verdict && fs::read_to_string(self.path(path)).is_ok_and(|text| text.contains("\"verdict\": \"ABORTED\""))
    }

    /// All files and empty folders of the room, but what the program has said.
    pub fn paths(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut folders = vec![self.folder.path().to_path_buf()];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            let mut is_empty = true;
            for entry in entries {
                let path = entry.expect("listed").path();
                is_empty = false;
                if path.is_dir() && !path.is_symlink() {
                    folders.push(path);
                } else {
                    found.insert(self.name(&path));
                }
            }
            if is_empty && folder != self.folder.path() {
                found.insert(self.name(&folder) + "/");
            }
        }
        for said in [STDOUT, STDERR] {
            found.remove(said);
        }
        found
    }

    fn name(&self, path: &Path) -> String {
        let inside = path.strip_prefix(self.folder.path()).expect("inside");
        inside.display().to_string()
    }
}

const STDOUT: &str = ".stdout";
const STDERR: &str = ".stderr";

/// `out/.NAME.gapless/…`, but for verdicts.
fn is_staged(path: &str) -> bool {
    let mut parts = path.split('/').skip(1);
    let control = parts
        .by_ref()
        .find(|part| part.starts_with('.') && part.ends_with(".gapless"));
    control.is_some() && (path.ends_with('/') || parts.next() != Some("published"))
}

fn is_data(path: &str) -> bool {
    path.starts_with("out/") && path.ends_with(".csv") && !path.contains("/.")
}

/// The greatest resident set of a process so far, in MiB; nothing once it has ended.
fn high_water(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

/// A job with one step `a` that copies `in.csv` with these columns to `out/a`.
pub fn copy_of(columns: &str) -> String {
    format!(
        "job: j\nsteps:\n  - name: a\n    source: {{csv: {{path: in.csv, columns: {columns}}}}}\n    sink: {{csv: {{path: out/a}}}}\n"
    )
}
