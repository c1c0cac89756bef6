//! Threads that ask an endpoint, many questions at a time: again where that helps, never twice for what is known, and
//! no more often than was allowed.

use super::cache::Cache;
use super::endpoint::{Endpoint, Trouble};
use super::reply::{Form, Found};
use crate::{Error, Result, Settings, Stop, Tally};
use duel_random::{at, fraction};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::xxh3_128;

/// How often a wait looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);

/// The longest wait between two tries, also where the endpoint asks for a longer one.
const LONGEST: Duration = Duration::from_secs(120);

/// How often a question is asked again whose reply cannot be read, or is a refusal: more tries cost money, and at
/// temperature 0 say the same.
const UNREADABLE: u32 = 2;

/// A question.
#[derive(Debug, Clone)]
pub struct Question {
    /// The body of its request.
    pub body: Value,
    /// What is looked for in the reply.
    pub form: Form,
}

/// What came of it: what was found, or why nothing was.
pub type Answered = std::result::Result<Found, String>;

struct Job {
    number: usize,
    key: u128,
    question: Question,
}

/// What its threads share.
struct Shared {
    endpoint: Endpoint,
    cache: Option<Mutex<Cache>>,
    tally: Mutex<Tally>,
    max_requests: u64,
    token_budget: u64,
    retries: u32,
    backoff: Duration,
    stop: Stop,
    /// There will be no more answers: something failed as a whole, or nobody waits.
    over: AtomicBool,
}

/// The threads.
pub struct Crew {
    shared: Arc<Shared>,
    jobs: Sender<Job>,
    done: Receiver<(usize, Result<Answered>)>,
    /// Why it is of no use any more.
    failed: Option<Error>,
}

impl Crew {
    /// Threads that ask `url`, as the settings say.
    ///
    /// # Errors
    /// A setting is out of its range, or of no use here.
    pub fn new(url: &str, settings: &Settings, stop: Stop) -> Result<Self> {
        let timeout = Duration::from_secs_f64(settings.number("judge_timeout", 60.0, 0.001..=1e6)?);
        let count = settings.number("judge_concurrency", 8, 1..=1024)?;
        let shared = Arc::new(Shared {
            endpoint: Endpoint::new(url, settings.text("judge_key_env"), timeout)?,
            cache: settings
                .text("judge_cache")
                .map(|path| Cache::open(Path::new(path)))
                .transpose()?
                .map(Mutex::new),
            tally: Mutex::default(),
            max_requests: settings.number("judge_max_requests", u64::MAX, 1..=u64::MAX)?,
            token_budget: settings.number("judge_token_budget", u64::MAX, 1..=u64::MAX)?,
            retries: settings.number("judge_retries", 5, 0..=100)?,
            backoff: Duration::from_secs_f64(settings.number("judge_backoff", 0.5, 0.0..=60.0)?),
            stop,
            over: AtomicBool::new(false),
        });
        let (jobs, waiting) = channel::<Job>();
        let (tell, done) = channel();
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..count {
            let (shared, waiting, tell) = (shared.clone(), waiting.clone(), tell.clone());
            // It ends with the crew; one that still waits for a reply is not waited for.
            thread::spawn(move || {
                loop {
                    let next = lock(&waiting).recv();
                    let Ok(job) = next else { break };
                    if shared.over.load(Ordering::Relaxed) {
                        break;
                    }
                    let answered = shared.answer(&job);
                    // Before it is told, so that the next question is not asked any more.
                    shared.over.fetch_or(answered.is_err(), Ordering::Relaxed);
                    if tell.send((job.number, answered)).is_err() {
                        break;
                    }
                }
            });
        }
        Ok(Crew { shared, jobs, done, failed: None })
    }

    /// The address of requests.
    pub fn url(&self) -> &str {
        self.shared.endpoint.url()
    }

    /// What was counted: requests, answers from the cache, tokens.
    pub fn tally(&self) -> Tally {
        *lock(&self.shared.tally)
    }

