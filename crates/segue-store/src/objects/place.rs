//! The place itself: a prefix of an S3 bucket, or a folder.

use super::error::{ObjectError, Trouble};
use super::options::Options;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Name;
use object_store::{
    BackoffConfig, Certificate, ClientOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    RetryConfig,
};
use segue_core::time::Time;
use std::fmt;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a request may take, its body included.
const REQUEST: Duration = Duration::from_secs(60);
/// How long the server may be silent.
const SILENCE: Duration = Duration::from_secs(20);
/// How often a request is tried again.
const RETRIES: usize = 6;
/// No more tries after that, counted from the first one.
const RETRY_FOR: Duration = Duration::from_secs(30);
/// Tries at creating an object where each time neither an answer nor an object is there.
const CREATE_TRIES: usize = 8;
/// The object by which the place tells its time.
const CLOCK: &str = "clock";

/// An object that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name, below the place.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// When it was written, by the clock of the place.
    pub written_at: Time,
}

/// What came of creating an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// It holds what was given.
    Mine,
    /// Somebody else's was there first, and stays.
    Taken,
}

/// Objects below a prefix of an S3 bucket, or in a folder.
#[derive(Clone)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    prefix: Name,
    url: Arc<str>,
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Objects({})", self.url)
    }
}

impl Objects {
    /// Opens `s3://bucket/prefix`, `file:///folder`, or a path of a folder, which is made where it is missing. Nothing is asked of a server yet.
    ///
    /// # Errors
    /// [`Trouble::Config`] where the address or the options cannot be right.
    pub fn open(url: &str, options: &Options) -> Result<Objects, ObjectError> {
        if let Some(rest) = url.strip_prefix("s3://") {
            return Self::open_s3(url, rest, options);
        }
        let path = match url.split_once("://") {
            None => url,
            Some(("file", path)) if path.starts_with('/') => path,
            Some(("file", _)) => {
                return Err(config(url, "a folder is named file:///with/an/absolute/path"));
            }
            Some((scheme, _)) => {
                let what = format!("`{scheme}://` is not known; s3://, file:// and folders are");
                return Err(config(url, what));
            }
        };
        Self::open_folder(Path::new(path))
    }

    fn open_folder(path: &Path) -> Result<Objects, ObjectError> {
        let at = path.display().to_string();
        // It holds every input and output of a project: nobody else's business.
        let made = std::fs::DirBuilder::new().mode(0o700).recursive(true).create(path);
        made.and_then(|()| path.parent().map_or(Ok(()), sync))
            .map_err(|error| config(&at, error.to_string()))?;
        let store = LocalFileSystem::new_with_prefix(path)
            .map_err(|error| ObjectError::of(&at, &error))?
            .with_fsync(true);
        Ok(Objects { store: Arc::new(store), prefix: Name::default(), url: at.into() })
    }

    fn open_s3(url: &str, rest: &str, options: &Options) -> Result<Objects, ObjectError> {
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() || bucket.contains(['@', '?', '#', ':']) {
            return Err(config(
                "s3://..",
                "a place is named s3://bucket/prefix; endpoint and credentials come from the environment or [objects]",
            ));
        }
        let prefix = Name::parse(prefix.trim_end_matches('/'))
            .map_err(|error| config(url, error.to_string()))?;
        if !options.has_credentials() {
            let what = "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or [objects] in segue.toml";
            return Err(ObjectError::new(Trouble::Denied, url, what));
        }
        // One choice of TLS for the whole process; somebody else may have made the same one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let store = builder(url, bucket, options)?
            .build()
            .map_err(|error| config(url, ObjectError::of(url, &error).what))?;
        let url = url.trim_end_matches('/').into();
        Ok(Objects { store: Arc::new(store), prefix, url })
    }

    /// The address, without any credential.
    pub fn url(&self) -> &str {
        &self.url
    }

    fn name(&self, name: &str) -> Name {
        name.split('/').fold(self.prefix.clone(), |path, part| path.join(part))
    }

    fn failed(&self, name: &str, error: &object_store::Error) -> ObjectError {
        ObjectError::of(&format!("{}/{name}", self.url), error)
    }

    /// Writes an object, in place of one that may be there. It is durable when this returns.
    ///
    /// # Errors
    /// What the place reports; nothing or all of it was written then.
    pub async fn put(&self, name: &str, bytes: Bytes) -> Result<(), ObjectError> {
        let put = self.store.put(&self.name(name), bytes.into()).await;
        put.map(drop).map_err(|error| self.failed(name, &error))
    }

