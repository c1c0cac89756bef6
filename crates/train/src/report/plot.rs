//! Curves of a run as one SVG: up to four panels over the steps, training as lines, evaluation dotted.

use super::metrics::{Record, step_of};
use crate::Error;
use duel_plot::{Axis, Chart, Point, Series, Style, svg};
use std::fmt::Display;
use std::path::Path;

/// One panel: its title and what may be in it. A panel without data is left out.
struct Panel {
    title: &'static str,
    /// Metric and its name in the legend; the evaluation's metric has `eval_` in front.
    metrics: &'static [(&'static str, &'static str)],
    /// The values are shares: the axis shows 0 to 1.
    share: bool,
}

const PANELS: [Panel; 10] = [
    Panel { title: "loss", metrics: &[("loss", "")], share: false },
    Panel { title: "reward of samples", metrics: &[("reward", "")], share: false },
    Panel { title: "KL to the reference, nats a sample", metrics: &[("sequence_kl", "")], share: false },
    Panel { title: "tokens a sample", metrics: &[("completions/mean_length", "")], share: false },
    Panel {
        title: "rewards",
        metrics: &[
            ("rewards/chosen", "chosen"),
            ("rewards/rejected", "rejected"),
            ("rewards/margins", "margin"),
        ],
        share: false,
    },
    Panel { title: "reward accuracy", metrics: &[("rewards/accuracies", "")], share: true },
    Panel {
        title: "rewards",
        metrics: &[("max_reward", "largest"), ("mean_reward", "mean"), ("min_reward", "smallest")],
        share: false,
    },
    Panel {
        title: "accuracy",
        metrics: &[("accuracy", "accuracy"), ("calibration_error", "calibration error")],
        share: true,
    },
    Panel { title: "KL to the reference", metrics: &[("kl", "")], share: false },
    Panel { title: "token accuracy", metrics: &[("mean_token_accuracy", "")], share: true },
];
const MOST_PANELS: usize = 4;

/// Draws the records of a run ([`super::metrics::read`]) to the file at `path`. Panels: loss; reward, KL and length of
/// samples; rewards, reward accuracy, KL, token accuracy; the first four that have data.
///
/// # Errors
/// The file cannot be written.
pub fn write_svg(path: &Path, records: &[Record]) -> Result<(), Error> {
    let failed = |e: &dyn Display| Error::new(format!("cannot write the plot {}: {e}", path.display()));
    let svg = draw(records).map_err(|e| failed(&e))?;
    duel_disk::write(path, svg.as_bytes()).map_err(|e| failed(&e))
}

fn draw(records: &[Record]) -> Result<String, duel_plot::Error> {
    draw_all(records, MOST_PANELS)
}

/// The first `most` panels that have data.
fn draw_all(records: &[Record], most: usize) -> Result<String, duel_plot::Error> {
    let mut charts: Vec<Chart> = PANELS.iter().filter_map(|panel| chart(panel, records)).collect();
    charts.truncate(most);
    if charts.is_empty() {
        charts.push(Chart { title: "nothing logged yet".into(), ..Chart::default() });
    }
    svg(&charts)
}

/// The curves of several runs, over each other: an image of a chart for each metric that any of them has.
///
/// # Errors
/// It cannot be drawn.
pub fn compared(runs: &[(&str, &[Record])]) -> Result<String, duel_plot::Error> {
    if let [(_, alone)] = runs {
        return draw_all(alone, usize::MAX);
    }
    let metrics = PANELS.iter().flat_map(|panel| panel.metrics.iter().map(move |metric| (panel, metric)));
    let chart = |(panel, metric): (&Panel, &(&str, &str))| {
        let of = |eval: bool| {
            runs.iter().map(move |(name, records)| {
                let label = if eval { format!("{name}, evaluation") } else { (*name).to_owned() };
                Series { label, ..curve(metric, eval, records) }
            })
        };
        let title = match metric.1 {
            "" => panel.title.to_owned(),
            short => format!("{}: {short}", panel.title),
        };
        framed(panel, title, of(false).chain(of(true)).collect())
    };
    let charts: Vec<Chart> = metrics.filter_map(chart).collect();
    svg(&charts)
}

/// The curves that have points, those of training first; `None` where there are none.
fn chart(panel: &Panel, records: &[Record]) -> Option<Chart> {
    let all =
        panel.metrics.iter().map(|metric| (metric, false)).chain(panel.metrics.iter().map(|m| (m, true)));
    framed(panel, panel.title.into(), all.map(|(metric, eval)| curve(metric, eval, records)).collect())
}

