//! Downloads from a server of this test, which cuts, lies, limits, redirects and refuses.

mod common;

use common::{MODEL, Temp, commit, dataset, model};
use duel_hub::{Hub, Remote, Rows};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A request as it came.
#[derive(Debug, Clone)]
struct Request {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
}

/// What is sent back: status, headers, bytes, and after how many of them the connection ends.
#[derive(Default)]
struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    cut: Option<usize>,
}

/// A server on this machine that answers as `answer` says, and what it was asked.
struct Server {
    url: String,
    asked: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    fn new(answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (asked.clone(), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (log, answer) = (log.clone(), answer.clone());
                thread::spawn(move || serve(stream.unwrap(), &log, &*answer));
            }
        });
        Server { url, asked }
    }

    fn asked(&self) -> Vec<Request> {
        self.asked.lock().unwrap().clone()
    }

    /// How often a path was asked for.
    fn count(&self, method: &str, end: &str) -> usize {
        self.asked().iter().filter(|r| r.method == method && r.path.ends_with(end)).count()
    }

    fn remote(&self, token: Option<&str>) -> Remote {
        Remote::new(&self.url, token).unwrap().with_backoff(Duration::from_millis(1))
    }
}

fn serve(stream: TcpStream, log: &Mutex<Vec<Request>>, answer: &dyn Fn(&Request, usize) -> Reply) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let mut words = line.split(' ').map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return };
    let mut request = Request { method, path, headers: BTreeMap::new() };
    loop {
        line.clear();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        request.headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let times = {
        let mut log = log.lock().unwrap();
        log.push(request.clone());
        log.iter().filter(|r| r.method == request.method && r.path == request.path).count()
    };
    let reply = answer(&request, times);
    let mut head = format!("HTTP/1.1 {} X\r\nconnection: close\r\n", reply.status);
    if !reply.headers.iter().any(|(name, _)| *name == "content-length") {
        write!(head, "content-length: {}\r\n", reply.body.len()).unwrap();
    }
    reply.headers.iter().for_each(|(name, value)| write!(head, "{name}: {value}\r\n").unwrap());
    let body =
        if request.method == "HEAD" { &[] } else { &reply.body[..reply.cut.unwrap_or(reply.body.len())] };
    let stream = reader.get_mut();
    // Whoever is asked may be gone.
    let _ = stream.write_all(format!("{head}\r\n").as_bytes()).and_then(|()| stream.write_all(body));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

fn git(bytes: &[u8]) -> String {
    let blob = [format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat();
    hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, &blob).as_ref())
}

