//! What the end-to-end tests stand on: the real binary, real processes, real signals, and an answer
//! computed apart from Gapless.

pub mod collector;
pub mod coordinators;
pub mod etcd;
pub mod etcd_admin;
pub mod network;
pub mod sales;
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
pub mod stores;
pub mod strace;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::network::Host;

/// Every wait ends: what takes longer than this on two busy cores hangs.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(2);

/// The program under test, built beside the tests.
pub fn gapless() -> PathBuf {
    if let Some(path) = std::env::var_os("GAPLESS_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("the test knows where it is");
    let folder = test
        .parent()
        .and_then(Path::parent)
        .expect("tests lie in a target folder");
    let program = folder.join("gapless");
    assert!(
        program.is_file(),
        "{} is missing: test the whole workspace, or build it first",
        program.display()
    );
    program
}

/// The checkout that these tests are of: cargo runs a test in the folder of its package. A path from the time
/// of the build may be that of another checkout, with which this one shares its target folder.
pub fn checkout() -> PathBuf {
    fs::canonicalize("..").expect("the folder of the workspace")
}

/// Waits until `look` gives something. Panics with `what` when patience ends.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain for: {what}");
        thread::sleep(LOOK);
    }
}

/// A folder with input, a job and everything that a run leaves.
pub struct World {
    folder: TempDir,
    /// What its programs find in their environment beside the test's own.
    environment: BTreeMap<String, String>,
}

/// Sales by shop, as the input has them: shop → (rows, sum of cents).
pub type Sales = BTreeMap<String, (u64, i64)>;

impl World {
    /// A folder with nothing in it.
    pub fn empty() -> World {
        World {
            folder: tempfile::tempdir().expect("a temporary folder"),
            environment: BTreeMap::new(),
        }
    }

    /// A folder with this input and job.
    pub fn with(input: &str, content: &str, job: &str) -> World {
        let world = World::empty();
        fs::write(world.path(input), content).expect("written");
        world.job(job);
        world
    }

    /// Writes `rows` sales over two CSV files of `data/`, some of them of a shop with most of the rows, and
    /// gives the answer to the job of [`World::sales_job`].
    pub fn with_sales(rows: u64) -> (World, Sales) {
        let world = World::empty();
        let mut sales = Sales::new();
        fs::create_dir(world.path("data")).expect("made");
        let mut texts = ["id,shop,cents,note\n".to_string(), "id,shop,cents,note\n".to_string()];
        for id in 0..rows {
            let hash = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
            let shop = if hash % 3 == 0 {
                "shop-0".to_string()
            } else {
                format!("shop-{}", hash % 97)
            };
            let cents = (hash % 20_011) as i64 - 500;
            let entry = sales.entry(shop.clone()).or_default();
            entry.0 += 1;
            entry.1 += cents;
            let text = &mut texts[usize::from(id * 3 > rows * 2)];
            text.push_str(&format!("{id},{shop},{cents},\"a \"\"note\"\", {id}\"\n"));
        }
        for (number, text) in texts.iter().enumerate() {
            fs::write(world.path(&format!("data/sales-{number}.csv")), text).expect("written");
        }
        (world, sales)
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    /// Puts a variable into the environment of the programs that are started from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.insert(name.to_string(), value.to_string());
    }

    /// A step that copies every sale in `load` partitions, and one that sums them by shop.
    pub fn sales_job(&self, load: &str, by_shop: &str) -> PathBuf {
        self.job(&format!(
            r#"job: sales
parameters:
  day: {{type: date, default: "2026-11-20"}}
steps:
  - name: load
    source:
      csv: {{path: "data/sales-*.csv", columns: {{id: int64, shop: string, cents: int64, note: string}}}}
    partition: {load}
    sink: {{csv: {{path: "out/load"}}}}
  - name: by-shop
    source:
      csv: {{path: "data/sales-*.csv", columns: {{id: int64, shop: string, cents: int64, note: string}}}}
    partition: {by_shop}
    transform: {{sql: "SELECT shop, count(*) AS n, sum(cents) AS cents FROM input GROUP BY shop"}}
    sink: {{csv: {{path: "out/by-shop", files: 1}}}}
"#
        ))
    }

    pub fn job(&self, text: &str) -> PathBuf {
        let path = self.path("job.yaml");
        fs::write(&path, text).expect("written");
        path
    }

