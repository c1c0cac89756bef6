//! A judge behind an endpoint, here a server of the test's own that misbehaves in every way that endpoints do.

mod common;
#[path = "common/server.rs"]
mod server;

use common::{Temp, never};
use duel_judge::{Case, Error, Http, Judge, Opinion, Pair, Result, Reviser, Says, Settings, Stop};
use serde_json::json;
use server::{Act, Request, Server, ok, reply};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A judge of this server; it waits little between tries.
fn judge(server: &Server, said: &[(&'static str, &str)]) -> Result<Http> {
    judge_until(server, said, never())
}

fn judge_until(server: &Server, said: &[(&'static str, &str)], stop: Stop) -> Result<Http> {
    let settings = Settings::new(said.iter().copied()).unwrap();
    let settings = settings.or("judge_model", "m").or("judge_backoff", "0.001").or("judge_timeout", "20");
    Http::new(&server.url, &settings, stop)
}

fn compare(judge: &mut Http, case: &Case) -> Result<Vec<Opinion>> {
    judge.compare(&case.pairs().collect::<Vec<Pair<'_>>>())
}

fn two() -> Case {
    Case::new("Which?", ["good answer", "bad answer"])
}

/// What an honest model says of answers that are good or bad.
fn honest(request: &Request) -> String {
    let at = |what: &str| request.text().find(what).unwrap_or(usize::MAX);
    match at("good answer").cmp(&at("bad answer")) {
        std::cmp::Ordering::Less => "A helps.\nVerdict: A".into(),
        std::cmp::Ordering::Greater => "B helps.\nVerdict: B".into(),
        std::cmp::Ordering::Equal => "Verdict: tie".into(),
    }
}

#[test]
fn both_orders_are_shown_and_a_disagreement_is_a_tie() {
    let server = Server::start(|_, request| match request.text() {
        text if text.contains("fickle") => Act::Say("Verdict: A".into()),
        _ => Act::Say(honest(request)),
    });
    let mut judge = judge(&server, &[]).unwrap();
    assert_eq!(judge.says(), Says::Preferences);
    let fickle = Case::new("p", ["fickle one", "fickle two"]);
    let same = Case::new("p", ["same", "same"]);
    let cases = [two(), fickle, same];
    let pairs: Vec<Pair<'_>> = cases.iter().flat_map(Case::pairs).collect();
    let half = Opinion::Said(0.5);
    assert_eq!(judge.compare(&pairs).unwrap(), [Opinion::Said(1.0), half.clone(), half]);
    let tally = judge.tally();
    assert_eq!(
        (tally.requests, tally.cached, tally.tokens),
        (4, 0, 4 * 13),
        "the same twice is not asked about"
    );
    // Of the four that were shown, first places won in both of the fickle ones and in one of the others.
    assert_eq!((tally.shown, tally.first_won_twice), (4, 6));
    assert_eq!((tally.both_orders, tally.disagreed), (2, 1));
    let asked = server.asked();
    assert!(asked.iter().all(|r| r.head.starts_with("post /v1/chat/completions http/1.1")));
    assert!(
        asked
            .iter()
            .all(|r| r.body["model"] == "m" && r.body["temperature"] == 0.0 && r.body["max_tokens"] == 1024)
    );
    assert!(asked.iter().all(|r| r.body.get("seed").is_none() && !r.head.contains("authorization")));

    let win_rates = judge.scores(&[two()]).unwrap();
    assert_eq!(win_rates, [[Opinion::Said(0.75), Opinion::Said(0.25)]]);
}

#[test]
fn one_order_is_drawn_by_what_is_shown() {
    let server = Server::start(|_, request| Act::Say(honest(request)));
    let mut judge = judge(&server, &[("judge_order", "random"), ("judge_seed", "3")]).unwrap();
    let cases: Vec<Case> =
        (0..40).map(|i| Case::new(format!("p{i}"), ["good answer", "bad answer"])).collect();
    let pairs: Vec<Pair<'_>> = cases.iter().flat_map(Case::pairs).collect();
    assert!(judge.compare(&pairs).unwrap().iter().all(|p| *p == Opinion::Said(1.0)));
    let tally = judge.tally();
    // Forty coins: outside of 8 to 32 with a probability below 1e-4.
    let first = tally.first_won_twice / 2;
    assert!((tally.requests, tally.both_orders) == (40, 0) && (8..=32).contains(&first), "{tally:?}");
    assert!(server.asked().iter().all(|r| r.body["seed"] == 3));
}

#[test]
fn tokens_are_probabilities_and_one_that_is_missing_is_unknown() {
    let server = Server::start(|_, request| {
        let token = |t: &str, p: f64| json!({"token": t, "logprob": p.ln()});
        let top = match request.text() {
            text if text.contains("odd") => vec![token("A", 0.9), token("The", 0.1)],
            text if text.find("good") < text.find("bad") => vec![token("A", 0.6), token(" B", 0.2)],
            _ => vec![token("B", 0.5), token("A", 0.5)],
        };
        Act::Raw(ok(&json!({"choices": [{
            "message": {"content": "A"}, "finish_reason": "length", "logprobs": {"content": [{"top_logprobs": top}]}
        }]})))
    });
    let mut judge = judge(&server, &[("judge_verdict", "token")]).unwrap();
    let cases = [two(), Case::new("odd", ["a", "b"])];
    let pairs: Vec<Pair<'_>> = cases.iter().flat_map(Case::pairs).collect();
    let said = judge.compare(&pairs).unwrap();
    // 0.75 one way, one half the other.
    assert!((said[0].said().unwrap() - 0.625).abs() < 1e-12, "{said:?}");
    let Opinion::Unjudged(why) = &said[1] else { panic!("{said:?}") };
    assert!(why.contains("`B` is not among the likeliest tokens"), "{why}");
    let body = &server.asked()[0].body;
    assert!(body["max_tokens"] == 1 && body["logprobs"] == true && body["top_logprobs"] == 5);
}

#[test]
fn scores_and_rubrics_of_ones_own() {
    let temp = Temp::new("rubric");
    let rubric = temp.write("rubric.txt", "By {principle}: {{x}} {prompt}|{answer}|");
    let principles = temp.write("principles.txt", "\nP one\n  P two \n");
    let server = Server::start(|_, request| {
        let score = if request.text().contains("|good answer|") { 9 } else { 2 };
        Act::Say(format!("```json\n{{\"reasoning\": \"r\", \"score\": {score}}}\n```"))
    });
    let said = [
        ("judge_ask", "score"),
        ("judge_rubric", rubric.to_str().unwrap()),
        ("judge_principles", principles.to_str().unwrap()),
        ("judge_limit_key", "max_completion_tokens"),
    ];
    let mut judge = judge(&server, &said).unwrap();
    assert_eq!(judge.says(), Says::Scores);
    // What looks like a place in an answer is a part of the answer.
    let case = Case::new("Q", ["good answer", "{prompt}"]);
    assert_eq!(
        judge.scores(std::slice::from_ref(&case)).unwrap(),
        [[Opinion::Said(9.0), Opinion::Said(2.0)]]
    );
    assert_eq!(compare(&mut judge, &case).unwrap(), [Opinion::Said(1.0)]);
    let asked = server.asked();
    assert!(asked.iter().any(|r| r.text().contains(": {{x}} Q|{prompt}|\n\nReply with one JSON object")));
    assert!(asked.iter().all(|r| r.text().starts_with("By P one:") || r.text().starts_with("By P two:")));
    assert!(
        asked.iter().all(|r| r.body["max_completion_tokens"] == 1024 && r.body.get("max_tokens").is_none())
    );
}

#[test]
fn what_may_pass_is_tried_again() {
    let later = Arc::new(AtomicUsize::new(0));
    let count = later.clone();
    let server = Server::start(move |number, request| match number {
        0 => Act::Raw(reply(
            "429 Too Many Requests",
            "retry-after: 1\r\n",
            "{\"error\": {\"message\": \"slow down\"}}",
        )),
        1 => Act::Raw(reply("500 Internal Server Error", "", "oops")),
        2 => Act::Raw(reply("503 Service Unavailable", "content-type: text/html\r\n", "<html>busy</html>")),
        3 => Act::Raw(reply("200 OK", "content-type: text/html\r\n", "<html>Log in</html>")),
        4 => Act::Raw(reply("200 OK", "content-type: application/json\r\n", "{\"choices\": [{")),
        5 => Act::Raw(ok(&json!({"object": "list"}))),
        6 => Act::Cut,
        7 => Act::Hang(Duration::ZERO),
        8 => Act::Hang(Duration::from_secs(30)),
        _ => {
            count.fetch_add(1, Ordering::Relaxed);
            Act::Say(honest(request))
        }
    });
    let said = [("judge_concurrency", "1"), ("judge_retries", "9"), ("judge_timeout", "2")];
    let mut judge = judge(&server, &said).unwrap();
    let began = Instant::now();
    assert_eq!(compare(&mut judge, &two()).unwrap(), [Opinion::Said(1.0)]);
    assert!(began.elapsed() >= Duration::from_secs(1), "Retry-After is heard");
    assert_eq!((judge.tally().requests, later.load(Ordering::Relaxed)), (11, 2));
}

#[test]
fn what_will_not_pass_ends_it_with_one_error() {
    for (status, body, expected) in [
        (
            "400 Bad Request",
            r#"{"error": {"message": "no such field"}}"#,
            "it replied with status 400: no such field",
        ),
        (
            "401 Unauthorized",
            r#"{"error": "who?"}"#,
            "status 401: who?; is the key right that judge_key_env names?",
        ),
        (
            "404 Not Found",
            "nothing  here\n",
            "status 404: nothing here; are the address and judge_model right?",
        ),
        ("302 Found", "", "it replied with status 302: "),
    ] {
        let server = Server::start(move |_, _| Act::Raw(reply(status, "location: /login\r\n", body)));
        let mut judge = judge(&server, &[("judge_concurrency", "1")]).unwrap();
        let error = compare(&mut judge, &two()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("the judge {}/chat/completions: ", server.url)), "{error}");
        assert!(error.contains(expected), "{error}");
        assert_eq!(server.asked().len(), 1, "{status} is not tried again");
    }
    let server = Server::start(|_, _| Act::Raw(reply("500 Internal Server Error", "", "down")));
    let mut down = judge(&server, &[("judge_concurrency", "1"), ("judge_retries", "2")]).unwrap();
    let error = compare(&mut down, &two()).unwrap_err().to_string();
    assert!(error.ends_with("it replied with status 500: down; that was the last of 3 tries"), "{error}");
    assert_eq!((server.asked().len(), down.tally().requests), (3, 3));

    let page =
        Server::start(|_, _| Act::Raw(reply("200 OK", "content-type: text/html\r\n", "<html>Log in</html>")));
    let mut page = judge(&page, &[("judge_retries", "0")]).unwrap();
    let error = compare(&mut page, &two()).unwrap_err().to_string();
    assert!(error.contains("it replied with what is no JSON (text/html): <html>Log in</html>"), "{error}");
}

#[test]
fn what_cannot_be_judged_is_tried_again_and_left_out() {
    let server = Server::start(|number, request| {
        let choice = |message, finish| {
            Act::Raw(ok(&json!({"choices": [{"message": message, "finish_reason": finish}]})))
        };
        match request.text() {
            t if t.contains("mute") => Act::Say("I like both.".into()),
            t if t.contains("verbose") => choice(json!({"content": "A is Verdict: A"}), "length"),
            t if t.contains("evil") => choice(json!({"content": null, "refusal": "no"}), "stop"),
            t if t.contains("huge") => Act::Raw(reply(
                "400 Bad Request",
                "",
                &json!({"error": {
                    "message": "too long", "code": "context_length_exceeded"
                }})
                .to_string(),
            )),
            _ if number == 0 => Act::Say("Hm.".into()),
            _ => Act::Say(honest(request)),
        }
    });
    let mut judge = judge(&server, &[("judge_concurrency", "1"), ("judge_order", "random")]).unwrap();
    let cases: Vec<Case> = ["plain", "mute", "verbose", "evil", "huge"]
        .map(|p| Case::new(p, ["good answer", "bad answer"]))
        .into();
    let pairs: Vec<Pair<'_>> = cases.iter().flat_map(Case::pairs).collect();
    let said = judge.compare(&pairs).unwrap();
    assert_eq!(said[0], Opinion::Said(1.0), "its second reply could be read");
    let whys = said[1..].iter().map(|opinion| match opinion {
        Opinion::Unjudged(why) => why.as_str(),
        said => panic!("{said:?}"),
    });
    let expected =
        ["has no line `Verdict: A`", "finish_reason length", "refused: no", "status 400: too long"];
    for (why, expected) in whys.zip(expected) {
        assert!(why.contains(expected), "{why}");
    }
    // Three tries of each, and two of the first.
    assert_eq!(judge.tally().requests, 2 + 4 * 3);
}

#[test]
fn what_was_answered_is_not_asked_again_and_failures_are() {
    let temp = Temp::new("cache");
    let cache = temp.path("answers.jsonl");
    let said = [("judge_cache", cache.to_str().unwrap()), ("judge_order", "random"), ("judge_seed", "1")];
    let mute = Arc::new(AtomicBool::new(true));
    let flag = mute.clone();
    let server = Server::start(move |_, request| match request.text() {
        t if t.contains("mute") && flag.load(Ordering::Relaxed) => Act::Say("Hm.".into()),
        _ => Act::Say(honest(request)),
    });
    let cases = ["one", "mute", "two", "two"].map(|p| Case::new(p, ["good answer", "bad answer"]));
    let pairs: Vec<Pair<'_>> = cases.iter().flat_map(Case::pairs).collect();
    let first = judge(&server, &said).unwrap().compare(&pairs).unwrap();
    assert!(matches!(first[1], Opinion::Unjudged(_)) && first[2] == Opinion::Said(1.0), "{first:?}");
    assert_eq!(server.asked().len(), 2 + 3, "the same question is asked once");
    assert_eq!(fs::read_to_string(&cache).unwrap().lines().count(), 2, "failures are not kept");

    // A last line that was torn is asked for again, and a failure that has passed is kept.
    let text = fs::read_to_string(&cache).unwrap();
    fs::write(&cache, &text[..text.len() - 5]).unwrap();
    mute.store(false, Ordering::Relaxed);
    let mut again = judge(&server, &said).unwrap();
    assert!(again.compare(&pairs).unwrap().iter().all(|p| *p == Opinion::Said(1.0)));
    assert_eq!((again.tally().requests, again.tally().cached), (2, 1));
    let mut third = judge(&server, &said).unwrap();
    assert!(third.compare(&pairs).unwrap().iter().all(|p| *p == Opinion::Said(1.0)));
    assert_eq!((third.tally().requests, third.tally().cached), (0, 3));
    // Another model is another question.
    let mut other = judge(&server, &[&said[..], &[("judge_model", "n")]].concat()).unwrap();
    other.compare(&pairs).unwrap();
    assert_eq!(other.tally().requests, 3);
}

#[test]
fn a_budget_is_not_overspent() {
    for (limit, expected) in [
        ("judge_max_requests", "the 3 requests of judge_max_requests are spent"),
        ("judge_token_budget", "the 3 tokens of judge_token_budget are spent"),
    ] {
        let server = Server::start(|_, request| Act::Say(honest(request)));
        let mut judge = judge(&server, &[(limit, "3"), ("judge_concurrency", "1")]).unwrap();
        let case = Case::new("p", ["good answer", "bad answer", "other"]);
        let error = compare(&mut judge, &case).unwrap_err().to_string();
        assert!(error.ends_with(expected), "{error}");
        // A request is 13 tokens: the budget is spent when it comes back.
        assert_eq!(server.asked().len(), if limit == "judge_max_requests" { 3 } else { 1 });
    }
}

#[test]
fn a_key_is_sent_and_said_nowhere_else() {
    let temp = Temp::new("key");
    let cache = temp.path("answers.jsonl");
    let name = "DUEL_TEST_JUDGE_KEY";
    // Tests of one process share an environment; no other one reads or sets this variable.
    let said = [("judge_key_env", name), ("judge_cache", cache.to_str().unwrap()), ("judge_order", "random")];
    let server = Server::start(|number, request| {
        let key = request.head.lines().find_map(|l| l.strip_prefix("authorization: bearer ")).unwrap_or("?");
        let body =
            json!({"error": {"message": format!("wrong key {}", key.replace("sk", "SK"))}}).to_string();
        match number {
            0 => Act::Say(honest(request)),
            _ => Act::Raw(reply("401 Unauthorized", "", &body)),
        }
    });
    let key = match std::env::var(name) {
        Ok(key) => key,
        Err(_) => {
            let error = judge(&server, &said).err().unwrap().to_string();
            assert_eq!(
                error,
                format!("the environment variable {name} (judge_key_env) holds no key; set it")
            );
            // Once more, in a process that has it.
            let this = std::env::current_exe().unwrap();
            let test = ["a_key_is_sent_and_said_nowhere_else", "--exact"];
            let run =
                std::process::Command::new(this).args(test).env(name, "SK-very-secret").output().unwrap();
            assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
            return;
        }
    };
    let mut judge = judge(&server, &said).unwrap();
    assert_eq!(compare(&mut judge, &two()).unwrap(), [Opinion::Said(1.0)]);
    let error =
        compare(&mut judge, &Case::new("again", ["good answer", "bad answer"])).unwrap_err().to_string();
    assert!(error.contains("status 401: wrong key"), "{error}");
    assert!(
        server
            .asked()
            .iter()
            .all(|r| r.head.contains(&format!("authorization: bearer {}", key.to_lowercase())))
    );
    let kept = fs::read_to_string(&cache).unwrap();
    for text in [&error, &judge.identity(), &judge.describe(), &kept] {
        assert!(!text.to_lowercase().contains("very-secret"), "{text}");
    }
    let settings = Settings::new([("judge_model", "m"), ("judge_key_env", name)]).unwrap();
    let error = Http::new("http://example.com/v1", &settings, never()).err().unwrap().to_string();
    assert!(error.contains("would be sent its key in clear; use https://"), "{error}");
    assert!(Http::new("https://example.com/v1", &settings, never()).is_ok());
}

#[test]
fn an_end_that_is_asked_for_is_no_wait() {
    let asked = Arc::new(AtomicBool::new(false));
    let flag = asked.clone();
    let server = Server::start(move |_, _| {
        flag.store(true, Ordering::Relaxed);
        Act::Hang(Duration::from_secs(600))
    });
    let stop: Stop = Arc::new(move || asked.load(Ordering::Relaxed));
    let mut judge = judge_until(&server, &[("judge_timeout", "600")], stop).unwrap();
    let began = Instant::now();
    assert_eq!(compare(&mut judge, &two()), Err(Error::Stopped));
    assert!(began.elapsed() < Duration::from_secs(60), "of 600");
}

#[test]
fn an_answer_is_criticised_by_a_principle_and_written_again() {
    let server = Server::start(|_, request| match request.text() {
        t if t.contains("[Critique]") && t.contains("too rude") => Act::Say(" better \n".into()),
        t if t.contains("[Critique]") => Act::Say("worse".into()),
        t if t.contains("silence") => Act::Say(" ".into()),
        t if t.contains("rude answer") => Act::Say("It is too rude.".into()),
        _ => Act::Say("Fine.".into()),
    });
    let settings = Settings::new([("judge_model", "m"), ("judge_backoff", "0")]).unwrap();
    let mut reviser = Reviser::new(&server.url, &settings, never()).unwrap();
    let revised =
        reviser.revise(&[Case::new("p", ["rude answer", "silence"]), Case::new("q", ["x"])]).unwrap();
    assert_eq!(revised.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
    let first = revised[0][0].as_ref().unwrap();
    assert_eq!((first.critique.as_str(), first.text.as_str()), ("It is too rude.", "better"));
    assert!(server.asked().iter().any(|r| r.text().contains(&first.principle)));
    assert_eq!(revised[0][1], Err("the reply is empty".to_owned()));
    assert_eq!(revised[1][0].as_ref().unwrap().text, "worse");
    // Critiques of three answers, one of which is asked for three times; two revisions.
    assert_eq!(reviser.tally().requests, 5 + 2);
    let idle = Settings::new([("judge_model", "m"), ("judge_order", "both")]).unwrap();
    let error = Reviser::new(&server.url, &idle, never()).err().unwrap().to_string();
    assert!(error.starts_with("`judge_order` has no effect on revisions"), "{error}");
}

#[test]
fn settings_without_effect_and_wrong_rubrics_are_errors() {
    let temp = Temp::new("idle");
    let file = |name: &str, text: &str| temp.write(name, text).display().to_string();
    let (lacks, foreign) = (file("a", "{prompt} {first}"), file("b", "{prompt} {first} {second} {answer}"));
    let server = Server::start(|_, _| Act::Say(String::new()));
    for (said, expected) in [
        (
            vec![("judge_ask", "score"), ("judge_order", "both")],
            "`judge_order` has no effect where answers are scored",
        ),
        (vec![("judge_max_score", "5")], "`judge_max_score` has no effect where answers are compared"),
        (
            vec![("judge_verdict", "token"), ("judge_max_tokens", "9")],
            "`judge_max_tokens` has no effect where a verdict",
        ),
        (
            vec![("judge_principles", &lacks)],
            "`judge_principles` has no effect on a rubric without {principle}",
        ),
        (
            vec![("judge_rubric", &lacks)],
            "a: lacks the place {second}; a rubric has {prompt}, {first}, {second}",
        ),
        (vec![("judge_rubric", &foreign)], "b: has the place {answer}, which nothing stands for here"),
        (vec![("judge_rubric", "/nowhere")], "/nowhere: No such file"),
        (vec![("judge_model", "")], "needs `judge_model`, a model's name"),
    ] {
        let error = judge(&server, &said).err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    }
    for url in ["ftp://x/v1", "localhost:8000", "http://user:pass@x/v1", "http://x/v1?key=1", "http://"] {
        let settings = Settings::new([("judge_model", "m")]).unwrap();
        assert!(Http::new(url, &settings, never()).is_err(), "{url}");
    }
}
