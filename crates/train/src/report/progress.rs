//! What a run says while it goes on: a bar on a terminal, with curves of its metrics below; plain lines anywhere else;
//! always on stderr.

use super::curve::Curve;
use crate::say::is_hushed;
use console::Term;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often a log file hears of work that logs nothing itself.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// Curves that are shown, and the most marks of one.
const CURVES: usize = 3;
const MARKS: usize = 100;

/// Progress through one piece of work: training, tokenising, the reference pass, generation.
pub struct Progress {
    label: String,
    unit: Unit,
    /// What was done before this process began: a resumed run starts here.
    from: u64,
    done: u64,
    total: u64,
    /// What steps learned from, and how that is called.
    learned: (u64, &'static str),
    loss: Option<f64>,
    /// Of a terminal: each with the line that shows it.
    curves: Vec<(Curve, ProgressBar)>,
    started: Instant,
    output: Output,
}

/// What is counted.
enum Unit {
    /// Things of this name.
    Of(String),
    /// Bytes of a file, said in MB. One that is read before the first interval is over is not worth a line.
    Bytes,
}

impl Unit {
    fn name(&self) -> &str {
        match self {
            Unit::Of(name) => name,
            Unit::Bytes => "MB",
        }
    }

    fn amount(&self, count: u64) -> f64 {
        match self {
            Unit::Of(_) => count as f64,
            Unit::Bytes => count as f64 / 1e6,
        }
    }

    fn show(&self, count: u64) -> String {
        match self {
            Unit::Of(_) => count.to_string(),
            Unit::Bytes => format!("{:.1}", self.amount(count)),
        }
    }
}

enum Output {
    Bars(MultiProgress, ProgressBar),
    Lines { writer: Box<dyn Write + Send>, written: Instant },
}

impl Progress {
    /// Work of `total` units of which `from` are already done, e.g. `("reference log-probs", "groups", 0, 300)`.
    pub fn new(label: &str, unit: &str, from: u64, total: u64) -> Self {
        Self::on_stderr(label, Unit::Of(unit.into()), from, total)
    }

    /// Reading a file of so many bytes: a bar on a terminal; elsewhere lines, and none for a file that is read before
    /// the first is due.
    pub fn reading(label: &str, bytes: u64) -> Self {
        Self::on_stderr(label, Unit::Bytes, 0, bytes)
    }

    fn on_stderr(label: &str, unit: Unit, from: u64, total: u64) -> Self {
        if is_hushed() {
            Self::with_output(label, unit, from, total, |_| lines(Box::new(std::io::sink())))
        } else if std::io::stderr().is_terminal() {
            let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
            Self::with_output(label, unit, from, total, |unit| bar(bars, unit, total))
        } else {
            Self::with_output(label, unit, from, total, |_| lines(Box::new(std::io::stderr())))
        }
    }

    /// The same in plain lines to `writer`, whatever it is.
    pub fn plain(label: &str, unit: &str, from: u64, total: u64, writer: Box<dyn Write + Send>) -> Self {
        Self::with_output(label, Unit::Of(unit.into()), from, total, |_| lines(writer))
    }

    /// Work inside this work (an evaluation, its samples): on a terminal a second bar below, gone when it is dropped.
    pub fn sub(&self, label: &str, unit: &str, total: u64) -> Self {
        match &self.output {
            Output::Bars(bars, _) => Self::with_output(label, Unit::Of(unit.into()), 0, total, |unit| {
                bar(bars.clone(), unit, total)
            }),
            Output::Lines { .. } => Self::on_stderr(label, Unit::Of(unit.into()), 0, total),
        }
    }

    fn with_output(
        label: &str,
        unit: Unit,
        from: u64,
        total: u64,
        output: impl FnOnce(&Unit) -> Output,
    ) -> Self {
        let output = output(&unit);
        let progress = Self {
            label: label.to_string(),
            unit,
            from,
            done: from,
            total,
            learned: (0, ""),
            loss: None,
            curves: Vec::new(),
            started: Instant::now(),
            output,
        };
        if let Output::Bars(_, bar) = &progress.output {
            bar.set_prefix(progress.label.clone());
            bar.set_position(from);
        }
        progress
    }

    /// `units` more are done.
    pub fn advance(&mut self, units: u64) {
        self.done += units;
        let status = self.status();
        let brief = matches!(self.unit, Unit::Bytes) && self.started.elapsed() < PLAIN_INTERVAL;
        let finished = self.done >= self.total && !brief;
        match &mut self.output {
            Output::Bars(_, bar) => {
                bar.set_message(status);
                bar.set_position(self.done);
            }
            // Training says its own lines (`logged`).
            Output::Lines { written, .. }
                if self.loss.is_none() && (finished || written.elapsed() >= PLAIN_INTERVAL) =>
            {
                *written = Instant::now();
                self.println(&format!("{} {status}", self.head()));
            }
            Output::Lines { .. } => {}
        }
    }

