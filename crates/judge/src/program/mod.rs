//! A program as a judge: started once, asked in JSON lines, many questions at a time.

mod answer;
mod process;
mod words;

use crate::judge::{compare_by_scoring, scores_by_comparing};
use crate::{Case, Error, Judge, Opinion, Pair, Prompt, Result, Says, Settings, Stop, Tally};
use answer::Task;
use process::{Event, Process};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

/// The version of the protocol, which both sides say first.
const VERSION: u64 = 1;

/// How often a wait looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);

/// A running program. The README has the protocol.
pub struct Program {
    command: String,
    process: Process,
    task: Task,
    /// What it says of itself, which is part of its identity.
    named: String,
    timeout: Duration,
    in_flight: usize,
    stop: Stop,
    /// Lines that it wrote.
    lines: u64,
    /// Questions that it was asked.
    asked: u64,
    /// Why it is of no use any more.
    failed: Option<Error>,
}

impl Program {
    /// Starts `command`, which is words and no shell's, and waits for it to say its version and tasks.
    ///
    /// # Errors
    /// It cannot be started, speaks another protocol, or says nothing in time.
    pub fn start(command: &str, settings: &Settings, stop: Stop) -> Result<Self> {
        let failed = |what: String| Error::new(format!("the judge `{command}` {what}"));
        let timeout = Duration::from_secs_f64(settings.number("judge_timeout", 60.0, 0.001..=1e6)?);
        let in_flight = settings.number("judge_concurrency", 32, 1..=4096)?;
        let words = words::words(command).map_err(failed)?;
        let process = Process::start(&words).map_err(|e| failed(format!("cannot be started: {e}")))?;
        let mut program = Program {
            command: command.to_owned(),
            process,
            task: Task::Score,
            named: String::new(),
            timeout,
            in_flight,
            stop,
            lines: 0,
            asked: 0,
            failed: None,
        };
        program.greet().map(|()| program)
    }

    /// Both sides say the protocol; it says what it can do.
    fn greet(&mut self) -> Result<()> {
        self.process.tell(json!({"protocol": "duel-judge", "version": VERSION}).to_string().into_bytes());
        let line = self.line(Instant::now() + self.timeout, "its greeting")?;
        let wanted = format!(
            "its greeting is to be {{\"protocol\": \"duel-judge\", \"version\": {VERSION}, \"tasks\": [\"score\"]}}"
        );
        let said: Option<Map<String, Value>> = serde_json::from_slice(&line).ok();
        let Some(said) = said.filter(|said| said.get("protocol") == Some(&json!("duel-judge"))) else {
            let shown: String = String::from_utf8_lossy(&line).trim().chars().take(80).collect();
            return Err(self.wrong(format!("is `{shown}`; {wanted}")));
        };
        if said.get("version") != Some(&json!(VERSION)) {
            let version = said.get("version").map_or("none".to_owned(), Value::to_string);
            return Err(self.wrong(format!("says version {version} of the protocol, and duel has {VERSION}")));
        }
        let can = |task: &Task| {
            said.get("tasks").and_then(Value::as_array).is_some_and(|all| all.contains(&json!(task.word())))
        };
        let Some(task) = Task::ALL.into_iter().find(can) else {
            return Err(self.wrong(format!("names none of the tasks score, compare, rank; {wanted}")));
        };
        self.task = task;
        self.named = said.get("name").map(Value::to_string).unwrap_or_default();
        Ok(())
    }

