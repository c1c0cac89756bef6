//! What can be said of files of rows before anything is trained on them.

mod characters;
mod json;
mod lengths;
mod pairs;
mod sheet;
#[cfg(test)]
mod tests;
mod text;

pub use characters::{Oddity, oddities};
use duel_data::Seen;
use duel_train::config::Config;
use duel_train::{Error, Look};
pub use lengths::Lengths;
pub use pairs::{Found, Place, Repeats, Rows};
pub use sheet::Sheet;
use std::path::{Path, PathBuf};

/// Lengths that rows are held against, beside the run's and the model's own.
const LIMITS: [usize; 5] = [256, 512, 1024, 2048, 4096];

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Audit {
    /// In the file of training and, where there is one, that of evaluation.
    pub sheets: Vec<Sheet>,
    /// In all rows together.
    pub repeats: Repeats,
    /// The longest prompt and response of the run, in tokens.
    pub max_length: usize,
    /// The most tokens that the model can read.
    pub positions: usize,
}

/// Reads the files of a run, and says what is in them. Of the rows it keeps counts, hashes ([`Rows`]) and 8 bytes a
/// pair.
///
/// # Errors
/// A file cannot be read or is not of rows, the model is missing, or Ctrl-C.
pub fn audit(config: &Config) -> Result<Audit, Error> {
    let look = Look::open(config)?;
    let mut auditor = Auditor::default();
    let (train, eval) = config.all_files()?;
    // Rows that are held out have no file of their own.
    let held_out = PathBuf::from(format!("{} (held out)", train.name().display()));
    for files in [Some(&train), eval.as_ref()].into_iter().flatten() {
        let again = auditor.sheets.first().is_some_and(|first| first.path == files.name());
        auditor.file(if again { &held_out } else { files.name() });
        look.each(files, 1, |seen| {
            auditor.add(&seen);
            true
        })?;
    }
    let max_length = look.options.max_length.unwrap_or(look.positions());
    Ok(auditor.conclude(max_length, look.positions()))
}

/// Takes rows one after another.
#[derive(Debug, Default)]
pub struct Auditor {
    sheets: Vec<Sheet>,
    rows: Rows,
}

impl Auditor {
    /// The rows that follow are of this file: the first is that of training, the second that of evaluation.
    pub fn file(&mut self, path: &Path) {
        self.sheets.push(Sheet::new(path));
    }

    /// Takes a row.
    ///
    /// # Panics
    /// Before the first file.
    pub fn add(&mut self, seen: &Seen) {
        let file = (self.sheets.len() - 1) as u8;
        self.sheets[usize::from(file)].add(seen);
        let place = Place { file, row: u32::try_from(seen.row).unwrap_or(u32::MAX) };
        let groups = seen.whole.iter().flat_map(|whole| whole.groups());
        groups.for_each(|group| self.rows.add(place, group));
    }

    /// What was found, for a run of up to `max_length` tokens of a model that reads up to `positions`.
    pub fn conclude(self, max_length: usize, positions: usize) -> Audit {
        Audit { sheets: self.sheets, repeats: self.rows.conclude(), max_length, positions }
    }
}

impl Audit {
    /// What should be put right before a run: files without rows for it, rows that it refuses, contradictions, rows
    /// that it is trained and judged by, damaged characters. In words; none where all is well.
    pub fn problems(&self) -> Vec<String> {
        let refused: u64 = self.sheets.iter().map(Sheet::refusals).sum();
        let damaged = |sheet: &Sheet| {
            let odd = Oddity::ALL.iter().zip(&sheet.odd).filter(|(what, _)| what.is_damage());
            odd.map(|(_, found)| found.count).sum::<u64>()
        };
        let damaged: u64 = self.sheets.iter().map(damaged).sum();
        let empty = self.sheets.iter().filter(|sheet| sheet.report.groups == 0).count() as u64;
        let counts = [
            (empty, "files of which a run keeps no row"),
            (refused, "rows that a run refuses"),
            (self.repeats.contradictions.count, "contradictions"),
            (self.repeats.leaked.count, "rows of the evaluation that are in the training file"),
            (damaged, "times that rows have damaged characters"),
        ];
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect()
    }

    /// Lengths that rows are held against, in order: those of everyone, the run's and the model's.
    fn limits(&self) -> Vec<usize> {
        let mut limits: Vec<usize> = LIMITS.into_iter().chain([self.max_length, self.positions]).collect();
        limits.sort_unstable();
        limits.dedup();
        limits
    }
}