/// What a file holds: weights of 300 kB, other files their own names.
fn content(path: &str) -> Vec<u8> {
    match path.ends_with(".safetensors") {
        true => (0..300_000u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect(),
        false => path.as_bytes().to_vec(),
    }
}

fn is_large(path: &str) -> bool {
    path.ends_with(".safetensors")
}

/// A Hub with one model, `org/name`, of which `weights` answers for the large files.
fn answer(request: &Request, weights: impl Fn(&str, u64) -> Reply) -> Reply {
    let commit = ("x-repo-commit", commit('a'));
    let path = request.path.as_str();
    if let Some(page) = path.strip_prefix(&format!("/api/models/org/name/tree/{}?recursive=true", commit.1)) {
        // Two pages.
        let files: Vec<&str> =
            MODEL.iter().copied().chain(["pytorch_model.bin", "onnx/model.onnx"]).collect();
        let (first, second) = files.split_at(2);
        let listed = |files: &[&str]| {
            let file = |path: &&str| serde_json::json!({"type": "file", "path": path, "size": content(path).len(), "oid": git(&content(path))});
            let folder = serde_json::json!({"type": "directory", "path": "onnx", "size": 0});
            serde_json::Value::from(files.iter().map(file).chain([folder]).collect::<Vec<_>>()).to_string()
        };
        return match page {
            "" => Reply {
                status: 200,
                headers: vec![("link", format!("<{path}&cursor=2>; rel=\"next\""))],
                body: listed(first).into(),
                ..Reply::default()
            },
            _ => Reply { status: 200, body: listed(second).into(), ..Reply::default() },
        };
    }
    let Some((revision, file)) =
        path.strip_prefix("/org/name/resolve/").and_then(|rest| rest.split_once('/'))
    else {
        let headers = vec![("x-error-code", "RepoNotFound".to_owned())];
        return Reply { status: 401, headers, ..Reply::default() };
    };
    if ![commit.1.as_str(), "main", "feature%2Fa"].contains(&revision) {
        let headers = vec![("x-error-code", "RevisionNotFound".to_owned())];
        return Reply { status: 404, headers, ..Reply::default() };
    }
    let body = content(file);
    if is_large(file) {
        let from = request
            .headers
            .get("range")
            .and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        let mut reply = weights(&request.method, from.unwrap_or(0));
        reply.headers.push(commit);
        return reply;
    }
    let headers = vec![commit, ("etag", format!("W/\"{}\"", git(&body)))];
    Reply { status: 200, headers, body, ..Reply::default() }
}

/// The weights from a place on, as an honest server gives them.
fn honest(from: u64) -> Reply {
    let body = content(".safetensors");
    let (size, from) = (body.len(), from as usize);
    let mut headers =
        vec![("x-linked-size", size.to_string()), ("x-linked-etag", format!("\"{}\"", sha256(&body)))];
    if from > 0 {
        headers.push(("content-range", format!("bytes {from}-{}/{size}", size - 1)));
    }
    Reply {
        status: if from > 0 { 206 } else { 200 },
        headers,
        body: body[from..].to_vec(),
        ..Reply::default()
    }
}

/// Files of a folder by their names.
fn names(folder: &std::path::Path) -> Vec<String> {
    let mut all: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    all.sort();
    all
}

/// The model is whole in the cache, in the layout of Hugging Face's library, and nothing else is.
fn whole(temp: &Temp) {
    let hub = Hub::offline(&temp.0);
    let found = model(&hub, "org/name").unwrap();
    for file in MODEL {
        assert_eq!(fs::read(found.at.join(file)).unwrap(), content(file), "{file}");
    }
    assert_eq!(names(&found.at), MODEL);
    let mut blobs: Vec<_> =
        MODEL.iter().map(|f| if is_large(f) { sha256(&content(f)) } else { git(&content(f)) }).collect();
    blobs.sort();
    assert_eq!(names(&temp.path("models--org--name/blobs")), blobs);
    assert_eq!(fs::read_to_string(temp.path("models--org--name/refs/main")).unwrap(), commit('a'));
    let link = fs::read_link(found.at.join("model.safetensors")).unwrap();
    assert_eq!(link, std::path::Path::new("../../blobs").join(sha256(&content(".safetensors"))));
}

#[test]
fn a_model_is_downloaded_once_and_only_what_is_read() {
    let temp = Temp::new("once");
    let server = Server::new(|request, _| answer(request, |_, from| honest(from)));
    let hub = Hub::online(&temp.0, server.remote(Some("secret")));
    let found = model(&hub, "org/name").unwrap();
    assert_eq!(found.said.to_str(), Some(format!("org/name@{}", commit('a')).as_str()));
    whole(&temp);
    assert_eq!(server.count("GET", "model.safetensors"), 1);
    assert_eq!(server.count("GET", ".bin") + server.count("GET", ".onnx"), 0);
    let encoding = |r: &Request| r.headers.get("accept-encoding").is_none_or(|value| value == "identity");
    assert!(server.asked().iter().all(encoding), "{:?}", server.asked());
    assert!(server.asked().iter().all(|r| r.headers["authorization"] == "Bearer secret"));
    // It is a commit now, which asks nothing; a branch with a slash is asked for.
    let before = server.asked().len();
    model(&hub, "org/name").unwrap();
    assert_eq!(server.asked().len(), before);
    model(&Hub::online(&temp.0, server.remote(None)), "org/name@feature/a").unwrap();
    assert_eq!(server.count("GET", "model.safetensors"), 1, "the commit is there");
    assert_eq!(fs::read_to_string(temp.path("models--org--name/refs/feature/a")).unwrap(), commit('a'));
}

#[test]
fn a_server_that_cuts_and_limits_gives_it_all_in_the_end() {
    let temp = Temp::new("cuts");
    let server = Server::new(|request, times| match (request.method.as_str(), times) {
        ("HEAD", 1) => Reply { status: 429, headers: vec![("retry-after", "0".into())], ..Reply::default() },
        ("GET", 1) if request.path.contains("/tree/") => Reply { status: 503, ..Reply::default() },
        _ => answer(request, |_, from| Reply {
            cut: Some(honest(from).body.len().min(70_000)),
            ..honest(from)
        }),
    });
    model(&Hub::online(&temp.0, server.remote(None)), "org/name").unwrap();
    whole(&temp);
    let ranges =
        |r: &Request| r.path.ends_with(".safetensors").then(|| r.headers.get("range").cloned()).flatten();
    let ranges: Vec<_> = server.asked().iter().filter_map(ranges).collect();
    assert_eq!(ranges, ["bytes=70000-", "bytes=140000-", "bytes=210000-", "bytes=280000-"]);
}

/// What is cut off for good leaves what there was, and is gone on with.
#[test]
fn what_was_cut_is_never_read_and_is_gone_on_with() {
    let temp = Temp::new("half");
    let server = Server::new(|request, _| {
        answer(request, |method, from| match (method, from) {
            ("GET", 1..) => Reply { status: 500, ..Reply::default() },
            _ => Reply { cut: Some(100_000), ..honest(from) },
        })
    });
    let error = model(&Hub::online(&temp.0, server.remote(None)), "org/name").unwrap_err();
    assert!(error.contains("was not reached: model.safetensors: "), "{error}");
    assert!(error.contains("status 500; that was the last of 6 tries"), "{error}");
    let error = model(&Hub::offline(&temp.0), "org/name").unwrap_err();
    assert!(
        error.contains("no revision of it that is whole") || error.contains("no revision main"),
        "{error}"
    );
    let begun =
        names(&temp.path("models--org--name/blobs")).into_iter().find(|name| name.ends_with(".incomplete"));
    let begun = temp.path("models--org--name/blobs").join(begun.unwrap());
    assert_eq!(fs::metadata(begun).unwrap().len(), 100_000);
    let server = Server::new(|request, _| answer(request, |_, from| honest(from)));
    model(&Hub::online(&temp.0, server.remote(None)), "org/name").unwrap();
    whole(&temp);
    let of_weights: Vec<_> = server
        .asked()
        .into_iter()
        .filter(|r| r.method == "GET" && r.path.ends_with(".safetensors"))
        .collect();
    assert_eq!(of_weights.len(), 1);
    assert_eq!(of_weights[0].headers["range"], "bytes=100000-");
}

#[test]
fn a_server_without_ranges_begins_anew() {
    let temp = Temp::new("ranges");
    let server = Server::new(|request, times| {
        answer(request, |_, _| Reply { cut: (times == 1).then_some(100_000), ..honest(0) })
    });
    model(&Hub::online(&temp.0, server.remote(None)), "org/name").unwrap();
    whole(&temp);
}

#[test]
fn lies_about_size_and_content_are_found() {
    type Lie = fn(Reply) -> Reply;
    let changed: Lie = |mut reply| {
        reply.body[1000] ^= 1;
        reply
    };
    let shorter: Lie = |mut reply| {
        reply.body.truncate(200_000);
        reply
    };
    let longer: Lie = |mut reply| {
        reply.body.extend([0; 10]);
        reply
    };
    let cases = [
        ("content", changed, "model.safetensors is not what the Hub says: its hash is "),
        ("shorter", shorter, "model.safetensors comes with 200000 bytes, and the Hub says 300000"),
        ("longer", longer, "model.safetensors comes with 300010 bytes, and the Hub says 300000"),
    ];
    for (name, lie, said) in cases {
        let temp = Temp::new(&format!("lie-{name}"));
        let server = Server::new(move |request, _| {
            answer(request, |method, from| if method == "GET" { lie(honest(from)) } else { honest(from) })
        });
        let error = model(&Hub::online(&temp.0, server.remote(None)), "org/name").unwrap_err();
        assert!(error.contains(said) && error.ends_with("try again later"), "{error}");
        let blob = temp.path("models--org--name/blobs").join(sha256(&content(".safetensors")));
        assert!(!blob.exists() && model(&Hub::offline(&temp.0), "org/name").is_err(), "{name}");
        // An honest server mends it, whatever was left behind.
        let server = Server::new(|request, _| answer(request, |_, from| honest(from)));
        model(&Hub::online(&temp.0, server.remote(None)), "org/name").unwrap();
        whole(&temp);
    }
}

#[test]
fn a_token_goes_to_the_hub_alone() {
    let temp = Temp::new("token");
    let elsewhere = Server::new(|request, _| Reply {
        headers: vec![("etag", "\"of-elsewhere\"".into())],
        ..honest(request.headers.get("range").map_or(0, |_| 1))
    });
    let to = format!("{}/cdn/model.safetensors?signed", elsewhere.url);
    let server = Server::new(move |request, _| match request.path.as_str() {
        // Renamed: a redirect within the Hub.
        path if path.starts_with("/org/old/") => {
            let location = path.replace("/org/old/", "/org/name/");
            Reply { status: 307, headers: vec![("location", location)], ..Reply::default() }
        }
        path if path.starts_with("/api/models/org/old/") => {
            let location = path.replace("/org/old/", "/org/name/");
            Reply { status: 307, headers: vec![("location", location)], ..Reply::default() }
        }
        _ => answer(request, |_, from| {
            let mut reply = Reply { status: 302, body: Vec::new(), ..honest(from) };
            reply.headers.push(("location", to.clone()));
            reply
        }),
    });
    let found = model(&Hub::online(&temp.0, server.remote(Some("hf_secret"))), "org/old").unwrap();
    assert_eq!(fs::read(found.at.join("model.safetensors")).unwrap(), content(".safetensors"));
    assert!(server.asked().iter().all(|r| r.headers["authorization"] == "Bearer hf_secret"));
    let asked = elsewhere.asked();
    assert_eq!(asked.iter().map(|r| r.method.as_str()).collect::<Vec<_>>(), ["GET"]);
    assert!(asked.iter().all(|r| !r.headers.contains_key("authorization")), "{asked:?}");
}

#[test]
fn what_is_refused_is_named() {
    let temp = Temp::new("refused");
    let server = Server::new(|request, _| match request.path.contains("/gated/") {
        true => Reply {
            status: 403,
            headers: vec![
                ("x-error-code", "GatedRepo".into()),
                ("x-error-message", "Access to hf_secret is restricted".into()),
            ],
            ..Reply::default()
        },
        false => answer(request, |_, from| honest(from)),
    });
    let hub = Hub::online(&temp.0, server.remote(None));
    let known = Hub::online(&temp.0, server.remote(Some("hf_secret")));
    let url = &server.url;
    assert_eq!(
        model(&hub, "org/none").unwrap_err(),
        format!(
            "org/none: there is no such file or folder, and {url} has no model of that name, or it is private; is the \
             name right? Of a private one, give a token in HF_TOKEN"
        )
    );
    assert!(model(&known, "org/none").unwrap_err().contains("that the token in HF_TOKEN may see"));
    let gated = model(&known, "org/gated").unwrap_err();
    assert!(gated.starts_with(&format!("org/gated: is gated: ask for access at {url}/org/gated")), "{gated}");
    assert!(!gated.contains("hf_secret"), "{gated}");
    let revision = model(&hub, "org/name@v9").unwrap_err();
    assert!(revision.contains(&format!("{url}/org/name has no revision v9")), "{revision}");
    assert!(dataset(&hub, "org/none", "train").unwrap_err().contains("has no dataset of that name"));
    assert_eq!(names(&temp.0), [""; 0], "nothing is written of it");
}

#[test]
fn without_a_network_the_cache_is_taken() {
    let temp = Temp::new("network");
    let server = Server::new(|request, _| answer(request, |_, from| honest(from)));
    model(&Hub::online(&temp.0, server.remote(None)), "org/name").unwrap();
    // A port that nobody listens at.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let hub = Hub::online(&temp.0, Remote::new(&format!("http://{gone}"), None).unwrap());
    assert!(model(&hub, "org/name").is_ok());
    let error = model(&hub, "org/other").unwrap_err();
    assert!(
        error.starts_with("org/other: there is no such file or folder, and no model of that name in "),
        "{error}"
    );
    assert!(error.contains(&format!("; http://{gone} was not reached: ")), "{error}");
}

/// A Hub with one data set, `org/rows`, of two files beside a README.
fn rows(request: &Request) -> Reply {
    let files = ["README.md", "a.jsonl", "b.jsonl"];
    let content = |path: &str| if path == "README.md" { Vec::new() } else { content(path) };
    let headers = vec![("x-repo-commit", commit('b'))];
    if request.path.starts_with("/api/datasets/org/rows/tree/") {
        let file =
            |path: &&str| serde_json::json!({"type": "file", "path": path, "size": content(path).len()});
        let body = serde_json::Value::from(files.iter().map(file).collect::<Vec<_>>()).to_string().into();
        return Reply { status: 200, headers, body, ..Reply::default() };
    }
    let body = content(request.path.rsplit('/').next().unwrap());
    let etag = ("etag", format!("\"{}\"", git(&body)));
    Reply { status: 200, headers: [headers, vec![etag]].concat(), body, ..Reply::default() }
}

#[test]
fn a_part_of_the_rows_is_not_all_of_them() {
    let temp = Temp::new("part");
    let server = Server::new(|request, _| rows(request));
    let asked = Rows {
        name: "org/rows".into(),
        split: "train".into(),
        data_files: vec!["a.jsonl".into()],
        ..Rows::default()
    };
    Hub::online(&temp.0, server.remote(None)).dataset(&asked).unwrap();
    let snapshot = temp.path("datasets--org--rows/snapshots").join(commit('b'));
    assert_eq!(names(&snapshot), ["README.md", "a.jsonl"], "what says which rows there are comes with them");
    let pinned = format!("org/rows@{}", commit('b'));
    // Who refuses one of them leaves none out; a network that is gone takes what there is.
    let refuses = Server::new(|request, _| match request.path.ends_with("b.jsonl") {
        true => Reply { status: 403, ..Reply::default() },
        false => rows(request),
    });
    for said in ["org/rows", &pinned] {
        let error = dataset(&Hub::online(&temp.0, refuses.remote(None)), said, "train").unwrap_err();
        assert!(error.contains("is not given (status 403)"), "{error}");
    }
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let alone = Hub::online(&temp.0, Remote::new(&format!("http://{gone}"), None).unwrap());
    assert_eq!(dataset(&alone, &pinned, "train").unwrap(), ["a.jsonl"]);
    let hub = Hub::online(&temp.0, server.remote(None));
    assert_eq!(dataset(&hub, &pinned, "train").unwrap(), ["a.jsonl", "b.jsonl"]);
    assert_eq!(server.count("GET", "a.jsonl"), 1, "it is there");
    // Which files there are is asked once.
    let before = server.asked().len();
    dataset(&hub, &pinned, "train").unwrap();
    assert_eq!(server.asked().len(), before);
}

#[test]
fn what_is_refused_is_taken_from_the_cache() {
    let temp = Temp::new("expired");
    let server = Server::new(|request, _| match request.path.contains("datasets") {
        true => rows(request),
        false => answer(request, |_, from| honest(from)),
    });
    let hub = Hub::online(&temp.0, server.remote(None));
    assert!(model(&hub, "org/name").is_ok() && dataset(&hub, "org/rows", "train").is_ok());
    for (status, code) in [(401, ""), (403, ""), (401, "RepoNotFound"), (403, "GatedRepo")] {
        let expired = Server::new(move |_, _| Reply {
            status,
            headers: vec![("x-error-code", code.to_owned())],
            ..Reply::default()
        });
        let hub = Hub::online(&temp.0, expired.remote(Some("hf_expired")));
        assert!(model(&hub, "org/name").is_ok(), "{status} {code}");
        assert_eq!(dataset(&hub, "org/rows", "train").unwrap(), ["a.jsonl", "b.jsonl"], "{status} {code}");
        assert!(expired.asked().iter().all(|r| r.method == "HEAD"), "{:?}", expired.asked());
        assert!(model(&hub, "org/other").is_err());
    }
}

#[test]
fn two_at_once_do_not_harm_each_other() {
    let temp = Temp::new("two");
    let server = Server::new(|request, _| {
        answer(request, |_, from| Reply { cut: Some(honest(from).body.len().min(50_000)), ..honest(from) })
    });
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| model(&Hub::online(&temp.0, server.remote(None)), "org/name").unwrap());
        }
    });
    whole(&temp);
}
