//! Groups of tokens in one flat arena, and the rules of what is kept and what is cut.

use std::cell::Cell;
use std::ops::Range;
use std::path::Path;

use crate::encode::{Encoded, Facts, encode};
use crate::{Error, Report, Result, Row, Tokenizer, read, row};

/// What the data is for, which decides what a row must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Supervised: one response per group. Of a preference row only the best is used (Preferred-FT); of a conversation
    /// every turn of the assistant.
    Sft,
    /// At least two different responses per group, best first.
    Preference,
}

/// Which end of a sequence goes when it is longer than `max_length`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Truncation {
    /// Responses lose their ends.
    #[default]
    KeepStart,
    /// The prompt loses its start, as far as the longest response needs; one token of it stays, and a response
    /// that is still too long loses its end.
    KeepEnd,
}

/// How rows become groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// What the data is for.
    pub task: Task,
    /// The most tokens in a prompt and one of its responses together; `None` is no limit.
    pub max_length: Option<usize>,
    /// What to cut from longer ones.
    pub truncation: Truncation,
}

/// Groups of tokens, in the order of their source rows. All tokens lie in one arena; a group costs 8 bytes beside
/// them and a prompt or response another 8.
#[derive(Debug, Clone)]
pub struct Dataset {
    tokens: Vec<u32>,
    /// Part `p` (a prompt or a response) is `tokens[bounds[p]..bounds[p + 1]]`.
    bounds: Vec<usize>,
    /// Ranges of `tokens` inside responses that are given, not learned; in order.
    given: Vec<Range<usize>>,
    groups: Vec<Entry>,
    report: Report,
}

/// The parts of a group run from its prompt to the next group's prompt.
#[derive(Debug, Clone, Copy)]
struct Entry {
    row: u32,
    prompt: u32,
}

impl Dataset {
    /// Reads a `.jsonl` or `.json` file.
    ///
    /// # Errors
    /// The first row that cannot be used, by its number; or that no row is left.
    pub fn load(path: &Path, tok: &Tokenizer, opt: &Options) -> Result<Self> {
        Self::load_watched(path, tok, opt, &mut |_| true)
    }

    /// As [`load`](Self::load); `watch` hears how far it is, and stops it by returning `false`.
    ///
    /// # Errors
    /// As [`load`](Self::load), or that `watch` stopped it.
    pub fn load_watched(
        path: &Path,
        tok: &Tokenizer,
        opt: &Options,
        watch: &mut dyn FnMut(Loading) -> bool,
    ) -> Result<Self> {
        let total = std::fs::metadata(path).map_or(0, |m| m.len());
        let read = Cell::new(0);
        let mut feed = Feed::new(tok, opt, Some(path));
        let mut seen = 0;
        read::rows(path, &read, &mut |number, value| {
            let unused = &mut feed.builder.data.report.unused;
            match row::parse(value, opt.task, tok.has_chat_template(), unused) {
                Ok(Some(row)) => feed.add(number, row)?,
                Ok(None) => feed.builder.skip(|report| &mut report.undesirable),
                Err(message) => return Err(Error::row(Some(path), number, message)),
            }
            // The file is read ahead of the rows, in blocks.
            if read.get() > seen {
                seen = read.get();
                let going = watch(Loading { rows: feed.builder.data.report.rows, bytes: seen, total });
                if !going {
                    return Err(Error::file(path, "reading it was stopped"));
                }
            }
            Ok(())
        })?;
        feed.finish()
    }

    /// Tokenises rows from memory; they are numbered from 1.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_texts(rows: impl IntoIterator<Item = Row>, tok: &Tokenizer, opt: &Options) -> Result<Self> {
        let mut feed = Feed::new(tok, opt, None);
        for (i, row) in rows.into_iter().enumerate() {
            feed.add(i + 1, row)?;
        }
        feed.finish()
    }

    /// Starts a dataset of rows that are tokens already.
    pub fn builder(opt: &Options) -> Builder {
        let data = Dataset {
            tokens: Vec::new(),
            bounds: vec![0],
            given: Vec::new(),
            groups: Vec::new(),
            report: Report::default(),
        };
        Builder { data, opt: *opt }
    }

    /// How many groups there are; at least one.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Always false: a dataset without groups cannot be made.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Group `i`.
    ///
    /// # Panics
    /// When `i` is not below [`len`](Self::len).
    pub fn group(&self, i: usize) -> Group<'_> {
        let Entry { row, prompt } = self.groups[i];
        let end = self.groups.get(i + 1).map_or(self.bounds.len() - 1, |next| next.prompt as usize);
        let bounds = &self.bounds[prompt as usize..=end];
        Group {
            row: row as usize,
            prompt: &self.tokens[bounds[0]..bounds[1]],
            bounds: &bounds[1..],
            arena: &self.tokens,
            given: &self.given,
        }
    }

    /// All groups in order.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = Group<'_>> {
        (0..self.len()).map(|i| self.group(i))
    }

    /// What became of the rows.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Every token of every group, end to end: `[prompt | response 1 | .. | response K]`.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The largest token id, which must be below the model's vocabulary size.
    pub fn max_token(&self) -> u32 {
        self.tokens.iter().copied().max().unwrap_or(0)
    }
}