    /// One training step is done: from so much of what is called so (`pairs`), with this loss, and metrics of which a
    /// terminal shows curves.
    pub fn step(&mut self, (learned, name): (u64, &'static str), loss: f64, metrics: &[(&str, f64)]) {
        self.learned = (self.learned.0 + learned, name);
        self.loss = Some(loss);
        self.draw(loss, metrics);
        self.advance(1);
    }

    /// Draws the curves anew, as wide as the terminal is now.
    fn draw(&mut self, loss: f64, metrics: &[(&str, f64)]) {
        let Output::Bars(bars, _) = &self.output else { return };
        for (name, value) in [("loss", loss)].iter().chain(metrics).take(CURVES) {
            let known = self.curves.iter().position(|(curve, _)| curve.name == *name);
            let at = known.unwrap_or_else(|| {
                self.curves.push((Curve::new(name), line(bars)));
                self.curves.len() - 1
            });
            self.curves[at].0.add(*value);
        }
        let width = usize::from(Term::stderr().size().1);
        for (curve, line) in &self.curves {
            line.set_message(shown(curve, width));
        }
    }

    /// The metrics of a logged step: a line where there is no bar.
    pub fn logged(&mut self, metrics: &[(&str, f64)]) {
        if matches!(self.output, Output::Lines { .. }) {
            let shown: String =
                metrics.iter().map(|(name, value)| format!("  {name} {}", short(*value))).collect();
            self.println(&format!("{}{shown}  {}", self.head(), self.pace()));
        }
    }

    /// A line of its own: above the bar, without tearing it.
    pub fn println(&mut self, line: &str) {
        match &mut self.output {
            // Neither can be told to anyone if it fails: stderr itself is gone.
            Output::Bars(bars, _) => drop(bars.println(line)),
            Output::Lines { writer, .. } => drop(writeln!(writer, "{line}").and_then(|()| writer.flush())),
        }
    }

    /// "training 40/300 steps".
    fn head(&self) -> String {
        let (unit, done, total) = (&self.unit, self.unit.show(self.done), self.unit.show(self.total));
        format!("{} {done}/{total} {}", self.label, unit.name())
    }

    /// What follows the counter: the loss if there is one, the pace.
    fn status(&self) -> String {
        match self.loss {
            Some(loss) => format!("loss {}  {}", short(loss), self.pace()),
            None => self.pace(),
        }
    }

    fn pace(&self) -> String {
        let done = self.done - self.from;
        let rated = match self.learned {
            (0, _) => (self.unit.amount(done), self.unit.name()),
            (learned, name) => (learned as f64, name),
        };
        pace(rated, done, self.total.saturating_sub(self.done), self.started.elapsed())
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Output::Bars(bars, bar) = &self.output {
            for bar in self.curves.iter().map(|(_, line)| line).chain([bar]) {
                bar.finish_and_clear();
                bars.remove(bar);
            }
        }
    }
}

fn lines(writer: Box<dyn Write + Send>) -> Output {
    Output::Lines { writer, written: Instant::now() }
}

fn bar(bars: MultiProgress, unit: &Unit, total: u64) -> Output {
    let template = match unit {
        Unit::Of(_) => "{prefix} {wide_bar} {pos}/{len}  {msg}",
        Unit::Bytes => "{prefix} {wide_bar} {decimal_bytes}/{decimal_total_bytes}  {msg}",
    };
    // The templates are constants: the plain style stands in only if one were wrong.
    let style = ProgressStyle::with_template(template);
    let bar = ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let bar = bars.add(bar);
    Output::Bars(bars, bar)
}

/// A line of text below the bar.
fn line(bars: &MultiProgress) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_msg}");
    bars.add(ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
}

/// A curve in a line of so many columns: its name, its last value, its marks, and what they range over.
fn shown(curve: &Curve, width: usize) -> String {
    let range =
        curve.range().map_or(String::new(), |(least, most)| format!(" {} .. {}", short(least), short(most)));
    let head = format!("{:<20} {:>9} ", curve.name, short(curve.last()));
    // The last column stays free: a full line would be two.
    let room = width.saturating_sub(head.len() + range.len() + 1).min(MARKS);
    head + &curve.marks(room) + &range
}

/// "12.3 pairs/s, 3:20 left": the mean pace since the start, and what it means for the rest.
fn pace((amount, unit): (f64, &str), done: u64, left: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64().max(1e-9);
    let mut text = format!("{} {unit}/s", short(amount / seconds));
    if left > 0 && done > 0 {
        text += &format!(", {} left", clock(seconds / done as f64 * left as f64));
    }
    text
}

/// Seconds as 0:07, 12:34 or 1:02:03.
pub fn clock(seconds: f64) -> String {
    let s = seconds.round() as u64;
    match s / 3600 {
        0 => format!("{}:{:02}", s / 60, s % 60),
        hours => format!("{hours}:{:02}:{:02}", s / 60 % 60, s % 60),
    }
}

/// About four digits: 0.6931, 12.35, 1e-6.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        0.0 => return "0".into(),
        a if !(1e-3..1e7).contains(&a) => return format!("{value:.2e}"),
        a if a < 10.0 => 4,
        a if a < 100.0 => 2,
        a if a < 1000.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Shared {
        fn lines(&self) -> Vec<String> {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap().lines().map(String::from).collect()
        }
    }

