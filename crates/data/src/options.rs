//! What rows are read for, and what is cut from long ones.

/// What the data is for, which decides what a row must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Supervised: one response per group. Of a preference row only the best is used (Preferred-FT); of a conversation
    /// every turn of the assistant.
    Sft,
    /// At least two different responses per group, best first.
    Preference,
    /// One response per group, and whether it is a good or a bad one.
    Unpaired,
    /// As [`Preference`](Task::Preference), for a model that reads its reward at the end of a response: no end is ever
    /// cut.
    Reward,
}

impl Task {
    /// Whether responses to one prompt are compared.
    pub(crate) fn compares(self) -> bool {
        matches!(self, Task::Preference | Task::Reward)
    }
}

/// Which end of a sequence goes when it is longer than `max_length`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Truncation {
    /// Responses lose their ends; for a reward, the row goes.
    #[default]
    KeepStart,
    /// The prompt loses its start, as far as the longest response needs; one token of it stays, and a response
    /// that is still too long loses its end. For a reward all of the prompt may go, and then the row.
    KeepEnd,
}

/// How rows become groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// What the data is for.
    pub task: Task,
    /// Supervised: rows of which every token has a loss. Other tasks do not read it.
    pub whole: Whole,
    /// The most tokens in a prompt and one of its responses together; `None` is no limit.
    pub max_length: Option<usize>,
    /// What to cut from longer ones.
    pub truncation: Truncation,
}

/// Rows of which every token has a loss, prompts too. A group is then one response behind an empty prompt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Whole {
    /// Those of a prompt and a response to it.
    pub completions: bool,
    /// Conversations without a place where the prompt ends.
    pub conversations: bool,
}

/// What stays of a prompt and its responses.
pub(crate) enum Cut {
    /// The last `context` tokens of the prompt, and up to the first `room` of every response.
    To { context: usize, room: usize },
    /// Nothing: the prompt leaves no room.
    Prompt,
    /// Nothing: the end of a response would go.
    End,
}

impl Options {
    /// Whether all of a prompt and its response is learned.
    pub(crate) fn completions_whole(&self) -> bool {
        self.whole.completions && self.task == Task::Sft
    }

    /// Whether all of a row is learned, which is a conversation of which no turn is the response, or not.
    pub(crate) fn is_whole(&self, conversation: bool) -> bool {
        if conversation { self.conversations_whole() } else { self.completions_whole() }
    }

    /// Whether all of a conversation is learned.
    pub(crate) fn conversations_whole(&self) -> bool {
        self.whole.conversations && self.task == Task::Sft
    }

    /// What stays of a prompt of `prompt` tokens and responses of up to `longest`.
    pub(crate) fn cut(&self, prompt: usize, longest: usize) -> Cut {
        let max = self.max_length.unwrap_or(usize::MAX);
        let spare = max.saturating_sub(longest);
        let context = |least: usize| match self.truncation {
            Truncation::KeepStart => prompt,
            Truncation::KeepEnd => prompt.min(spare.max(least)),
        };
        match self.task {
            Task::Reward if longest > max || context(0) > spare => Cut::End,
            Task::Reward => Cut::To { context: context(0), room: longest },
            _ if prompt >= max => Cut::Prompt,
            _ => Cut::To { context: context(1), room: max - context(1) },
        }
    }

    /// What stays of a whole sequence.
    pub(crate) fn window<'a>(&self, tokens: &'a [u32]) -> &'a [u32] {
        let most = self.max_length.unwrap_or(usize::MAX).min(tokens.len());
        match self.truncation {
            Truncation::KeepStart => &tokens[..most],
            Truncation::KeepEnd => &tokens[tokens.len() - most..],
        }
    }
}