/// A prompt and its responses, best first.
#[derive(Debug, Clone, Copy)]
pub struct Group<'a> {
    /// The source row from 1: the line of a `.jsonl`, the element of a `.json` array.
    pub row: usize,
    /// The prompt's tokens; empty for unprompted text of a model without BOS.
    pub prompt: &'a [u32],
    bounds: &'a [usize],
    arena: &'a [u32],
    given: &'a [Range<usize>],
}

impl<'a> Group<'a> {
    /// The responses' tokens, best first, each at least one token.
    pub fn responses(&self) -> impl ExactSizeIterator<Item = &'a [u32]> + use<'a> {
        let arena = self.arena;
        self.bounds.windows(2).map(move |w| &arena[w[0]..w[1]])
    }

    /// How many tokens the group takes in a batch: the prompt once and all responses.
    pub fn tokens(&self) -> usize {
        self.prompt.len() + self.bounds[self.bounds.len() - 1] - self.bounds[0]
    }

    /// Tokens of the responses, counted from the first token of the first response, that are given rather than
    /// learned: the turns of a conversation that are not the assistant's. In order, none empty.
    pub fn given(&self) -> impl Iterator<Item = Range<usize>> + use<'a> {
        let (start, end) = (self.bounds[0], self.bounds[self.bounds.len() - 1]);
        let first = self.given.partition_point(|run| run.end <= start);
        let runs = self.given[first..].iter().take_while(move |run| run.start < end);
        runs.map(move |run| run.start - start..run.end - start)
    }

    /// How many tokens of the best response have a loss: all but those that are given, and but the first where no
    /// prompt predicts it.
    pub fn scored_of_best(&self) -> usize {
        let best = self.bounds[1] - self.bounds[0];
        let given: usize = self.given().map(|run| run.end.min(best) - run.start.min(best)).sum();
        best - given - usize::from(self.prompt.is_empty())
    }
}

/// Takes rows that are tokens already, and decides what is kept of them.
#[derive(Debug)]
pub struct Builder {
    data: Dataset,
    opt: Options,
}

impl Builder {
    /// Adds source row `row` (counted from 1), truncated to the options' `max_length`. A row whose prompt alone
    /// fills `max_length`, or whose responses are all the same, is counted and left out.
    ///
    /// # Errors
    /// When a response is empty, or there are fewer responses than the task needs.
    pub fn push(&mut self, row: usize, prompt: &[u32], responses: &[&[u32]]) -> Result<()> {
        self.add(row, prompt, responses, &[]).map_err(|message| Error::row(None, row, message))?;
        self.data.report.rows += 1;
        Ok(())
    }

    /// The finished dataset.
    ///
    /// # Errors
    /// When it has no group.
    pub fn finish(mut self) -> Result<Dataset> {
        let data = &mut self.data;
        data.report.groups = data.groups.len();
        data.report.tokens = data.tokens.len();
        if data.groups.is_empty() {
            return Err(Error::Empty { file: None, report: Box::new(data.report.clone()) });
        }
        Ok(self.data)
    }

    /// Counts a row that is left out, under its reason.
    fn skip(&mut self, reason: impl FnOnce(&mut Report) -> &mut usize) {
        self.data.report.rows += 1;
        *reason(&mut self.data.report) += 1;
    }

    fn add(
        &mut self,
        row: usize,
        prompt: &[u32],
        responses: &[&[u32]],
        given: &[Range<usize>],
    ) -> std::result::Result<(), String> {
        let needed = match self.opt.task {
            Task::Sft => 1,
            Task::Preference => 2,
        };
        if responses.len() < needed {
            let given = responses.len();
            return Err(format!("has {given} response(s), and the task needs at least {needed}"));
        }
        if let Some(i) = responses.iter().position(|r| r.is_empty()) {
            return Err(format!("response {} has no tokens", i + 1));
        }
        let responses = if self.opt.task == Task::Sft { &responses[..1] } else { responses };

        let report = &mut self.data.report;
        let max = self.opt.max_length.unwrap_or(usize::MAX);
        if prompt.len() >= max {
            report.prompt_too_long += 1;
            return Ok(());
        }
        let longest = responses.iter().map(|r| r.len()).max().unwrap_or(0);
        let context = match self.opt.truncation {
            Truncation::KeepStart => prompt.len(),
            Truncation::KeepEnd => prompt.len().min(max.saturating_sub(longest).max(1)),
        };
        let room = max - context;
        // Compared as they are trained on: two long responses can become the same by losing their ends.
        let mut kept: Vec<&[u32]> = Vec::with_capacity(responses.len());
        for response in responses.iter().map(|r| &r[..r.len().min(room)]) {
            if !kept.contains(&response) {
                kept.push(response);
            }
        }
        if kept.len() < needed {
            report.identical += 1;
            return Ok(());
        }
        let parts = self.data.bounds.len() - 1;
        let (Ok(row), Ok(part), Ok(_)) =
            (u32::try_from(row), u32::try_from(parts), u32::try_from(parts + kept.len()))
        else {
            return Err(
                "is one too many: a dataset holds up to 4,294,967,295 rows, prompts and responses".to_owned()
            );
        };
        report.duplicates += responses.len() - kept.len();
        report.truncated += usize::from(context < prompt.len() || longest > room);
        report.responses += kept.len();
        report.longest = report.longest.max(context + longest.min(room));
        self.data.groups.push(Entry { row, prompt: part });
        self.data.tokens.extend_from_slice(&prompt[prompt.len() - context..]);
        self.data.bounds.push(self.data.tokens.len());
        let first = self.data.tokens.len();
        let most = kept.first().map_or(0, |r| r.len());
        let kept_runs =
            given.iter().map(|run| run.start.min(most)..run.end.min(most)).filter(|run| !run.is_empty());
        self.data.given.extend(kept_runs.map(|run| first + run.start..first + run.end));
        for tokens in kept {
            self.data.tokens.extend_from_slice(tokens);
            self.data.bounds.push(self.data.tokens.len());
        }
        Ok(())
    }

