//! Rows one by one, as they stand in a file and as training has them: what looks at a file before a run does.

use crate::encode::{encode, text};
use crate::files::Reading;
use crate::load::{REJECTED, put};
use crate::{
    Builder, Dataset, Error, Files, Group, Label, Options, Report, Result, Row, Task, Tokenizer, read, row,
};
use serde_json::Value;
use std::collections::BTreeSet;

/// A row, whatever becomes of it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its number from 1: the line of a `.jsonl`, the element of a `.json` array.
    pub row: usize,
    /// Its columns.
    pub columns: Value,
    /// Why training refuses it, and the file with it.
    pub refused: Option<String>,
    /// What became of it; nothing of a row that is refused.
    pub report: Report,
    /// Its groups as they are trained on; `None`: the row is dropped.
    pub kept: Option<Dataset>,
    /// Its groups if they may have any length; `None`: the row says nothing at all.
    pub whole: Option<Dataset>,
}

/// What training does with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// It is read, and has no loss.
    Context,
    /// It has a loss.
    Scored,
    /// It is cut off.
    Cut,
}

/// A prompt, or a response: its tokens and what becomes of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Tokens, those that are cut off too.
    pub tokens: Vec<u32>,
    /// As many.
    pub uses: Vec<Use>,
}

/// Rows that are tokenised together.
const TOGETHER: usize = 1024;

impl Seen {
    /// Hands the rows of files to `each`, in order, those whose number is below `from` left out, until that returns
    /// `false`; with how many bytes of the files were read. Rows are tokenised on all cores, and few of them exist at a
    /// time.
    ///
    /// # Errors
    /// The file cannot be read, or is not of rows.
    pub fn each(
        files: &Files,
        tok: &Tokenizer,
        opt: &Options,
        from: usize,
        mut each: impl FnMut(Seen, u64) -> bool,
    ) -> Result<()> {
        let (reading, mut rows, mut going) = (Reading::default(), 0, true);
        let mut waiting = Vec::with_capacity(TOGETHER);
        let mut flush = |waiting: &mut Vec<Read>, bytes| {
            see_all(waiting, files, tok, opt).into_iter().all(|seen| each(seen, bytes))
        };
        let done = read::plain_rows(files, &reading, &mut |row, part, value| {
            if row < from {
                return Ok(());
            }
            rows += 1;
            waiting.push((row, part, value));
            // The first ones alone are often all that is asked for.
            if waiting.len() == TOGETHER.min(rows) {
                going = flush(&mut waiting, reading.bytes.get());
            }
            if going { Ok(()) } else { Err(Error::file(files.name(), "reading it was stopped")) }
        });
        if !going {
            return Ok(());
        }
        flush(&mut waiting, reading.bytes.get());
        done
    }

    /// A row of which nothing is known yet.
    fn nothing(row: usize, columns: Value) -> Self {
        Seen { row, columns, refused: None, report: Report::default(), kept: None, whole: None }
    }

    /// A row of a file, or of none.
    pub fn of(row: usize, columns: Value, tok: &Tokenizer, opt: &Options) -> Self {
        let mut unused = BTreeSet::new();
        let mut seen = Seen::nothing(row, columns);
        match row::parse(seen.columns.clone(), opt, tok.has_chat_template(), &mut unused) {
            Ok(Some((parsed, label))) => {
                let read = seen.read(parsed, label, tok, opt);
                seen.refused = read.err();
            }
            Ok(None) => (seen.report.rows, seen.report.undesirable) = (1, 1),
            Err(message) => seen.refused = Some(message),
        }
        seen.report.unused = unused;
        seen
    }

    fn read(
        &mut self,
        mut row: Row,
        label: Label,
        tok: &Tokenizer,
        opt: &Options,
    ) -> std::result::Result<(), String> {
        if opt.task == Task::Sft {
            row.keep_best(opt.completions_whole());
        }
        let Some(encoded) = encode(&row, tok, opt)? else {
            (self.report.rows, self.report.identical) = (1, 1);
            return Ok(());
        };
        let built = |opt: &Options| {
            let mut builder = Builder::new(opt);
            if let Some(second) = put(&mut builder, self.row, encoded.clone(), label.clone())? {
                builder.add_encoded(self.row, second, REJECTED)?;
            }
            match builder.finish() {
                Ok(ds) => Ok((ds.report().clone(), Some(ds))),
                Err(Error::Empty { report, .. }) => Ok((*report, None)),
                Err(e) => Err(text(e)),
            }
        };
        let kept = built(opt)?;
        self.whole = built(&Options { max_length: None, ..*opt })?.1;
        (self.report, self.kept) = kept;
        Ok(())
    }

