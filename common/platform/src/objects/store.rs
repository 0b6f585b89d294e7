//! The door where the build has object stores.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    ops::Range,
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, sync_channel},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use gapless_common::address::{ObjectUrl, Scheme};
use object_store::{
    CopyMode, CopyOptions, GetOptions, GetRange, ObjectStoreExt, PutMode, PutOptions, PutPayload, multipart::PartId,
    path::Path,
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use super::{
    Found, ObjectError, PART, TIME_ETAG, Trouble,
    connect::{Connected, REQUEST, Store, connect},
    told::{explained, is_gone, told},
};

/// They only wait for the network and copy; hashing and decoding happen on the slots' threads.
const THREADS: usize = 2;

/// Everything that one call does. Only a fault of the runtime would leave somebody waiting for longer.
const CALL: Duration = Duration::from_secs(180);

/// Requests of one call that copies or deletes many objects, at the same time.
const AT_ONCE: usize = 16;

/// Between two looks at a copy that a store has not made yet.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Parts and objects on their way to stores, in the whole process: 128 MiB at most. Writers wait beyond it.
const PARTS_AT_ONCE: usize = 16;

/// Open stores are kept, each with its connections; job files may name many buckets.
const MAX_BUCKETS: usize = 64;

static PARTS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(PARTS_AT_ONCE)));

/// `None` where the system gave no threads.
static RUNTIME: LazyLock<Option<Runtime>> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("gapless-objects")
        .enable_all()
        .build()
        .ok()
});

static BUCKETS: LazyLock<Mutex<HashMap<(Scheme, String), Bucket>>> = LazyLock::new(Mutex::default);

/// One bucket (or container) of one store.
#[derive(Clone)]
pub struct Bucket {
    reached: Arc<Connected>,
    /// With an empty key.
    root: ObjectUrl,
    /// Whether the store has said anything, be it that there is no such bucket.
    answered: Arc<AtomicBool>,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the store: it knows credentials.
        write!(f, "Bucket({})", self.root)
    }
}

/// An answer to come.
pub struct Pending<T>(Receiver<Result<T, ObjectError>>, String);

impl<T: Send + 'static> Pending<T> {
    /// Lets `future` run, whoever waits for it.
    fn begin(url: String, future: impl Future<Output = Result<T, ObjectError>> + Send + 'static) -> Self {
        let (sender, receiver) = sync_channel(1);
        if let Some(runtime) = &*RUNTIME {
            let of = url.clone();
            // Whoever does not want the answer any more has gone.
            drop(runtime.spawn(async move {
                let answer = tokio::time::timeout(CALL, future).await.unwrap_or_else(|_| {
                    let message = format!("no answer within {} s", CALL.as_secs());
                    Err(ObjectError::new(Trouble::Passing, of, message))
                });
                let _ = sender.send(answer);
            }));
        }
        Pending(receiver, url)
    }

    /// Waits for the answer.
    pub fn wait(self) -> Result<T, ObjectError> {
        self.0.recv().unwrap_or_else(|_| {
            let message = "the threads that speak with object stores are gone";
            Err(ObjectError::new(Trouble::Passing, self.1, message))
        })
    }
}

impl Bucket {
    /// The bucket that `url` is in. Nothing is asked of the store yet.
    ///
    /// Errors: `NotBuilt`; `Settings` for settings of the environment that cannot be.
    pub fn open(url: &ObjectUrl) -> Result<Bucket, ObjectError> {
        let mut buckets = BUCKETS.lock().unwrap_or_else(PoisonError::into_inner);
        let name = (url.scheme, url.bucket.clone());
        if let Some(bucket) = buckets.get(&name) {
            return Ok(bucket.clone());
        }
        let bucket = Bucket {
            reached: Arc::new(connect(url)?),
            root: ObjectUrl {
                key: String::new(),
                ..url.clone()
            },
            answered: Arc::default(),
        };
        if buckets.len() >= MAX_BUCKETS {
            buckets.clear();
        }
        buckets.insert(name, bucket.clone());
        Ok(bucket)
    }

    /// How an object of this bucket is written.
    pub fn url(&self, key: &str) -> String {
        format!("{}/{key}", self.root)
    }

    fn path(&self, key: &str) -> Result<Path, ObjectError> {
        Path::parse(key).map_err(|error| ObjectError::new(Trouble::Malformed, self.url(key), error.to_string()))
    }

