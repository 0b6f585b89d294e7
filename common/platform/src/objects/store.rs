//! The door where the build has object stores.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    ops::Range,
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        mpsc::{Receiver, sync_channel},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, future::BoxFuture};
use gapless_common::address::{ObjectUrl, Scheme};
use object_store::{
    BackoffConfig, ClientOptions, CopyOptions, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    RetryConfig,
    multipart::{MultipartStore, PartId},
    path::Path,
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use super::{Found, ObjectError, PART, TIME_ETAG, Trouble, error::said};

/// They only wait for the network and copy; hashing and decoding happen on the slots' threads.
const THREADS: usize = 2;

/// A connection that takes longer is tried again.
const CONNECT: Duration = Duration::from_secs(5);

/// One request and its answer: [`PART`] bytes at 150 KB/s, or a copy of [`MAX_COPY`] within the store.
const REQUEST: Duration = Duration::from_secs(60);

/// Begun no later than this after the first try, so that an outage of a minute passes unseen and a
/// longer one is told before a lease's budget of patience ends.
const RETRIES: Duration = Duration::from_secs(60);

/// Everything that one call does. Only a fault of the runtime would leave somebody waiting for longer.
const CALL: Duration = Duration::from_secs(180);

/// Requests of one call that copies or deletes many objects, at the same time.
const AT_ONCE: usize = 16;

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

/// What is asked of a store beyond reading and putting.
trait Store: ObjectStore + MultipartStore {}
impl<S: ObjectStore + MultipartStore> Store for S {}

/// Lists the multipart uploads below a prefix that are open, as (key, id).
type Lister = Arc<dyn Fn(String) -> BoxFuture<'static, Result<Vec<(String, String)>, ObjectError>> + Send + Sync>;

/// A store, and how its open uploads are listed, where that is needed.
type Connected = (Arc<dyn Store>, Option<Lister>);

/// One bucket (or container) of one store.
#[derive(Clone)]
pub struct Bucket {
    store: Arc<dyn Store>,
    lister: Option<Lister>,
    /// With an empty key.
    root: ObjectUrl,
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
        let (store, lister) = connect(url)?;
        let bucket = Bucket {
            store,
            lister,
            root: ObjectUrl {
                key: String::new(),
                ..url.clone()
            },
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
                let future = future(self.store.clone(), path);
                let of = url.clone();
                Pending::begin(url, async move { future.await.map_err(|error| told(&of, &error)) })
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
        let options = GetOptions {
            if_match: Found::condition(etag).map(String::from),
            range: Some(GetRange::Bounded(range)),
            ..GetOptions::default()
        };
        self.call(key, move |store, path| async move {
            store.get_opts(&path, options).await?.bytes().await
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
            let options = GetOptions {
                if_match: Found::condition(&found.etag).map(String::from),
                range: Some(GetRange::Bounded(found.size.saturating_sub(most)..found.size)),
                ..GetOptions::default()
            };
            let bytes = store.get_opts(&path, options).await?.bytes().await?;
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
                let (store, of) = (self.store.clone(), url.clone());
                Pending::begin(url, async move {
                    let copied = store.copy_opts(&from, &to, CopyOptions::default()).await;
                    copied.map_err(|error| told(&of, &error))
                })
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
                let deleted = store.delete_stream(stretch);
                deleted.try_for_each(|_| std::future::ready(Ok(()))).await
            });
            match deleted.wait() {
                Err(error) if error.trouble != Trouble::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Aborts the multipart uploads below `prefix` that nobody has completed, and tells how many there
    /// were. Only for S3: the others' parts that were never completed end by themselves.
    pub fn abort_uploads(&self, prefix: &str) -> Result<usize, ObjectError> {
        let Some(lister) = self.lister.clone() else {
            return Ok(0);
        };
        let open = Pending::begin(self.url(prefix), lister(format!("{prefix}/"))).wait()?;
        let mut aborted = 0;
        for (key, id) in open {
            // A store may not know prefixes of uploads.
            if !key.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/')) {
                continue;
            }
            let abort = self.call(&key, move |store, path| async move {
                store.abort_multipart(&path, &id).await
            });
            match abort.wait() {
                Err(error) if error.trouble != Trouble::NotFound => return Err(error),
                _ => aborted += 1,
            }
        }
        Ok(aborted)
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

/// What a listing of open uploads tells of each: its key and its id.
#[cfg(feature = "s3")]
fn open_uploads(listing: &str) -> Vec<(String, String)> {
    let element = |upload: &str, name: &str| {
        let (_, rest) = upload.split_once(&format!("<{name}>"))?;
        let (text, _) = rest.split_once(&format!("</{name}>"))?;
        // Keys of ours hold none of the others that XML escapes.
        Some(text.replace("&amp;", "&"))
    };
    let uploads = listing.split("<Upload>").skip(1);
    uploads
        .filter_map(|upload| Some((element(upload, "Key")?, element(upload, "UploadId")?)))
        .collect()
}

fn if_there<T>(answer: Result<T, ObjectError>) -> Result<Option<T>, ObjectError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.trouble == Trouble::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl From<object_store::ObjectMeta> for Found {
    fn from(meta: object_store::ObjectMeta) -> Found {
        let time = || format!("{TIME_ETAG}{}", meta.last_modified.timestamp_micros());
        Found {
            key: meta.location.to_string(),
            size: meta.size,
            etag: meta.e_tag.unwrap_or_else(time),
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
        self.bucket.call(&self.key, move |store, path| async move {
            let completed = store.complete_multipart(&path, &id, parts).await;
            if completed.is_err() {
                // Unknown outcomes included: where it was completed there is nothing to abort any more.
                let _ = store.abort_multipart(&path, &id).await;
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
        let aborted = self.bucket.call(&self.key, move |store, path| async move {
            store.abort_multipart(&path, &id).await
        });
        let _ = aborted.wait();
    }
}

/// The right to have one more part in memory and on its way.
fn permit(bucket: &Bucket, key: &str) -> Result<OwnedSemaphorePermit, ObjectError> {
    let parts = PARTS.clone();
    let url = bucket.url(key);
    let closed = ObjectError::new(Trouble::Passing, &url, "uploads have ended");
    Pending::begin(url, async move { parts.acquire_owned().await.map_err(|_| closed) }).wait()
}

fn client() -> ClientOptions {
    ClientOptions::new().with_connect_timeout(CONNECT).with_timeout(REQUEST)
}

fn retries() -> RetryConfig {
    RetryConfig {
        // Its delays carry jitter.
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(5),
            base: 2.0,
        },
        max_retries: usize::MAX,
        retry_timeout: RETRIES,
    }
}

fn unusable(url: &ObjectUrl, error: &object_store::Error) -> ObjectError {
    ObjectError::new(
        Trouble::Settings,
        url,
        format!(
            "the settings of this worker's environment cannot be used: {}",
            reason(error)
        ),
    )
}

#[cfg(feature = "s3")]
fn connect_s3(url: &ObjectUrl) -> Result<Connected, ObjectError> {
    use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(&url.bucket)
        .with_client_options(client())
        .with_retry(retries());
    let endpoint = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint]
        .iter()
        .find_map(|key| builder.get_config_value(key));
    // Who names an endpoint without TLS means it: names of AWS itself are https.
    if endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")) {
        builder = builder.with_allow_http(true);
    }
    let store = Arc::new(builder.build().map_err(|error| unusable(url, &error))?);
    Ok((store.clone(), Some(lister(store, url))))
}

/// The crate has no call for open uploads, but it signs one.
#[cfg(feature = "s3")]
fn lister(store: Arc<object_store::aws::AmazonS3>, url: &ObjectUrl) -> Lister {
    use object_store::signer::{SignedUrlOptions, Signer};
    let client = reqwest::Client::builder()
        .connect_timeout(CONNECT)
        .timeout(REQUEST)
        .build();
    let root = url.to_string();
    Arc::new(move |prefix| {
        let (store, root, client) = (store.clone(), root.clone(), client.as_ref().ok().cloned());
        Box::pin(async move {
            let failed = |what: &str| {
                let is = |names: &[&str]| names.iter().any(|name| what.contains(name));
                let trouble = match () {
                    () if is(&NO_BUCKET) => Trouble::NoBucket,
                    () if is(&DENIED) => Trouble::Denied,
                    () => Trouble::Passing,
                };
                explained(trouble, &root, format!("open uploads cannot be listed: {what}"))
            };
            let client = client.ok_or_else(|| failed("no client"))?;
            let options = SignedUrlOptions::default().with_query([("uploads", ""), ("prefix", prefix.as_str())]);
            let whole = Path::default();
            let signed = store.signed_url_opts(reqwest::Method::GET, &whole, REQUEST, &options);
            let signed = signed.await.map_err(|error| told(&root, &error))?;
            // The error of the client would show the signed address.
            let answer = client.get(signed).send().await.map_err(|_| failed("no answer"))?;
            let status = answer.status();
            let body = answer.text().await.map_err(|_| failed("the answer was cut off"))?;
            match status.is_success() {
                true => Ok(open_uploads(&body)),
                false => Err(failed(&said(&body).unwrap_or_else(|| format!("status {status}")))),
            }
        })
    })
}

#[cfg(feature = "gcs")]
fn connect_gcs(url: &ObjectUrl) -> Result<Connected, ObjectError> {
    let builder = object_store::gcp::GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(&url.bucket)
        .with_client_options(client())
        .with_retry(retries());
    let store = builder.build().map_err(|error| unusable(url, &error))?;
    Ok((Arc::new(store), None))
}

#[cfg(feature = "azure")]
fn connect_azure(url: &ObjectUrl) -> Result<Connected, ObjectError> {
    let builder = object_store::azure::MicrosoftAzureBuilder::from_env()
        .with_container_name(&url.bucket)
        .with_client_options(client())
        .with_retry(retries());
    let store = builder.build().map_err(|error| unusable(url, &error))?;
    Ok((Arc::new(store), None))
}

fn connect(url: &ObjectUrl) -> Result<Connected, ObjectError> {
    // The HTTP client takes the process's provider. There may be one already, which is ring too.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match url.scheme {
        #[cfg(feature = "s3")]
        Scheme::S3 => connect_s3(url),
        #[cfg(feature = "gcs")]
        Scheme::Gcs => connect_gcs(url),
        #[cfg(feature = "azure")]
        Scheme::Azure => connect_azure(url),
        #[allow(unreachable_patterns, reason = "with all stores built in none is left")]
        scheme => Err(ObjectError::not_built(scheme, url)),
    }
}

/// What stores say where the bucket is missing.
const NO_BUCKET: [&str; 3] = [
    "NoSuchBucket",
    "ContainerNotFound",
    "The specified bucket does not exist",
];

/// What stores say to credentials that may not, or are not known.
const DENIED: [&str; 7] = [
    "AccessDenied",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "status 401",
    "status 403",
];

/// An error of the crate in our words, without what a store repeats of requests.
fn told(url: &str, error: &object_store::Error) -> ObjectError {
    use object_store::Error;
    let message = reason(error);
    let is = |names: &[&str]| names.iter().any(|name| message.contains(name));
    let trouble = match error {
        Error::NotFound { .. } | Error::Generic { .. } if is(&NO_BUCKET) => Trouble::NoBucket,
        Error::NotFound { .. } => Trouble::NotFound,
        Error::AlreadyExists { .. } => Trouble::Exists,
        Error::Precondition { .. } | Error::NotModified { .. } => Trouble::Changed,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => Trouble::Denied,
        Error::InvalidPath { .. } => Trouble::Malformed,
        Error::Generic { .. } if of_credentials(error) => Trouble::Settings,
        // Listings and deletions are told by their code alone.
        Error::Generic { .. } if is(&DENIED) => Trouble::Denied,
        _ => Trouble::Passing,
    };
    explained(trouble, url, message)
}

/// An error that says what a store said, after what that means.
fn explained(trouble: Trouble, url: &str, message: String) -> ObjectError {
    let message = match trouble {
        Trouble::NoBucket => format!("there is no such bucket ({message})"),
        Trouble::NotFound => "there is no such object".to_string(),
        Trouble::Changed => "the object is not the one that it was".to_string(),
        Trouble::Exists => "an object of this name exists".to_string(),
        Trouble::Denied => format!("not permitted to this worker's credentials ({message})"),
        Trouble::Settings => format!(
            "this worker has no credentials for it ({message}); set {} in its environment, or give its machine a role",
            credentials(url)
        ),
        _ => message,
    };
    ObjectError::new(trouble, url, message)
}

/// The variables that hold the credentials of the store of an address.
fn credentials(url: &str) -> &'static str {
    let is = |scheme: Scheme| url.split_once("://").is_some_and(|(name, _)| name == scheme.name());
    if is(Scheme::Gcs) {
        "GOOGLE_APPLICATION_CREDENTIALS"
    } else if is(Scheme::Azure) {
        "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"
    } else {
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    }
}

/// Whether the request was for credentials, which a machine, container or service account has at an
/// address of its own.
fn of_credentials(error: &object_store::Error) -> bool {
    let mut at: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = at {
        let shown = error.to_string();
        let signs = ["169.254.", "metadata.google.internal", "redential", "AssumeRole"];
        if signs.iter().any(|sign| shown.contains(sign)) {
            return true;
        }
        at = error.source();
    }
    false
}

/// What a store said, or the innermost reason why nothing came of it.
fn reason(error: &object_store::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    let mut text = String::new();
    loop {
        let shown = innermost.to_string();
        if let Some(said) = said(&shown) {
            return said;
        }
        if let Some((_, status)) = shown.split_once("status code: ") {
            text = format!("status {}", status.split(':').next().unwrap_or_default().trim());
        }
        match innermost.source() {
            Some(source) => innermost = source,
            None if text.is_empty() => {
                // Addresses of requests carry a signature at times.
                let shown = innermost.to_string();
                return shown.split('?').next().unwrap_or_default().chars().take(300).collect();
            }
            None => return text,
        }
    }
}
