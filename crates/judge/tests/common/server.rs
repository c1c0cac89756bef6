//! An endpoint of one's own, which misbehaves as it is told.
#![allow(dead_code)] // every test crate compiles its own copy and uses a part of it

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What it does with a request.
pub enum Act {
    /// Replies with the status 200 and what the model says.
    Say(String),
    /// Replies with these bytes as they are.
    Raw(String),
    /// Says nothing for so long, and then closes the connection.
    Hang(Duration),
    /// Closes it in the middle of a reply.
    Cut,
}

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its first line and headers, lower-cased.
    pub head: String,
    /// Its body.
    pub body: Value,
}

impl Request {
    /// What the user's message says.
    pub fn text(&self) -> &str {
        self.body["messages"][0]["content"].as_str().unwrap()
    }
}

/// A server on a port of its own, and what it was asked.
pub struct Server {
    pub url: String,
    asked: Arc<Mutex<Vec<Request>>>,
}

/// What `act` is given: the number of the request from 0, and the request.
type Acts = dyn Fn(usize, &Request) -> Act + Send + Sync;

impl Server {
    pub fn start(act: impl Fn(usize, &Request) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, act): (_, Arc<Acts>) = (asked.clone(), Arc::new(act));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, act) = (log.clone(), act.clone());
                thread::spawn(move || serve(stream, &log, &*act));
            }
        });
        Server { url, asked }
    }

    /// What it was asked so far.
    pub fn asked(&self) -> Vec<Request> {
        self.asked.lock().unwrap().clone()
    }
}

/// Answers the requests of a connection until one of them ends it.
fn serve(stream: TcpStream, log: &Mutex<Vec<Request>>, act: &Acts) {
    let Ok(mut out) = stream.try_clone() else { return };
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader) {
        let number = {
            let mut log = log.lock().unwrap();
            log.push(request.clone());
            log.len() - 1
        };
        let reply = match act(number, &request) {
            Act::Say(text) => ok(&says(&text)),
            Act::Raw(reply) => reply,
            Act::Hang(time) => {
                thread::sleep(time);
                return;
            }
            Act::Cut => {
                let whole = ok(&says("Verdict: A"));
                drop(out.write_all(&whole.as_bytes()[..whole.len() - 10]));
                return;
            }
        };
        if out.write_all(reply.as_bytes()).is_err() {
            return;
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let head = head.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?.trim().parse().ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { head, body: serde_json::from_slice(&body).ok()? })
}

/// The body of a reply in which the model says this.
pub fn says(text: &str) -> Value {
    json!({
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 3}
    })
}

/// A reply with the status 200.
pub fn ok(body: &Value) -> String {
    reply("200 OK", "content-type: application/json\r\n", &body.to_string())
}

/// A reply.
pub fn reply(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}