    fn call<T, F>(&self, key: &str, future: impl FnOnce(Arc<dyn Store>, Path) -> F) -> Pending<T>
    where
        T: Send + 'static,
        F: Future<Output = object_store::Result<T>> + Send + 'static,
    {
        let url = self.url(key);
        match self.path(key) {
            Ok(path) => {
                let answered = self.answered.clone();
                let store = match answered.load(Ordering::Relaxed) {
                    true => &self.reached.store,
                    false => &self.reached.first,
                };
                let future = future(store.clone(), path);
                let of = url.clone();
                Pending::begin(url, async move {
                    let answer = future.await.map_err(|error| told(&of, &error));
                    let silent = answer.as_ref().is_err_and(|error| error.trouble == Trouble::Passing);
                    answered.fetch_or(!silent, Ordering::Relaxed);
                    answer
                })
            }
            Err(error) => Pending::begin(url, async move { Err(error) }),
        }
    }

    /// The objects below `prefix` (a whole part of keys; empty is all), sorted by key, but no more than
    /// one beyond `most`.
    pub fn list(&self, prefix: &str, most: usize) -> Result<Vec<Found>, ObjectError> {
        let mut found = self
            .call(prefix, move |store, path| async move {
                let found = store.list(Some(&path)).take(most.saturating_add(1));
                found.map_ok(Found::from).try_collect::<Vec<_>>().await
            })
            .wait()?;
        found.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        Ok(found)
    }

