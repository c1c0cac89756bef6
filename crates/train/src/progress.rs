//! What a run says while it goes on: a bar on a terminal, plain lines anywhere else; always on stderr.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a log file hears of work that logs nothing itself.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// Progress through one piece of work: training, tokenising, the reference pass, generation.
pub struct Progress {
    label: String,
    unit: String,
    /// What was done before this process began: a resumed run starts here.
    from: u64,
    done: u64,
    total: u64,
    pairs: u64,
    loss: Option<f64>,
    started: Instant,
    output: Output,
}

enum Output {
    Bars(MultiProgress, ProgressBar),
    Lines { writer: Box<dyn Write + Send>, written: Instant },
}

impl Progress {
    /// Work of `total` units of which `from` are already done, e.g. `("reference log-probs", "groups", 0, 300)`.
    pub fn new(label: &str, unit: &str, from: u64, total: u64) -> Self {
        if std::io::stderr().is_terminal() {
            let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
            Self::with_output(label, unit, from, total, |total| bar(bars, total))
        } else {
            Self::plain(label, unit, from, total, Box::new(std::io::stderr()))
        }
    }

    /// The same in plain lines to `writer`, whatever it is.
    pub fn plain(label: &str, unit: &str, from: u64, total: u64, writer: Box<dyn Write + Send>) -> Self {
        Self::with_output(label, unit, from, total, |_| Output::Lines { writer, written: Instant::now() })
    }

    /// Work inside this work (an evaluation, its samples): on a terminal a second bar below, gone when it is dropped.
    pub fn sub(&self, label: &str, unit: &str, total: u64) -> Self {
        match &self.output {
            Output::Bars(bars, _) => {
                Self::with_output(label, unit, 0, total, |total| bar(bars.clone(), total))
            }
            Output::Lines { .. } => Self::plain(label, unit, 0, total, Box::new(std::io::stderr())),
        }
    }

    fn with_output(
        label: &str,
        unit: &str,
        from: u64,
        total: u64,
        output: impl FnOnce(u64) -> Output,
    ) -> Self {
        let (label, unit) = (label.to_string(), unit.to_string());
        let progress = Self {
            label,
            unit,
            from,
            done: from,
            total,
            pairs: 0,
            loss: None,
            started: Instant::now(),
            output: output(total),
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
        let finished = self.done >= self.total;
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

    /// One training step is done: `pairs` groups, with this loss.
    pub fn step(&mut self, pairs: u64, loss: f64) {
        self.pairs += pairs;
        self.loss = Some(loss);
        self.advance(1);
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
        format!("{} {}/{} {}", self.label, self.done, self.total, self.unit)
    }

    /// What follows the counter: the loss if there is one, the pace.
    fn status(&self) -> String {
        match self.loss {
            Some(loss) => format!("loss {}  {}", short(loss), self.pace()),
            None => self.pace(),
        }
    }

    fn pace(&self) -> String {
        let rated =
            if self.pairs > 0 { (self.pairs, "pairs") } else { (self.done - self.from, self.unit.as_str()) };
        pace(rated, self.done - self.from, self.total.saturating_sub(self.done), self.started.elapsed())
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Output::Bars(bars, bar) = &self.output {
            bar.finish_and_clear();
            bars.remove(bar);
        }
    }
}

fn bar(bars: MultiProgress, total: u64) -> Output {
    // The template is a constant: the plain style stands in only if it were wrong.
    let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len}  {msg}");
    let bar = ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let bar = bars.add(bar);
    Output::Bars(bars, bar)
}

/// "12.3 pairs/s, 3:20 left": the mean pace since the start, and what it means for the rest.
fn pace((count, unit): (u64, &str), done: u64, left: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64().max(1e-9);
    let mut text = format!("{} {unit}/s", short(count as f64 / seconds));
    if left > 0 && done > 0 {
        text += &format!(", {} left", clock(seconds / done as f64 * left as f64));
    }
    text
}

/// Seconds as 0:07, 12:34 or 1:02:03.
fn clock(seconds: f64) -> String {
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
            progress.step(8, 0.5);
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

    #[test]
    fn bars_survive_every_call() {
        let hidden = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
        let mut progress = Progress::with_output("training", "steps", 5, 9, |total| bar(hidden, total));
        progress.step(2, 0.25);
        progress.logged(&[("loss", 0.25)]);
        progress.sub("evaluation", "groups", 3).advance(3);
        progress.println("line");
        let Output::Bars(_, bar) = &progress.output else { panic!("no bar") };
        assert_eq!((bar.position(), bar.length(), bar.prefix()), (6, Some(9), "training".to_string()));
        assert!(bar.message().starts_with("loss 0.2500  "), "{}", bar.message());
    }

    #[test]
    fn pace_counts_from_where_this_process_began() {
        let pace = |count, done, left| pace((count, "pairs"), done, left, Duration::from_secs(10));
        assert_eq!(pace(80, 10, 200), "8.0000 pairs/s, 3:20 left");
        assert_eq!(pace(80, 10, 0), "8.0000 pairs/s");
        assert_eq!(pace(0, 0, 5), "0 pairs/s");
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
