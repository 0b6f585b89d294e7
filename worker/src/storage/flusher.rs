//! The side threads that wait for the disk, so that encoding goes on meanwhile.

use std::{
    fs::File,
    io,
    path::PathBuf,
    sync::{
        Arc, LazyLock, Mutex,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

/// Threads that do nothing but wait in fsync. Two, so that one slow file does not hold up the others.
const THREADS: usize = 2;

/// Requests that may wait; whoever comes next waits with them, which slows writers to the disk's pace.
const QUEUE: usize = 256;

/// A file with what its background syncs have met. The kernel reports a failed write-back once: a
/// later fsync may answer OK, so the first error is kept.
pub(super) struct Tracked {
    pub file: File,
    failed: Mutex<Option<io::Error>>,
}

impl Tracked {
    pub fn new(file: File) -> Arc<Self> {
        Arc::new(Self {
            file,
            failed: Mutex::new(None),
        })
    }

    fn sync_data(&self) {
        if let Err(error) = self.file.sync_data() {
            self.failed
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner())
                .get_or_insert(error);
        }
    }

    fn sync_all(&self) -> io::Result<()> {
        let result = self.file.sync_all();
        match self
            .failed
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .take()
        {
            Some(error) => Err(error),
            None => result,
        }
    }
}

enum Request {
    /// Begin writing back what is there.
    Start(Arc<Tracked>),
    /// Make content and length durable, then answer.
    Finish(Arc<Tracked>, SyncSender<io::Result<()>>),
    /// Make the names in a folder durable, then answer.
    Folder(PathBuf, SyncSender<io::Result<()>>),
}

/// The answer to come.
pub(super) struct Pending(Receiver<io::Result<()>>);

impl Pending {
    pub fn wait(self) -> io::Result<()> {
        self.0
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("the thread that syncs files is gone")))
    }
}

/// One set of threads serves the process; they hold nothing that has to be given back at its end.
static REQUESTS: LazyLock<SyncSender<Request>> = LazyLock::new(|| {
    let (sender, receiver) = sync_channel::<Request>(QUEUE);
    let receiver = Arc::new(Mutex::new(receiver));
    for number in 0..THREADS {
        let receiver = Arc::clone(&receiver);
        let spawned = thread::Builder::new()
            .name(format!("gapless-fsync-{number}"))
            .spawn(move || serve(&receiver));
        // Without any thread the channel is closed and callers sync by themselves.
        drop(spawned);
    }
    sender
});

fn serve(receiver: &Mutex<Receiver<Request>>) {
    loop {
        let request = match receiver.lock() {
            Ok(receiver) => receiver.recv(),
            Err(_) => return,
        };
        match request {
            Ok(request) => handle(request),
            Err(_) => return,
        }
    }
}

fn handle(request: Request) {
    // A caller that has gone away does not want the answer.
    match request {
        Request::Start(file) => file.sync_data(),
        Request::Finish(file, answer) => drop(answer.send(file.sync_all())),
        Request::Folder(path, answer) => drop(answer.send(File::open(path).and_then(|folder| folder.sync_all()))),
    }
}

fn request(request: Request) {
    if let Err(unsent) = REQUESTS.send(request) {
        handle(unsent.0);
    }
}

/// Lets the disk begin with what has been written so far. Skipped when the threads are busy.
pub(super) fn start(file: &Arc<Tracked>) {
    // A full queue means that the disk has enough to do.
    let _ = REQUESTS.try_send(Request::Start(Arc::clone(file)));
}

pub(super) fn finish(file: Arc<Tracked>) -> Pending {
    let (sender, receiver) = sync_channel(1);
    request(Request::Finish(file, sender));
    Pending(receiver)
}

pub(super) fn folder(path: PathBuf) -> Pending {
    let (sender, receiver) = sync_channel(1);
    request(Request::Folder(path, sender));
    Pending(receiver)
}