    /// Its groups, each a prompt and its responses, with what becomes of every token.
    pub fn parts(&self) -> Vec<(Part, Vec<Part>)> {
        let kept: Vec<Group<'_>> = self.kept.iter().flat_map(Dataset::groups).collect();
        let mut next = 0;
        let groups = self.whole.iter().flat_map(Dataset::groups);
        groups
            .map(|whole| {
                let found = kept.get(next).filter(|kept| start(&whole, kept).is_some());
                next += usize::from(found.is_some());
                parts(&whole, found)
            })
            .collect()
    }
}

/// A row's number, that of its file, and its columns as they lie there.
type Read = (usize, usize, Value);

/// All rows, each on its own; one that has not the columns that it is to have as it lies.
fn see_all(waiting: &mut Vec<Read>, files: &Files, tok: &Tokenizer, opt: &Options) -> Vec<Seen> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let see = |rows: Vec<Read>| -> Vec<Seen> {
        let of = |(row, part, columns): Read| {
            let form = files.form(part);
            // Rows that are read as they stand are never refused for it.
            let as_it_lies = if form.is_plain() { Value::Null } else { columns.clone() };
            match form.apply(columns) {
                Ok(columns) => Seen::of(row, columns, tok, opt),
                Err(why) => Seen { refused: Some(why), ..Seen::nothing(row, as_it_lies) },
            }
        };
        rows.into_iter().map(of).collect()
    };
    let share = waiting.len().div_ceil(threads).max(1);
    let mut rest = std::mem::take(waiting);
    let mut shares = Vec::new();
    while rest.len() > share {
        let after = rest.split_off(share);
        shares.push(std::mem::replace(&mut rest, after));
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = shares.into_iter().map(|rows| scope.spawn(move || see(rows))).collect();
        let last = see(rest);
        let joined = threads.into_iter().map(|t| t.join().unwrap_or_else(|p| std::panic::resume_unwind(p)));
        joined.flatten().collect::<Vec<_>>().into_iter().chain(last).collect()
    })
}

/// Where in the prompt and best response of `whole` those of `kept` begin: they are a run of them.
fn start(whole: &Group<'_>, kept: &Group<'_>) -> Option<usize> {
    let all = [whole.prompt, whole.best()].concat();
    let left = [kept.prompt, kept.best()].concat();
    let by_prompt = whole.prompt.len().checked_sub(kept.prompt.len());
    // Nothing of the start is gone, or only of the prompt, or all that is gone.
    let candidates = [Some(0), by_prompt, all.len().checked_sub(left.len())];
    candidates.into_iter().flatten().find(|&at| all[at..].starts_with(&left))
}

/// The tokens of a group, of which `kept` is left.
fn parts(whole: &Group<'_>, kept: Option<&Group<'_>>) -> (Part, Vec<Part>) {
    let from = kept.and_then(|kept| start(whole, kept)).unwrap_or(0);
    let sequence = |i: usize, response: &[u32]| {
        let tokens = [whole.prompt, response].concat();
        let mut uses = vec![Use::Cut; tokens.len()];
        let Some(kept) = kept else { return Part { tokens, uses } };
        // Two that differ can be the same once they are cut: such a one is left out as a whole.
        let left = kept.responses().filter(|left| {
            tokens[from..].strip_prefix(kept.prompt).is_some_and(|behind| behind.starts_with(left))
        });
        let Some(left) = left.max_by_key(|left| left.len()) else { return Part { tokens, uses } };
        let first = from + kept.prompt.len();
        uses[from..first].fill(Use::Context);
        uses[first..first + left.len()].fill(Use::Scored);
        if i == 0 {
            kept.given().for_each(|run| uses[first + run.start..first + run.end].fill(Use::Context));
        }
        if kept.prompt.is_empty() {
            uses[first] = Use::Context; // nothing is before it that could predict it
        }
        Part { tokens, uses }
    };
    let all: Vec<Part> = whole.responses().enumerate().map(|(i, r)| sequence(i, r)).collect();
    let at = whole.prompt.len();
    let behind = |part: Part| Part { tokens: part.tokens[at..].to_vec(), uses: part.uses[at..].to_vec() };
    let prompt = all.first().map_or(Vec::new(), |part| part.uses[..at].to_vec());
    (Part { tokens: whole.prompt.to_vec(), uses: prompt }, all.into_iter().map(behind).collect())
}
