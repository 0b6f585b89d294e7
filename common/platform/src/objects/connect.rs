//! How each store is reached: its settings and credentials, which the environment of the process has in the
//! names of the store's own tools, and the uploads in it that nobody has completed. The crate has no calls for
//! those, but it has the credentials.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use gapless_common::address::{ObjectUrl, Scheme};
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig, multipart::MultipartStore};

use super::{
    ObjectError, Trouble,
    error::said,
    told::{explained, told, trouble_in, unusable},
};

/// A connection that takes longer is tried again.
const CONNECT: Duration = Duration::from_secs(5);

/// One request and its answer: [`PART`](super::PART) bytes at 150 KB/s, or a copy of
/// [`MAX_COPY`](super::MAX_COPY) within the store.
pub(super) const REQUEST: Duration = Duration::from_secs(60);

/// Begun no later than this after the first try, so that an outage of a minute passes unseen and a
/// longer one is told before a lease's budget of patience ends.
const RETRIES: Duration = Duration::from_secs(60);

/// The same as long as a store has not answered anything: then it is rather a wrong address than an outage.
const FIRST_RETRIES: Duration = Duration::from_secs(10);

/// What is asked of a store beyond reading and putting.
pub(super) trait Store: ObjectStore + MultipartStore {}
impl<S: ObjectStore + MultipartStore> Store for S {}

/// An upload that is open: its key and its id.
pub(super) type OpenUpload = (String, String);

/// Lists the multipart uploads below a prefix that are open: all, or as many as the store tells at once.
pub(super) type Lister = Arc<dyn Fn(String) -> BoxFuture<'static, Result<Vec<OpenUpload>, ObjectError>> + Send + Sync>;

/// A store, and what it does in its own way.
#[derive(Clone)]
pub(super) struct Connected {
    pub store: Arc<dyn Store>,
    /// The same, giving up earlier.
    pub first: Arc<dyn Store>,
    pub open_uploads: Lister,
    pub ways: Ways,
}

/// Where stores differ behind the same calls of the crate.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ways {
    /// There is no request that ends an upload. What was sent goes when an object is put under its name.
    pub ends_uploads_by_puts: bool,
    /// A copy may be accepted and made later. Until it is made the new object is empty.
    pub copies_later: bool,
}

/// Reaches the store of an address. Nothing is asked of it yet.
///
/// Errors: `NotBuilt`; `Settings`.
pub(super) fn connect(url: &ObjectUrl) -> Result<Connected, ObjectError> {
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

/// Who names an endpoint without TLS means it: those of the stores themselves are https.
fn client(endpoint: Option<&str>) -> ClientOptions {
    ClientOptions::new()
        .with_connect_timeout(CONNECT)
        .with_timeout(REQUEST)
        .with_allow_http(endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")))
}

fn retries(within: Duration) -> RetryConfig {
    RetryConfig {
        // Its delays carry jitter.
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(5),
            base: 2.0,
        },
        max_retries: usize::MAX,
        retry_timeout: within,
    }
}

/// Requests of our own to a bucket.
#[derive(Clone)]
struct Asking {
    client: Option<reqwest::Client>,
    /// The address of the bucket, as errors name it.
    root: String,
}

impl Asking {
    fn new(url: &ObjectUrl) -> Asking {
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .timeout(REQUEST)
            .build();
        Asking {
            client: client.ok(),
            root: url.to_string(),
        }
    }

    fn failed(&self, trouble: Trouble, what: &str) -> ObjectError {
        explained(trouble, &self.root, format!("open uploads cannot be listed: {what}"))
    }

    /// The answer to a GET.
    async fn get(&self, url: &str, headers: reqwest::header::HeaderMap) -> Result<String, ObjectError> {
        let passing = |what: &str| self.failed(Trouble::Passing, what);
        let client = self.client.as_ref().ok_or_else(|| passing("no client"))?;
        // The error of the client would show the address, which may be signed.
        let answer = client.get(url).headers(headers).send().await;
        let answer = answer.map_err(|_| passing("no answer"))?;
        let status = answer.status();
        let body = answer.text().await.map_err(|_| passing("the answer was cut off"))?;
        if status.is_success() {
            return Ok(body);
        }
        let what = said(&body).unwrap_or_else(|| format!("status {status}"));
        Err(self.failed(
            trouble_in(&what, Some(status.as_u16())).unwrap_or(Trouble::Passing),
            &what,
        ))
    }
}

#[cfg(feature = "s3")]
fn connect_s3(url: &ObjectUrl) -> Result<Connected, ObjectError> {
    use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
    let builder = AmazonS3Builder::from_env().with_bucket_name(&url.bucket);
    let endpoint = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint]
        .iter()
        .find_map(|key| builder.get_config_value(key));
    let builder = builder.with_client_options(client(endpoint.as_deref()));
    let within = |most| {
        builder
            .clone()
            .with_retry(retries(most))
            .build()
            .map_err(|error| unusable(url, &error))
    };
    let store = Arc::new(within(RETRIES)?);
    Ok(Connected {
        open_uploads: s3_uploads(store.clone(), url),
        store,
        first: Arc::new(within(FIRST_RETRIES)?),
        ways: Ways::default(),
    })
}

