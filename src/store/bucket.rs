//! An S3 bucket as an object store, with limits on time and concurrency and errors that name the
//! bucket.
//!
//! - A failed request is retried a few times with exponential backoff and jitter, for [`RETRY_FOR`]
//!   at most.
//! - There are two clients: one with a short timeout for small requests, so that a hanging server
//!   is noticed soon, and one with a long timeout for big bodies, which a slow line may take
//!   minutes for. Each has its own concurrency limit, so big bodies never delay a commit; together
//!   they send at most 64 requests at a time. A wide read is split into parts that fit the timeout.
//! - Commits and the catalog rely on conditional puts (`If-None-Match`, `If-Match`), which S3 and
//!   compatible servers support. A response of 409 means that another request was in progress and
//!   nothing was written: such a put is retried.
//! - An error names the bucket, the endpoint, and the settings to check. It never holds a key: a
//!   server's message about a refused key is reduced to its error code.

use std::error::Error as StdError;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use futures::{FutureExt, TryFutureExt};
use object_store::aws::{
    AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, AwsCredential, S3ConditionalPut,
};
use object_store::limit::LimitStore;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload,
    ListResult, MultipartUpload, OBJECT_STORE_COALESCE_DEFAULT, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions,
    Result, RetryConfig, StaticCredentialProvider, UploadPart, coalesce_ranges,
};
use url::Url;

use crate::config::Config;
use crate::error::{Error, ErrorKind};

/// Timeout of a connection attempt.
const CONNECT: Duration = Duration::from_secs(5);
/// Timeout of a small request.
const QUICK: Duration = Duration::from_secs(30);
/// Timeout of a big request.
const PATIENT: Duration = Duration::from_secs(120);
/// Time after the first attempt in which a request is retried.
const RETRY_FOR: Duration = Duration::from_secs(15);
const RETRIES: usize = 8;
/// Pauses before a put that was answered with 409 is retried.
const CONFLICT_PAUSES_MS: [u64; 5] = [100, 200, 400, 800, 1_600];
/// Maximum number of concurrent small requests.
const QUICK_REQUESTS: usize = 48;
/// Maximum number of concurrent big requests.
const PATIENT_REQUESTS: usize = 16;
/// Maximum bytes of a small request.
const LITTLE: u64 = 8 << 20;

/// A bucket. Paths in it are keys.
#[derive(Debug)]
pub struct Bucket {
    small_client: LimitStore<AmazonS3>,
    bulk_client: LimitStore<AmazonS3>,
    bare: AmazonS3,
    place: Arc<BucketLocation>,
}

/// Bucket and endpoint that errors name.
#[derive(Debug)]
struct BucketLocation {
    bucket: String,
    endpoint: String,
}

impl Bucket {
    /// Creates a client for the bucket that `url` (`s3://bucket/…`) names. The configuration
    /// overrides the environment (`AWS_…`). Sends nothing.
    pub fn new(url: &Url, config: &Config) -> crate::error::Result<Self> {
        let bucket = url.host_str().unwrap_or_default().to_owned();
        let builder = builder(&bucket, config)?;
        let configured = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
        let endpoint = configured.unwrap_or_else(|| {
            let region = builder.get_config_value(&AmazonS3ConfigKey::Region);
            format!("https://s3.{}.amazonaws.com", region.as_deref().unwrap_or("us-east-1"))
        });
        let client = |timeout| {
            let client = ClientOptions::new()
                .with_allow_http(endpoint.starts_with("http://"))
                .with_connect_timeout(CONNECT)
                .with_timeout(timeout);
            builder.clone().with_client_options(client).build().map_err(|cause| {
                Error::invalid(format!(
                    "the settings of bucket `{bucket}` at `{endpoint}` are invalid: {}",
                    brief(&cause)
                ))
            })
        };
        let bare = client(QUICK)?;
        Ok(Self {
            small_client: LimitStore::new(bare.clone(), QUICK_REQUESTS),
            bulk_client: LimitStore::new(client(PATIENT)?, PATIENT_REQUESTS),
            bare,
            place: Arc::new(BucketLocation { bucket, endpoint }),
        })
    }

    /// Returns the URL of the server, without the bucket in its host name.
    pub fn endpoint(&self) -> String {
        let BucketLocation { bucket, endpoint } = self.place.as_ref();
        endpoint.trim_end_matches('/').replacen(&format!("://{bucket}."), "://", 1)
    }