    /// Asks all; questions that are the same are asked once.
    ///
    /// # Errors
    /// The endpoint as a whole fails, the budget is spent, or it was stopped.
    pub fn ask(&mut self, questions: Vec<Question>) -> Result<Vec<Answered>> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        let answered = self.ask_all(questions);
        self.failed = answered.as_ref().err().cloned();
        answered
    }

    fn ask_all(&mut self, questions: Vec<Question>) -> Result<Vec<Answered>> {
        let mut numbers = HashMap::new();
        let mut of = Vec::with_capacity(questions.len());
        for question in questions {
            let key = xxh3_128(format!("{} {}", self.url(), question.body).as_bytes());
            let next = numbers.len();
            let number = *numbers.entry(key).or_insert(next);
            if number == next {
                let job = Job { number, key, question };
                self.jobs.send(job).map_err(|_| Error::new("the judge's threads are gone"))?;
            }
            of.push(number);
        }
        let mut found: Vec<Option<Answered>> = vec![None; numbers.len()];
        let mut left = found.len();
        while left > 0 {
            match self.done.recv_timeout(LOOK) {
                Ok((number, answered)) => {
                    found[number] = Some(answered?);
                    left -= 1;
                }
                Err(RecvTimeoutError::Timeout) if (self.shared.stop)() => return Err(Error::Stopped),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::new("the judge's threads are gone"));
                }
            }
        }
        Ok(of.into_iter().filter_map(|number| found[number].clone()).collect())
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn answer(&self, job: &Job) -> Result<Answered> {
        let Question { body, form } = &job.question;
        let kept = self.cache.as_ref().and_then(|cache| lock(cache).get(job.key));
        if let Some(found) = kept.and_then(|reply| form.read(&reply).ok()) {
            lock(&self.tally).cached += 1;
            return Ok(Ok(found));
        }
        let (mut failures, mut unreadable) = (0, 0);
        loop {
            self.pay()?;
            let body = again(body, failures + unreadable);
            let why = match self.endpoint.ask(&body) {
                Ok((reply, tokens)) => {
                    lock(&self.tally).tokens += tokens;
                    match form.read(&reply) {
                        Ok(found) => {
                            if let Some(cache) = &self.cache {
                                lock(cache).put(job.key, &reply)?;
                            }
                            return Ok(Ok(found));
                        }
                        Err(why) => why,
                    }
                }
                Err(Trouble::Refused(why)) => why,
                Err(Trouble::Fatal(why)) => return Err(self.failed(&why)),
                Err(Trouble::Again(why, _)) if failures == self.retries => {
                    return Err(self.failed(&format!("{why}; that was the last of {} tries", failures + 1)));
                }
                Err(Trouble::Again(_, after)) => {
                    self.pause(job.key, failures, after)?;
                    failures += 1;
                    continue;
                }
            };
            if unreadable == UNREADABLE.min(self.retries) {
                return Ok(Err(why));
            }
            unreadable += 1;
        }
    }

    /// Takes a request out of the budget.
    fn pay(&self) -> Result<()> {
        if (self.stop)() {
            return Err(Error::Stopped);
        }
        let mut tally = lock(&self.tally);
        if tally.requests >= self.max_requests {
            return Err(
                self.failed(&format!("the {} requests of judge_max_requests are spent", self.max_requests))
            );
        }
        if tally.tokens >= self.token_budget {
            return Err(
                self.failed(&format!("the {} tokens of judge_token_budget are spent", self.token_budget))
            );
        }
        tally.requests += 1;
        Ok(())
    }

    /// Waits before the next try: twice as long each time, half of it drawn, so that many do not come back at once.
    fn pause(&self, key: u128, failures: u32, after: Option<Duration>) -> Result<()> {
        let doubled = self.backoff.saturating_mul(1 << failures.min(16));
        let drawn = 0.5 + 0.5 * fraction(at(&[key as u64, u64::from(failures)]));
        let pause = doubled.min(LONGEST).mul_f64(drawn).max(after.unwrap_or_default().min(LONGEST));
        let until = Instant::now() + pause;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if (self.stop)() {
                return Err(Error::Stopped);
            }
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(LOOK));
        }
    }

    fn failed(&self, why: &str) -> Error {
        Error::new(format!("the judge {}: {why}", self.endpoint.url()))
    }
}

/// The body of another try: with another seed where it has one, for another reply.
fn again(body: &Value, tries: u32) -> Value {
    let mut body = body.clone();
    if let Some(seed) = body.get("seed").and_then(Value::as_u64) {
        body["seed"] = json!(seed.wrapping_add(u64::from(tries)));
    }
    body
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