#[cfg(feature = "s3")]
fn s3_uploads(store: Arc<object_store::aws::AmazonS3>, url: &ObjectUrl) -> Lister {
    use object_store::{
        path::Path,
        signer::{SignedUrlOptions, Signer},
    };
    let asking = Asking::new(url);
    Arc::new(move |prefix| {
        let (store, asking) = (store.clone(), asking.clone());
        Box::pin(async move {
            let options = SignedUrlOptions::default().with_query([("uploads", ""), ("prefix", prefix.as_str())]);
            let whole = Path::default();
            let signed = store.signed_url_opts(reqwest::Method::GET, &whole, REQUEST, &options);
            let signed = signed.await.map_err(|error| told(&asking.root, &error))?;
            let listing = asking.get(signed.as_str(), Default::default()).await?;
            Ok(uploads_in(&listing))
        })
    })
}

/// What a listing of open uploads tells of each, in S3 and in the XML API of Google.
#[cfg(any(feature = "s3", feature = "gcs"))]
fn uploads_in(listing: &str) -> Vec<OpenUpload> {
    let uploads = listing.split("<Upload>").skip(1);
    uploads
        .filter_map(|upload| Some((element(upload, "Key")?, element(upload, "UploadId")?)))
        .collect()
}

fn element(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    // Keys of ours hold none of the others that XML escapes.
    Some(text.replace("&amp;", "&"))
}

/// Where Google's store is, unless an emulator is named.
#[cfg(feature = "gcs")]
const GOOGLE: &str = "https://storage.googleapis.com";

#[cfg(feature = "gcs")]
fn connect_gcs(url: &ObjectUrl) -> Result<Connected, ObjectError> {
    use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
    let builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(&url.bucket);
    // Settled here, since a key file may name an endpoint, too, and the listing of uploads needs the same.
    let endpoint = builder
        .get_config_value(&GoogleConfigKey::BaseUrl)
        .or_else(|| endpoint_in_key(&builder))
        .unwrap_or_else(|| GOOGLE.to_string());
    let builder = builder
        .with_base_url(&endpoint)
        .with_client_options(client(Some(&endpoint)));
    let within = |most| {
        builder
            .clone()
            .with_retry(retries(most))
            .build()
            .map_err(|error| unusable(url, &error))
    };
    let store = Arc::new(within(RETRIES)?);
    Ok(Connected {
        open_uploads: gcs_uploads(store.clone(), url, &endpoint),
        store,
        first: Arc::new(within(FIRST_RETRIES)?),
        ways: Ways::default(),
    })
}