    /// Asks every question, with no more than `in_flight` unanswered; the opinions of each.
    fn ask(&mut self, task: Task, questions: &[(&Prompt, Vec<&str>)]) -> Result<Vec<Vec<Opinion>>> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        let answers = self.ask_all(task, questions);
        self.failed = answers.as_ref().err().cloned();
        answers
    }

    fn ask_all(&mut self, task: Task, questions: &[(&Prompt, Vec<&str>)]) -> Result<Vec<Vec<Opinion>>> {
        let mut answers: Vec<Option<Vec<Opinion>>> = vec![None; questions.len()];
        let mut pending = HashMap::new();
        let mut next = 0;
        let mut until = Instant::now() + self.timeout;
        while next < questions.len() || !pending.is_empty() {
            while next < questions.len() && pending.len() < self.in_flight {
                let (prompt, responses) = &questions[next];
                let question = json!({
                    "id": self.asked, "task": task.word(), "prompt": prompt.json(), "responses": responses
                });
                self.process.tell(question.to_string().into_bytes());
                pending.insert(self.asked, next);
                self.asked += 1;
                next += 1;
            }
            let what = format!("an answer ({} of {} are there)", next - pending.len(), questions.len());
            let line = self.line(until, &what)?;
            let (id, fields) = answer::line(&line).map_err(|what| self.wrong(what))?;
            let Some(question) = pending.remove(&id) else {
                return Err(
                    self.wrong(format!("answers the question {id}, which is none that waits for an answer"))
                );
            };
            let opinions = answer::opinions(task, fields, questions[question].1.len());
            answers[question] = Some(opinions.map_err(|what| self.wrong(what))?);
            until = Instant::now() + self.timeout;
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// Its next line.
    fn line(&mut self, until: Instant, what: &str) -> Result<Vec<u8>> {
        loop {
            if (self.stop)() {
                return Err(Error::Stopped);
            }
            match self.process.events.recv_timeout(LOOK) {
                Ok(Event::Line(line)) => {
                    self.lines += 1;
                    return Ok(line);
                }
                Ok(Event::Ended) | Err(RecvTimeoutError::Disconnected) => {
                    let how = self.process.end();
                    return Err(
                        self.failed(format!("left before {what} came, after its line {}: {how}", self.lines))
                    );
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() >= until => {
                    return Err(self.failed(format!(
                        "was waited for {} s for {what}, after its line {}; give a longer judge_timeout if it needs \
                         that, and let it flush each line{}",
                        self.timeout.as_secs_f64(),
                        self.lines,
                        self.process.last_words()
                    )));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Something is wrong with its last line.
    fn wrong(&self, what: String) -> Error {
        self.failed(format!("is wrong in its line {}, which {what}", self.lines))
    }

    fn failed(&self, what: String) -> Error {
        Error::new(format!("the judge `{}` {what}", self.command))
    }
}

impl Judge for Program {
    fn describe(&self) -> String {
        format!("the program `{}`", self.command)
    }

    fn identity(&self) -> String {
        format!("program {} {} {}", self.command, self.task.word(), self.named)
    }

    fn says(&self) -> Says {
        match self.task {
            Task::Score => Says::Scores,
            Task::Rank => Says::Order,
            Task::Compare => Says::Preferences,
        }
    }

    fn scores(&mut self, cases: &[Case]) -> Result<Vec<Vec<Opinion>>> {
        if self.task == Task::Compare {
            return scores_by_comparing(self, cases);
        }
        let questions: Vec<(&Prompt, Vec<&str>)> = cases
            .iter()
            .map(|case| (&case.prompt, case.answers.iter().map(|a| a.text.as_str()).collect()))
            .collect();
        self.ask(self.task, &questions)
    }

    fn compare(&mut self, pairs: &[Pair<'_>]) -> Result<Vec<Opinion>> {
        if self.task != Task::Compare {
            return compare_by_scoring(self, pairs);
        }
        let questions: Vec<(&Prompt, Vec<&str>)> =
            pairs.iter().map(|p| (p.prompt, vec![p.first.text.as_str(), p.second.text.as_str()])).collect();
        Ok(self.ask(Task::Compare, &questions)?.into_iter().flatten().collect())
    }

    fn tally(&self) -> Tally {
        Tally { requests: self.asked, ..Tally::default() }
    }
}
