//! Object stores as processes of their own, each with an empty bucket, and a [proxy] before them that lets a
//! test act at an exact request. What they are asked by a test itself goes past the proxy.

mod azure;
mod google;
pub mod proxy;
mod s3;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    ops::Deref,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

pub use proxy::{Fate, Hook, Request, When, killer, once};

use crate::{Process, Sales, World, wait_for};

/// What the tests call their bucket.
pub const BUCKET: &str = "lake";

/// Credentials of the tests hold this word, by which they are found where they do not belong.
pub const SECRET: &str = "hidden";

/// Ports that a server is tried on.
const STARTS: usize = 5;

/// Whose protocol a store speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    S3,
    Google,
    Azure,
}

impl Kind {
    /// The address of an object, of a pattern or, without a key, of a bucket.
    pub fn url(self, bucket: &str, key: &str) -> String {
        let scheme = match self {
            Kind::S3 => "s3",
            Kind::Google => "gs",
            Kind::Azure => "az",
        };
        format!("{scheme}://{bucket}/{key}").trim_end_matches('/').to_string()
    }
}

/// Makes each of these functions of a [`Kind`] a test for each store that the build has.
#[macro_export]
macro_rules! on_each_store {
    ($($test:ident),+ $(,)?) => {
        #[cfg(feature = "s3")]
        mod s3 {
            $(#[test] fn $test() { super::$test($crate::stores::Kind::S3) })+
        }
        #[cfg(feature = "gcs")]
        mod google {
            $(#[test] fn $test() { super::$test($crate::stores::Kind::Google) })+
        }
        #[cfg(feature = "azure")]
        mod azure {
            $(#[test] fn $test() { super::$test($crate::stores::Kind::Azure) })+
        }
    };
}

/// A server and an empty bucket in it. Ends with the test.
pub struct Store {
    _server: Process,
    door: Door,
    /// `host:port` that programs are given.
    address: String,
}

/// What a test asks of a store. Cheap to clone, for hooks.
#[derive(Clone, Debug)]
pub struct Door {
    kind: Kind,
    /// `host:port` of the server.
    server: String,
}

impl Deref for Store {
    type Target = Door;

    fn deref(&self) -> &Door {
        &self.door
    }
}

impl Store {
    pub fn start(kind: Kind, world: &World) -> Store {
        // A free port may be taken by another process before the server has it.
        let (process, server) = (0..STARTS)
            .find_map(|_| Self::serve(kind, world))
            .expect("a store with a bucket");
        let address = match kind {
            Kind::S3 | Kind::Azure => server.clone(),
            Kind::Google => google::before(&server),
        };
        Store {
            _server: process,
            door: Door { kind, server },
            address,
        }
    }

    /// Starts the server on some port and makes the bucket; `None` where somebody else answers there.
    fn serve(kind: Kind, world: &World) -> Option<(Process, String)> {
        let log = world.path("store.log");
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let server = free.local_addr().expect("bound").to_string();
        drop(free);
        let port = server.rsplit_once(':').expect("a port").1;
        let (mut command, header, bucket) = match kind {
            Kind::S3 | Kind::Google => (s3::server(port), s3::AUTHORIZATION, format!("/{BUCKET}")),
            Kind::Azure => {
                let bucket = azure::target("", "restype=container");
                (azure::server(port), azure::KIND_OF_BLOB, bucket)
            }
        };
        let child = command
            .current_dir(world.path("."))
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(world.path("store.out")).expect("made"))
            .stderr(std::fs::File::create(&log).expect("made"))
            .spawn()
            .expect("the server starts");
        let process = Process::new(child, log);
        wait_for("the store", || TcpStream::connect(&server).ok());
        let (status, _) = answer(&server, "PUT", &bucket, header, b"")?;
        (200..300).contains(&status).then_some((process, server))
    }

    /// Gives the programs that are started from now on credentials and the address.
    pub fn let_in(&self, world: &mut World) {
        let credentials = match self.kind {
            Kind::S3 => s3::CREDENTIALS,
            Kind::Google => google::CREDENTIALS,
            Kind::Azure => azure::CREDENTIALS,
        };
        for (name, value) in credentials {
            world.set(name, value);
        }
        self.reach(world, &self.address);
    }

    fn reach(&self, world: &mut World, address: &str) {
        match self.kind {
            Kind::S3 => world.set("AWS_ENDPOINT_URL", &format!("http://{address}")),
            Kind::Google => world.set("GOOGLE_BASE_URL", &format!("http://{address}")),
            Kind::Azure => world.set(
                "AZURE_STORAGE_ENDPOINT",
                &format!("http://{address}/{}", azure::ACCOUNT),
            ),
        }
    }

    /// Programs that are started from now on reach the store through a hook.
    pub fn hook(&self, world: &mut World, hook: Hook) {
        self.reach(world, &proxy::before(&self.address, hook));
    }

    /// A worker whose requests pass a hook.
    pub fn worker_through(&self, world: &mut World, endpoint: &str, name: &str, hook: Hook) -> Process {
        self.hook(world, hook);
        let worker = world.start_as(
            name,
            &["worker", "--endpoint", endpoint, "--slots", "1", "--name", name],
        );
        self.reach(world, &self.address);
        worker
    }
}

impl Door {
    /// The address of an object or a pattern in the bucket or, without a key, of the bucket.
    pub fn url(&self, key: &str) -> String {
        self.kind.url(BUCKET, key)
    }

    fn request(&self, method: &str, target: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let header = match self.kind {
            Kind::S3 | Kind::Google => s3::AUTHORIZATION,
            Kind::Azure => azure::KIND_OF_BLOB,
        };
        request(&self.server, method, target, header, body)
    }

    /// The path of an object, by which the server itself is asked.
    fn object(&self, key: &str) -> String {
        match self.kind {
            Kind::S3 | Kind::Google => format!("/{BUCKET}/{key}"),
            Kind::Azure => azure::target(key, ""),
        }
    }

    pub fn put(&self, key: &str, body: &[u8]) {
        let (status, answer) = self.request("PUT", &self.object(key), body);
        assert!(matches!(status, 200 | 201), "{}", String::from_utf8_lossy(&answer));
    }

    pub fn delete(&self, key: &str) {
        self.request("DELETE", &self.object(key), b"");
    }

    pub fn get(&self, key: &str) -> Vec<u8> {
        let (status, body) = self.request("GET", &self.object(key), b"");
        assert_eq!(status, 200, "{key}");
        body
    }

    /// All keys below a prefix, sorted.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        match self.kind {
            Kind::S3 | Kind::Google => self.listed(&format!("/{BUCKET}?list-type=2&prefix={prefix}"), "Key"),
            Kind::Azure => {
                let list = azure::target("", &format!("restype=container&comp=list&prefix={prefix}"));
                self.listed(&list, "Name")
            }
        }
    }

    /// The keys of uploads that are open.
    pub fn uploads(&self) -> Vec<String> {
        match self.kind {
            Kind::S3 | Kind::Google => self.listed(&format!("/{BUCKET}?uploads"), "Key"),
            Kind::Azure => {
                let query = "restype=container&comp=list&include=uncommittedblobs";
                let mut open = self.listed(&azure::target("", query), "Name");
                let whole = self.keys("");
                open.retain(|key| !whole.contains(key));
                open
            }
        }
    }

    fn listed(&self, target: &str, element: &str) -> Vec<String> {
        let (status, body) = self.request("GET", target, b"");
        assert_eq!(status, 200, "{target}: {}", String::from_utf8_lossy(&body));
        elements(&body, element)
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
}

/// A world whose sales lie in the store too, as `in/sales-*.csv`.
pub fn lake(kind: Kind, rows: u64) -> (World, Sales, Store) {
    let (mut world, sales) = World::with_sales(rows);
    let store = Store::start(kind, &world);
    store.upload(&world.path("data"), "in");
    store.let_in(&mut world);
    (world, sales, store)
}

/// A program that `tests/store-servers` has put below the target folder, or that a variable names.
fn installed(variable: &str, path: &str) -> Command {
    if let Some(path) = std::env::var_os(variable) {
        return Command::new(path);
    }
    let test = std::env::current_exe().expect("the test knows where it is");
    // <target>/release/deps/<test>
    let program: PathBuf = test
        .ancestors()
        .nth(3)
        .expect("tests lie in a target folder")
        .join(path);
    assert!(
        program.is_file(),
        "{} is missing: these tests need a store; tests/store-servers installs it",
        program.display()
    );
    Command::new(program)
}

/// A request to a server: the status and the body of its answer.
fn request(address: &str, method: &str, target: &str, header: &str, body: &[u8]) -> (u16, Vec<u8>) {
    answer(address, method, target, header, body).expect("an answer")
}

/// As [`request`]; `None` where there is no answer that HTTP knows.
fn answer(address: &str, method: &str, target: &str, header: &str, body: &[u8]) -> Option<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(address).ok()?;
    let head = format!(
        "{method} {target} HTTP/1.1\r\nhost: {address}\r\n{header}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let body = answer.split_off(end + 4);
    let body = match head.contains("transfer-encoding: chunked") {
        true => unchunked(&body),
        false => body,
    };
    Some((status, body))
}

/// The body that came in chunks, each after its length in a line of its own.
fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        let length = std::str::from_utf8(&rest[..end]).expect("a length");
        let length = usize::from_str_radix(length.trim(), 16).expect("a length");
        body.extend_from_slice(&rest[end + 2..end + 2 + length]);
        rest = &rest[(end + 4 + length).min(rest.len())..];
    }
    body
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
