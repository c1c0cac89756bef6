//! What must hold for every objective: it learns, the way a step is cut changes nothing, runs repeat and continue bit
//! for bit. Which losses there are is read from their table.

mod common;

use common::{RESULT, Run, Temp, assert_same, pairs, write_lines, write_pairs};
use duel_loss::{WORDS, Word};
use serde_json::json;

/// A folder with a model, pairs, and the same responses as unpaired rows in turn.
fn temp(name: &str) -> Temp {
    let temp = Temp::with_model(name);
    let single = |(i, pair): (usize, serde_json::Value)| {
        let side = if i % 3 == 1 { "rejected" } else { "chosen" };
        json!({"prompt": pair["prompt"], "completion": pair[side], "label": side == "chosen"})
    };
    write_lines(&temp.path("single.jsonl"), pairs(40, 3).into_iter().enumerate().map(single));
    temp
}

/// A run of one loss, by the method that it belongs to.
fn run(temp: &Temp, word: &Word) -> Run {
    let run = Run::new(temp, "out").set("loss-type", word.name).set("save-strategy", "no");
    let run = if word.uses("label_smoothing") { run.set("label-smoothing", 0.1) } else { run };
    match word.name {
        "orpo" => run.set("method", "orpo"),
        _ if word.is_unpaired() => {
            run.set("method", "kto").set("dataset", temp.path("single.jsonl").display())
        }
        _ => run,
    }
}

/// Runs beside those of single losses: name and options.
const MORE: &[(&str, &[(&str, &str)])] = &[
    ("supervised", &[("method", "sft")]),
    ("reward", &[("method", "reward"), ("center-rewards-coefficient", "0.01")]),
    ("cpo", &[("method", "cpo")]),
    ("sum", &[("loss-type", "sigmoid,bco_pair,lm"), ("loss-weights", "0.8,0.2,1")]),
    ("wpo", &[("use-weighting", "true")]),
    ("tails", &[("ld-alpha", "0.5")]),
    ("sync", &[("sync-ref-model", "true"), ("ref-model-sync-steps", "2")]),
    ("pairs as singles", &[("method", "kto")]),
];

/// Every run by its name.
fn all(temp: &Temp) -> Vec<(&'static str, Run)> {
    let words = WORDS.iter().map(|word| (word.name, run(temp, word)));
    let more = MORE.iter().map(|(name, options)| {
        let run = Run::new(temp, "out").set("save-strategy", "no");
        (*name, options.iter().fold(run, |run, (key, value)| run.set(key, value)))
    });
    words.chain(more).collect()
}

