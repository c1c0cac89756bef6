//! The text of tokens as they come.

use crate::{Result, Tokenizer};

/// Makes text of one token after another: no letter before all of its bytes are there, so that what was given is never
/// taken back.
pub struct Stream<'t> {
    tokenizer: &'t Tokenizer,
    tokens: Vec<u32>,
    /// From where on tokens are decoded together, a whole letter's beginning: what one looks like depends on the one
    /// before it.
    from: usize,
    /// Tokens whose text was given.
    given: usize,
}

/// What stands in a text for bytes that are no letter, or not yet.
const BROKEN: char = '\u{FFFD}';

impl<'t> Stream<'t> {
    /// Before the first token.
    pub(crate) fn new(tokenizer: &'t Tokenizer) -> Self {
        Stream { tokenizer, tokens: Vec::new(), from: 0, given: 0 }
    }

    /// The text that a token adds, without special tokens; none while a letter is not whole.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn push(&mut self, token: u32) -> Result<String> {
        self.tokens.push(token);
        let text = self.rest()?;
        if text.ends_with(BROKEN) {
            return Ok(String::new());
        }
        if !text.is_empty() {
            self.from = self.given;
        }
        self.given = self.tokens.len();
        Ok(text)
    }

    /// What is left after the last token: bytes that never became a letter.
    ///
    /// # Errors
    /// As [`Stream::push`].
    pub fn finish(self) -> Result<String> {
        self.rest()
    }

    /// The text of the tokens after those that were given.
    fn rest(&self) -> Result<String> {
        let decode = |from: usize, to: usize| self.tokenizer.decode(&self.tokens[from..to], true);
        let end = self.tokens.len();
        let (before, whole) = (decode(self.from, self.given)?, decode(self.from, end)?);
        match whole.strip_prefix(&before) {
            Some(text) => Ok(text.to_owned()),
            // A letter that is not whole can hide those before it.
            None => decode(self.given, end),
        }
    }
}
