//! Requests to the Hub, and what came of them. The token is here, and goes to the Hub's own address alone.

use super::stopped;
use crate::error::{Error, Result, Why};
use crate::name::{Kind, Name};
use serde_json::Value;
use std::fmt;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};
use ureq::http::{HeaderMap, Response, StatusCode, Uri};
use ureq::{Agent, Body, Proxy};

/// Tries of a request that another try may answer.
const TRIES: u32 = 6;
/// The longest wait between two tries, whoever asks for it.
const LONGEST: Duration = Duration::from_secs(300);
/// How often a wait looks whether an end was asked for.
const LOOK: Duration = Duration::from_millis(50);
/// Redirects of one request.
const HOPS: usize = 10;
/// The largest page of a listing.
const LARGEST: u64 = 64 << 20;

/// Where requests go, and as whom.
pub struct Client {
    agent: Agent,
    endpoint: String,
    /// What the header `authorization` says.
    token: Option<String>,
    /// The first wait between tries; it doubles.
    pub backoff: Duration,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.endpoint)
    }
}

/// What the Hub says of a file before its bytes.
#[derive(Debug, Clone, Default)]
pub struct Head {
    /// The commit that it is of.
    pub commit: Option<String>,
    /// What names its content: a git blob's sha1, or a sha256.
    pub etag: Option<String>,
    /// Its bytes.
    pub size: Option<u64>,
}

/// What came of a request that has no answer.
#[derive(Debug)]
pub enum Trouble {
    /// There was no connection.
    Unreached(String),
    /// Another try may bring one, perhaps after the time that the server names.
    Again(String, Option<Duration>),
    /// The revision, which is this commit, has no such file.
    NoEntry(Option<String>),
    /// It is not given: the status, and what the Hub calls that, with its words.
    Refused(u16, String, String),
    /// What is wrong with what came.
    Wrong(String),
    /// An end was asked for.
    Stopped,
}

/// What the headers of a response say.
fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

/// Scheme, host and port: who is spoken to.
fn origin(uri: &Uri) -> Option<(String, String, u16)> {
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    Some((scheme, uri.host()?.to_ascii_lowercase(), port))
}

/// Where a redirect leads.
fn joined(from: &Uri, location: &str) -> Option<Uri> {
    let (scheme, authority) = (from.scheme_str()?, from.authority()?);
    let to = match location {
        _ if location.contains("://") => location.to_owned(),
        _ if location.starts_with("//") => format!("{scheme}:{location}"),
        _ if location.starts_with('/') => format!("{scheme}://{authority}{location}"),
        _ => format!("{scheme}://{authority}{}/{location}", from.path().rsplit_once('/')?.0),
    };
    to.split('#').next()?.parse().ok()
}

/// A part of an address; of a revision, `/` too is written as a number.
fn encoded(text: &str, keep: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b) || keep.as_bytes().contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

