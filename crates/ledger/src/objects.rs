//! An S3-compatible store, as far as it is needed here.

use std::collections::HashMap;
use std::io::Read;
use std::time::Duration;

use ringfence_verifier::Error;
use rusty_s3::actions::ListObjectsV2;
use rusty_s3::{Bucket as S3, Credentials, S3Action as _, UrlStyle};

use crate::http;

/// How long the store may take for one object.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a signature is good for.
const SIGNED_FOR: Duration = Duration::from_secs(300);
/// The largest object that is read whole, in bytes: a segment.
const MAX_OBJECT: u64 = 1 << 30;

/// Where.
#[derive(Clone)]
pub struct Bucket {
    /// The store's address, as in `https://s3.us-east-1.amazonaws.com`.
    pub endpoint: String,
    /// The bucket.
    pub name: String,
    /// Its region.
    pub region: String,
    /// What the names of objects begin with; empty for none.
    pub prefix: String,
    /// The access key.
    pub access_key: String,
    /// The secret key.
    pub secret_key: String,
    /// The certificates (PEM) to trust, for an endpoint with `https:`.
    pub tls_roots: Vec<u8>,
    /// Whether whole segments of private records go along.
    pub private: bool,
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.endpoint, self.name, self.prefix)
    }
}

/// A connection to a bucket.
pub struct Client {
    s3: S3,
    credentials: Credentials,
    agent: ureq::Agent,
    prefix: String,
}

/// Why an object could not be had or put; without what the store said, which may repeat a signature.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The settings are not right.
    #[error("{0}")]
    Settings(String),
    /// The store does not answer.
    #[error("the object store cannot be reached: {0}")]
    Unreachable(String),
    /// It answers with an error.
    #[error("the object store answers {status} for {object}")]
    Refused {
        /// HTTP's status.
        status: u16,
        /// Which object.
        object: String,
    },
    /// A file of the log.
    #[error(transparent)]
    Log(#[from] Error),
}

/// Somebody who asks others by HTTP: certificates that are named (PEM), a time limit, no redirects, no proxy. `is_secure` has it refuse to
/// begin without a certificate to trust.
pub fn agent(patience: Duration, tls_roots: &[u8], is_secure: bool) -> Result<ureq::Agent, Error> {
    Ok(http::agent(patience, http::tls(tls_roots, is_secure)?))
}

impl Client {
    /// Reads the settings; nothing is asked of the store yet.
    pub fn new(bucket: &Bucket) -> Result<Self, Problem> {
        Self::patient(bucket, PATIENCE)
    }

    /// The same with another time for one object.
    pub fn patient(bucket: &Bucket, patience: Duration) -> Result<Self, Problem> {
        let wrong = |e: String| Problem::Settings(format!("the bucket: {e}"));
        let url = bucket.endpoint.parse().map_err(|_| wrong("its endpoint is no URL".to_owned()))?;
        let s3 = S3::new(url, UrlStyle::Path, bucket.name.clone(), bucket.region.clone());
        let s3 = s3.map_err(|e| wrong(e.to_string()))?;
        let tls = http::tls(&bucket.tls_roots, bucket.endpoint.starts_with("https:"))?;
        let prefix = bucket.prefix.trim_matches('/');
        Ok(Self {
            s3,
            credentials: Credentials::new(bucket.access_key.clone(), bucket.secret_key.clone()),
            agent: http::agent(patience, tls),
            prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}/") },
        })
    }

    fn object(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Writes an object whole.
    pub fn put(&self, name: &str, bytes: &[u8]) -> Result<(), Problem> {
        let object = self.object(name);
        let url = self.s3.put_object(Some(&self.credentials), &object).sign(SIGNED_FOR);
        let answer = self.agent.put(url.as_str()).send(bytes).map_err(|e| unreachable(&e))?;
        match answer.status().as_u16() {
            200..=299 => Ok(()),
            status => Err(Problem::Refused { status, object }),
        }
    }

    /// Reads an object whole.
    pub fn get(&self, name: &str) -> Result<Vec<u8>, Problem> {
        let object = self.object(name);
        let url = self.s3.get_object(Some(&self.credentials), &object).sign(SIGNED_FOR);
        let mut answer = self.agent.get(url.as_str()).call().map_err(|e| unreachable(&e))?;
        let status = answer.status().as_u16();
        if status != 200 {
            return Err(Problem::Refused { status, object });
        }
        answer.body_mut().with_config().limit(MAX_OBJECT).read_to_vec().map_err(|e| unreachable(&e))
    }

    /// Reads an object piece by piece, of any length.
    pub fn open(&self, name: &str) -> Result<impl Read + Send + use<>, Problem> {
        let object = self.object(name);
        let url = self.s3.get_object(Some(&self.credentials), &object).sign(SIGNED_FOR);
        let answer = self.agent.get(url.as_str()).call().map_err(|e| unreachable(&e))?;
        match answer.status().as_u16() {
            200 => Ok(answer.into_body().into_reader()),
            status => Err(Problem::Refused { status, object }),
        }
    }

    /// Deletes an object. One that is gone already is as good. What a bucket with versions keeps of it is not gone.
    pub fn delete(&self, name: &str) -> Result<(), Problem> {
        let object = self.object(name);
        let url = self.s3.delete_object(Some(&self.credentials), &object).sign(SIGNED_FOR);
        let answer = self.agent.delete(url.as_str()).call().map_err(|e| unreachable(&e))?;
        match answer.status().as_u16() {
            200..=299 | 404 => Ok(()),
            status => Err(Problem::Refused { status, object }),
        }
    }

    /// All objects under the prefix, by their names without it, with their lengths.
    pub fn list(&self) -> Result<HashMap<String, u64>, Problem> {
        let mut found = HashMap::new();
        let mut next: Option<String> = None;
        loop {
            let mut action = self.s3.list_objects_v2(Some(&self.credentials));
            action.with_prefix(self.prefix.clone());
            if let Some(token) = next.take() {
                action.with_continuation_token(token);
            }
            let url = action.sign(SIGNED_FOR);
            let mut answer = self.agent.get(url.as_str()).call().map_err(|e| unreachable(&e))?;
            let status = answer.status().as_u16();
            let object = format!("the list of {}", self.prefix);
            if status != 200 {
                return Err(Problem::Refused { status, object });
            }
            let text = answer.body_mut().read_to_string().map_err(|e| unreachable(&e))?;
            let page = ListObjectsV2::parse_response(&text)
                .map_err(|_| Problem::Unreachable("its list is not understood".to_owned()))?;
            for entry in page.contents {
                // Names come as they were written, or percent-encoded; ours have no character that differs.
                if let Some(name) = entry.key.strip_prefix(&self.prefix) {
                    found.insert(name.to_owned(), entry.size.unwrap_or(0));
                }
            }
            next = page.next_continuation_token;
            if next.is_none() {
                return Ok(found);
            }
        }
    }
}

fn unreachable(e: &ureq::Error) -> Problem {
    Problem::Unreachable(match e {
        ureq::Error::Timeout(_) => "it does not answer in time".to_owned(),
        ureq::Error::Io(e) => e.kind().to_string(),
        ureq::Error::ConnectionFailed | ureq::Error::HostNotFound => "there is nobody".to_owned(),
        _ => "its answer is not HTTP as we know it".to_owned(),
    })
}
