//! What is kept of a row, and what is cut.

use crate::dataset::{Entry, Uncut};
use crate::encode::{Encoded, Facts};
use crate::options::Cut;
use crate::{Dataset, Error, Labels, Options, Report, Result, Task, Truncation, Whole};
use std::ops::Range;

/// Takes rows that are tokens already, and decides what is kept of them.
#[derive(Debug)]
pub struct Builder {
    data: Dataset,
}

impl Dataset {
    /// Prompts with responses that a model drew, as they are: each with its row, from 1.
    ///
    /// # Errors
    /// A response is empty, or there is no prompt.
    pub fn of_samples<'t>(
        rows: impl IntoIterator<Item = (usize, &'t [u32], Vec<&'t [u32]>)>,
    ) -> Result<Self> {
        let (task, whole, truncation) = (Task::Preference, Whole::default(), Truncation::KeepStart);
        let mut builder = Builder::new(&Options { task, whole, max_length: None, truncation });
        for (row, prompt, responses) in rows {
            builder.push_every(row, prompt, &responses)?;
        }
        builder.finish()
    }
}

/// A group as it is kept.
struct Kept<'a> {
    row: usize,
    prompt: &'a [u32],
    responses: &'a [&'a [u32]],
    /// Of the best response; what lies past its end is left out.
    given: &'a [Range<usize>],
    labels: Labels<'a>,
    /// None is left out, however many are the same.
    every: bool,
}

/// What is known of responses in an order.
const RANKED: Labels<'static> = Labels::Ranked { margin: None };

/// A response is at least a token.
fn not_empty(responses: &[&[u32]]) -> std::result::Result<(), String> {
    match responses.iter().position(|r| r.is_empty()) {
        Some(i) => Err(format!("response {} has no tokens", i + 1)),
        None => Ok(()),
    }
}

impl Builder {
    /// Starts a dataset.
    pub fn new(opt: &Options) -> Self {
        Builder { data: Dataset::empty(*opt) }
    }

    pub(crate) fn options(&self) -> &Options {
        &self.data.opt
    }

    pub(crate) fn report(&mut self) -> &mut Report {
        &mut self.data.report
    }

    /// Adds source row `row` (counted from 1), truncated to the options' `max_length`. A row whose prompt alone
    /// fills `max_length`, or whose responses are all the same, is counted and left out.
    ///
    /// # Errors
    /// When a response is empty, or there are fewer responses than the task needs.
    pub fn push(&mut self, row: usize, prompt: &[u32], responses: &[&[u32]]) -> Result<()> {
        self.push_labelled(row, prompt, responses, RANKED)
    }

    /// As [`push`](Self::push), with what is known of the responses. Responses with scores are kept if they are the
    /// same; of those with the same score, only the first is kept.
    ///
    /// # Errors
    /// As [`push`](Self::push), or when the labels are not what the task needs.
    pub fn push_labelled(
        &mut self,
        row: usize,
        prompt: &[u32],
        responses: &[&[u32]],
        labels: Labels<'_>,
    ) -> Result<()> {
        let whole = self.data.opt.is_whole(false);
        self.add(row, prompt, responses, &[], labels, whole)
            .map_err(|message| Error::row(None, row, message))?;
        self.data.report.rows += 1;
        Ok(())
    }