/// `gcs_base_url` of a service account's key, by which keys for emulators name them.
#[cfg(feature = "gcs")]
fn endpoint_in_key(builder: &object_store::gcp::GoogleCloudStorageBuilder) -> Option<String> {
    use object_store::gcp::GoogleConfigKey;
    let key = builder
        .get_config_value(&GoogleConfigKey::ServiceAccountKey)
        .or_else(|| {
            let path = builder.get_config_value(&GoogleConfigKey::ServiceAccount)?;
            std::fs::read_to_string(path).ok()
        })?;
    let key: serde_json::Value = serde_json::from_str(&key).ok()?;
    Some(key.get("gcs_base_url")?.as_str()?.to_string())
}

#[cfg(feature = "gcs")]
fn gcs_uploads(store: Arc<object_store::gcp::GoogleCloudStorage>, url: &ObjectUrl, endpoint: &str) -> Lister {
    let asking = Asking::new(url);
    let bucket = format!("{endpoint}/{}", url.bucket);
    Arc::new(move |prefix| {
        let (store, asking, bucket) = (store.clone(), asking.clone(), bucket.clone());
        Box::pin(async move {
            let credential = store.credentials().get_credential().await;
            let credential = credential.map_err(|error| told(&asking.root, &error))?;
            let bearer = reqwest::header::HeaderValue::from_str(&format!("Bearer {}", credential.bearer));
            let mut bearer = bearer.map_err(|_| asking.failed(Trouble::Denied, "the token is not text"))?;
            bearer.set_sensitive(true);
            let headers = [(reqwest::header::AUTHORIZATION, bearer)].into_iter().collect();
            let address = reqwest::Url::parse_with_params(&bucket, [("uploads", ""), ("prefix", &prefix)]);
            let address = address.map_err(|_| asking.failed(Trouble::Settings, "the endpoint is no address"))?;
            let listing = asking.get(address.as_str(), headers).await?;
            Ok(uploads_in(&listing))
        })
    })
}

#[cfg(feature = "azure")]
fn connect_azure(url: &ObjectUrl) -> Result<Connected, ObjectError> {
    let builder = object_store::azure::MicrosoftAzureBuilder::from_env().with_container_name(&url.bucket);
    let (account, endpoint) = azure_account(&builder);
    let builder = builder.with_client_options(client(Some(&endpoint)));
    let within = |most| {
        builder
            .clone()
            .with_retry(retries(most))
            .build()
            .map_err(|error| unusable(url, &error))
    };
    let store = Arc::new(within(RETRIES)?);
    Ok(Connected {
        open_uploads: azure_uploads(store.clone(), url, &account, &endpoint),
        store,
        first: Arc::new(within(FIRST_RETRIES)?),
        ways: Ways {
            ends_uploads_by_puts: true,
            copies_later: true,
        },
    })
}

/// The account, and the address of its store.
#[cfg(feature = "azure")]
fn azure_account(builder: &object_store::azure::MicrosoftAzureBuilder) -> (String, String) {
    use object_store::azure::AzureConfigKey as Key;
    let set = |key: Key| builder.get_config_value(&key);
    let account = set(Key::AccountName);
    let on = |key: Key| set(key).is_some_and(|value| matches!(value.as_str(), "true" | "1" | "on" | "yes" | "y"));
    if on(Key::UseEmulator) {
        // The names and the port are those of Azurite.
        let account = account.unwrap_or_else(|| "devstoreaccount1".to_string());
        let emulator = std::env::var("AZURITE_BLOB_STORAGE_URL");
        let emulator = emulator.unwrap_or_else(|_| "http://127.0.0.1:10000".to_string());
        let endpoint = format!("{}/{account}", emulator.trim_end_matches('/'));
        return (account, endpoint);
    }
    let account = account.unwrap_or_default();
    let domain = match on(Key::UseFabricEndpoint) {
        true => "blob.fabric.microsoft.com",
        false => "blob.core.windows.net",
    };
    let endpoint = set(Key::Endpoint).unwrap_or_else(|| format!("https://{account}.{domain}"));
    (account, endpoint.trim_end_matches('/').to_string())
}

/// Pages of one listing of Azure, of 5,000 names each, uploads and objects alike.
#[cfg(feature = "azure")]
const LISTING_PAGES: usize = 1000;

