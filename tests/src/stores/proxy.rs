//! A proxy before a store that lets a test act at an exact request. It knows each store's way of asking.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};

use super::azure;
use crate::wait_for;

/// A request as the proxy sees it.
pub struct Request {
    pub method: String,
    /// Path and query as they were sent.
    target: String,
    /// Lines of the head after the first.
    pub headers: Vec<String>,
}

impl Request {
    /// Path and query, in plain text.
    pub fn target(&self) -> String {
        let mut plain = Vec::with_capacity(self.target.len());
        let mut bytes = self.target.bytes();
        while let Some(byte) = bytes.next() {
            let coded = (byte == b'%').then(|| bytes.clone().take(2).map(char::from).collect::<String>());
            match coded.and_then(|coded| u8::from_str_radix(&coded, 16).ok()) {
                Some(decoded) => {
                    plain.push(decoded);
                    bytes.nth(1);
                }
                None => plain.push(byte),
            }
        }
        String::from_utf8_lossy(&plain).into_owned()
    }

    fn has(&self, part: &str) -> bool {
        self.target().contains(part)
    }

    /// The value of a header whose name ends so.
    pub fn header(&self, end: &str) -> Option<&str> {
        let named = |line: &&String| {
            let name = line.split(':').next().unwrap_or_default();
            name.to_ascii_lowercase().ends_with(end)
        };
        let line = self.headers.iter().find(named)?;
        Some(line.split_once(':')?.1.trim())
    }

    /// Whether it puts an object whose key holds this.
    pub fn puts(&self, part: &str) -> bool {
        self.method == "PUT" && self.has(part)
    }

    /// Whether it copies to a key that holds this.
    pub fn copies(&self, part: &str) -> bool {
        self.puts(part) && self.header("-copy-source").is_some()
    }

    /// Whether it sends a part of an upload.
    pub fn sends_part(&self) -> bool {
        self.puts("partNumber=") || self.puts("comp=block&")
    }

    /// Whether it reads an object, or a part of one, whose key holds this.
    pub fn reads(&self, part: &str) -> bool {
        self.method == "GET" && self.has(part) && !self.lists() && !self.lists_uploads()
    }

    /// Whether it deletes objects.
    pub fn deletes(&self) -> bool {
        match self.method.as_str() {
            "DELETE" => !self.has("uploadId="),
            "POST" => self.has("?delete") || self.has("comp=batch"),
            _ => false,
        }
    }

    /// Whether it lists objects.
    pub fn lists(&self) -> bool {
        self.method == "GET" && (self.has("list-type=") || self.has("comp=list")) && !self.lists_uploads()
    }

    /// Whether it lists uploads that are open.
    pub fn lists_uploads(&self) -> bool {
        self.method == "GET" && (self.has("?uploads") || self.has("include=uncommittedblobs"))
    }

    /// Takes out the condition that there is no object of the name yet; tells whether it was there.
    pub fn drop_put_if_absent(&mut self) -> bool {
        self.drop_headers(&["if-none-match", "x-goog-if-generation-match"])
    }

    /// Takes out the condition on the etag; tells whether it was there.
    pub fn drop_if_match(&mut self) -> bool {
        self.drop_headers(&["if-match"])
    }

    fn drop_headers(&mut self, names: &[&str]) -> bool {
        let before = self.headers.len();
        self.headers.retain(|line| {
            let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
            !names.contains(&name.as_str())
        });
        let dropped = self.headers.len() < before;
        if dropped
            && self
                .header("authorization")
                .is_some_and(|it| it.starts_with("SharedKey"))
        {
            // Azure's signature is of the headers, too.
            self.drop_headers(&["authorization"]);
            let join = if self.target.contains('?') { '&' } else { '?' };
            self.target.push_str(&format!("{join}{}", azure::SIGNED));
        }
        dropped
    }

    /// Gives a header another name; what of its value changes is up to the caller.
    pub(super) fn rename(&mut self, from: &str, to: &str, value: impl Fn(&str) -> String) {
        for line in &mut self.headers {
            if let Some((name, old)) = line.split_once(':')
                && name.eq_ignore_ascii_case(from)
            {
                *line = format!("{to}: {}", value(old.trim()));
            }
        }
    }

    /// Sends path and query in plain text, as far as that is the same.
    pub(super) fn plain_slashes(&mut self) {
        self.target = self.target.replace("%2F", "/");
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

/// Starts a proxy before a server; gives its address.
pub(super) fn before(server: &str, hook: Hook) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let server = server.to_string();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (server, hook) = (server.clone(), hook.clone());
            thread::spawn(move || pass(client, &server, &hook));
        }
    });
    address
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