    /// Writes an object if there is none of that name. Of several who try at once, one wins. The bytes have to be the caller's alone, so that
    /// what is there tells whose it is: an answer may be lost, and a try that is repeated refused on account of the first one.
    ///
    /// # Errors
    /// What the place reports. It may have been written then.
    pub async fn create(&self, name: &str, bytes: Bytes) -> Result<Created, ObjectError> {
        let mut last = None;
        for _ in 0..CREATE_TRIES {
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            let put = self.store.put_opts(&self.name(name), bytes.clone().into(), options).await;
            let Err(error) = put else { return Ok(Created::Mine) };
            let error = self.failed(name, &error);
            match self.get(name, u64::MAX).await {
                Ok(there) if there == bytes => return Ok(Created::Mine),
                Ok(_) => return Ok(Created::Taken),
                // Two who tried at once may both be turned away (409): there is nothing yet, so it is tried again.
                Err(ObjectError { trouble: Trouble::Missing, .. }) => last = Some(error),
                Err(_) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| ObjectError::new(Trouble::Other, name, "cannot be created")))
    }

    /// The bytes of an object.
    ///
    /// # Errors
    /// [`Trouble::Missing`]; [`Trouble::TooLong`] where it has more than `max` bytes, which are not read then.
    pub async fn get(&self, name: &str, max: u64) -> Result<Bytes, ObjectError> {
        let refused = |error| self.failed(name, &error);
        let got = self.store.get(&self.name(name)).await.map_err(refused)?;
        if got.meta.size > max {
            let what = format!("it has {} bytes, and may have {max}", got.meta.size);
            let at = format!("{}/{name}", self.url);
            return Err(ObjectError::new(Trouble::TooLong, at, what));
        }
        got.bytes().await.map_err(refused)
    }

    /// What is there under this name.
    ///
    /// # Errors
    /// What the place reports.
    pub async fn look(&self, name: &str) -> Result<Option<Found>, ObjectError> {
        match self.store.head(&self.name(name)).await {
            Ok(meta) => Ok(Some(found(name.to_owned(), &meta))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed(name, &error)),
        }
    }

    /// Everything below a folder of the place, in no particular order. A folder that is not there is empty.
    ///
    /// # Errors
    /// What the place reports.
    pub async fn list(&self, folder: &str) -> Result<Vec<Found>, ObjectError> {
        let listed = self.store.list(Some(&self.name(folder)));
        let mut all = Vec::new();
        futures_util::pin_mut!(listed);
        while let Some(meta) = listed.next().await {
            let meta = match meta {
                Ok(meta) => meta,
                // A file that went while the folder was read.
                Err(object_store::Error::NotFound { .. }) if self.is_folder() => continue,
                Err(error) => return Err(self.failed(folder, &error)),
            };
            if let Some(parts) = meta.location.prefix_match(&self.prefix) {
                let name = parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/");
                all.push(found(name, &meta));
            }
        }
        Ok(all)
    }

    fn is_folder(&self) -> bool {
        !self.url.starts_with("s3://")
    }

    /// Removes objects; one that is not there counts as removed.
    ///
    /// # Errors
    /// What the place reports; some may have been removed then.
    pub async fn remove(&self, names: &[String]) -> Result<(), ObjectError> {
        let names: Vec<_> = names.iter().map(|name| Ok(self.name(name))).collect();
        let removed = self.store.delete_stream(futures_util::stream::iter(names).boxed());
        let gone = removed.filter_map(|one| async {
            match one {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => None,
                Err(error) => Some(Err::<(), _>(error)),
            }
        });
        gone.try_collect::<Vec<_>>().await.map(drop).map_err(|error| self.failed("", &error))
    }

    /// Now, by the clock of the place: it says when an object was written that is written for this.
    ///
    /// # Errors
    /// What the place reports.
    pub async fn now(&self) -> Result<Time, ObjectError> {
        self.put(CLOCK, Bytes::from_static(b"the time of this object is the time of this place\n"))
            .await?;
        let found = self.look(CLOCK).await?;
        let missing = || ObjectError::new(Trouble::Missing, self.url(), "what was written is gone");
        found.map(|found| found.written_at).ok_or_else(missing)
    }
}

