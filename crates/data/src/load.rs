//! Rows to groups: read one at a time, tokenised on all cores.

use crate::encode::{Encoded, Facts, encode};
use crate::files::Reading;
use crate::{Builder, Dataset, Error, Files, Label, Options, Result, Row, Task, Tokenizer, read, row};
use std::fmt;

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
        let mut feed = Feed::new(tok, opt, Some((files, &reading)));
        let mut seen = 0;
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
        })?;
        feed.finish()
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
        let mut feed = Feed::new(tok, opt, None);
        for (i, (row, label)) in rows.into_iter().enumerate() {
            feed.add(i + 1, row, label)?;
        }
        feed.finish()
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

/// Rows waiting to be tokenised together: tokenising is by far the slowest step and each row is on its own.
struct Feed<'a> {
    tok: &'a Tokenizer,
    files: Option<(&'a Files, &'a Reading)>,
    builder: Builder,
    waiting: Vec<(usize, Row, Label)>,
    /// The second responses of pairs that are unpaired: they come after all the first ones, as in TRL.
    rejected: Vec<(usize, Encoded)>,
    threads: usize,
}

const WAITING: usize = 1024;

impl<'a> Feed<'a> {
    fn new(tok: &'a Tokenizer, opt: &Options, files: Option<(&'a Files, &'a Reading)>) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        let waiting = Vec::with_capacity(WAITING);
        Feed { tok, files, builder: Builder::new(opt), waiting, rejected: Vec::new(), threads }
    }

    fn add(&mut self, number: usize, mut row: Row, label: Label) -> Result<()> {
        if self.builder.options().task == Task::Sft {
            row.keep_best(self.builder.options().completions_whole());
        }
        self.waiting.push((number, row, label));
        if self.waiting.len() == WAITING { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let share = self.waiting.len().div_ceil(self.threads).max(1);
        let (tok, opt) = (self.tok, *self.builder.options());
        let encode_all = |rows: &[(usize, Row, Label)]| {
            rows.iter().map(|(_, row, _)| encode(row, tok, &opt)).collect::<Vec<_>>()
        };
        let waiting = std::mem::replace(&mut self.waiting, Vec::with_capacity(WAITING));
        let encoded: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                waiting.chunks(share).map(|rows| scope.spawn(move || encode_all(rows))).collect();
            let joined =
                threads.into_iter().map(|t| t.join().unwrap_or_else(|p| std::panic::resume_unwind(p)));
            joined.flatten().collect()
        });
        for ((number, _, label), encoded) in waiting.into_iter().zip(encoded) {
            let added = encoded.and_then(|encoded| match encoded {
                Some(encoded) => self.take(number, encoded, label),
                None => {
                    self.builder.skip(|report| &mut report.identical);
                    Ok(())
                }
            });
            added.map_err(|message| self.wrong(number, message))?;
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
    fn take(
        &mut self,
        number: usize,
        mut encoded: Encoded,
        mut label: Label,
    ) -> std::result::Result<(), String> {
        if self.builder.options().task == Task::Unpaired {
            match (&label, encoded.groups.len()) {
                (Label::Ranked { margin: None }, 2) => {
                    let groups = encoded.groups.split_off(1);
                    let facts = Facts { other_opening: encoded.facts.other_opening, ..Facts::default() };
                    self.rejected.push((number, Encoded { groups, facts }));
                    label = Label::Unpaired { desirable: true };
                }
                (_, count) => label.view().fit(Task::Unpaired, count)?,
            }
        }
        self.builder.add_encoded(number, encoded, label.view())
    }

    fn finish(mut self) -> Result<Dataset> {
        self.flush()?;
        for (number, encoded) in std::mem::take(&mut self.rejected) {
            let added =
                self.builder.add_encoded(number, encoded, Label::Unpaired { desirable: false }.view());
            added.map_err(|message| self.wrong(number, message))?;
        }
        let file = self.files.map(|(files, _)| files.name().to_owned());
        self.builder.finish().map_err(|e| match e {
            Error::Empty { report, .. } => Error::Empty { file, report },
            other => other,
        })
    }
}