/// The run `name`, into a folder of its own.
fn into(temp: &Temp, (name, run): &(&'static str, Run), out: &str) -> Run {
    run.clone().set("output-dir", temp.path(&format!("{name}-{out}")).display())
}

#[test]
fn every_objective_learns() {
    let temp = temp("learns");
    for run in &all(&temp) {
        let (name, make) = (run.0, |out| into(&temp, run, out));
        // On the same eight groups again and again.
        let small = make("learns").set("max-steps", 30).set("learning-rate", 5e-3);
        let rows = std::fs::read_to_string(small.get("dataset")).unwrap();
        let few = temp.path("few.jsonl");
        write_lines(&few, rows.lines().take(8));
        let small = small.set("dataset", few.display());
        small.ok();
        let loss = small.metric("loss");
        assert!(loss.iter().all(|x| x.is_finite()), "{name}: {loss:?}");
        // Not all losses fall at every step: measures of the whole batch move under them.
        let (first, best) = (loss[0], loss[20..].iter().copied().fold(f64::INFINITY, f64::min));
        assert!(best < first - 1e-3 * first.abs(), "{name}: {loss:?}");
    }
}

#[test]
fn the_way_a_step_is_cut_does_not_matter() {
    let temp = temp("cuts");
    for run in &all(&temp) {
        let (name, make) = (run.0, |out| into(&temp, run, out));
        let whole = make("whole");
        whole.ok();
        let accumulated =
            make("accumulated").set("per-device-train-batch-size", 2).set("gradient-accumulation-steps", 4);
        accumulated.ok();
        assert_same(&whole, &accumulated, RESULT);

        let small = make("small").set("micro-batch-tokens", 1);
        small.ok();
        for metric in ["loss", "grad_norm"] {
            for (a, b) in whole.metric(metric).iter().zip(small.metric(metric)) {
                // The same sums in another order, over steps that a rounding makes drift apart.
                assert!((a - b).abs() <= 1e-3 * a.abs().max(1e-2), "{name}: {metric} {a} {b}");
            }
        }
    }
}

#[test]
fn every_objective_repeats_and_continues_bit_for_bit() {
    let temp = temp("continues");
    for run in &all(&temp) {
        let (name, make) = (run.0, |out| into(&temp, run, out));
        let whole = make("whole").set("save-strategy", "steps").set("save-steps", 3);
        whole.ok();
        // The reference is computed again, by two threads.
        let again =
            make("again").set("threads", 2).set("cache-dir", temp.path(&format!("{name}-cache")).display());
        again.ok();
        assert_same(&whole, &again, RESULT);

        let resumed = make("resumed")
            .set("save-strategy", "steps")
            .set("resume-from-checkpoint", whole.out().join("checkpoint-3").display());
        resumed.ok();
        assert_same(&whole, &resumed, &["model.safetensors"]);
        assert_eq!(resumed.metrics(), whole.metrics()[3..], "{name}");
    }
}

/// What the reference says is 0 away from the policy at the first step, whatever the loss makes of it.
#[test]
fn the_first_loss_is_that_of_the_reference() {
    let temp = temp("first");
    let first = |word: &str| {
        let word = duel_loss::word(word).unwrap();
        let run = into(&temp, &(word.name, run(&temp, word)), "first").set("max-steps", 1);
        run.ok();
        (run.metric("loss")[0], run)
    };
    for (name, want) in
        [("sigmoid_norm", std::f64::consts::LN_2), ("kto", 0.5), ("bco", std::f64::consts::LN_2)]
    {
        let (loss, run) = first(name);
        // Sigmoid_norm has no smoothing; the sum of eight equal numbers over eight is rounded at most eight times.
        assert!((loss - want).abs() <= 8.0 * f64::EPSILON, "{name}: {loss:e}");
        if name == "kto" {
            assert_eq!(run.metric("kl"), [0.0]);
        }
    }
}

/// A held-out file of a reward model: how often and how surely it is right.
#[test]
fn reward_models_are_judged_on_other_rows() {
    let temp = temp("judged");
    write_pairs(&temp.path("eval.jsonl"), 30, 9);
    let run = Run::new(&temp, "out")
        .set("method", "reward")
        .set("max-steps", 40)
        .set("learning-rate", 3e-3)
        .set("eval-dataset", temp.path("eval.jsonl").display());
    run.ok();
    let metric = |name: &str| *run.metric(&format!("eval_{name}")).last().unwrap();
    for share in ["accuracy", "accuracy_chosen_longer", "accuracy_chosen_shorter", "calibration_error"] {
        assert!((0.0..=1.0).contains(&metric(share)), "{share} {}", metric(share));
    }
    assert!(metric("min_reward") <= metric("mean_reward") && metric("mean_reward") <= metric("max_reward"));
    let folder = duel_model::Folder::open(&run.out()).unwrap();
    assert_eq!(folder.config().output, duel_model::Output::Score);

    // It goes on from its own folder, and is no model to write texts with.
    run.clone().set("model", run.out().display()).set("output-dir", temp.path("more").display()).ok();
    let error = Run::new(&temp, "dpo").set("model", run.out().display()).go().stderr;
    assert!(error.contains("scores texts") && error.contains("--method reward"), "{error}");
}

/// What is known of rows is part of what a checkpoint continues with.
#[test]
fn other_labels_are_another_run() {
    let temp = temp("labels");
    let (rows, singles) = (pairs(8, 5), temp.path("single.jsonl"));
    let margins = |margin: f64| {
        let row = |pair: &serde_json::Value| {
            let mut row = pair.clone();
            row["margin"] = margin.into();
            row
        };
        rows.iter().map(row).collect::<Vec<_>>()
    };
    let changed = temp.path("changed.jsonl");
    let scored = |second: f64| {
        let row = |pair: &serde_json::Value| {
            let responses = [&pair["chosen"], &pair["rejected"]];
            json!({"prompt": pair["prompt"], "responses": responses, "scores": [1.0, second]})
        };
        rows.iter().map(row).collect::<Vec<_>>()
    };
    let flipped = std::fs::read_to_string(&singles).unwrap().replace("true", "TRUE");
    let flipped = flipped.replace("false", "true").replace("TRUE", "false");
    let lines = |rows: Vec<serde_json::Value>| rows.iter().map(|row| format!("{row}\n")).collect::<String>();
    for (method, before, after) in [
        ("dpo", lines(margins(0.5)), lines(margins(0.25))),
        ("dpo", lines(scored(0.5)), lines(scored(0.0))),
        ("kto", std::fs::read_to_string(&singles).unwrap(), flipped),
    ] {
        std::fs::write(&changed, before).unwrap();
        let run = Run::new(&temp, "out")
            .set("method", method)
            .set("dataset", changed.display())
            .set("overwrite-output-dir", true);
        run.ok();
        std::fs::write(&changed, after).unwrap();
        let mut again = run.clone().resume();
        again.forget("overwrite-output-dir");
        let error = again.go().stderr;
        assert!(error.contains("other content"), "{method}: {error}");
    }
}

/// Two responses with the same score are no pair; both are compared with the others.
#[test]
fn ties_are_no_pairs() {
    let temp = temp("ties");
    let row = |i: usize, pair: &serde_json::Value, more: &serde_json::Value| {
        let responses = [&pair["chosen"], &pair["rejected"], &more["rejected"]];
        let mut row = json!({"prompt": pair["prompt"], "responses": responses});
        if i > 0 {
            row["scores"] = json!([2, 1, 1]);
        }
        row
    };
    let rows = pairs(9, 4);
    let tied: Vec<_> = rows.windows(2).map(|two| row(1, &two[0], &two[1])).collect();
    write_lines(&temp.path("tied.jsonl"), &tied);
    // The same pairs, each as a row of its own.
    let apart = tied.iter().flat_map(|row| {
        (1..3).map(|l| json!({"prompt": row["prompt"], "chosen": row["responses"][0], "rejected": row["responses"][l]}))
    });
    write_lines(&temp.path("apart.jsonl"), apart);
    let run = |name: &str, groups: usize| {
        let run = Run::new(&temp, name)
            .set("dataset", temp.path(&format!("{name}.jsonl")).display())
            .set("per-device-train-batch-size", groups)
            .set("shuffle", false)
            .set("max-steps", 2);
        run.ok();
        run
    };
    let (tied, apart) = (run("tied", 8), run("apart", 16));
    for metric in ["loss", "rewards/margins", "rewards/accuracies", "logps/rejected"] {
        for (a, b) in tied.metric(metric).iter().zip(apart.metric(metric)) {
            // Single precision over one update.
            assert!((a - b).abs() <= 1e-4 * a.abs().max(1e-2), "{metric} {a} {b}");
        }
    }
    let error =
        tied.clone().set("loss-type", "plackett_luce").set("output-dir", temp.path("pl").display()).go();
    for part in ["row 1", "same score", "plackett_luce"] {
        assert!(error.stderr.contains(part), "{}", error.stderr);
    }
}

#[test]
fn what_does_not_fit_is_one_error() {
    let temp = temp("fits");
    write_lines(
        &temp.path("margin.jsonl"),
        pairs(4, 5).into_iter().map(|mut pair| {
            pair["margin"] = 0.5.into();
            pair
        }),
    );
    let run = || Run::new(&temp, "out");
    let margin = temp.path("margin.jsonl");
    for (run, parts) in [
        (
            run().set("loss-type", "kto"),
            ["`loss_type = kto`", "`method = dpo` but with `method = kto`", "sigmoid"],
        ),
        (
            run().set("method", "kto").set("loss-type", "sigmoid"),
            ["`loss_type = sigmoid`", "`method = kto`", "bco"],
        ),
        (
            run().set("method", "reward").set("loss-type", "ipo"),
            ["`loss_type = ipo`", "`method = reward`", "sigmoid"],
        ),
        (
            run().set("loss-type", "ipo").set("dataset", margin.display()),
            ["row 1", "`margin`", "`loss_type = ipo`"],
        ),
        (
            run().set("use-weighting", true).set("loss-type", "aot"),
            ["`use_weighting`", "no effect", "loss_type"],
        ),
        (
            run().set("sync-ref-model", true).set("loss-type", "simpo"),
            ["`sync_ref_model`", "no effect", "reference"],
        ),
        (
            run().set("ld-alpha", 0.5).set("loss-type", "sigmoid,sft"),
            ["`ld_alpha`", "no effect", "cross entropy"],
        ),
        (run().set("method", "kto").set("ld-alpha", 0.5), ["`ld_alpha`", "no effect", "loss_type"]),
        (
            run().set("method", "cpo").set("f-divergence-type", "forward_kl"),
            ["`f_divergence_type`", "no effect", "reference"],
        ),
        (
            run().set("method", "orpo").set("loss-type", "hinge"),
            ["`loss_type = hinge`", "`method = orpo`", "takes orpo"],
        ),
        (
            run().set("loss-type", "sigmoid,hinge").set("loss-weights", "0,0"),
            ["`loss_weights`", "all 0", "nothing would be learned"],
        ),
        (run().set("ref-model-sync-steps", 4), ["`ref_model_sync_steps`", "no effect", "sync_ref_model"]),
        (run().set("desirable-weight", 2), ["`desirable_weight`", "no effect", "loss_type"]),
        (
            run().set("method", "reward").set("label-smoothing", 0.1).set("loss-type", "plackett_luce"),
            ["`label_smoothing`", "no effect", "loss_type"],
        ),
    ] {
        let ended = run.go();
        assert!(matches!(ended.code, Some(1 | 2)), "{}", ended.stderr);
        for part in parts {
            assert!(ended.stderr.contains(part), "`{part}`: {}", ended.stderr);
        }
    }
}