/// A chart of the curves that have points; `None` where none has.
fn framed(panel: &Panel, title: String, mut series: Vec<Series>) -> Option<Chart> {
    series.retain(|s| !s.points.is_empty());
    let share = |value: f64| (0.0..=1.0).contains(&value);
    let shares = panel.share && series.iter().flat_map(|s| &s.points).all(|point| share(point.y));
    (!series.is_empty()).then(|| Chart {
        title,
        x: Axis { label: "step".into(), ..Axis::default() },
        y: Axis { range: shares.then_some((0.0, 1.0)), ..Axis::default() },
        series,
    })
}

/// A metric in order of its steps, without those where it is null.
fn curve((name, short): &(&str, &str), eval: bool, records: &[Record]) -> Series {
    let key = if eval { format!("eval_{name}") } else { name.to_string() };
    let point = |record: &Record| Some(Point::new(step_of(record)? as f64, record.get(&key)?.as_f64()?));
    let mut points: Vec<Point> = records.iter().filter_map(point).collect();
    points.sort_by(|a, b| a.x.total_cmp(&b.x));
    let label = match (*short, eval) {
        ("", false) => "training".to_string(),
        ("", true) => "evaluation".to_string(),
        (short, false) => short.to_string(),
        (short, true) => format!("eval {short}"),
    };
    Series { label, style: if eval { Style::LinePoints } else { Style::Line }, points }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn record(value: Value) -> Record {
        serde_json::from_value(value).unwrap()
    }

    /// What the image says.
    fn texts(svg: &str) -> Vec<&str> {
        let inside = |part| Some(str::split_once(str::split_once(part, '>')?.1, "</text>")?.0.trim());
        svg.split("<text").skip(1).filter_map(inside).collect()
    }

    fn dpo() -> Vec<Record> {
        let step = |i: u64| {
            let t = i as f64 / 30.0;
            let mut json = json!({
                "step": 10 * i, "loss": 0.69 * (-t).exp(), "rewards/chosen": 0.1 * t, "rewards/rejected": -0.4 * t,
                "rewards/margins": 0.5 * t, "rewards/accuracies": 0.5 + 0.4 * t,
            });
            if i.is_multiple_of(10) {
                json["eval_loss"] = (0.7 * (-0.8 * t).exp()).into();
                json["eval_kl"] = t.into();
            }
            record(json)
        };
        (0..=30).map(step).collect()
    }

    #[test]
    fn panels_are_those_with_data() {
        let svg = draw(&dpo()).unwrap();
        let words = texts(&svg);
        for word in [
            "loss",
            "rewards",
            "reward accuracy",
            "KL to the reference",
            "chosen",
            "margin",
            "evaluation",
            "step",
        ] {
            assert!(words.contains(&word), "{word} in {words:?}");
        }
        assert!(!words.contains(&"token accuracy") && !words.contains(&"eval chosen"));
        assert!(svg.contains("width=\"1040\" height=\"680\""));

        let own = json!({"step": 1, "loss": 2.0, "reward": 0.5, "sequence_kl": 1.0, "completions/mean_length": 9.0, "kl": 0.1});
        let svg = draw(&[record(own)]).unwrap();
        for word in ["loss", "reward of samples", "KL to the reference, nats a sample", "tokens a sample"] {
            assert!(texts(&svg).contains(&word), "{word}");
        }

        let sft = [record(json!({"step": 1, "loss": 2.0, "mean_token_accuracy": 0.3}))];
        let svg = draw(&sft).unwrap();
        assert!(texts(&svg).contains(&"token accuracy") && !texts(&svg).contains(&"rewards"));
        assert!(svg.contains("width=\"1040\" height=\"340\""));
    }

    #[test]
    fn odd_data_is_drawn() {
        assert!(texts(&draw(&[]).unwrap()).contains(&"nothing logged yet"));
        assert!(
            texts(&draw(&[record(json!({"step": 1, "loss": null}))]).unwrap())
                .contains(&"nothing logged yet")
        );
        for losses in [
            vec![json!(0.0)],
            vec![json!(-3.5); 4],
            vec![json!(1.0), Value::Null, json!(2.0)],
            vec![json!(1e-9), json!(2e9)],
            vec![json!(0.7), json!(0.7000000000000001)],
            vec![json!(1e-30), json!(-1e-30)],
            vec![json!(f32::MAX), json!(f32::MIN)],
        ] {
            let records: Vec<_> =
                losses.iter().enumerate().map(|(i, l)| record(json!({"step": i, "loss": l}))).collect();
            let svg = draw(&records).unwrap();
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            assert_eq!(svg.contains("<circle"), losses.len() == 1);
        }
    }

    #[test]
    fn a_plot_that_cannot_be_written_is_an_error() {
        let path = Path::new("no such folder/plot.svg");
        assert!(write_svg(path, &dpo()).unwrap_err().to_string().contains("no such folder"));
    }
}
