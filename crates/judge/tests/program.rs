//! Programs as judges: those that do what they should, and every way of not doing it. They are shell scripts, so that
//! the tests need nothing else.

mod common;

use common::{Temp, never};
use duel_judge::{Case, Error, Judge, Opinion, Pair, Program, Result, Says, Settings, Stop};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A greeting with these tasks.
fn greets(tasks: &str) -> String {
    format!(
        r#"read hello; echo '{{"protocol": "duel-judge", "version": 1, "tasks": [{tasks}], "name": "n"}}'"#
    )
}

/// Gives the number of the question in `line` to `id`.
const ID: &str = r#"id=${line#*\"id\":}; id=${id%%,*}"#;

/// Starts a script, with `judge_timeout` of 20 s if nothing else is said.
fn start(temp: &Temp, script: &str, said: &[(&str, &str)]) -> Result<Program> {
    start_until(temp, script, said, never())
}

fn start_until(temp: &Temp, script: &str, said: &[(&str, &str)], stop: Stop) -> Result<Program> {
    let path = temp.write("judge.sh", script);
    let settings = Settings::new(said.iter().copied()).unwrap().or("judge_timeout", "20");
    Program::start(&format!("sh '{}'", path.display()), &settings, stop)
}

fn failed<T>(result: Result<T>) -> String {
    match result {
        Ok(_) => panic!("no error"),
        Err(e) => e.to_string(),
    }
}

fn cases(n: usize) -> Vec<Case> {
    (0..n).map(|i| Case::new(format!("p{i}"), ["a", "b"])).collect()
}

#[test]
fn answers_come_in_any_order_and_pipes_cannot_fill() {
    let temp = Temp::new("order");
    // It answers two questions at a time, the later one first, with lines larger than a pipe holds.
    let script = format!(
        r#"{greeting}
        pad=$(head -c 70000 /dev/zero | tr '\0' x)
        while read line; do
            {ID}; one=$id
            read line || exit 3
            {ID}
            echo "{{\"id\": $id, \"pad\": \"$pad\", \"scores\": [$id, -1]}}"
            echo "{{\"id\": $one, \"scores\": [$one, 0.5]}}"
        done"#,
        greeting = greets(r#""score""#)
    );
    let mut program = start(&temp, &script, &[("judge_concurrency", "6")]).unwrap();
    assert_eq!(program.says(), Says::Scores);
    let mut cases = cases(12);
    // Questions larger than a pipe holds, all of them out before an answer is read.
    cases.iter_mut().for_each(|case| case.answers[0].text = "long ".repeat(20_000));
    let scores = program.scores(&cases).unwrap();
    for (i, of) in scores.iter().enumerate() {
        let second = if i % 2 == 0 { 0.5 } else { -1.0 };
        assert_eq!(of[..], [Opinion::Said(i as f64), Opinion::Said(second)], "{i}");
    }
    // Numbers go on; preferences follow from the scores.
    let pair = Case::new("p", ["a", "b"]);
    let pairs: Vec<Pair<'_>> = pair.pairs().chain(pair.pairs()).collect();
    assert_eq!(program.compare(&pairs).unwrap(), [Opinion::Said(1.0), Opinion::Said(1.0)]);
    assert_eq!(program.tally().requests, 14);
}

#[test]
fn comparisons_score_by_win_rates_and_errors_are_unjudged() {
    let temp = Temp::new("compare");
    let script = format!(
        r#"{greeting}
        while read line; do
            {ID}
            case "$line" in
                *'"a","b"'*) echo "{{\"id\": $id, \"preference\": 1}}" ;;
                *'"b","c"'*) echo "{{\"id\": $id, \"error\": \"too hard\"}}" ;;
                *) echo "{{\"id\": $id, \"preference\": 0.75}}" ;;
            esac
        done"#,
        greeting = greets(r#""rank", "compare""#)
    );
    let mut program = start(&temp, &script, &[]).unwrap();
    assert_eq!(program.says(), Says::Preferences);
    let case = Case::new("p", ["a", "b", "c"]);
    let pairs: Vec<Pair<'_>> = case.pairs().collect();
    let hard = Opinion::Unjudged("too hard".into());
    assert_eq!(program.compare(&pairs).unwrap(), [Opinion::Said(1.0), Opinion::Said(0.75), hard]);
    let scores = &program.scores(&[case]).unwrap()[0];
    assert_eq!(scores[..], [Opinion::Said(0.75), Opinion::Said(0.25), Opinion::Said(0.375)]);
}