    /// Adds a prompt and responses of which nothing is known, for a model that says what they are worth: one or more,
    /// all of which are kept. They are cut as the options' task says, which for a reward leaves every response its end.
    ///
    /// # Errors
    /// When a response is empty.
    pub fn push_every(&mut self, row: usize, prompt: &[u32], responses: &[&[u32]]) -> Result<()> {
        not_empty(responses)
            .and_then(|()| {
                self.add_cut(Kept { row, prompt, responses, given: &[], labels: RANKED, every: true })
            })
            .map_err(|message| Error::row(None, row, message))?;
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
    pub(crate) fn skip(&mut self, reason: impl FnOnce(&mut Report) -> &mut usize) {
        self.data.report.rows += 1;
        *reason(&mut self.data.report) += 1;
    }

    fn add(
        &mut self,
        row: usize,
        prompt: &[u32],
        responses: &[&[u32]],
        given: &[Range<usize>],
        labels: Labels<'_>,
        whole: bool,
    ) -> std::result::Result<(), String> {
        let opt = self.data.opt;
        let needed = if opt.task.compares() { 2 } else { 1 };
        if responses.len() < needed {
            let given = responses.len();
            return Err(format!("has {given} response(s), and the task needs at least {needed}"));
        }
        not_empty(responses)?;
        labels.fit(opt.task, responses.len())?;
        match (opt.task, labels) {
            (Task::Sft, Labels::Unpaired { desirable: false }) => {
                self.data.report.undesirable += 1;
                Ok(())
            }
            (Task::Sft, _) if whole => self.add_whole(row, &[prompt, responses[0]].concat()),
            (Task::Sft, _) => {
                let responses = &responses[..1];
                self.add_cut(Kept { row, prompt, responses, given, labels: RANKED, every: false })
            }
            (Task::Preference | Task::Reward, Labels::Scored([first, rest @ ..]))
                if rest.iter().all(|score| score == first) =>
            {
                self.data.report.unranked += 1;
                Ok(())
            }
            _ => {
                let every = matches!(labels, Labels::Scored(_));
                self.add_cut(Kept { row, prompt, responses, given, labels, every })
            }
        }
    }

    /// Adds a sequence all of which is learned.
    fn add_whole(&mut self, row: usize, tokens: &[u32]) -> std::result::Result<(), String> {
        let window = self.data.opt.window(tokens);
        // The first token has nothing before it that could predict it.
        if window.len() < 2.min(tokens.len()) {
            self.data.report.prompt_too_long += 1;
            return Ok(());
        }
        let given = &[];
        self.store(Kept { row, prompt: &[], responses: &[window], given, labels: RANKED, every: true })?;
        self.data.report.truncated += usize::from(window.len() < tokens.len());
        Ok(())
    }

    /// Adds what `max_length` leaves of a group, and of its responses those that differ.
    fn add_cut(&mut self, group: Kept<'_>) -> std::result::Result<(), String> {
        let Kept { prompt, responses, labels, every, .. } = group;
        let report = &mut self.data.report;
        let longest = responses.iter().map(|r| r.len()).max().unwrap_or(0);
        let (context, room) = match self.data.opt.cut(prompt.len(), longest) {
            Cut::To { context, room } => (context, room),
            Cut::Prompt => {
                report.prompt_too_long += 1;
                return Ok(());
            }
            Cut::End => {
                report.too_long += 1;
                return Ok(());
            }
        };
        // Compared as they are trained on: two long responses can become the same by losing their ends.
        let mut kept: Vec<&[u32]> = Vec::with_capacity(responses.len());
        for response in responses.iter().map(|r| &r[..r.len().min(room)]) {
            if every || !kept.contains(&response) {
                kept.push(response);
            }
        }
        if !every && self.data.opt.task.compares() && kept.len() < 2 {
            report.identical += 1;
            return Ok(());
        }
        let cut = context < prompt.len() || longest > room;
        report.tied += labels.ties();
        report.duplicates += responses.len() - kept.len();
        report.truncated += usize::from(cut);
        if cut && let (Task::Unpaired, [response]) = (self.data.opt.task, responses) {
            let uncut = Uncut { prompt: prompt.into(), response: (*response).into() };
            self.data.uncut.insert(self.data.groups.len(), uncut);
        }
        self.store(Kept { prompt: &prompt[prompt.len() - context..], responses: &kept, ..group })
    }

    /// Puts a group at the end of the arena.
    fn store(&mut self, group: Kept<'_>) -> std::result::Result<(), String> {
        let Kept { row, prompt, responses, given, labels, .. } = group;
        let data = &mut self.data;
        let parts = data.bounds.len() - 1;
        let (Ok(row), Ok(part), Ok(_)) =
            (u32::try_from(row), u32::try_from(parts), u32::try_from(parts + responses.len()))
        else {
            return Err(
                "is one too many: a dataset holds up to 4,294,967,295 rows, prompts and responses".to_owned()
            );
        };
        let longest = responses.iter().map(|r| r.len()).max().unwrap_or(0);
        data.report.responses += responses.len();
        data.report.longest = data.report.longest.max(prompt.len() + longest);
        data.report.label(labels);
        data.labels.push(data.groups.len(), labels);
        data.groups.push(Entry { row, prompt: part });
        data.tokens.extend_from_slice(prompt);
        data.bounds.push(data.tokens.len());
        let first = data.tokens.len();
        let most = responses.first().map_or(0, |r| r.len());
        let runs = given.iter().map(|run| run.start.min(most)..run.end.min(most));
        data.given.extend(runs.filter(|run| !run.is_empty()).map(|run| first + run.start..first + run.end));
        for tokens in responses {
            data.tokens.extend_from_slice(tokens);
            data.bounds.push(data.tokens.len());
        }
        Ok(())
    }

    /// Adds what a row became, and counts what a user should hear of it.
    pub(crate) fn add_encoded(
        &mut self,
        row: usize,
        encoded: Encoded,
        labels: Labels<'_>,
    ) -> std::result::Result<(), String> {
        let report = &mut self.data.report;
        report.rows += 1;
        let Facts { conversation, other_opening, given_turns, after, ref unread } = encoded.facts;
        let whole = self.data.opt.is_whole(conversation);
        report.unlearned += usize::from(encoded.groups.is_empty());
        report.given_turns += given_turns;
        report.turns_after += after;
        for name in unread {
            *report.unread.entry(name.clone()).or_default() += 1;
        }
        for group in encoded.groups {
            let (group, cut) = match (self.data.opt.truncation, self.data.opt.max_length) {
                (Truncation::KeepEnd, Some(max)) => group.last(max),
                _ => (group, false),
            };
            let kept = self.data.groups.len();
            self.add(row, group.prompt(), &group.responses(), &group.given, labels, whole)?;
            if self.data.groups.len() > kept {
                let tokens = self.data.tokens.len() - self.data.bounds[self.data.bounds.len() - 2];
                let report = &mut self.data.report;
                report.truncated += usize::from(cut);
                report.turns += group.turns.iter().filter(|start| **start < tokens).count();
                report.boundary_moved += usize::from(group.moved);
                report.other_opening += usize::from(other_opening);
            }
        }
        Ok(())
    }
}