    #[test]
    fn training_writes_one_line_per_logged_step() {
        let log = Shared::default();
        let mut progress = Progress::plain("training", "steps", 100, 300, Box::new(log.clone()));
        for step in 101..=120 {
            progress.step((8, "pairs"), 0.5, &[]);
            if step % 10 == 0 {
                progress.logged(&[("loss", 0.5), ("learning_rate", 1e-6)]);
            }
        }
        progress.println("saved duel-output/checkpoint-120");
        let lines = log.lines();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(
            lines[0].starts_with("training 110/300 steps  loss 0.5000  learning_rate 1.00e-6  "),
            "{}",
            lines[0]
        );
        assert!(lines[0].contains(" pairs/s, ") && lines[0].ends_with(" left"), "{}", lines[0]);
        assert_eq!(lines[2], "saved duel-output/checkpoint-120");
    }

    #[test]
    fn other_work_says_when_it_is_done_and_does_not_flood_the_log() {
        let log = Shared::default();
        let mut progress = Progress::plain("reference log-probs", "groups", 0, 300, Box::new(log.clone()));
        (0..300).for_each(|_| progress.advance(1));
        let lines = log.lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("reference log-probs 300/300 groups ") && !lines[0].contains("left"));
    }

    /// Reading a file, which began `ago`.
    fn reading(bytes: u64, ago: Duration, log: &Shared) -> Progress {
        let writer = Box::new(log.clone());
        let mut progress = Progress::with_output("tokenising", Unit::Bytes, 0, bytes, |_| Output::Lines {
            writer,
            written: Instant::now() - ago,
        });
        progress.started -= ago;
        progress
    }

    #[test]
    fn a_file_read_at_once_is_not_worth_a_line() {
        let log = Shared::default();
        let mut progress = reading(3_000, Duration::ZERO, &log);
        (0..3).for_each(|_| progress.advance(1_000));
        drop(progress);
        assert_eq!(log.lines(), [""; 0]);
    }

    #[test]
    fn reading_a_large_file_is_said_in_mb_at_each_interval_and_at_the_end() {
        let log = Shared::default();
        let mut progress = reading(340_500_000, PLAIN_INTERVAL, &log);
        [170_250_000, 1_000, 170_249_000].into_iter().for_each(|bytes| progress.advance(bytes));
        let lines = log.lines();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with("tokenising 170.2/340.5 MB "), "{}", lines[0]);
        assert!(lines[0].ends_with(" MB/s, 0:10 left"), "{}", lines[0]);
        assert!(lines[1].starts_with("tokenising 340.5/340.5 MB "), "{}", lines[1]);
        assert!(lines[1].ends_with(" MB/s"), "{}", lines[1]);
    }

    #[test]
    fn bars_survive_every_call() {
        let hidden = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
        let steps = Unit::Of("steps".into());
        let mut progress = Progress::with_output("training", steps, 5, 9, |unit| bar(hidden, unit, 9));
        progress.step((2, "pairs"), 0.25, &[("rewards/margins", 0.5), ("kl", f64::NAN), ("more", 1.0)]);
        assert_eq!(progress.curves.len(), CURVES);
        progress.logged(&[("loss", 0.25)]);
        progress.sub("evaluation", "groups", 3).advance(3);
        progress.println("line");
        let Output::Bars(_, bar) = &progress.output else { panic!("no bar") };
        assert_eq!((bar.position(), bar.length(), bar.prefix()), (6, Some(9), "training".to_string()));
        assert!(bar.message().starts_with("loss 0.2500  "), "{}", bar.message());
    }

    #[test]
    fn pace_counts_from_where_this_process_began() {
        let pace = |pairs, done, left| pace((pairs, "pairs"), done, left, Duration::from_secs(10));
        assert_eq!(pace(80.0, 10, 200), "8.0000 pairs/s, 3:20 left");
        assert_eq!(pace(80.0, 10, 0), "8.0000 pairs/s");
        assert_eq!(pace(0.0, 0, 5), "0 pairs/s");
    }

    #[test]
    fn curves_fit_the_terminal() {
        let mut curve = Curve::new("loss");
        [0.75, 0.5].into_iter().for_each(|loss| curve.add(loss));
        assert_eq!(shown(&curve, 80), "loss                    0.5000 █▁ 0.5000 .. 0.7500");
        (0..500).for_each(|i| curve.add(f64::from(i)));
        for width in [0, 20, 50, 80, 400] {
            let text = shown(&curve, width);
            assert!(text.chars().count() <= width.max(47), "{width}: {text}");
        }
    }

    #[test]
    fn times_and_numbers_are_short() {
        assert_eq!([7.0, 754.4, 3723.0].map(clock), ["0:07", "12:34", "1:02:03"]);
        assert_eq!(
            [0.0, 0.73219, -12.3456, 1e-6, 250.06, 12345.6].map(short),
            ["0", "0.7322", "-12.35", "1.00e-6", "250.1", "12346"]
        );
        assert_eq!(short(f64::NAN), "NaN");
    }
}