    /// Lists one name in the bucket, to detect early that the endpoint, the bucket or the key is
    /// wrong.
    pub async fn check(&self, prefix: &Path) -> crate::error::Result<()> {
        let options = PaginatedListOptions { max_keys: Some(1), ..PaginatedListOptions::default() };
        let listed = self.bare.list_paginated(Some(prefix.as_ref()), options).await;
        match listed.map_err(|error| self.place.named(error)) {
            Ok(_) => Ok(()),
            Err(error) => Err(match context_of(&error) {
                Some(context) => {
                    Error::new(ErrorKind::Storage, context.message.clone()).with_source(error)
                }
                None => Error::storage(format!("{} failed", self.place)).with_source(error),
            }),
        }
    }

    fn client(&self, bytes: Option<u64>) -> &LimitStore<AmazonS3> {
        if bytes.is_some_and(|bytes| bytes <= LITTLE) {
            &self.small_client
        } else {
            &self.bulk_client
        }
    }

    fn named<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| self.place.named(error))
    }

    fn named_stream<T: 'static>(
        &self,
        stream: BoxStream<'static, Result<T>>,
    ) -> BoxStream<'static, Result<T>> {
        let place = Arc::clone(&self.place);
        stream.map(move |item| item.map_err(|error| place.named(error))).boxed()
    }
}

/// Applies the environment's settings and the configuration, which overrides them.
fn builder(bucket: &str, config: &Config) -> crate::error::Result<AmazonS3Builder> {
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_virtual_hosted_style_request(!config.s3_path_style)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_retry(RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(100),
                max_backoff: Duration::from_secs(2),
                base: 2.0,
            },
            max_retries: RETRIES,
            retry_timeout: RETRY_FOR,
        });
    if !config.s3_region.is_empty() {
        builder = builder.with_region(&config.s3_region);
    }
    let endpoint = Some(&config.s3_endpoint).filter(|endpoint| !endpoint.is_empty()).cloned();
    if let Some(endpoint) =
        endpoint.or_else(|| builder.get_config_value(&AmazonS3ConfigKey::Endpoint))
    {
        builder = builder.with_endpoint(host_named(&endpoint, bucket, config.s3_path_style)?);
    }
    let id = &config.s3_access_key_id;
    let secret = &config.s3_secret_access_key.0;
    match (id.is_empty(), secret.is_empty()) {
        (true, true) => {}
        (false, false) => {
            // Sets key and token together, so that a session token in the environment is not
            // combined with this key.
            let token = Some(&config.s3_session_token.0).filter(|token| !token.is_empty()).cloned();
            let key = AwsCredential { key_id: id.clone(), secret_key: secret.clone(), token };
            builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(key)));
        }
        (false, true) => {
            return Err(Error::invalid(
                "setting `s3_access_key_id` requires `s3_secret_access_key`",
            ));
        }
        (true, false) => {
            return Err(Error::invalid(
                "setting `s3_secret_access_key` requires `s3_access_key_id`",
            ));
        }
    }
    Ok(builder)
}

/// Returns the endpoint as the client expects it: with the bucket in the host name unless
/// `path_style` is set.
fn host_named(endpoint: &str, bucket: &str, path_style: bool) -> crate::error::Result<String> {
    let wrong = || {
        Error::invalid(
            "setting `s3_endpoint` is not a server URL; write `https://host` or `http://host:port`",
        )
    };
    let mut url = Url::parse(endpoint).map_err(|_| wrong())?;
    let host = url.host_str().map(str::to_owned).ok_or_else(wrong)?;
    if !matches!(url.scheme(), "http" | "https")
        || !url.username().is_empty()
        || url.password().is_some()
    {
        return Err(wrong());
    }
    if !path_style && !host.starts_with(&format!("{bucket}.")) {
        url.set_host(Some(&format!("{bucket}.{host}"))).map_err(|_| wrong())?;
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

impl fmt::Display for BucketLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bucket `{}` at `{}`", self.bucket, self.endpoint)
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bucket({}, {})", self.place.bucket, self.place.endpoint)
    }
}