impl Client {
    pub fn new(endpoint: &str, token: Option<&str>) -> Result<Self> {
        let endpoint = endpoint.trim_end_matches('/');
        let wrong = |what: &str| Error::new(format!("HF_ENDPOINT {endpoint} {what}"));
        let uri: Uri = endpoint.parse().map_err(|_| wrong("is no address"))?;
        let (Some("http" | "https"), Some(host)) = (uri.scheme_str(), uri.host()) else {
            return Err(wrong("is no address that begins with http:// or https://"));
        };
        let near = host == "localhost"
            || host.trim_matches(['[', ']']).parse().is_ok_and(|address: IpAddr| address.is_loopback());
        let token = match token {
            Some(token) if !token.bytes().all(|b| b.is_ascii_graphic()) => {
                return Err(Error::new(
                    "the token (HF_TOKEN, or the file `token` in HF_HOME) is none; write it anew",
                ));
            }
            Some(_) if uri.scheme_str() == Some("http") && !near => {
                eprintln!(
                    "note: {endpoint} is not sent the token, which everyone on the way would read; use https://"
                );
                None
            }
            token => token.map(|token| format!("Bearer {token}")),
        };
        let config = Agent::config_builder()
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_per_read(Some(Duration::from_secs(60)))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .accept_encoding("identity")
            .proxy(if near { None } else { Proxy::try_from_env() })
            .user_agent(concat!("duel/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Client { agent: config.into(), endpoint: endpoint.into(), token, backoff: Duration::from_secs(1) })
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The address of a repository's page.
    fn page(&self, name: &Name) -> String {
        let of_rows = if name.kind == Kind::Dataset { "datasets/" } else { "" };
        format!("{}/{of_rows}{}", self.endpoint, name.id)
    }

    /// The address of a file.
    pub fn file(&self, name: &Name, path: &str) -> String {
        format!("{}/resolve/{}/{}", self.page(name), encoded(name.revision(), ""), encoded(path, "/"))
    }

    /// The address of the list of files.
    pub fn listing(&self, name: &Name) -> String {
        let (plural, revision) = (name.kind.plural(), encoded(name.revision(), ""));
        format!("{}/api/{plural}/{}/tree/{revision}?recursive=true", self.endpoint, name.id)
    }

    /// What the Hub says of a file.
    pub fn head(&self, url: &str) -> std::result::Result<Head, Trouble> {
        let mut head = Head::default();
        self.follow(url, None, true, &mut head)?;
        Ok(head)
    }

    /// The bytes of a file from a place on; the response says whether they are those.
    pub fn bytes(&self, url: &str, from: u64) -> std::result::Result<Response<Body>, Trouble> {
        let mut head = Head::default();
        self.follow(url, (from > 0).then_some(from), false, &mut head)
    }

    /// A page of JSON, and the address of the next one.
    pub fn json(&self, url: &str) -> std::result::Result<(Value, Option<String>), Trouble> {
        let mut response = self.follow(url, None, false, &mut Head::default())?;
        let next = text(response.headers(), "link").and_then(|links| {
            let next =
                links.split(',').find(|link| link.contains("rel=\"next\"") || link.contains("rel=next"))?;
            let address = next.split_once('<')?.1.split_once('>')?.0;
            Some(joined(&url.parse().ok()?, address)?.to_string())
        });
        let read = response.body_mut().with_config().limit(LARGEST).read_to_string();
        let read = read.map_err(|e| Trouble::Again(format!("its reply broke off: {e}"), None))?;
        let value = serde_json::from_str(&read);
        Ok((value.map_err(|e| Trouble::Again(format!("its reply is no JSON: {e}"), None))?, next))
    }

    /// A request, and where it leads. What is said of a file comes into `head`; for that alone nobody else is asked
    /// than who says it.
    fn follow(
        &self,
        url: &str,
        from: Option<u64>,
        for_head: bool,
        head: &mut Head,
    ) -> std::result::Result<Response<Body>, Trouble> {
        let home = self.endpoint.parse().ok().as_ref().and_then(origin);
        let mut uri: Uri = url.parse().map_err(|e| Trouble::Wrong(format!("{url} is no address ({e})")))?;
        for _ in 0..HOPS {
            let mut request = match for_head {
                true => self.agent.head(&uri),
                false => self.agent.get(&uri),
            };
            if let (Some(token), true) = (&self.token, home.is_some() && origin(&uri) == home) {
                request = request.header("authorization", token);
            }
            if let Some(from) = from {
                request = request.header("range", format!("bytes={from}-"));
            }
            let response = request.call().map_err(unsent)?;
            let (status, headers) = (response.status(), response.headers());
            note(head, status, headers);
            if !status.is_redirection() || status == StatusCode::NOT_MODIFIED {
                return self.answered(response, head);
            }
            let to = text(headers, "location").and_then(|to| joined(&uri, to));
            let to = to.ok_or_else(|| Trouble::Wrong(format!("{uri} leads nowhere (status {status})")))?;
            if for_head && head.etag.is_some() && origin(&to) != origin(&uri) {
                return Ok(response);
            }
            uri = to;
        }
        Err(Trouble::Wrong(format!("{url} leads from address to address")))
    }

    fn answered(
        &self,
        response: Response<Body>,
        head: &Head,
    ) -> std::result::Result<Response<Body>, Trouble> {
        let headers = response.headers();
        let after = text(headers, "retry-after").and_then(|v| v.parse().ok()).map(Duration::from_secs);
        let code = text(headers, "x-error-code").unwrap_or_default().to_owned();
        let said = text(headers, "x-error-message").unwrap_or_default().to_owned();
        match response.status().as_u16() {
            200 | 206 | 416 => Ok(response),
            404 if code == "EntryNotFound" || code.is_empty() && head.commit.is_some() => {
                Err(Trouble::NoEntry(head.commit.clone()))
            }
            status @ (408 | 429 | 500..) => {
                Err(Trouble::Again(format!("it replied with status {status}"), after))
            }
            status => Err(Trouble::Refused(status, code, said)),
        }
    }

    /// Tries until there is an answer, or there is none to hope for. Who is not `patient` tries once where there is no
    /// connection.
    pub fn again<T>(
        &self,
        patient: bool,
        mut attempt: impl FnMut() -> std::result::Result<T, Trouble>,
    ) -> std::result::Result<T, Trouble> {
        for failures in 0.. {
            let (why, after) = match attempt() {
                Err(Trouble::Again(why, after)) => (why, after),
                Err(Trouble::Unreached(why)) if patient => (why, None),
                other => return other,
            };
            if failures + 1 == TRIES {
                return Err(Trouble::Unreached(format!("{why}; that was the last of {TRIES} tries")));
            }
            self.pause(failures, after)?;
        }
        Err(Trouble::Stopped)
    }

    /// Waits before the next try: twice as long each time, a part of it drawn, so that many do not come back at once.
    pub fn pause(&self, failures: u32, after: Option<Duration>) -> std::result::Result<(), Trouble> {
        let doubled = self.backoff.saturating_mul(1 << failures.min(16)).mul_f64(0.5 + 0.5 * fastrand::f64());
        let until = Instant::now() + doubled.max(after.unwrap_or_default()).min(LONGEST);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if stopped() {
                return Err(Trouble::Stopped);
            }
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(LOOK));
        }
    }

    /// What a trouble means to who asked for a repository.
    pub fn failed(&self, name: &Name, trouble: Trouble) -> Error {
        let (kind, page) = (name.kind, self.page(name));
        let Name { id, .. } = name;
        let clean = |text: String| match self.token.as_ref().and_then(|token| token.strip_prefix("Bearer ")) {
            Some(token) => text.replace(token, "[token]"),
            None => text,
        };
        let why = match trouble {
            Trouble::Refused(..) => Why::Refused,
            _ => Why::Other,
        };
        let message = match trouble {
            Trouble::Stopped => {
                return Error::new(format!("{name}: downloading it was stopped; what came is kept"));
            }
            Trouble::Unreached(why) | Trouble::Again(why, _) => {
                let message = format!("{name}: {} was not reached: {why}", self.endpoint);
                return Error::because(Why::Unreached, clean(message));
            }
            Trouble::NoEntry(_) => format!("{name}: {page} lacks a file that it lists; try again"),
            Trouble::Wrong(what) => format!("{name}: {what}"),
            Trouble::Refused(status, code, said) => match (code.as_str(), status) {
                ("GatedRepo", _) => {
                    format!(
                        "{id}: is gated: ask for access at {page}, and give a token of who has it in HF_TOKEN{}",
                        if self.token.is_some() { " (the one that is given has none)" } else { "" }
                    )
                }
                ("RevisionNotFound", _) => format!(
                    "{id}: {page} has no revision {}; name a branch, a tag or a commit that is there",
                    name.revision()
                ),
                ("RepoNotFound", _) | ("", 401 | 404) => format!(
                    "{id}: there is no such file or folder, and {} has no {kind} of that name{}",
                    self.endpoint,
                    match &self.token {
                        Some(_) => " that the token in HF_TOKEN may see; is the name right?",
                        None =>
                            ", or it is private; is the name right? Of a private one, give a token in HF_TOKEN",
                    }
                ),
                (_, 401 | 403) => {
                    format!("{id}: {page} is not given (status {status}); is HF_TOKEN right? {said}")
                }
                _ => format!("{id}: {page} replied with status {status} {said}"),
            },
        };
        Error::because(why, clean(message.trim_end().to_owned()))
    }
}

/// Takes what a response says of a file.
fn note(head: &mut Head, status: StatusCode, headers: &HeaderMap) {
    let etag = text(headers, "x-linked-etag").or_else(|| text(headers, "etag"));
    let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_owned());
    head.etag = etag.filter(|etag| !etag.is_empty()).or(head.etag.take());
    let size =
        text(headers, "x-linked-size").or_else(|| text(headers, "content-length").filter(|_| status == 200));
    head.size = size.and_then(|size| size.parse().ok()).or(head.size);
    head.commit = text(headers, "x-repo-commit").map(str::to_owned).or(head.commit.take());
}

/// What a request means that had no response.
fn unsent(e: ureq::Error) -> Trouble {
    let what = e.to_string();
    match &e {
        ureq::Error::BadUri(_) | ureq::Error::Tls(_) | ureq::Error::Rustls(_) => Trouble::Wrong(what),
        // A certificate that is not trusted.
        ureq::Error::Io(io) if io.kind() == ErrorKind::InvalidData => Trouble::Wrong(what),
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed | ureq::Error::Timeout(_) => {
            Trouble::Unreached(what)
        }
        ureq::Error::Io(io)
            if io.kind() != ErrorKind::UnexpectedEof && io.kind() != ErrorKind::ConnectionReset =>
        {
            Trouble::Unreached(what)
        }
        _ => Trouble::Again(what, None),
    }
}
