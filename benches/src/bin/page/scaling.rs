//! The tables of `docs/scaling.md`.

use duel_benches::markdown::{percent, table};
use duel_benches::scaling::{CPU, GPU, HERE, MEASURED, MODELS, Machine, Run, Sharding};

/// What stands around them.
pub const MARKERS: [&str; 2] = ["<!-- scaling: begin -->\n", "<!-- scaling: end -->\n"];

/// Processes of the plan: up to 64 nodes of eight GPUs, and 1,000 nodes of processors.
const PROCESSES: [(Machine, [f64; 3]); 2] = [(GPU, [8.0, 64.0, 512.0]), (CPU, [10.0, 100.0, 1000.0])];

/// A table of each kind of process, and one of what was measured.
pub fn section() -> String {
    PROCESSES.map(|(machine, counts)| of(machine, counts)).join("\n") + "\n" + &here()
}

fn here() -> String {
    let mut lines = vec![
        ["processes", "compute", "wire", "adding, copying", "step", "measured", "apart"].map(String::from),
    ];
    for (processes, measured) in (1..).zip(MEASURED) {
        let step = HERE.step(processes);
        let seconds = |s: f64| format!("{s:.2} s");
        lines.push([
            processes.to_string(),
            seconds(step.compute),
            seconds(step.wire),
            seconds(step.host),
            seconds(step.seconds()),
            seconds(measured),
            format!("{:+.0} %", 100.0 * (step.seconds() / measured - 1.0)),
        ]);
    }
    table(&lines, 0)
}

fn of(machine: Machine, counts: [f64; 3]) -> String {
    let staged = machine.bus.is_some();
    let head = [
        "model",
        machine.name,
        "memory needs",
        "GB each",
        "compute",
        "wire",
        "messages",
        "host",
        "step",
        "computing",
        if staged { "not through the host" } else { "two shares each" },
    ];
    let mut lines = vec![head.map(String::from)];
    for model in MODELS {
        for processes in counts {
            let run = Run { model, machine, processes, shares: processes };
            let needs = run.needs();
            let held = needs.unwrap_or(Sharding::Weights);
            let [seconds, share] = [|s: f64| format!("{s:.2} s"), |s: f64| percent(s, 0)];
            let step = run.step(true);
            let other = match staged {
                true => run.step(false),
                false => Run { shares: 2.0 * processes, ..run }.step(true),
            };
            // What gathers weights layer by layer is not modelled.
            let is_planned = needs.is_some_and(|needs| needs < Sharding::Weights);
            let planned = |text: String| if is_planned { text } else { "—".into() };
            lines.push([
                model.name.into(),
                format!("{processes:.0}"),
                needs.map_or("more than ZeRO-3", Sharding::name).into(),
                format!("{:.0}", run.bytes(held) * 1e-9),
                seconds(step.compute),
                planned(seconds(step.wire)),
                planned(seconds(step.messages)),
                planned(seconds(step.host)),
                planned(seconds(step.seconds())),
                planned(share(step.efficiency())),
                planned(share(other.efficiency())),
            ]);
        }
    }
    table(&lines, 1)
}
