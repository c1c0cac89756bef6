//! The section from results. What is not in them is said to be missing.

use crate::WIDTH;
use crate::predicted::rate;
use crate::published;
use crate::results::list;
use crate::rows::{STEP, shown, steps};
use duel_benches::gpu::Case;
use duel_benches::markdown::{percent, table, time, wrap};
use duel_benches::verb::Work;
use serde_json::Value;

/// What stands in the place of a number that is not there.
const MISSING: &str = "not measured";

/// Who makes a step, as the results call them: duel, and those that it is held against.
const STEPPERS: [&str; 3] = ["duel", "TRL default", "TRL tuned"];

/// The whole section, from the results in the file `name`.
pub fn section(name: &str, results: &Value) -> String {
    let mut text = wrap(&setting(name, results), WIDTH);
    text += "\n";
    text += &wrap(
        "*Share* is of these ceilings, which were measured in the same run. *Best peer* is the fastest of the others at \
         the same shape in the same run, and how many times as long it took; *published* are rates of others in TFLOP/s \
         on an H100 (Liger's on an H200). Times are medians, by the device's events: ours of calls back to back, the \
         peers' and the ceilings' of calls with the L2 cache refilled in between. Back to back, products, which the same \
         library makes, and attention come out slower.",
        WIDTH,
    );
    text += "\n";
    text += &kernels(results);
    text += "\n";
    text += &wrap(
        &format!(
            "Whole steps of DPO: {} pairs of a prompt of {}, a chosen response of {} and a rejected one of {} tokens. *TRL \
             default* is TRL as it comes, *tuned* without gradient checkpointing and with the reference's log-probabilities \
             precomputed; *over* is TRL's time over ours, with the reference's pass in ours against the default. {}",
            STEP.pairs,
            STEP.pair.prompt,
            STEP.pair.chosen,
            STEP.pair.rejected,
            agreement(results)
        ),
        WIDTH,
    );
    text += "\n";
    text += &whole_steps(results);
    let failures = failures(results);
    if !failures.is_empty() {
        text += &format!("\n{}", wrap(&failures, WIDTH));
    }
    text
}

fn text_of(value: &Value) -> String {
    match value {
        Value::Null => MISSING.into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn number(value: &Value, show: impl Fn(f64) -> String) -> String {
    value.as_f64().map_or_else(|| MISSING.into(), show)
}

fn giga(bytes: f64) -> String {
    format!("{:.1} GB", bytes * 1e-9)
}

/// Machine, versions, ceilings and correctness.
fn setting(name: &str, results: &Value) -> String {
    let (machine, ceilings) = (&results["machine"], &results["ceilings"]);
    let versions = results["versions"].as_object().into_iter().flatten();
    let versions: Vec<_> = versions.map(|(name, version)| format!("{name} {}", text_of(version))).collect();
    let versions = if versions.is_empty() { MISSING.into() } else { versions.join(", ") };
    let conformance = match &results["conformance"] {
        Value::Null => MISSING.into(),
        tests => format!("{} passed, {} failed", text_of(&tests["passed"]), text_of(&tests["failed"])),
    };
    let sanitizer = list(results, "sanitizer").iter().map(|run| {
        let [tool, tests, errors] = ["tool", "tests", "errors"].map(|key| text_of(&run[key]));
        format!("{tool} over {tests} tests: {errors} errors")
    });
    let sanitizer: Vec<_> = sanitizer.collect();
    let sanitizer = if sanitizer.is_empty() { MISSING.into() } else { sanitizer.join("; ") };
    format!(
        "Measured on {} ({}), driver {}, CUDA {}, beside {} cores of {}, {}, commit {} (`results/{name}`). \
         Versions: {versions}. Ceilings: a copy within the device {}, a large matrix product in bf16 {}. Conformance \
         against the CPU in double precision: {conformance}. compute-sanitizer: {sanitizer}.",
        text_of(&machine["gpu"]),
        number(&machine["memory_bytes"], giga),
        text_of(&machine["driver"]),
        text_of(&machine["cuda"]),
        text_of(&machine["cores"]),
        text_of(&machine["cpu"]),
        text_of(&results["date"]),
        text_of(&results["commit"]),
        number(&ceilings["copy_bytes_per_second"], |bytes| format!("{:.2} TB/s", bytes * 1e-12)),
        number(&ceilings["matmul_flop_per_second"], |flop| format!("{:.0} TFLOP/s", flop * 1e-12)),
    )
}

fn kernels(results: &Value) -> String {
    let head = ["kernel", "shape", "time", "rate", "share", "best peer", "published"];
    let mut lines = vec![head.map(String::from)];
    lines.extend(shown().iter().map(|case| {
        let is =
            |row: &&Value| row["kernel"] == case.kernel().as_str() && row["shape"] == case.shape().as_str();
        let row = list(results, "kernels").iter().find(is).unwrap_or(&Value::Null);
        [
            case.kernel(),
            case.shape(),
            number(&row["seconds"], time),
            number(&row["seconds"], |seconds| rate(case.work(), seconds)),
            share(case, row, &results["ceilings"]),
            best_peer(case, row, results),
            published::cell(case),
        ]
    }));
    table(&lines, 2)
}

/// Of the ceiling of the same run.
fn share(case: &Case, row: &Value, ceilings: &Value) -> String {
    let (work, ceiling) = match case.work() {
        Work::Flops(n) => (n, &ceilings["matmul_flop_per_second"]),
        Work::Bytes(n) => (n, &ceilings["copy_bytes_per_second"]),
    };
    match (row["seconds"].as_f64(), ceiling.as_f64()) {
        (Some(seconds), Some(ceiling)) => percent(work as f64 / seconds / ceiling, 0),
        _ => MISSING.into(),
    }
}

/// The fastest of the others: what they call products, they call the same whoever makes ours.
fn best_peer(case: &Case, row: &Value, results: &Value) -> String {
    let is = |peer: &&Value| peer["kernel"] == case.verb.name() && peer["shape"] == case.shape().as_str();
    let times =
        list(results, "peers").iter().filter(is).filter_map(|p| Some((p["seconds"].as_f64()?, &p["who"])));
    let best = times.min_by(|a, b| a.0.total_cmp(&b.0));
    match (best, row["seconds"].as_f64()) {
        (Some((theirs, who)), Some(ours)) => format!("{}, {:.2} times", text_of(who), theirs / ours),
        _ => MISSING.into(),
    }
}

fn step<'v>(results: &'v Value, model: &str, who: &str) -> &'v Value {
    let is = |row: &&Value| row["model"] == model && row["who"] == who;
    list(results, "steps").iter().find(is).unwrap_or(&Value::Null)
}