    /// The names directly below `prefix`, as of a folder, sorted.
    pub fn names(&self, prefix: &str) -> Result<Vec<String>, ObjectError> {
        let listed = self
            .call(prefix, move |store, path| async move {
                store.list_with_delimiter(Some(&path)).await
            })
            .wait()?;
        let paths = listed
            .objects
            .into_iter()
            .map(|object| object.location)
            .chain(listed.common_prefixes);
        let mut names: Vec<String> = paths.filter_map(|path| path.filename().map(String::from)).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// An object as it is now; `None` where there is none.
    pub fn head(&self, key: &str) -> Result<Option<Found>, ObjectError> {
        let head = self.call(key, move |store, path| async move { store.head(&path).await });
        if_there(head.wait().map(Found::from))
    }

    /// A whole small object; `None` where there is none.
    pub fn get(&self, key: &str) -> Result<Option<Bytes>, ObjectError> {
        let get = self.call(
            key,
            move |store, path| async move { store.get(&path).await?.bytes().await },
        );
        if_there(get.wait())
    }

    /// Bytes of the object that has this etag.
    pub fn fetch(&self, key: &str, etag: &str, range: Range<u64>) -> Pending<Bytes> {
        let etag = etag.to_string();
        self.call(key, move |store, path| async move {
            of_etag(&*store, &path, &etag, range).await
        })
    }

    /// What there is of an object, and its last bytes, `most` of them or all.
    pub fn tail(&self, key: &str, most: u64) -> Pending<(Found, Bytes)> {
        self.call(key, move |store, path| async move {
            // Not every store knows ranges from the end.
            let found = Found::from(store.head(&path).await?);
            if found.size == 0 {
                return Ok((found, Bytes::new()));
            }
            let last = found.size.saturating_sub(most)..found.size;
            let bytes = of_etag(&*store, &path, &found.etag, last).await?;
            Ok((found, bytes))
        })
    }

    /// Creates an object unless there is one of this name; tells whether it did.
    pub fn create(&self, key: &str, content: Vec<u8>) -> Result<bool, ObjectError> {
        match self.create_later(key, content).wait() {
            Ok(()) => Ok(true),
            Err(error) if error.trouble == Trouble::Exists => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn create_later(&self, key: &str, content: Vec<u8>) -> Pending<()> {
        let options = PutOptions::from(PutMode::Create);
        self.call(key, move |store, path| async move {
            store.put_opts(&path, content.into(), options).await.map(drop)
        })
    }

    /// Copies objects within the store, several at once; an object of the new name is replaced.
    pub fn copy(&self, from_to: &[(String, String)]) -> Result<(), ObjectError> {
        let mut pairs = Vec::with_capacity(from_to.len());
        for (from, to) in from_to {
            pairs.push((self.path(from)?, self.path(to)?));
        }
        // In stretches, so that each has the time of one call.
        for stretch in pairs.chunks(AT_ONCE) {
            let copying = stretch.iter().cloned().map(|(from, to)| {
                let url = self.url(from.as_ref());
                let (reached, of) = (self.reached.clone(), url.clone());
                Pending::begin(url, async move { copy(&reached, &of, &from, &to).await })
            });
            let copying: Vec<Pending<()>> = copying.collect();
            copying.into_iter().try_for_each(Pending::wait)?;
        }
        Ok(())
    }

    /// Deletes objects; those that are not there do not matter.
    pub fn delete(&self, keys: &[String]) -> Result<(), ObjectError> {
        let mut paths = Vec::with_capacity(keys.len());
        for key in keys {
            paths.push(self.path(key)?);
        }
        for stretch in paths.chunks(1000) {
            let stretch = futures::stream::iter(stretch.to_vec()).map(Ok).boxed();
            let deleted = self.call("", move |store, _| async move {
                let mut deleted = store.delete_stream(stretch);
                while let Some(one) = deleted.next().await {
                    match one {
                        // One that somebody else has deleted says nothing of the rest; a missing bucket does.
                        Err(error) if is_gone(&error) => {}
                        one => drop(one?),
                    }
                }
                Ok(())
            });
            deleted.wait()?;
        }
        Ok(())
    }

    /// Aborts the multipart uploads below `prefix` that nobody has completed, and tells how many there
    /// were.
    pub fn abort_uploads(&self, prefix: &str) -> Result<usize, ObjectError> {
        let open = (self.reached.open_uploads)(format!("{prefix}/"));
        let open = Pending::begin(self.url(prefix), open).wait()?;
        let mut aborted = 0;
        for (key, id) in open {
            // A store may not know prefixes of uploads.
            if !key.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/')) {
                continue;
            }
            aborted += usize::from(self.abort(&key, id).wait()?);
        }
        Ok(aborted)
    }

    /// Aborts an upload; tells whether it was open.
    fn abort(&self, key: &str, id: String) -> Pending<bool> {
        let by_put = self.reached.ways.ends_uploads_by_puts;
        self.call(key, move |store, path| async move {
            abort(&*store, &path, &id, by_put).await
        })
    }

    /// Begins to write an object that must not exist.
    pub fn upload(&self, key: &str) -> Upload {
        Upload {
            bucket: self.clone(),
            key: key.to_string(),
            buffer: Vec::new(),
            multipart: None,
        }
    }
}

/// Bytes of an object while it has this etag; a store that does not look at the condition is not believed.
async fn of_etag(store: &dyn Store, path: &Path, etag: &str, range: Range<u64>) -> object_store::Result<Bytes> {
    let condition = Found::condition(etag).map(String::from);
    let options = GetOptions {
        if_match: condition.clone(),
        range: Some(GetRange::Bounded(range)),
        ..GetOptions::default()
    };
    let got = store.get_opts(path, options).await?;
    let now = Found::from(got.meta.clone()).etag;
    if condition.is_some_and(|condition| condition != now) {
        return Err(object_store::Error::Precondition {
            path: path.to_string(),
            source: format!("the store sent {now}").into(),
        });
    }
    got.bytes().await
}

/// Ends an upload; tells whether it was open.
async fn abort(store: &dyn Store, path: &Path, id: &String, by_put: bool) -> object_store::Result<bool> {
    if !by_put {
        return match store.abort_multipart(path, id).await {
            Err(error) if is_gone(&error) => Ok(true),
            aborted => aborted.map(|()| true),
        };
    }
    match store.head(path).await {
        // Completed: nothing of it is open.
        Ok(_) => return Ok(false),
        Err(object_store::Error::NotFound { .. }) => {}
        Err(error) => return Err(error),
    }
    store.put(path, PutPayload::new()).await?;
    match store.delete(path).await {
        Err(object_store::Error::NotFound { .. }) => Ok(true),
        deleted => deleted.map(|()| true),
    }
}

/// Copies an object within its store, and waits until that is done.
async fn copy(reached: &Connected, url: &str, from: &Path, to: &Path) -> Result<(), ObjectError> {
    let failed = |error| told(url, &error);
    let Connected { store, ways, .. } = reached;
    if !ways.copies_later {
        return store.copy_opts(from, to, CopyOptions::default()).await.map_err(failed);
    }
    let size = store.head(from).await.map_err(failed)?.size;
    // At first not over an object: a second copy of a whole one empties it until it is made, and for good where
    // another publisher sweeps its source meanwhile. What has not become whole by then will not.
    for mode in [CopyMode::Create, CopyMode::Overwrite] {
        match store.copy_opts(from, to, CopyOptions::new().with_mode(mode)).await {
            Ok(()) => {}
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {}
            Err(error) => return Err(failed(error)),
        }
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < REQUEST {
            if store.head(to).await.map_err(failed)?.size == size {
                return Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
    let message = format!(
        "the store has not made the copy {to} within {} s",
        2 * REQUEST.as_secs()
    );
    Err(explained(Trouble::Passing, url, message))
}

fn if_there<T>(answer: Result<T, ObjectError>) -> Result<Option<T>, ObjectError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.trouble == Trouble::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// An etag as headers have it: the listings of Azure leave the quotes out.
fn quoted(etag: String) -> String {
    match etag.ends_with('"') {
        true => etag,
        false => format!("\"{etag}\""),
    }
}

impl From<object_store::ObjectMeta> for Found {
    fn from(meta: object_store::ObjectMeta) -> Found {
        let time = || format!("{TIME_ETAG}{}", meta.last_modified.timestamp_micros());
        Found {
            key: meta.location.to_string(),
            size: meta.size,
            etag: meta.e_tag.map_or_else(time, quoted),
        }
    }
}

/// An object that is written front to back. What is dropped before its end leaves nothing: parts that
/// were sent are discarded.
pub struct Upload {
    bucket: Bucket,
    key: String,
    buffer: Vec<u8>,
    multipart: Option<Multipart>,
}

struct Multipart {
    id: String,
    parts: Vec<Pending<PartId>>,
}

impl Upload {
    /// Takes bytes; sends them once they fill a part. Waits while too many parts are on their way.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), ObjectError> {
        while !bytes.is_empty() {
            if self.buffer.len() == PART {
                self.send_part()?;
            }
            let fits = bytes.len().min(PART - self.buffer.len());
            self.buffer.extend_from_slice(&bytes[..fits]);
            bytes = &bytes[fits..];
        }
        Ok(())
    }

    fn send_part(&mut self) -> Result<(), ObjectError> {
        let id = match &self.multipart {
            Some(multipart) => multipart.id.clone(),
            None => {
                if self.bucket.head(&self.key)?.is_some() {
                    let url = self.bucket.url(&self.key);
                    return Err(ObjectError::new(Trouble::Exists, url, "the object exists already"));
                }
                let begun = self.bucket.call(
                    &self.key,
                    |store, path| async move { store.create_multipart(&path).await },
                );
                let id = begun.wait()?;
                self.multipart = Some(Multipart {
                    id: id.clone(),
                    parts: Vec::new(),
                });
                id
            }
        };
        let permit = permit(&self.bucket, &self.key)?;
        let content = std::mem::take(&mut self.buffer);
        let Some(multipart) = &mut self.multipart else {
            return Ok(());
        };
        let number = multipart.parts.len();
        multipart
            .parts
            .push(self.bucket.call(&self.key, move |store, path| async move {
                let part = store.put_part(&path, &id, number, content.into()).await;
                drop(permit);
                part
            }));
        Ok(())
    }

    /// Sends the rest. The object is there, whole and durable, when the answer comes.
    pub fn finish(&mut self) -> Pending<()> {
        let url = self.bucket.url(&self.key);
        let failed = |error: ObjectError| Pending::begin(url, async move { Err(error) });
        if self.multipart.is_none() {
            return match permit(&self.bucket, &self.key) {
                Ok(permit) => {
                    let content = std::mem::take(&mut self.buffer);
                    let options = PutOptions::from(PutMode::Create);
                    self.bucket.call(&self.key, move |store, path| async move {
                        let put = store.put_opts(&path, content.into(), options).await.map(drop);
                        drop(permit);
                        put
                    })
                }
                Err(error) => failed(error),
            };
        }
        // A failure leaves `multipart` in place, which the drop discards.
        if !self.buffer.is_empty()
            && let Err(error) = self.send_part()
        {
            return failed(error);
        }
        let Some(multipart) = &mut self.multipart else {
            return failed(ObjectError::new(
                Trouble::Passing,
                self.bucket.url(&self.key),
                "no upload",
            ));
        };
        let mut parts = Vec::with_capacity(multipart.parts.len());
        for part in multipart.parts.drain(..) {
            match part.wait() {
                Ok(part) => parts.push(part),
                Err(error) => return failed(error),
            }
        }
        let id = multipart.id.clone();
        self.multipart = None;
        let by_put = self.bucket.reached.ways.ends_uploads_by_puts;
        self.bucket.call(&self.key, move |store, path| async move {
            let completed = store.complete_multipart(&path, &id, parts).await;
            if completed.is_err() {
                // Unknown outcomes included: where it was completed there is nothing to abort any more.
                let _ = abort(&*store, &path, &id, by_put).await;
            }
            completed.map(drop)
        })
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(Multipart { id, parts }) = self.multipart.take() else {
            return;
        };
        // Parts that arrive after the end of their upload would stay for good.
        for part in parts {
            let _ = part.wait();
        }
        let _ = self.bucket.abort(&self.key, id).wait();
    }
}

/// The right to have one more part in memory and on its way.
fn permit(bucket: &Bucket, key: &str) -> Result<OwnedSemaphorePermit, ObjectError> {
    let parts = PARTS.clone();
    let url = bucket.url(key);
    let closed = ObjectError::new(Trouble::Passing, &url, "uploads have ended");
    Pending::begin(url, async move { parts.acquire_owned().await.map_err(|_| closed) }).wait()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_is_the_same_with_its_quotes_and_without() {
        assert_eq!(quoted("0x1".into()), "\"0x1\"");
        assert_eq!(quoted("\"0x1\"".into()), "\"0x1\"");
        assert_eq!(quoted("W/\"0x1\"".into()), "W/\"0x1\"");
    }
}
