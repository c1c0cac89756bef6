//! What is said while files come: a bar on a terminal, plain lines anywhere else; always on stderr.

use crate::name::Name;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// How often a log hears of it.
const INTERVAL: Duration = Duration::from_secs(10);

/// Bytes of several files.
pub struct Progress {
    total: u64,
    done: u64,
    output: Output,
}

enum Output {
    /// Of small files that say which others are needed.
    None,
    Bar(ProgressBar),
    Lines {
        path: String,
        said: Instant,
    },
}

impl Progress {
    /// So many files, of so many bytes, of a repository.
    pub fn new(name: &Name, files: usize, bytes: u64) -> Self {
        if files == 0 {
            return Self::none();
        }
        let mb = bytes as f64 / 1e6;
        let what = if files == 1 { "file" } else { "files" };
        eprintln!("downloading {name}: {files} {what} of {mb:.1} MB");
        let output = match std::io::stderr().is_terminal() {
            true => {
                let bar = ProgressBar::new(bytes);
                let form = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
                if let Ok(style) = ProgressStyle::with_template(form) {
                    bar.set_style(style);
                }
                Output::Bar(bar)
            }
            false => Output::Lines { path: String::new(), said: Instant::now() },
        };
        Progress { total: bytes, done: 0, output }
    }

    /// Of what is not worth a line.
    pub fn none() -> Self {
        Progress { total: 0, done: 0, output: Output::None }
    }

    /// A file begins.
    pub fn begin(&mut self, path: &str) {
        match &mut self.output {
            Output::None => {}
            Output::Bar(bar) => bar.set_message(path.to_owned()),
            Output::Lines { path: now, .. } => path.clone_into(now),
        }
    }

    /// So many bytes more are there.
    pub fn add(&mut self, bytes: u64) {
        self.done += bytes;
        match &mut self.output {
            Output::None => {}
            Output::Bar(bar) => bar.set_position(self.done),
            Output::Lines { path, said } => {
                if said.elapsed() >= INTERVAL {
                    *said = Instant::now();
                    eprintln!("{path}: {:.1} of {:.1} MB", self.done as f64 / 1e6, self.total as f64 / 1e6);
                }
            }
        }
    }

    /// So many bytes are of no use.
    pub fn take_back(&mut self, bytes: u64) {
        self.done = self.done.saturating_sub(bytes);
        if let Output::Bar(bar) = &self.output {
            bar.set_position(self.done);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Output::Bar(bar) = &self.output {
            bar.finish_and_clear();
        }
    }
}
