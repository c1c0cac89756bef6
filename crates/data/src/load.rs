//! Rows to groups: read one at a time, tokenised on all cores.

use crate::encode::{Encoded, Facts, encode};
use crate::files::Reading;
use crate::{
    Builder, Dataset, Error, Files, Label, Labels, Options, Result, Row, Task, Tokenizer, read, row,
};
use std::fmt;
use std::thread::{Scope, ScopedJoinHandle};

impl Dataset {
    /// Reads a file of rows, or several as one.
    ///
    /// # Errors
    /// The first row that cannot be used, by its number; or that no row is left.
    pub fn load(files: impl Into<Files>, tok: &Tokenizer, opt: &Options) -> Result<Self> {
        Self::load_watched(&files.into(), tok, opt, &mut |_| true)
    }

    /// As [`load`](Self::load); `watch` hears how far it is, and stops it by returning `false`.
    ///
    /// # Errors
    /// As [`load`](Self::load), or that `watch` stopped it.
    pub fn load_watched(
        files: &Files,
        tok: &Tokenizer,
        opt: &Options,
        watch: &mut dyn FnMut(Loading) -> bool,
    ) -> Result<Self> {
        let (total, reading) = (files.bytes(), Reading::default());
        let mut seen = 0;
        feeding(tok, opt, Some((files, &reading)), |feed| {
            read::rows(files, &reading, &mut |number, value| {
                let unused = &mut feed.builder.report().unused;
                match row::parse(value, opt, tok.has_chat_template(), unused) {
                    Ok(Some((row, label))) => feed.add(number, row, label)?,
                    Ok(None) => feed.builder.skip(|report| &mut report.undesirable),
                    Err(message) => return Err(reading.wrong(files, number, message)),
                }
                // The file is read ahead of the rows, in blocks.
                if reading.bytes.get() > seen {
                    seen = reading.bytes.get();
                    let going = watch(Loading { rows: feed.builder.report().rows, bytes: seen, total });
                    if !going {
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
        feeding(tok, opt, None, |feed| {
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

/// Rows on their way to groups: tokenising is by far the slowest step and each row is on its own. While threads are at
/// the rows of one batch, those of the next are read.
struct Feed<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    tok: &'env Tokenizer,
    files: Option<(&'env Files, &'env Reading)>,
    builder: Builder,
    waiting: Vec<(usize, Row, Label)>,
    /// The batch before those, a share a thread.
    encoding: Vec<ScopedJoinHandle<'scope, Vec<Tokenised>>>,
    /// The second responses of pairs that are unpaired: they come after all the first ones, as in TRL.
    rejected: Vec<(usize, Encoded)>,
    threads: usize,
}

/// A row by its number, what became of it, and what it says of its responses.
type Tokenised = (usize, std::result::Result<Option<Encoded>, String>, Label);

const WAITING: usize = 1024;

/// The dataset of the rows that `rows` feeds; of rows that cannot be used the first is the error.
fn feeding(
    tok: &Tokenizer,
    opt: &Options,
    files: Option<(&Files, &Reading)>,
    rows: impl FnOnce(&mut Feed<'_, '_>) -> Result<()>,
) -> Result<Dataset> {
    std::thread::scope(|scope| {
        let mut feed = Feed {
            scope,
            tok,
            files,
            builder: Builder::new(opt),
            waiting: Vec::with_capacity(WAITING),
            encoding: Vec::new(),
            rejected: Vec::new(),
            threads: std::thread::available_parallelism().map_or(1, |n| n.get()),
        };
        let read = rows(&mut feed);
        // Those before the row that could not be read.
        feed.flush()?;
        feed.collect()?;
        read?;
        feed.finish()
    })
}

impl Feed<'_, '_> {
    fn add(&mut self, number: usize, mut row: Row, label: Label) -> Result<()> {
        if self.builder.options().task == Task::Sft {
            row.keep_best(self.builder.options().completions_whole());
        }
        self.waiting.push((number, row, label));
        if self.waiting.len() == WAITING { self.flush() } else { Ok(()) }
    }

    /// Takes what became of the batch that is being tokenised, and begins with the one that waits.
    fn flush(&mut self) -> Result<()> {
        self.collect()?;
        let share = self.waiting.len().div_ceil(self.threads).max(1);
        let (tok, opt) = (self.tok, *self.builder.options());
        let mut waiting = std::mem::replace(&mut self.waiting, Vec::with_capacity(WAITING)).into_iter();
        while waiting.len() > 0 {
            let rows: Vec<_> = waiting.by_ref().take(share).collect();
            self.encoding.push(self.scope.spawn(move || {
                let one = |(number, row, label)| (number, encode(&row, tok, &opt), label);
                rows.into_iter().map(one).collect()
            }));
        }
        Ok(())
    }

    fn collect(&mut self) -> Result<()> {
        for thread in std::mem::take(&mut self.encoding) {
            let encoded = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            for (number, encoded, label) in encoded {
                let added = encoded.and_then(|encoded| match encoded {
                    Some(encoded) => self.take(number, encoded, label),
                    None => {
                        self.builder.skip(|report| &mut report.identical);
                        Ok(())
                    }
                });
                added.map_err(|message| self.wrong(number, message))?;
            }
        }
        Ok(())
    }

    /// The error of a row.
    fn wrong(&self, row: usize, message: impl fmt::Display) -> Error {
        match self.files {
            Some((files, reading)) => reading.wrong(files, row, message),
            None => Error::row(None, row, message),
        }
    }

    /// Takes a row that was tokenised; of a pair that is unpaired the first response, the second waits.
    fn take(&mut self, number: usize, encoded: Encoded, label: Label) -> std::result::Result<(), String> {
        let second = put(&mut self.builder, number, encoded, label)?;
        self.rejected.extend(second.map(|second| (number, second)));
        Ok(())
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