/// The problem and its remedy, in front of the client's own message.
#[derive(Debug)]
struct ContextError {
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl fmt::Display for ContextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl StdError for ContextError {}

impl BucketLocation {
    /// Adds the bucket and a remedy to an error. Errors that callers handle (not found, already
    /// exists, precondition failed) keep their kind.
    fn named(&self, error: object_store::Error) -> object_store::Error {
        use object_store::Error as E;
        let generic = |message, source| E::Generic {
            store: "S3",
            source: ContextError { message, source }.into(),
        };
        match error {
            E::NotFound { source, .. } | E::Generic { source, .. }
                if source.to_string().contains("NoSuchBucket") =>
            {
                generic(
                    format!(
                        "there is no {self}; create it, or correct the bucket name in setting `data`"
                    ),
                    None,
                )
            }
            E::PermissionDenied { path, source } => {
                E::PermissionDenied { path, source: self.refused(source.as_ref()).into() }
            }
            E::Unauthenticated { path, source } => {
                E::Unauthenticated { path, source: self.refused(source.as_ref()).into() }
            }
            E::Generic { store, source } if denied(&source.to_string()) => {
                E::Generic { store, source: self.refused(source.as_ref()).into() }
            }
            E::Generic { source, .. } => {
                let text = source.to_string();
                let what = match code(&text) {
                    Some(code) if text.contains("status code: 4") => {
                        format!(
                            "{self} refused a request ({code}); check `s3_region` and `s3_path_style`"
                        )
                    }
                    Some(code) => {
                        format!("{self} cannot serve requests now ({code}); check the server's log")
                    }
                    None if text.contains("redirect") => {
                        format!("{self} is in another region; check `s3_region`")
                    }
                    None => format!(
                        "{self} does not answer; check `s3_endpoint`, the network and the server"
                    ),
                };
                generic(what, Some(source))
            }
            other => other,
        }
    }

