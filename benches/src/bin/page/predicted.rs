//! The section where nothing was measured: predictions, plainly marked as such.

use crate::WIDTH;
use crate::predict::{H100, Prediction, predict};
use crate::published;
use crate::rows::{STEP, Step, shown, steps};
use duel_benches::markdown::{percent, table, time, wrap};
use duel_benches::step::{Trl, flops, trl_flops};
use duel_benches::verb::Work;

/// Share of the matrix ceiling at which TRL's operations are taken to run.
const TRL_SHARE: f64 = 0.40;

/// The whole section.
pub fn section() -> String {
    let mut text = wrap(
        "**Nothing here was measured: these are predictions, and no kernel has run on a GPU yet.** They are made by code \
         (`benches/src/bin/page/predict.rs`) from the work of each call, counted as `benches/src/gpu.rs` counts it, and a \
         table of expected shares. *Floor* is the work over the assumed ceilings of an H100 SXM, a copy at 3.0 TB/s and a \
         matrix product in bf16 at 790 TFLOP/s; one such machine measured 3.0 and 798 on 2026-11-13. *Share* is the floor \
         over the predicted time. *Published* are rates of others in TFLOP/s on an H100 (Liger's on an H200): what is to \
         be beaten. `cargo bench -p duel-benches --bench gpu` measures all of it.",
        WIDTH,
    );
    text += "\n";
    text += &kernels();
    text += "\n";
    text += &wrap(
        &format!(
            "A whole step of DPO, with the same reservation: {} pairs of a prompt of {}, a chosen response of {} and a \
             rejected one of {} tokens, bf16 with masters, moments and gradients in float32, the reference's \
             log-probabilities cached. Operations are counted by the formulas in `benches/src/step.rs`; TRL's are those of \
             padded pairs without a shared prompt, *default* with gradient checkpointing and the reference in the step, \
             *tuned* without both. Our time is the sum of the predicted times of every call of a step, without gaps \
             between them. Memory is what the trainer plans to allocate: state (weights, masters, gradients, moments) and \
             pass (activations and one chunk of logits); *update* is what AdamW moves in a step. TRL's time is its \
             operations at {} of the product ceiling, which is an assumption, not a measurement.",
            STEP.pairs,
            STEP.pair.prompt,
            STEP.pair.chosen,
            STEP.pair.rejected,
            percent(TRL_SHARE, 0)
        ),
        WIDTH,
    );
    text += "\n";
    text += &whole_steps();
    text
}

fn kernels() -> String {
    let head =
        ["kernel", "shape", "held back by", "work", "floor", "predicted", "rate", "share", "published"];
    let mut lines = vec![head.map(String::from)];
    lines.extend(shown().iter().map(|case| {
        let Prediction { floor, seconds, reason } = predict(case.verb, case.own, &H100);
        [
            case.kernel(),
            case.shape(),
            reason.into(),
            amount(case.work()),
            time(floor),
            time(seconds),
            rate(case.work(), seconds),
            percent(floor / seconds, 0),
            published::cell(case),
        ]
    }));
    table(&lines, 3)
}

fn amount(work: Work) -> String {
    match work {
        Work::Flops(n) if n < 1_000_000_000_000 => format!("{:.0} GFLOP", n as f64 * 1e-9),
        Work::Flops(n) => format!("{:.1} TFLOP", n as f64 * 1e-12),
        Work::Bytes(n) if n < 1_000_000_000 => format!("{:.0} MB", n as f64 * 1e-6),
        Work::Bytes(n) => format!("{:.1} GB", n as f64 * 1e-9),
    }
}

/// Work in a time, a second.
pub fn rate(work: Work, seconds: f64) -> String {
    match work {
        Work::Flops(n) => format!("{:.0} TFLOP/s", n as f64 * 1e-12 / seconds),
        Work::Bytes(n) => format!("{:.2} TB/s", n as f64 * 1e-12 / seconds),
    }
}

/// Predicted seconds of a step: every call of it.
fn step_seconds(step: &Step) -> f64 {
    step.calls().iter().map(|call| call.in_step * predict(call.verb, false, &H100).seconds).sum()
}

fn whole_steps() -> String {
    let head = [
        "model",
        "duel",
        "TRL default",
        "TRL tuned",
        "state",
        "pass",
        "update",
        "predicted step",
        "pairs/s",
        "share",
        "over default",
        "over tuned",
    ];
    let mut lines = vec![head.map(String::from)];
    for step in steps() {
        let ours = flops(&step.config, STEP);
        let seconds = step_seconds(&step);
        let trl = |how| trl_flops(&step.config, STEP, how);
        let tera = |flops: f64| format!("{:.1} TFLOP", flops * 1e-12);
        let giga = |bytes: f64| format!("{:.1} GB", bytes * 1e-9);
        let ratio = |how| format!("{:.1} times", trl(how) / (TRL_SHARE * H100.matmul) / seconds);
        lines.push([
            step.model.into(),
            tera(ours),
            tera(trl(Trl::Default)),
            tera(trl(Trl::Tuned)),
            giga(step.state_bytes() as f64),
            giga(step.pass_bytes() as f64),
            giga(step.update_bytes() as f64),
            time(seconds),
            format!("{:.0}", STEP.pairs as f64 / seconds),
            percent(ours / H100.matmul / seconds, 0),
            ratio(Trl::Default),
            ratio(Trl::Tuned),
        ]);
    }
    table(&lines, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A step is no faster than its operations, and its memory that of the plan: 18 bytes a parameter and the passes.
    #[test]
    fn steps_are_bounded() {
        for step in steps() {
            let share = flops(&step.config, STEP) / H100.matmul / step_seconds(&step);
            assert!(share > 0.2 && share < 0.9, "{}: {share}", step.model);
            assert_eq!(step.state_bytes() % 18, 0);
            assert_eq!(step.update_bytes() as usize * 18, step.state_bytes() * 30);
        }
    }

    #[test]
    fn it_says_what_it_is() {
        let text = section();
        assert!(text.starts_with("**Nothing here was measured"));
        assert!((20..=34).contains(&shown().len()), "{} rows", shown().len());
    }
}