fn config(at: &str, what: impl Into<String>) -> ObjectError {
    ObjectError::new(Trouble::Config, at, what)
}

fn sync(folder: &Path) -> std::io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    std::fs::File::open(folder)?.sync_all()
}

fn found(name: String, meta: &object_store::ObjectMeta) -> Found {
    Found { name, bytes: meta.size, written_at: Time(meta.last_modified.timestamp_millis()) }
}

fn builder(url: &str, bucket: &str, options: &Options) -> Result<AmazonS3Builder, ObjectError> {
    let endpoint = options.endpoint.as_deref();
    let is_plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
    if is_plain && !options.allow_http && !endpoint.is_some_and(is_this_machine) {
        let what = "the endpoint is http:// on another machine: use https://, or set `allow_http = true` in [objects]";
        return Err(config(url, what));
    }
    let mut client = ClientOptions::new()
        .with_connect_timeout(CONNECT)
        .with_timeout(REQUEST)
        .with_read_timeout(SILENCE)
        .with_http1_only()
        .with_allow_http(is_plain);
    if let Some(path) = &options.ca_file {
        let at = path.display().to_string();
        let pem = std::fs::read(path).map_err(|error| config(&at, error.to_string()))?;
        let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| {
            config(
                &at,
                format!("it is no PEM file of certificates: {}", ObjectError::of(&at, &error).what),
            )
        })?;
        client = client.with_no_system_certificates(true);
        for certificate in certificates {
            client = client.with_root_certificate(certificate);
        }
    }
    let retry = RetryConfig {
        backoff: BackoffConfig { max_backoff: Duration::from_secs(4), ..BackoffConfig::default() },
        max_retries: RETRIES,
        retry_timeout: RETRY_FOR,
    };
    // The variables also name what the client fetches by itself; what is said here counts more.
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_region(options.region.as_deref().unwrap_or("us-east-1"))
        .with_virtual_hosted_style_request(!options.path_style.unwrap_or(endpoint.is_some()))
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_client_options(client)
        .with_retry(retry);
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(id) = &options.access_key_id {
        builder = builder.with_access_key_id(id);
    }
    if let Some(secret) = &options.secret_access_key {
        builder = builder.with_secret_access_key(secret.reveal());
    }
    if let Some(token) = &options.session_token {
        builder = builder.with_token(token.reveal());
    }
    Ok(builder)
}

/// Whether an `http://` address is of this machine.
fn is_this_machine(endpoint: &str) -> bool {
    let host = endpoint.trim_start_matches("http://");
    let host = host.split('/').next().unwrap_or_default();
    if host.contains('@') {
        return false;
    }
    let host = match host.strip_prefix('[') {
        Some(six) => six.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::Secret;

    fn with_key() -> Options {
        Options {
            access_key_id: Some("id".into()),
            secret_access_key: Some(Secret::new("hidden")),
            ..Options::default()
        }
    }

    #[test]
    fn an_address_that_cannot_be_right_is_refused_with_what_to_do() {
        for (url, says) in [
            ("s3://", "s3://bucket/prefix"),
            ("s3://id:secret@host/bucket", "credentials come from"),
            ("s3://bucket/a//b", "a//b"),
            ("gs://bucket", "`gs://` is not known"),
            ("file://relative", "absolute"),
        ] {
            let error = Objects::open(url, &with_key()).expect_err(url);
            assert!(error.to_string().contains(says), "{url}: {error}");
            assert!(!error.to_string().contains("secret@"), "{error}");
        }
    }

    #[test]
    fn another_machine_is_not_spoken_to_in_the_clear() {
        for (endpoint, fine) in [
            ("http://127.0.0.1:9000", true),
            ("http://[::1]:9000", true),
            ("http://localhost", true),
            ("http://localhost.evil.example", false),
            ("http://127.0.0.1@evil.example", false),
            ("http://10.0.0.1:9000", false),
            ("https://10.0.0.1:9000", true),
        ] {
            let options = Options { endpoint: Some(endpoint.into()), ..with_key() };
            let opened = Objects::open("s3://bucket/prefix", &options);
            assert_eq!(opened.is_ok(), fine, "{endpoint}: {opened:?}");
            let options = Options { allow_http: true, ..options };
            assert!(Objects::open("s3://bucket/prefix", &options).is_ok(), "{endpoint}");
        }
    }
}