    fn refused(&self, source: &(dyn StdError + 'static)) -> ContextError {
        let code = code(&source.to_string()).map_or_else(String::new, |code| format!(" ({code})"));
        let message = format!(
            "{self} refused the key{code}; check `s3_access_key_id` and `s3_secret_access_key` (or AWS_ACCESS_KEY_ID \
             and AWS_SECRET_ACCESS_KEY), and the permissions of the key"
        );
        ContextError { message, source: None }
    }
}

/// Returns the error code in a server's XML error document.
fn code(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    (code.len() < 64 && code.chars().all(|c| c.is_ascii_alphanumeric())).then_some(code)
}

/// Returns true if a request was refused because of its key. The client reports such a listing as a
/// generic error.
fn denied(text: &str) -> bool {
    ["status code: 401", "status code: 403"].iter().any(|status| text.contains(status))
}

fn context_of<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a ContextError> {
    error.downcast_ref::<ContextError>().or_else(|| error.source().and_then(context_of))
}

/// Returns the text of a builder error, which names settings and never their values.
fn brief(error: &object_store::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for Bucket {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let client = self.client(Some(payload.content_length() as u64));
        let mut pauses = CONFLICT_PAUSES_MS.into_iter();
        loop {
            let put = client.put_opts(location, payload.clone(), opts.clone()).await;
            let conflict = match put {
                Err(error) if is_conflict(&error) && !matches!(opts.mode, PutMode::Update(_)) => {
                    error
                }
                put => return self.named(put),
            };
            let Some(pause) = pauses.next() else {
                return self.still_conflicting(location, &opts.mode, conflict).await;
            };
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let inner = self.named(self.bulk_client.put_multipart_opts(location, opts).await)?;
        Ok(Box::new(Upload { inner, place: Arc::clone(&self.place) }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let bytes = match &options.range {
            _ if options.head => Some(0),
            Some(GetRange::Bounded(range)) => Some(range.end.saturating_sub(range.start)),
            Some(GetRange::Suffix(bytes)) => Some(*bytes),
            _ => None,
        };
        let mut found = self.named(self.client(bytes).get_opts(location, options).await)?;
        if let GetResultPayload::Stream(stream) = found.payload {
            found.payload = GetResultPayload::Stream(self.named_stream(stream));
        }
        Ok(found)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        // The client's own `get_ranges` would send ten requests for one slot of the limit.
        let fetch = |range: Range<u64>| self.read(location, range);
        coalesce_ranges(ranges, fetch, OBJECT_STORE_COALESCE_DEFAULT).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.named_stream(self.small_client.delete_stream(locations))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.named_stream(self.small_client.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.named_stream(self.small_client.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.named(self.small_client.list_with_delimiter(prefix).await)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.named(self.bulk_client.copy_opts(from, to, options).await)
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.named(self.bulk_client.rename_opts(from, to, options).await)
    }
}

/// Returns true if a put was answered with 409: another request was writing the same key, and
/// nothing was written. The client reports 409 and a failed condition (412) both as
/// `AlreadyExists`, and only 412 has a source that says so. It retries conditional updates by
/// itself.
fn is_conflict(error: &object_store::Error) -> bool {
    use object_store::Error as E;
    let E::AlreadyExists { source, .. } = error else { return false };
    !matches!(source.downcast_ref::<E>(), Some(E::Precondition { .. } | E::NotModified { .. }))
}

impl Bucket {
    /// Returns the result of a put that was answered with 409 each time. Some servers answer 409
    /// for an object that exists.
    async fn still_conflicting(
        &self,
        location: &Path,
        mode: &PutMode,
        error: object_store::Error,
    ) -> Result<PutResult> {
        let exists = matches!(mode, PutMode::Create) && self.head(location).await.is_ok();
        match error {
            object_store::Error::AlreadyExists { source, .. } if !exists => {
                let place = &self.place;
                let message = format!(
                    "{place} reports other writes to `{location}` in progress (409); nothing was written, so try again"
                );
                Err(object_store::Error::Generic {
                    store: "S3",
                    source: ContextError { message, source: Some(source) }.into(),
                })
            }
            error => self.named(Err(error)),
        }
    }

    /// Reads a range, in parts small enough for the timeout on a slow line.
    async fn read(&self, location: &Path, range: Range<u64>) -> Result<Bytes> {
        if range.end.saturating_sub(range.start) <= LITTLE {
            return self.get_range(location, range).await;
        }
        let step = usize::try_from(LITTLE).unwrap_or(usize::MAX);
        let starts = (range.start..range.end).step_by(step);
        let reads =
            starts.map(|start| self.get_range(location, start..range.end.min(start + LITTLE)));
        let parts: Vec<Bytes> = futures::future::try_join_all(reads).await?;
        Ok(parts.concat().into())
    }
}

/// A multipart upload whose errors name the bucket.
#[derive(Debug)]
struct Upload {
    inner: Box<dyn MultipartUpload>,
    place: Arc<BucketLocation>,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let place = Arc::clone(&self.place);
        self.inner.put_part(data).map_err(move |error| place.named(error)).boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.inner.complete().await.map_err(|error| self.place.named(error))
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await.map_err(|error| self.place.named(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn place() -> BucketLocation {
        BucketLocation { bucket: "b".to_owned(), endpoint: "http://127.0.0.1:1".to_owned() }
    }

    #[test]
    fn the_bucket_goes_into_the_host_where_it_belongs_there() {
        assert_eq!(host_named("http://127.0.0.1:9/", "b", true).unwrap(), "http://127.0.0.1:9");
        assert_eq!(
            host_named("https://s3.example.com", "b", false).unwrap(),
            "https://b.s3.example.com"
        );
        assert_eq!(
            host_named("https://b.s3.example.com", "b", false).unwrap(),
            "https://b.s3.example.com"
        );
        for wrong in ["127.0.0.1:9", "ftp://host", "", "http://user:secret@host"] {
            let error = host_named(wrong, "b", true).unwrap_err();
            assert!(
                error.message().contains("`s3_endpoint`") && !error.message().contains("secret"),
                "{error}"
            );
        }
    }

    #[test]
    fn half_a_key_is_refused_by_name() {
        let url = Url::parse("s3://b/").unwrap();
        let half = Config { s3_access_key_id: "id".to_owned(), ..Config::default() };
        assert!(Bucket::new(&url, &half).unwrap_err().message().contains("s3_secret_access_key"));
        let half =
            Config { s3_secret_access_key: Secret("hidden".to_owned()), ..Config::default() };
        let error = Bucket::new(&url, &half).unwrap_err();
        assert!(
            error.message().contains("s3_access_key_id") && !error.message().contains("hidden"),
            "{error}"
        );
    }

    #[test]
    fn errors_name_bucket_endpoint_and_remedy_and_no_key() {
        use object_store::Error as E;
        let missing = |code: &str| E::NotFound {
            path: "x".to_owned(),
            source: format!("<Code>{code}</Code>").into(),
        };
        let listed = E::Generic { store: "S3", source: "<Code>NoSuchBucket</Code>".into() };
        for error in [missing("NoSuchBucket"), listed] {
            let text = place().named(error).to_string();
            assert!(
                text.contains("there is no bucket `b` at `http://127.0.0.1:1`; create it"),
                "{text}"
            );
        }
        assert!(matches!(place().named(missing("NoSuchKey")), E::NotFound { .. }));
        let answer = "<Code>SignatureDoesNotMatch</Code><StringToSign>hidden</StringToSign>";
        let listed = format!("Server returned non-2xx status code: 403 Forbidden: {answer}");
        let denied = [
            E::PermissionDenied { path: "x".to_owned(), source: answer.into() },
            E::Generic { store: "S3", source: listed.into() },
        ];
        for denied in denied.map(|error| place().named(error)) {
            let text = denied.to_string();
            assert!(
                text.contains("refused the key (SignatureDoesNotMatch); check `s3_access_key_id`"),
                "{text}"
            );
            assert!(
                !text.contains("hidden") && !format!("{denied:?}").contains("hidden"),
                "{text}"
            );
        }
        let silent = place().named(E::Generic { store: "S3", source: "connection refused".into() });
        let text = silent.to_string();
        assert!(
            text.contains("does not answer; check `s3_endpoint`")
                && text.ends_with("connection refused"),
            "{text}"
        );
        assert!(context_of(&silent).is_some());
    }
}