    /// Runs the program to its end in this folder.
    pub fn gapless(&self, arguments: &[&str]) -> Output {
        self.gapless_on(None, arguments)
    }

    /// Runs the program to its end on a host of a network, or here.
    pub fn gapless_on(&self, host: Option<&Host>, arguments: &[&str]) -> Output {
        self.command(host, arguments).output().expect("the program starts")
    }

    pub fn start(&self, arguments: &[&str]) -> Process {
        self.start_as(&arguments.join("-").replace('/', "_"), arguments)
    }

    /// Starts the program with its log in a file of this name.
    pub fn start_as(&self, name: &str, arguments: &[&str]) -> Process {
        self.start_on(None, name, arguments)
    }

    /// Starts the program on a host of a network, or here.
    pub fn start_on(&self, host: Option<&Host>, name: &str, arguments: &[&str]) -> Process {
        let log = self.path(&format!("{name}.log"));
        let child = self
            .command(host, arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&log).expect("made"))
            .spawn();
        Process::new(child.expect("the program starts"), log)
    }

    fn command(&self, host: Option<&Host>, arguments: &[&str]) -> Command {
        let mut command = match host {
            None => Command::new(gapless()),
            Some(host) => host.command(&gapless()),
        };
        command.args(arguments).current_dir(self.folder.path());
        without_settings(&mut command);
        command.envs(&self.environment);
        command
    }

    /// All lines of the files that a step published, without headers, sorted.
    pub fn rows(&self, output: &str) -> Vec<String> {
        let mut rows = Vec::new();
        for path in self.files(output) {
            let text = fs::read_to_string(&path).expect("readable");
            rows.extend(text.lines().skip(1).map(str::to_string));
        }
        rows.sort_unstable();
        rows
    }

    /// The data files of a published output.
    pub fn files(&self, output: &str) -> Vec<PathBuf> {
        let folder = fs::read_dir(self.path(output)).expect("the output is there");
        let paths = folder.map(|entry| entry.expect("listed").path());
        paths.filter(|path| path.is_file()).collect()
    }

    /// Partitions of the newest run's first step that the embedded store has on record as done. No
    /// other process may have it open.
    pub fn committed_partitions(&self) -> u64 {
        let output = self.gapless(&["get", "sales", "--state", ".gapless", "-o", "json"]);
        let run: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        let step = &run["steps"][0];
        match step["state"].as_str() {
            // In other states the counts are those of another stage.
            Some("execute" | "publish" | "published") => step["partitions"]["done"].as_u64().unwrap_or(0),
            _ => 0,
        }
    }

    /// Committed or offered chunks of a step so far, by their manifests.
    pub fn manifests(&self, output: &str) -> usize {
        let control = self.path(&format!("out/.{output}.gapless/run"));
        let runs = fs::read_dir(control).into_iter().flatten().flatten();
        let folders = runs.map(|run| run.path().join("manifest"));
        let manifests = folders.flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
        manifests
            .filter(|entry| entry.file_name().to_string_lossy().ends_with(".json"))
            .count()
    }
}

/// Of each log, where a test fails.
const TOLD_LINES: usize = 40;

impl Drop for World {
    /// A test that fails tells what its processes logged last.
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        let entries = fs::read_dir(self.folder.path()).into_iter().flatten().flatten();
        let ending = |path: &Path| path.extension().is_some_and(|it| it == "log" || it == "trace");
        for path in entries.map(|entry| entry.path()).filter(|path| ending(path)) {
            let text = fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let from = lines.len().saturating_sub(TOLD_LINES);
            eprintln!("== {}\n{}", path.display(), lines[from..].join("\n"));
        }
    }
}

/// Keeps the settings of whoever runs the tests from a program.
pub(crate) fn without_settings(command: &mut Command) {
    let of_the_user = |name: &str| name.starts_with("GAPLESS_") || name.starts_with("AWS_");
    for (name, _) in std::env::vars().filter(|(name, _)| of_the_user(name)) {
        command.env_remove(name);
    }
}

/// The term in which a data file was written: `part-<partition>-<term>-<serial>-<seq>`.
pub fn term(path: &Path) -> u64 {
    let name = path.file_name().expect("a file").to_string_lossy().into_owned();
    name.split('-')
        .nth(2)
        .and_then(|term| term.parse().ok())
        .expect("a name of ours")
}

