//! An S3 server as a process of its own, and a proxy before it that lets a test act at an exact request.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Process, Sales, World, wait_for};

/// What the tests call their bucket.
pub const BUCKET: &str = "lake";

/// Who puts an object owns it, and others may not read it. The server believes who somebody says he is.
const AUTHORIZATION: &str = "authorization: AWS4-HMAC-SHA256 Credential=AKIATESTKEY/20261120/us-east-1/s3/aws4_request, \
                             SignedHeaders=host, Signature=none";

/// The server, with an empty bucket. Ends with the test.
pub struct S3 {
    _server: Process,
    /// `host:port`.
    pub address: String,
}

/// A request as the proxy sees it.
pub struct Request {
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Lines of the head after the first.
    pub headers: Vec<String>,
}

impl Request {
    /// Whether it puts an object whose key holds this.
    pub fn puts(&self, part: &str) -> bool {
        self.method == "PUT" && self.target.contains(part)
    }

    /// Whether it copies to a key that holds this.
    pub fn copies(&self, part: &str) -> bool {
        self.puts(part)
            && self
                .headers
                .iter()
                .any(|line| line.to_ascii_lowercase().starts_with("x-amz-copy-source"))
    }
}

/// When a hook is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The server has not seen the request.
    Before,
    /// The server has answered, the client has not heard it.
    After,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    GoesOn,
    /// The connection ends without an answer.
    Dropped,
    /// The proxy answers itself: a status line without the protocol, and a body.
    Answered(&'static str, &'static str),
}

/// Sees each request twice, and may change it, or do anything else, before it goes on.
pub type Hook = Arc<dyn Fn(&mut Request, When) -> Fate + Send + Sync>;

fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("GAPLESS_MOTO") {
        return path.into();
    }
    let test = std::env::current_exe().expect("the test knows where it is");
    // <target>/release/deps/<test>
    let target = test.ancestors().nth(3).expect("tests lie in a target folder");
    let program = target.join("moto/bin/moto_server");
    assert!(
        program.is_file(),
        "{} is missing: these tests need an S3 server; tests/s3-server installs it",
        program.display()
    );
    program
}

impl S3 {
    pub fn start(world: &World) -> S3 {
        let log = world.path("s3.log");
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("bound").to_string();
        drop(free);
        let port = address.rsplit_once(':').expect("a port").1;
        let child = Command::new(program())
            .args(["-H", "127.0.0.1", "-p", port])
            .current_dir(world.path("."))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).expect("made"))
            .spawn()
            .expect("the server starts");
        let server = Process::new(child, log);
        wait_for("the S3 server", || TcpStream::connect(&address).ok());
        let s3 = S3 {
            _server: server,
            address,
        };
        s3.request("PUT", &format!("/{BUCKET}"), b"");
        s3
    }

    /// Gives the programs that are started from now on credentials and the address.
    pub fn let_in(&self, world: &mut World) {
        world.set("AWS_ACCESS_KEY_ID", "AKIATESTKEY");
        world.set("AWS_SECRET_ACCESS_KEY", "hidden");
        world.set("AWS_REGION", "us-east-1");
        world.set("AWS_ENDPOINT_URL", &format!("http://{}", self.address));
    }

    /// A request of the test itself: the status and the body.
    pub fn request(&self, method: &str, target: &str, body: &[u8]) -> (u16, Vec<u8>) {
        request(&self.address, method, target, body)
    }

    pub fn put(&self, key: &str, body: &[u8]) {
        let (status, answer) = self.request("PUT", &format!("/{BUCKET}/{key}"), body);
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
    }

    pub fn delete(&self, key: &str) {
        self.request("DELETE", &format!("/{BUCKET}/{key}"), b"");
    }

    pub fn get(&self, key: &str) -> Vec<u8> {
        let (status, body) = self.request("GET", &format!("/{BUCKET}/{key}"), b"");
        assert_eq!(status, 200, "{key}");
        body
    }

    /// All keys below a prefix, sorted.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let (status, body) = self.request("GET", &format!("/{BUCKET}?list-type=2&prefix={prefix}"), b"");
        assert_eq!(status, 200);
        elements(&body, "Key")
    }

    /// The keys of multipart uploads that are open.
    pub fn uploads(&self) -> Vec<String> {
        let (status, body) = self.request("GET", &format!("/{BUCKET}?uploads"), b"");
        assert_eq!(status, 200);
        elements(&body, "Key")
    }

    /// All lines of the CSV files that a step published, without headers, sorted.
    pub fn rows(&self, output: &str) -> Vec<String> {
        let mut rows = Vec::new();
        for key in self
            .keys(&format!("{output}/"))
            .iter()
            .filter(|key| !key.contains("/_gapless/"))
        {
            let text = String::from_utf8(self.get(key)).expect("text");
            rows.extend(text.lines().skip(1).map(str::to_string));
        }
        rows.sort_unstable();
        rows
    }

    /// Puts the files of a folder of the world below a prefix.
    pub fn upload(&self, folder: &Path, prefix: &str) {
        for entry in std::fs::read_dir(folder).expect("there") {
            let path = entry.expect("listed").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            self.put(&format!("{prefix}/{name}"), &std::fs::read(&path).expect("readable"));
        }
    }

    /// A proxy before this server; gives its address.
    pub fn proxy(&self, hook: Hook) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let server = self.address.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (server, hook) = (server.clone(), hook.clone());
                thread::spawn(move || pass(client, &server, &hook));
            }
        });
        address
    }
}