/// An upload of Azure has no id: it is what was sent for a name under which there is no object yet. Empty
/// objects look the same; whoever ends uploads asks which it is.
#[cfg(feature = "azure")]
fn azure_uploads(
    store: Arc<object_store::azure::MicrosoftAzure>,
    url: &ObjectUrl,
    account: &str,
    endpoint: &str,
) -> Lister {
    use object_store::{
        azure::AzureAuthorizer,
        client::{HttpRequest, HttpRequestBody},
    };
    let asking = Asking::new(url);
    let (account, container) = (account.to_string(), format!("{endpoint}/{}", url.bucket));
    Arc::new(move |prefix| {
        let (store, asking) = (store.clone(), asking.clone());
        let (account, container) = (account.clone(), container.clone());
        Box::pin(async move {
            let told = |error: object_store::Error| told(&asking.root, &error);
            let mut sent = Vec::new();
            let mut marker = String::new();
            for _ in 0..LISTING_PAGES {
                let query = [
                    ("restype", "container"),
                    ("comp", "list"),
                    ("include", "uncommittedblobs"),
                    ("prefix", prefix.as_str()),
                    ("marker", marker.as_str()),
                ];
                let no_address = |_| asking.failed(Trouble::Settings, "the endpoint is no address");
                let address = reqwest::Url::parse_with_params(&container, query).map_err(|_| no_address(()))?;
                let mut request = HttpRequest::new(HttpRequestBody::empty());
                *request.uri_mut() = address.as_str().parse().map_err(|_| no_address(()))?;
                let credential = store.credentials().get_credential().await.map_err(told)?;
                let authorizer = AzureAuthorizer::new(&credential, &account);
                authorizer.try_authorize(&mut request).map_err(told)?;
                let listing = asking
                    .get(&request.uri().to_string(), request.headers().clone())
                    .await?;
                sent.extend(empty_blobs(&listing));
                marker = element(&listing, "NextMarker").unwrap_or_default();
                if marker.is_empty() {
                    break;
                }
            }
            Ok(sent.into_iter().map(|name| (name, String::new())).collect())
        })
    })
}

/// The names in a page of a listing that have no length and are no folders.
#[cfg(feature = "azure")]
fn empty_blobs(listing: &str) -> impl Iterator<Item = String> {
    let blobs = listing.split("<Blob>").skip(1);
    let empty = blobs.filter(|blob| {
        let folder = element(blob, "ResourceType").is_some_and(|kind| kind == "directory");
        !folder && element(blob, "Content-Length").is_none_or(|length| length == "0")
    });
    empty.filter_map(|blob| element(blob, "Name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(any(feature = "s3", feature = "gcs"))]
    #[test]
    fn uploads_are_read_from_a_listing() {
        let listing = "<ListMultipartUploadsResult><Bucket>b</Bucket><Upload><Key>a&amp;b</Key><UploadId>1</UploadId></Upload>\
                       <Upload><Key>c</Key><UploadId>2</UploadId></Upload></ListMultipartUploadsResult>";
        let found = uploads_in(listing);
        let expected = [("a&b", "1"), ("c", "2")];
        assert_eq!(found, expected.map(|(key, id)| (key.to_string(), id.to_string())));
        assert_eq!(uploads_in("<ListMultipartUploadsResult/>"), []);
    }

    #[cfg(feature = "azure")]
    #[test]
    fn what_may_be_an_upload_is_read_from_a_listing() {
        let blob = |name: &str, rest: &str| format!("<Blob><Name>{name}</Name><Properties>{rest}</Properties></Blob>");
        let listing = [
            blob("sent", "<BlobType>BlockBlob</BlobType>"),
            blob("sent too", "<Content-Length>0</Content-Length>"),
            blob(
                "folder",
                "<ResourceType>directory</ResourceType><Content-Length>0</Content-Length>",
            ),
            blob("object", "<Content-Length>10</Content-Length>"),
        ];
        assert!(empty_blobs(&listing.concat()).eq(["sent", "sent too"]));
    }
}
