//! Curves of a run as one SVG: up to four panels over the steps, training in strong colours, evaluation dotted.

use super::metrics::{Record, step_of};
use crate::Error;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::fmt::Display;
use std::ops::Range;
use std::path::Path;

/// One panel: its title and what may be in it. A panel without data is left out.
struct Panel {
    title: &'static str,
    /// Metric and its name in the legend; the evaluation's metric has `eval_` in front.
    metrics: &'static [(&'static str, &'static str)],
    /// The values are shares: the axis shows at most 0 to 1.
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

/// Colours of the metrics of a panel, told apart by the colour-blind too, each with the one of its evaluation.
const COLORS: [[RGBColor; 2]; 3] = [
    [RGBColor(31, 119, 180), RGBColor(214, 90, 20)],
    [RGBColor(190, 60, 120), RGBColor(120, 80, 30)],
    [RGBColor(40, 140, 70), RGBColor(110, 60, 170)],
];
const INK: RGBColor = RGBColor(50, 50, 50);
const GRID: RGBColor = RGBColor(228, 228, 228);
const PANEL_SIZE: (u32, u32) = (520, 340);
/// Height of the title and of a row of the legend below it.
const TITLE_HEIGHT: i32 = 34;
const LEGEND_ROW: i32 = 20;
/// Plotters draws text at 1/1.24 of the size it is given.
const TEXT: f64 = 13.0 * 1.24;
const TITLE: f64 = 16.0 * 1.24;

/// A curve of a panel: its points in order of their steps, without those where the metric is null.
struct Curve {
    label: String,
    color: RGBColor,
    eval: bool,
    points: Vec<(f64, f64)>,
}

/// Draws the records of a run ([`super::metrics::read`]) to the file at `path`. Panels: loss; reward, KL and length of
/// samples; rewards, reward accuracy, KL, token accuracy; the first four that have data.
///
/// # Errors
/// The file cannot be written.
pub fn write_svg(path: &Path, records: &[Record]) -> Result<(), Error> {
    let failed = |e: &dyn Display| Error::new(format!("cannot write the plot {}: {e}", path.display()));
    let svg = draw(records).map_err(|e| failed(&e))?;
    std::fs::write(path, svg).map_err(|e| failed(&e))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn<T> = Result<T, Box<dyn std::error::Error>>;

fn draw(records: &[Record]) -> Drawn<String> {
    let with_data =
        |panel: &'static Panel| Some((panel, curves(panel, records))).filter(|(_, c)| !c.is_empty());
    let panels: Vec<_> = PANELS.iter().filter_map(with_data).take(MOST_PANELS).collect();
    let columns = panels.len().clamp(1, 2);
    let rows = panels.len().div_ceil(2).max(1);
    let size = (PANEL_SIZE.0 * columns as u32, PANEL_SIZE.1 * rows as u32);
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
    root.fill(&WHITE)?;
    if panels.is_empty() {
        let middle = (size.0 as i32 / 2, size.1 as i32 / 2);
        root.draw(&Text::new("nothing logged yet", middle, text(TITLE, HPos::Center)))?;
    }
    for (area, (panel, curves)) in root.split_evenly((rows, columns)).iter().zip(&panels) {
        draw_panel(area, panel, curves)?;
    }
    root.present()?;
    drop(root);
    Ok(svg)
}

/// The curves that have points, those of training first.
fn curves(panel: &Panel, records: &[Record]) -> Vec<Curve> {
    let of =
        |eval: bool| panel.metrics.iter().zip(COLORS).map(move |(metric, colors)| (metric, colors, eval));
    let curve = |(&(name, short), colors, eval): (&(&str, &str), [RGBColor; 2], bool)| {
        let key = if eval { format!("eval_{name}") } else { name.to_string() };
        let point = |record: &Record| Some((step_of(record)? as f64, record.get(&key)?.as_f64()?));
        let mut points: Vec<_> = records.iter().filter_map(point).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let label = match (short, eval) {
            ("", false) => "training".to_string(),
            ("", true) => "evaluation".to_string(),
            (short, false) => short.to_string(),
            (short, true) => format!("eval {short}"),
        };
        Curve { label, color: colors[usize::from(eval)], eval, points }
    };
    of(false).chain(of(true)).map(curve).filter(|curve| !curve.points.is_empty()).collect()
}

fn text(size: f64, horizontal: HPos) -> TextStyle<'static> {
    TextStyle::from(("sans-serif", size).into_font()).color(&INK).pos(Pos::new(horizontal, VPos::Center))
}

fn draw_panel(area: &Area, panel: &Panel, curves: &[Curve]) -> Drawn<()> {
    // Many curves do not fit into one row: then evaluation gets its own.
    let (training, evaluation) = curves.split_at(curves.partition_point(|curve| !curve.eval));
    let legend = if curves.len() > 3 { vec![training, evaluation] } else { vec![curves] };
    let (head, body) = area.split_vertically(TITLE_HEIGHT + LEGEND_ROW * legend.len() as i32);
    head.draw(&Text::new(panel.title, (PANEL_SIZE.0 as i32 / 2, 20), text(TITLE, HPos::Center)))?;
    for (row, curves) in legend.into_iter().enumerate() {
        draw_legend(&head, TITLE_HEIGHT + LEGEND_ROW / 2 + LEGEND_ROW * row as i32, curves)?;
    }

    let points = || curves.iter().flat_map(|curve| &curve.points);
    let x = axis(points().map(|p| p.0), None);
    let y = axis(points().map(|p| p.1), panel.share.then_some(0.0..1.0));
    let (x_span, y_span) = (x.end - x.start, y.end - y.start);
    let mut chart = ChartBuilder::on(&body)
        .margin(6)
        .margin_right(24)
        .x_label_area_size(44)
        .y_label_area_size(68)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .x_labels(6)
        .y_labels(6)
        .max_light_lines(0)
        .bold_line_style(GRID)
        .axis_style(INK)
        .label_style(text(TEXT, HPos::Center))
        .x_desc("step")
        .axis_desc_style(text(TEXT, HPos::Center))
        // A step is a whole number, also where the axis is so short that ticks fall between two.
        .x_label_formatter(&|step| if step.fract() == 0.0 { tick(*step, x_span) } else { String::new() })
        .y_label_formatter(&|value| tick(*value, y_span))
        .draw()?;
    for curve in curves {
        let line = curve.points.iter().copied();
        chart.draw_series(LineSeries::new(line.clone(), curve.color.stroke_width(2)))?;
        // A single point makes no line.
        if curve.eval || curve.points.len() == 1 {
            chart.draw_series(line.map(|point| Circle::new(point, 4, curve.color.filled())))?;
        }
    }
    Ok(())
}

/// One row of line samples and names, centred; plotters cannot measure text, so widths are estimates on the safe side.
fn draw_legend(head: &Area, y: i32, curves: &[Curve]) -> Drawn<()> {
    const SAMPLE: i32 = 18;
    const GAP: i32 = 6;
    const LETTER: i32 = 8;
    let width = |curve: &Curve| SAMPLE + 3 * GAP + LETTER * curve.label.len() as i32;
    let mut x = (PANEL_SIZE.0 as i32 - curves.iter().map(width).sum::<i32>()) / 2 + GAP;
    for curve in curves {
        head.draw(&PathElement::new([(x, y), (x + SAMPLE, y)], curve.color.stroke_width(2)))?;
        if curve.eval {
            head.draw(&Circle::new((x + SAMPLE / 2, y), 4, curve.color.filled()))?;
        }
        head.draw(&Text::new(curve.label.as_str(), (x + SAMPLE + GAP, y), text(TEXT, HPos::Left)))?;
        x += width(curve);
    }
    Ok(())
}

/// An axis that holds all values with a little air, and never an empty range; `within` cuts the air off.
fn axis(values: impl Iterator<Item = f64>, within: Option<Range<f64>>) -> Range<f64> {
    let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
    // Values that differ in rounding only are one value: no tick fits between them.
    let differ = high - low > 1e-6 * low.abs().max(high.abs());
    let air = if differ { 0.05 * (high - low) } else { 0.5 * low.abs().max(1.0) };
    let within =
        within.filter(|w| w.start <= low && high <= w.end).unwrap_or(f64::NEG_INFINITY..f64::INFINITY);
    (low - air).max(within.start)..(high + air).min(within.end)
}

/// A tick's value with the digits that tell it from its neighbours on an axis of this span.
fn tick(value: f64, span: f64) -> String {
    let value = if value.abs() < 1e-9 * span { 0.0 } else { value };
    let largest = value.abs().max(span);
    if !(1e-3..1e6).contains(&largest) {
        return if value == 0.0 { "0".into() } else { format!("{value:.1e}") };
    }
    // Ticks are a tenth of the span apart or more, at multiples of 1, 2 or 5 and, rarely, 2.5.
    let digits = (2.0 - span.log10().floor()).clamp(0.0, 8.0) as usize;
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
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
    fn axes_hold_the_data() {
        assert_eq!(axis([2.0].into_iter(), None), 1.0..3.0);
        assert_eq!(axis([0.0, 1.0].into_iter(), Some(0.0..1.0)), 0.0..1.0);
        assert_eq!(axis([0.0, 10.0].into_iter(), Some(0.0..1.0)), -0.5..10.5);
    }

    #[test]
    fn ticks_tell_neighbours_apart() {
        for (value, span, shown) in [
            (0.73219, 0.05, "0.7322"),
            (0.5, 1.0, "0.5"),
            (0.30000000000000004, 0.7, "0.3"),
            (1e-17, 0.7, "0"),
            (200.0, 1000.0, "200"),
            (2e-6, 1e-5, "2.0e-6"),
            (3e7, 1e8, "3.0e7"),
            (-0.25, 1.0, "-0.25"),
        ] {
            assert_eq!(tick(value, span), shown);
        }
    }

    #[test]
    fn a_plot_that_cannot_be_written_is_an_error() {
        let path = Path::new("no such folder/plot.svg");
        assert!(write_svg(path, &dpo()).unwrap_err().to_string().contains("no such folder"));
    }
}