/// A world whose sales lie in the store too, as `in/sales-*.csv`.
pub fn lake(rows: u64) -> (World, Sales, S3) {
    let (mut world, sales) = World::with_sales(rows);
    let s3 = S3::start(&world);
    s3.upload(&world.path("data"), "in");
    s3.let_in(&mut world);
    (world, sales, s3)
}

/// A worker whose requests pass a hook.
pub fn worker_through(world: &mut World, s3: &S3, endpoint: &str, name: &str, hook: Hook) -> Process {
    let direct = format!("http://{}", s3.address);
    world.set("AWS_ENDPOINT_URL", &format!("http://{}", s3.proxy(hook)));
    let worker = world.start_as(
        name,
        &["worker", "--endpoint", endpoint, "--slots", "1", "--name", name],
    );
    world.set("AWS_ENDPOINT_URL", &direct);
    worker
}

/// Kills the process whose id it is told, at the first request that matches.
pub fn killer(matches: impl Fn(&Request, When) -> bool + Send + Sync + 'static) -> (Hook, Arc<Mutex<Option<u32>>>) {
    let id: Arc<Mutex<Option<u32>>> = Arc::default();
    let of = id.clone();
    let hook = once(matches, move || {
        let id = wait_for("the id of the worker", || *of.lock().expect("no panic before"));
        let id = Pid::from_raw(id as i32).expect("a process");
        kill_process(id, Signal::KILL).expect("it runs");
    });
    (hook, id)
}

/// A hook that acts once, at the first request that `matches`, and tells then.
pub fn once(
    matches: impl Fn(&Request, When) -> bool + Send + Sync + 'static,
    act: impl FnOnce() + Send + 'static,
) -> Hook {
    let act = Mutex::new(Some(act));
    Arc::new(move |request, when| {
        if !matches(request, when) {
            return Fate::GoesOn;
        }
        match act.lock().expect("no panic before").take() {
            Some(act) => {
                act();
                Fate::Dropped
            }
            None => Fate::GoesOn,
        }
    })
}

/// One request for each connection, so that neither side has to be understood further.
fn pass(client: TcpStream, server: &str, hook: &Hook) -> Option<()> {
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let mut request = Request {
        method: words.next()?.to_string(),
        target: words.next()?.to_string(),
        headers: Vec::new(),
    };
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let header = header.trim_end().to_string();
        if header.is_empty() {
            break;
        }
        let lower = header.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if !lower.starts_with("connection:") {
            request.headers.push(header);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    match hook(&mut request, When::Before) {
        Fate::GoesOn => {}
        Fate::Dropped => {
            let _ = client.shutdown(Shutdown::Both);
            return None;
        }
        Fate::Answered(status, body) => {
            let length = body.len();
            let answer = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
            (&client).write_all(answer.as_bytes()).ok()?;
            let _ = client.shutdown(Shutdown::Both);
            return None;
        }
    }
    let mut upstream = TcpStream::connect(server).ok()?;
    let head = format!(
        "{} {} HTTP/1.1\r\n{}\r\nconnection: close\r\n\r\n",
        request.method,
        request.target,
        request.headers.join("\r\n")
    );
    upstream.write_all(head.as_bytes()).ok()?;
    upstream.write_all(&body).ok()?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer).ok()?;
    if hook(&mut request, When::After) == Fate::GoesOn {
        (&client).write_all(&answer).ok()?;
    }
    let _ = client.shutdown(Shutdown::Both);
    Some(())
}

fn request(address: &str, method: &str, target: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(address).expect("somebody listens");
    let head = format!(
        "{method} {target} HTTP/1.1\r\nhost: {}\r\n{AUTHORIZATION}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        address,
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("sent");
    stream.write_all(body).expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.expect("a status"), answer.split_off(end + 4))
}

/// Puts an object at a server; for hooks, which own nothing of the test.
pub fn put_at(address: &str, key: &str, body: &[u8]) {
    request(address, "PUT", &format!("/{BUCKET}/{key}"), body);
}

fn elements(xml: &[u8], name: &str) -> Vec<String> {
    let text = String::from_utf8_lossy(xml).into_owned();
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let parts = text.split(&open).skip(1);
    let mut found: Vec<String> = parts
        .filter_map(|part| Some(part.split_once(&close)?.0.to_string()))
        .collect();
    found.sort_unstable();
    found
}