/// The rows of `out/by-shop` that are right.
pub fn expected(sales: &Sales) -> Vec<String> {
    let mut rows: Vec<String> = sales
        .iter()
        .map(|(shop, (n, cents))| format!("{shop},{n},{cents}"))
        .collect();
    rows.sort_unstable();
    rows
}

/// A process of the program that is ended with the test.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// With what it writes to stderr in the file `log`.
    pub fn new(child: Child, log: PathBuf) -> Process {
        Process { child, log }
    }

    /// Stops it with SIGSTOP, until [`Process::thaw`]. All its threads stand still when this returns.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        self.wait_still();
    }

    /// Waits until all its threads stand still.
    pub fn wait_still(&self) {
        wait_for("all threads to stand still", || self.is_still().then_some(()));
    }

    /// Whether all its threads stand still, stopped by a signal.
    pub fn is_still(&self) -> bool {
        // t is T under a tracer.
        self.all_threads_are(&['T', 't'])
    }

    /// Whether all its threads sleep: it has done what it could, and waits.
    pub fn is_at_rest(&self) -> bool {
        self.all_threads_are(&['S'])
    }

    fn all_threads_are(&self, states: &[char]) -> bool {
        let is_so = |thread: &Path| {
            // The state is the letter after the name, which stands in parentheses.
            let stat = fs::read_to_string(thread.join("stat")).unwrap_or_default();
            let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
            state.is_some_and(|state| state.starts_with(states))
        };
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs");
        threads.flatten().all(|thread| is_so(&thread.path()))
    }

    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    pub fn signal(&self, signal: Signal) {
        let id = Pid::from_child(&self.child);
        kill_process(id, signal).expect("it runs");
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The first line it prints.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        let stdout = self.child.stdout.as_mut().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("it prints a line");
        line.trim().to_string()
    }

    /// What it has written to stderr so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("its log is there")
    }

    /// Asks its monitoring endpoint: the status and the body.
    pub fn monitor(&self, path: &str) -> (u16, String) {
        let address = wait_for("the monitoring endpoint", || {
            let log = self.log();
            let (_, rest) = log.split_once("metrics at http://")?;
            rest.split_once("/metrics").map(|(address, _)| address.to_string())
        });
        http_get(&address, path)
    }

    /// Its metrics, unless it has ended or stands still.
    pub fn metrics_if_alive(&self) -> Option<Metrics> {
        let alive = fs::exists(format!("/proc/{}/exe", self.child.id())).is_ok_and(|alive| alive);
        (alive && !self.is_still()).then(|| self.metrics())
    }

    /// Its metrics now.
    pub fn metrics(&self) -> Metrics {
        let (status, text) = self.monitor("/metrics");
        assert_eq!(status, 200, "{text}");
        Metrics::read(&text)
    }

    /// Kills it with SIGKILL; false if it had ended before.
    pub fn kill(&mut self) -> bool {
        let alive = self.child.try_wait().expect("waitable").is_none();
        self.child.kill().expect("killable");
        let status = self.child.wait().expect("waitable");
        alive && std::os::unix::process::ExitStatusExt::signal(&status) == Some(9)
    }

    /// Waits for its end and gives the signal that ended it, if one did.
    pub fn signal_of_end(&mut self) -> Option<i32> {
        let status = wait_for("a process to end", || self.child.try_wait().expect("waitable"));
        std::os::unix::process::ExitStatusExt::signal(&status)
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("waitable").is_none()
    }

    /// Waits for its end and gives the exit code.
    pub fn code(&mut self) -> i32 {
        wait_for("a process to end", || self.child.try_wait().expect("waitable"))
            .code()
            .unwrap_or(-1)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended; either way it must not outlive the test.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Samples of one scrape by their names with labels, as they stand in the text.
pub struct Metrics {
    samples: BTreeMap<String, f64>,
    /// Names of all metrics, as queries use them.
    pub names: Vec<String>,
}

impl Metrics {
    /// Reads the text format of OpenMetrics.
    pub fn read(text: &str) -> Metrics {
        assert!(text.ends_with("# EOF\n"), "it is whole: {text}");
        let mut samples = BTreeMap::new();
        let mut names = Vec::new();
        for line in text.lines() {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a name and a kind");
                let endings: &[&str] = match kind {
                    "counter" => &["_total"],
                    "histogram" => &["_bucket", "_sum", "_count"],
                    "info" => &["_info"],
                    _ => &[""],
                };
                names.extend(endings.iter().map(|ending| format!("{name}{ending}")));
            } else if !line.starts_with('#') {
                let (name, value) = line.rsplit_once(' ').expect("a name and a value");
                samples.insert(name.to_string(), value.parse().expect("a number"));
            }
        }
        Metrics { samples, names }
    }

    /// The value of a sample, which must be there.
    pub fn get(&self, sample: &str) -> f64 {
        match self.samples.get(sample) {
            Some(value) => *value,
            None => panic!("{sample} is not among {:#?}", self.samples.keys()),
        }
    }

    /// The sum over all samples of a metric, whatever their labels.
    pub fn sum(&self, name: &str) -> f64 {
        let of_name = |sample: &&String| sample.split('{').next() == Some(name);
        let samples = self.samples.iter().filter(|(sample, _)| of_name(sample));
        samples.map(|(_, value)| value).sum()
    }
}

