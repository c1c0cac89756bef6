//! One request to an endpoint, and what came of it. The key is here, and leaves with requests alone.

use super::reply::Reply;
use crate::{Error, Result};
use serde_json::Value;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::Duration;
use ureq::http::Uri;
use ureq::{Agent, Proxy};

/// The largest reply that is read.
const LARGEST: u64 = 16 << 20;

/// What is shown of a text that was not understood.
const SHOWN: usize = 200;

/// Where requests go.
pub struct Endpoint {
    agent: Agent,
    url: String,
    /// What the header `authorization` says.
    key: Option<String>,
}

/// What came of a request, where that is no reply.
#[derive(Debug, PartialEq)]
pub enum Trouble {
    /// Another try may bring one, perhaps after the time that the endpoint names.
    Again(String, Option<Duration>),
    /// This one question has no reply: a refusal, a text too long for the model.
    Refused(String),
    /// No question will have one: a wrong key, a wrong address, a wrong model.
    Fatal(String),
}

impl Endpoint {
    /// The endpoint `url`, with the key that the variable `key_env` of the environment holds.
    ///
    /// # Errors
    /// The address is none of HTTP, the variable is empty, or the key would be sent in clear.
    pub fn new(url: &str, key_env: Option<&str>, timeout: Duration) -> Result<Self> {
        let wrong = |what: &str| Error::new(format!("the judge `{url}` {what}"));
        let uri: Uri = url.parse().map_err(|e| wrong(&format!("is no address ({e})")))?;
        let (Some(scheme @ ("http" | "https")), Some(host)) = (uri.scheme_str(), uri.host()) else {
            return Err(wrong("is no address that begins with http:// or https://"));
        };
        if uri.query().is_some() || uri.authority().is_some_and(|a| a.as_str().contains('@')) {
            return Err(wrong(
                "has a query or a password, where a key would be logged; name its variable in judge_key_env",
            ));
        }
        let near = host == "localhost"
            || host.trim_matches(['[', ']']).parse().is_ok_and(|address: IpAddr| address.is_loopback());
        let key = key_env.map(|name| {
            let key = std::env::var(name).ok().map(|key| key.trim().to_owned());
            let key = key.filter(|key| !key.is_empty() && key.bytes().all(|b| b.is_ascii_graphic()));
            key.ok_or_else(|| {
                Error::new(format!("the environment variable {name} (judge_key_env) holds no key; set it"))
            })
        });
        let key = key.transpose()?;
        if key.is_some() && scheme == "http" && !near {
            return Err(wrong("would be sent its key in clear; use https://"));
        }
        let path = url.trim_end_matches('/');
        let url = match path.ends_with("/chat/completions") {
            true => path.to_owned(),
            false => format!("{path}/chat/completions"),
        };
        let config = Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(if near { None } else { Proxy::try_from_env() })
            .user_agent("duel")
            .build();
        Ok(Endpoint { agent: config.into(), url, key })
    }

    /// The address of requests.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Asks; the reply, with the tokens that it took.
    ///
    /// # Errors
    /// There is none.
    pub fn ask(&self, body: &Value) -> std::result::Result<(Reply, u64), Trouble> {
        let mut request = self.agent.post(&self.url).content_type("application/json");
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let mut response = request.send(body.to_string()).map_err(|e| self.unsent(&e))?;
        let status = response.status().as_u16();
        let header =
            |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let after = header("retry-after").and_then(|v| v.trim().parse().ok()).map(Duration::from_secs);
        let kind = header("content-type").unwrap_or_else(|| "no content type".to_owned());
        let text = response.body_mut().with_config().limit(LARGEST).read_to_string();
        let text =
            text.map_err(|e| Trouble::Again(self.clean(&format!("its reply broke off: {e}")), after))?;
        let value: Option<Value> = serde_json::from_str(&text).ok();
        if status != 200 {
            return Err(self.refused(status, after, value.as_ref(), &text));
        }
        let Some(value) = value else {
            let what = format!("it replied with what is no JSON ({kind}): {}", start(&text));
            return Err(Trouble::Again(self.clean(&what), after));
        };
        match Reply::of(&value) {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(refused)) => Err(Trouble::Refused(self.clean(&refused))),
            Err(what) => {
                Err(Trouble::Again(self.clean(&format!("its reply {what}: {}", start(&text))), after))
            }
        }
    }

    /// What a status other than 200 means.
    fn refused(&self, status: u16, after: Option<Duration>, value: Option<&Value>, text: &str) -> Trouble {
        let error = value.map(|v| &v["error"]);
        let said =
            error.and_then(|e| e["message"].as_str().or(e.as_str())).map_or_else(|| start(text), start);
        let what = self.clean(&format!("it replied with status {status}: {said}"));
        let code = error.and_then(|e| e["code"].as_str()).unwrap_or_default();
        match status {
            408 | 409 | 425 | 429 | 500.. => Trouble::Again(what, after),
            400 if ["context_length_exceeded", "content_filter"].contains(&code) => Trouble::Refused(what),
            401 | 403 => Trouble::Fatal(format!("{what}; is the key right that judge_key_env names?")),
            404 => Trouble::Fatal(format!("{what}; are the address and judge_model right?")),
            _ => Trouble::Fatal(what),
        }
    }

    /// What a request means that had no response.
    fn unsent(&self, e: &ureq::Error) -> Trouble {
        let what = self.clean(&e.to_string());
        match e {
            ureq::Error::BadUri(_) | ureq::Error::Tls(_) | ureq::Error::Rustls(_) => Trouble::Fatal(what),
            // A certificate that is not trusted.
            ureq::Error::Io(io) if io.kind() == ErrorKind::InvalidData => Trouble::Fatal(what),
            _ => Trouble::Again(what, None),
        }
    }

    /// A text of the other side without the key, should it say it.
    fn clean(&self, text: &str) -> String {
        match &self.key {
            Some(key) => text.replace(key, "[key]"),
            None => text.to_owned(),
        }
    }
}

/// The start of a text, in one line.
fn start(text: &str) -> String {
    let line: Vec<&str> = text.split_whitespace().collect();
    let line = line.join(" ");
    match line.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}...", &line[..at]),
        None => line,
    }
}
