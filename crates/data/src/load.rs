//! Rows to groups: read one at a time, tokenised on all cores.

use crate::batches::{Batches, Together};
use crate::encode::{Encoded, Facts, encode};
use crate::files::Reading;
use crate::{
    Builder, Dataset, Error, Files, Label, Labels, Options, Result, Row, Task, Tokenizer, read, row,
};
use std::fmt;

impl Dataset {
    /// Reads a file of rows, or several as one.
    ///
    /// # Errors
    /// The first row that cannot be used, by its number; or that no row is left.
    pub fn load(files: impl Into<Files>, tok: &Tokenizer, opt: &Options) -> Result<Self> {
        Self::load_watched(&files.into(), tok, opt, None, &mut |_| true)
    }

    /// As [`load`](Self::load), and where other processes load the same `together` with this one, each tokenises a part
    /// of the rows; `watch` hears how far it is, and stops it by returning `false`.
    ///
    /// # Errors
    /// As [`load`](Self::load), or that `watch` stopped it, or another process is gone.
    pub fn load_watched(
        files: &Files,
        tok: &Tokenizer,
        opt: &Options,
        together: Option<&dyn Together>,
        watch: &mut dyn FnMut(Loading) -> bool,
    ) -> Result<Self> {
        let (total, reading) = (files.bytes(), Reading::default());
        let mut seen = 0;
        feeding(tok, opt, Some((files, &reading)), together, |feed| {
            read::rows(files, &reading, &mut |number, value| {
                let unused = &mut feed.groups.builder.report().unused;
                match row::parse(value, opt, tok.has_chat_template(), unused) {
                    Ok(Some((row, label))) => feed.add(number, row, label)?,
                    Ok(None) => feed.groups.builder.skip(|report| &mut report.undesirable),
                    Err(message) => return Err(reading.wrong(files, number, message)),
                }
                // The file is read ahead of the rows, in blocks.
                if reading.bytes.get() > seen {
                    seen = reading.bytes.get();
                    let going =
                        watch(Loading { rows: feed.groups.builder.report().rows, bytes: seen, total });
                    if !going {
                        // Others do not stop at the same row.
                        feed.batches.stop();
                        return Err(Error::file(files.name(), "reading it was stopped"));
                    }
                }
                Ok(())
            })
        })
    }

    /// Tokenises rows from memory, of whose responses the order is known; they are numbered from 1.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_texts(rows: impl IntoIterator<Item = Row>, tok: &Tokenizer, opt: &Options) -> Result<Self> {
        Self::from_labelled(rows.into_iter().map(|row| (row, Label::default())), tok, opt)
    }

    /// Tokenises rows from memory, with what is known of their responses; they are numbered from 1.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_labelled(
        rows: impl IntoIterator<Item = (Row, Label)>,
        tok: &Tokenizer,
        opt: &Options,
    ) -> Result<Self> {
        feeding(tok, opt, None, None, |feed| {
            rows.into_iter().enumerate().try_for_each(|(i, (row, label))| feed.add(i + 1, row, label))
        })
    }
}

/// How far [`Dataset::load_watched`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loading {
    /// Rows done.
    pub rows: usize,
    /// Bytes of the files that were read.
    pub bytes: u64,
    /// Bytes that they have.
    pub total: u64,
}

/// Rows on their way to groups: tokenising is by far the slowest step and each row is on its own.
struct Feed<'scope, 'env> {
    batches: Batches<'scope, 'env, (usize, Label), Row, Tokenised>,
    groups: Groups<'env>,
}

/// What becomes of rows.
struct Groups<'env> {
    files: Option<(&'env Files, &'env Reading)>,
    builder: Builder,
    /// The second responses of pairs that are unpaired: they come after all the first ones, as in TRL.
    rejected: Vec<(usize, Encoded)>,
}

/// A row as tokens, or why it cannot be; `None`: its texts are the same.
type Tokenised = std::result::Result<Option<Encoded>, String>;

/// The dataset of the rows that `rows` feeds; of rows that cannot be used the first is the error.
fn feeding(
    tok: &Tokenizer,
    opt: &Options,
    files: Option<(&Files, &Reading)>,
    together: Option<&dyn Together>,
    rows: impl FnOnce(&mut Feed<'_, '_>) -> Result<()>,
) -> Result<Dataset> {
    let work = |row: Row| encode(&row, tok, opt);
    std::thread::scope(|scope| {
        let batches = Batches::new(scope, &work, together);
        let groups = Groups { files, builder: Builder::new(opt), rejected: Vec::new() };
        let mut feed = Feed { batches, groups };
        let read = rows(&mut feed);
        // Those before the row that could not be read.
        let Feed { mut batches, mut groups } = feed;
        batches.rest(|row, tokenised| groups.take(row, tokenised))?;
        read?;
        groups.finish()
    })
}

impl Feed<'_, '_> {
    fn add(&mut self, number: usize, mut row: Row, label: Label) -> Result<()> {
        let Feed { batches, groups } = self;
        if groups.builder.options().task == Task::Sft {
            row.keep_best(groups.builder.options().completions_whole());
        }
        batches.add((number, label), row, |row, tokenised| groups.take(row, tokenised))
    }
}

impl Groups<'_> {
    /// Takes a row that was tokenised; of a pair that is unpaired the first response, the second waits.
    fn take(&mut self, (number, label): (usize, Label), tokenised: Tokenised) -> Result<()> {
        let second = match tokenised {
            Ok(Some(encoded)) => put(&mut self.builder, number, encoded, label),
            Ok(None) => {
                self.builder.skip(|report| &mut report.identical);
                Ok(None)
            }
            Err(message) => Err(message),
        };
        let second = second.map_err(|message| self.wrong(number, message))?;
        self.rejected.extend(second.map(|second| (number, second)));
        Ok(())
    }

    /// The error of a row.
    fn wrong(&self, row: usize, message: impl fmt::Display) -> Error {
        match self.files {
            Some((files, reading)) => reading.wrong(files, row, message),
            None => Error::row(None, row, message),
        }
    }

    fn finish(mut self) -> Result<Dataset> {
        for (number, encoded) in std::mem::take(&mut self.rejected) {
            let added = self.builder.add_encoded(number, encoded, REJECTED);
            added.map_err(|message| self.wrong(number, message))?;
        }
        let file = self.files.map(|(files, _)| files.name().to_owned());
        self.builder.finish().map_err(|e| match e {
            Error::Empty { report, .. } => Error::Empty { file, report },
            other => other,
        })
    }
}

/// What is known of the second response of a pair that is unpaired.
pub(crate) const REJECTED: Labels<'static> = Labels::Unpaired { desirable: false };

/// Gives a row that was tokenised to `builder`; gives back the second response of a pair that is unpaired, which is a
/// group of its own.
pub(crate) fn put(
    builder: &mut Builder,
    number: usize,
    mut encoded: Encoded,
    mut label: Label,
) -> std::result::Result<Option<Encoded>, String> {
    let mut second = None;
    if builder.options().task == Task::Unpaired {
        match (&label, encoded.groups.len()) {
            (Label::Ranked { margin: None }, 2) => {
                let groups = encoded.groups.split_off(1);
                let facts = Facts { other_opening: encoded.facts.other_opening, ..Facts::default() };
                second = Some(Encoded { groups, facts });
                label = Label::Unpaired { desirable: true };
            }
            (_, count) => label.view().fit(Task::Unpaired, count)?,
        }
    }
    builder.add_encoded(number, encoded, label.view())?;
    Ok(second)
}