fn whole_steps(results: &Value) -> String {
    let head = ["model", "who", "step", "pairs/s", "peak memory", "over duel"];
    let mut lines = vec![head.map(String::from)];
    for model in steps() {
        let ours = step(results, model.model, STEPPERS[0]);
        for who in STEPPERS {
            let row = step(results, model.model, who);
            // TRL as it comes computes the reference within the step: ours counts with its share of the pass.
            let reference = match who {
                "TRL default" => ours["reference_seconds_per_step"].as_f64(),
                _ => Some(0.0),
            };
            let over = match (row["seconds"].as_f64(), ours["seconds"].as_f64(), reference) {
                _ if who == STEPPERS[0] => String::new(),
                (Some(theirs), Some(ours), Some(reference)) => {
                    format!("{:.2} times", theirs / (ours + reference))
                }
                _ => MISSING.into(),
            };
            lines.push([
                model.model.into(),
                who.into(),
                number(&row["seconds"], time),
                number(&row["pairs_per_second"], |pairs| format!("{pairs:.1}")),
                number(&row["peak_bytes"], giga),
                over,
            ]);
        }
    }
    table(&lines, 2)
}

/// How far the losses of the same steps are from TRL's.
fn agreement(results: &Value) -> String {
    let mut furthest: Option<f64> = None;
    for model in steps() {
        let ours = list(step(results, model.model, STEPPERS[0]), "steps");
        for who in &STEPPERS[1..] {
            for (ours, theirs) in ours.iter().zip(list(step(results, model.model, who), "steps")) {
                if let (Some(ours), Some(theirs)) = (ours["loss"].as_f64(), theirs["loss"].as_f64()) {
                    furthest = Some(furthest.unwrap_or(0.0).max((ours - theirs).abs()));
                }
            }
        }
    }
    match furthest {
        Some(apart) => format!("The losses of the same steps differ from TRL's by {apart:.1e} at most."),
        None => "The losses were not compared.".into(),
    }
}