#[test]
fn every_way_to_fail_is_one_error_that_names_it() {
    let temp = Temp::new("fail");
    let answers = |answer: &str| {
        format!(
            "{}\nread line\nread line\necho '{{\"id\": 1, \"scores\": [1, 2]}}'\necho '{answer}'\ncat >/dev/null",
            greets("\"score\"")
        )
    };
    for (script, expected) in [
        (answers("NaN"), "is wrong in its line 3, which is no JSON, which has no NaN"),
        (
            answers(r#"{"id": 0, "scores": [NaN, 1]}"#),
            "is wrong in its line 3, which is no JSON, which has no NaN",
        ),
        (
            answers(r#"{"id": 0, "scores": [1]}"#),
            "is wrong in its line 3, which has 1 `scores` for 2 responses",
        ),
        (answers(r#"{"id": 7, "scores": [1, 2]}"#), "which answers the question 7, which is none that waits"),
        (answers(r#"{"id": 1, "scores": [1, 2]}"#), "which answers the question 1, which is none that waits"),
        (answers("loading ..."), "which is no JSON (expected value at line 1 column 1): loading ..."),
        (
            format!("{}; read line; echo CUDA is gone >&2; exit 3", greets("\"score\"")),
            "left before an answer (0 of 3 are there) came, after its line 1: it ended (exit status: 3); its standard \
             error ends: CUDA is gone",
        ),
        (format!("{}; read line; kill -9 $$", greets("\"score\"")), "it ended (signal: 9"),
        (format!("{}; exec >&-; sleep 60", greets("\"score\"")), "it closed its output and goes on"),
    ] {
        let mut program = start(&temp, &script, &[]).unwrap();
        let error = failed(program.scores(&cases(3)));
        assert!(error.starts_with("the judge `sh '") && error.contains(expected), "{script}:\n{error}");
        // It says the same again, and is asked nothing.
        assert_eq!(failed(program.scores(&cases(1))), error);
    }
}

#[test]
fn a_greeting_is_the_first_line() {
    let temp = Temp::new("greeting");
    for (script, expected) in [
        ("exit 1", "left before its greeting came, after its line 0: it ended (exit status: 1)"),
        ("echo hello; cat", "is wrong in its line 1, which is `hello`; its greeting is to be {\"protocol\""),
        (
            r#"echo '{"protocol": "duel-judge", "version": 2, "tasks": ["score"]}'; cat"#,
            "says version 2 of the protocol, and duel has 1",
        ),
        (
            r#"echo '{"protocol": "duel-judge", "version": 1, "tasks": ["guess"]}'; cat"#,
            "names none of the tasks",
        ),
        ("sleep 60", "was waited for 0.3 s for its greeting"),
    ] {
        // Long enough to start, short enough to wait for.
        let timeout = if script.starts_with("sleep") { "0.3" } else { "20" };
        let error = failed(start(&temp, script, &[("judge_timeout", timeout)]));
        assert!(error.contains(expected), "{script}: {error}");
    }
    let error = failed(Program::start("/nowhere/judge --fast", &Settings::default(), never()));
    assert!(error.starts_with("the judge `/nowhere/judge --fast` cannot be started: "), "{error}");
    let error = failed(Program::start("sh 'x", &Settings::default(), never()));
    assert_eq!(error, "the judge `sh 'x` has a quote without an end");
}

/// A script that writes its process's number, and that of one that it starts, and then answers nothing.
fn hangs(temp: &Temp) -> String {
    let (pid, child) = (temp.path("pid"), temp.path("child"));
    let numbers = format!("echo $$ > '{}'\nsleep 600 & echo $! > '{}'", pid.display(), child.display());
    format!("{numbers}\n{}\nread line\nwait", greets("\"score\""))
}

fn is_alive(temp: &Temp) -> bool {
    let pid = fs::read_to_string(temp.path("pid")).unwrap();
    fs::exists(format!("/proc/{}", pid.trim())).unwrap()
}

#[test]
fn one_that_hangs_is_waited_for_no_longer_than_was_said_and_is_gone_when_dropped() {
    let temp = Temp::new("hang");
    let mut program = start(&temp, &hangs(&temp), &[("judge_timeout", "1")]).unwrap();
    let error = failed(program.scores(&cases(2)));
    assert!(
        error.contains("was waited for 1 s for an answer (0 of 2 are there), after its line 1"),
        "{error}"
    );
    assert!(is_alive(&temp));
    drop(program);
    assert!(!is_alive(&temp), "neither a process nor a zombie is left");
    // Its own child is for the system to reap.
    let child = fs::read_to_string(temp.path("child")).unwrap();
    let gone =
        || fs::read_to_string(format!("/proc/{}/stat", child.trim())).map_or(true, |s| s.contains(") Z "));
    let began = Instant::now();
    while !gone() {
        assert!(began.elapsed() < Duration::from_secs(60), "the process that it started goes on");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_end_that_is_asked_for_is_no_wait() {
    let temp = Temp::new("stop");
    let asked = Arc::new(AtomicBool::new(false));
    let stop = asked.clone();
    let stop: Stop = Arc::new(move || stop.load(Ordering::Relaxed));
    let mut program = start_until(&temp, &hangs(&temp), &[("judge_timeout", "600")], stop).unwrap();
    let began = Instant::now();
    let flag = asked.clone();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        flag.store(true, Ordering::Relaxed);
    });
    assert_eq!(program.scores(&cases(1)), Err(Error::Stopped));
    drop(program);
    assert!(!is_alive(&temp));
    // Of the 600 s that it would have waited.
    assert!(began.elapsed() < Duration::from_secs(60));
}