    /// Adds what a row became, and counts what a user should hear of it.
    fn add_encoded(&mut self, row: usize, encoded: Encoded) -> std::result::Result<(), String> {
        let report = &mut self.data.report;
        report.rows += 1;
        let Facts { boundary_moved, other_opening, given_turns, after, ref unread } = encoded.facts;
        report.unlearned += usize::from(encoded.groups.is_empty());
        report.given_turns += given_turns;
        report.turns_after += after;
        for name in unread {
            *report.unread.entry(name.clone()).or_default() += 1;
        }
        let before = self.data.groups.len();
        for group in encoded.groups {
            let (group, cut) = match (self.opt.truncation, self.opt.max_length) {
                (Truncation::KeepEnd, Some(max)) => group.last(max),
                _ => (group, false),
            };
            let kept = self.data.groups.len();
            self.add(row, group.prompt(), &group.responses(), &group.given)?;
            if self.data.groups.len() > kept {
                let tokens = self.data.tokens.len() - self.data.bounds[self.data.bounds.len() - 2];
                self.data.report.truncated += usize::from(cut);
                self.data.report.turns += group.turns.iter().filter(|start| **start < tokens).count();
            }
        }
        let kept = self.data.groups.len() - before;
        self.data.report.boundary_moved += if boundary_moved { kept } else { 0 };
        self.data.report.other_opening += if other_opening { kept } else { 0 };
        Ok(())
    }
}

/// How far [`Dataset::load_watched`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loading {
    /// Rows done.
    pub rows: usize,
    /// Bytes of the file that were read.
    pub bytes: u64,
    /// Bytes that it has.
    pub total: u64,
}

/// Rows waiting to be tokenised together: tokenising is by far the slowest step and each row is on its own.
struct Feed<'a> {
    tok: &'a Tokenizer,
    file: Option<&'a Path>,
    builder: Builder,
    waiting: Vec<(usize, Row)>,
    threads: usize,
}

const WAITING: usize = 1024;

impl<'a> Feed<'a> {
    fn new(tok: &'a Tokenizer, opt: &Options, file: Option<&'a Path>) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        Feed { tok, file, builder: Dataset::builder(opt), waiting: Vec::with_capacity(WAITING), threads }
    }

    fn add(&mut self, number: usize, mut row: Row) -> Result<()> {
        if self.builder.opt.task == Task::Sft {
            match &mut row {
                Row::Text { prompt: None, .. } => {} // all texts together show where the prompt ends
                Row::Text { responses, .. } => responses.truncate(1),
                Row::Chat { responses, .. } => responses.truncate(1),
                Row::Talk { .. } => {}
            }
        }
        self.waiting.push((number, row));
        if self.waiting.len() == WAITING { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let share = self.waiting.len().div_ceil(self.threads).max(1);
        let tok = self.tok;
        let encode_all =
            |rows: &[(usize, Row)]| rows.iter().map(|(_, row)| encode(row, tok)).collect::<Vec<_>>();
        let encoded: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                self.waiting.chunks(share).map(|rows| scope.spawn(move || encode_all(rows))).collect();
            let joined =
                threads.into_iter().map(|t| t.join().unwrap_or_else(|p| std::panic::resume_unwind(p)));
            joined.flatten().collect()
        });
        for ((number, _), encoded) in self.waiting.drain(..).zip(encoded) {
            let added = encoded.and_then(|encoded| match encoded {
                Some(encoded) => self.builder.add_encoded(number, encoded),
                None => {
                    self.builder.skip(|report| &mut report.identical);
                    Ok(())
                }
            });
            added.map_err(|message| Error::row(self.file, number, message))?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Dataset> {
        self.flush()?;
        self.builder.finish().map_err(|e| match e {
            Error::Empty { report, .. } => Error::Empty { file: self.file.map(Path::to_owned), report },
            other => other,
        })
    }
}