fn failures(results: &Value) -> String {
    let failures = list(results, "failures").iter();
    let all: Vec<_> =
        failures.map(|f| format!("{}: {}", text_of(&f["stage"]), text_of(&f["what"]))).collect();
    if all.is_empty() { String::new() } else { format!("What failed in this run: {}.", all.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Every number is made up.
    fn made_up() -> Value {
        json!({
            "kind": "gpu", "date": "2000-01-01", "quick": false, "commit": "abc1234",
            "machine": {
                "gpu": "MADE UP 100", "driver": "1.2", "cuda": "3.4", "memory_bytes": 50e9, "cpu": "a cpu", "cores": 3
            },
            "versions": { "torch": "0.0.1", "trl": null },
            "ceilings": { "copy_bytes_per_second": 2e12, "matmul_flop_per_second": 500e12 },
            "conformance": { "passed": 7, "failed": 0, "seconds": 1.0 },
            "sanitizer": [{ "tool": "memcheck", "tests": 5, "errors": 0 }],
            "kernels": [
                { "group": "memory", "kernel": "adamw", "shape": "67108864", "seconds": 2e-3 },
                { "group": "products", "kernel": "gemm own", "shape": "8192x16384x2048", "seconds": 2e-3 },
            ],
            "peers": [
                { "kernel": "adamw", "shape": "67108864", "who": "torch slow", "seconds": 9e-3 },
                { "kernel": "adamw", "shape": "67108864", "who": "torch fused", "seconds": 3e-3 },
                { "kernel": "gemm", "shape": "8192x16384x2048", "who": "torch", "seconds": 1e-3 },
            ],
            "steps": [
                {
                    "model": "Llama-3.2-1B", "who": "duel", "seconds": 0.2, "pairs_per_second": 40.0,
                    "reference_seconds_per_step": 0.1, "peak_bytes": 30e9, "steps": [{ "loss": 0.69 }, { "loss": 0.5 }]
                },
                { "model": "Llama-3.2-1B", "who": "TRL default", "seconds": 0.9, "steps": [{ "loss": 0.71 }] },
                { "model": "Llama-3.2-1B", "who": "TRL tuned", "seconds": 0.5, "steps": [{ "loss": 0.69 }] },
            ],
            "failures": [{ "stage": "peers", "what": "liger was not there" }],
        })
    }

    fn line<'t>(text: &'t str, parts: &[&str]) -> Vec<&'t str> {
        let found = text.lines().find(|l| parts.iter().all(|part| l.contains(part)));
        found.unwrap_or_else(|| panic!("no line with {parts:?}")).split('|').map(str::trim).collect()
    }

    #[test]
    fn results_become_rows() {
        let text = section("gpu-made-up.json", &made_up());
        let flat = text.replace('\n', " ");
        for part in [
            "Measured on MADE UP 100 (50.0 GB), driver 1.2, CUDA 3.4, beside 3 cores of a cpu, 2000-01-01, commit abc1234",
            "(`results/gpu-made-up.json`). Versions: torch 0.0.1, trl not measured.",
            "a copy within the device 2.00 TB/s, a large matrix product in bf16 500 TFLOP/s",
            "7 passed, 0 failed. compute-sanitizer: memcheck over 5 tests: 0 errors.",
            "differ from TRL's by 2.0e-2 at most",
            "What failed in this run: peers: liger was not there.",
        ] {
            assert!(flat.contains(part), "{part}\n{text}");
        }
        // 30 bytes of each of 2^26 parameters in 2 ms, of 2 TB/s.
        assert_eq!(
            line(&text, &["adamw"])[1..8],
            ["adamw", "67108864", "2.00 ms", "1.01 TB/s", "50 %", "torch fused, 1.50 times", "—"]
        );
        assert_eq!(
            line(&text, &["gemm own", "8192x16384x2048"])[3..7],
            ["2.00 ms", "275 TFLOP/s", "55 %", "torch, 0.50 times"]
        );
        assert_eq!(
            line(&text, &["attention ", "hd64 512 "])[3..8],
            [MISSING, MISSING, MISSING, MISSING, "FA2 / cuDNN / FA3 180 / 225 / 197"]
        );
        assert_eq!(line(&text, &["Llama-3.2-1B", "duel"])[3..7], ["200.00 ms", "40.0", "30.0 GB", ""]);
        assert_eq!(
            line(&text, &["Llama-3.2-1B", "TRL default"])[3..7],
            ["900.00 ms", MISSING, MISSING, "3.00 times"]
        );
        assert_eq!(line(&text, &["Llama-3.2-1B", "TRL tuned"])[6], "2.50 times");
        assert_eq!(line(&text, &["Qwen2.5-0.5B", "TRL tuned"])[6], MISSING);
        assert!(text.lines().all(|line| line.starts_with('|') || line.chars().count() < 120));
    }

    /// Results of nothing give no number at all.
    #[test]
    fn nothing_is_invented() {
        let text = section("gpu-nothing.json", &json!({}));
        assert!(text.contains("Measured on not measured"));
        for kernel in ["adamw", "rmsnorm_bw"] {
            let cells = line(&text, &[&format!("| {kernel} ")]);
            assert!(cells[3..7].iter().all(|cell| *cell == MISSING), "{cells:?}");
        }
        assert!(text.replace('\n', " ").contains("The losses were not compared."));
        assert!(!text.contains("What failed"));
    }
}