fn http_get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("somebody listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.expect("a status"), body.to_string())
}

/// A coordinator and workers as processes of their own.
pub struct Cluster<'a> {
    world: &'a World,
    pub coordinator: Process,
    pub workers: Vec<Process>,
    pub endpoint: String,
}

impl<'a> Cluster<'a> {
    pub fn start(world: &'a World, workers: usize) -> Cluster<'a> {
        let (coordinator, endpoint) = Self::coordinator(world, "127.0.0.1:0");
        let mut cluster = Cluster {
            world,
            coordinator,
            workers: Vec::new(),
            endpoint,
        };
        for _ in 0..workers {
            cluster.add_worker();
        }
        let all = || {
            cluster
                .ask(&["workers", "-o", "json"])
                .as_array()
                .is_some_and(|list| list.len() == workers)
        };
        wait_for("the workers to register", || all().then_some(()));
        cluster
    }

    fn coordinator(world: &World, listen: &str) -> (Process, String) {
        let mut process = world.start(&[
            "coordinator",
            "--listen",
            listen,
            "--state",
            "state",
            "--scratch",
            "scratch",
            "--lease-ms",
            "2000",
            "--heartbeat-ms",
            "200",
            "--metrics-listen",
            "127.0.0.1:0",
        ]);
        let endpoint = process.line();
        assert!(
            endpoint.starts_with("http://"),
            "the coordinator says where it is: {endpoint:?}"
        );
        (process, endpoint)
    }

    /// Starts the coordinator again on its state and its port.
    pub fn restart_coordinator(&mut self) {
        let listen = self.endpoint.trim_start_matches("http://").to_string();
        self.coordinator = Self::coordinator(self.world, &listen).0;
    }

    pub fn add_worker(&mut self) {
        let name = format!("worker-{}", self.workers.len());
        let mut arguments = vec!["worker", "--endpoint", &self.endpoint, "--slots", "1", "--name", &name];
        arguments.extend(["--metrics-listen", "127.0.0.1:0"]);
        arguments.extend(["--log-format", "json", "--log-level", "info,gapless_worker=debug"]);
        self.workers.push(self.world.start(&arguments));
    }

    /// What the program prints as JSON.
    pub fn ask(&self, arguments: &[&str]) -> Value {
        let all: Vec<&str> = arguments
            .iter()
            .copied()
            .chain(["--endpoint", &self.endpoint])
            .collect();
        let output = self.world.gapless(&all);
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    pub fn submit(&self, job: &str) -> String {
        let output = self
            .world
            .gapless(&["submit", job, "-o", "name", "--endpoint", &self.endpoint]);
        let name = String::from_utf8_lossy(&output.stdout).trim().to_string();
        assert!(
            output.status.success(),
            "submitted: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        name
    }

    pub fn run(&self, run: &str) -> Value {
        self.ask(&["get", run, "-o", "json"])
    }

    /// Waits until the run has ended and gives it.
    pub fn ended(&self, run: &str) -> Value {
        wait_for("the run to end", || {
            let run = self.run(run);
            matches!(
                run["state"].as_str(),
                Some("completed" | "failed" | "cancelled" | "stopped")
            )
            .then_some(run)
        })
    }

    /// The number of a worker that holds a task of the run now.
    pub fn busy_worker(&self) -> Option<usize> {
        let workers = self.ask(&["workers", "-o", "json"]);
        let busy = workers
            .as_array()?
            .iter()
            .find(|worker| worker["busy"].as_u64() > Some(0))?;
        let name = busy["worker"].as_str().or(busy["name"].as_str())?;
        name.strip_prefix("worker-")?.parse().ok()
    }
}
