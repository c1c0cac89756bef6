//! What is to be gone on from, and responses that are there: their tokens as a model drew them.

use crate::encode::{closed, shared, text};
use crate::{Context, Message, Tokenizer};

/// What is to be gone on from.
#[derive(Debug, Clone, PartialEq)]
pub enum Asked {
    /// A text, which a response continues.
    Text(String),
    /// A conversation, of which a response is the next turn, and what else its template gets.
    Chat(Vec<Message>, Context),
}

/// A response that is there, however it came to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drawn<'a> {
    /// What it says.
    pub text: &'a str,
    /// Its tokens as some model drew them; empty where they are not known.
    pub tokens: &'a [u32],
    /// Whether it was cut before it came to an end: nothing ends it then.
    pub truncated: bool,
}

/// A prompt and responses to it, as tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    /// What all of them begin with; empty where that is nothing.
    pub prompt: Vec<u32>,
    /// What follows, of each.
    pub responses: Vec<Vec<u32>>,
    /// How many had tokens that are not those of their text here, and were encoded in their place.
    pub encoded_again: usize,
}

impl Asked {
    /// It as a text that goes on, and that text's tokens: what a model draws from, and training has before a response.
    ///
    /// # Errors
    /// The tokenizer or its template refuses it.
    pub(crate) fn open(&self, tok: &Tokenizer) -> crate::Result<(String, Vec<u32>)> {
        Ok(match self {
            Asked::Text(text) => (text.clone(), tok.encode_prompt(text)?),
            Asked::Chat(turns, context) => {
                let open = tok.chat(turns, true, context)?.text;
                let tokens = tok.encode(&open, false)?;
                (open, tokens)
            }
        })
    }

    /// It with responses, each the tokens that were drawn where they say its text in this tokenizer, and end as a text
    /// ends here. Another text is encoded as in a row of training; without an end where it was truncated.
    ///
    /// # Errors
    /// The tokenizer or its template refuses a text, or has no token to end it with; in words that start with a verb.
    pub fn answered(&self, responses: &[Drawn<'_>], tok: &Tokenizer) -> Result<Answered, String> {
        let (open, opening) = self.open(tok).map_err(text)?;
        let mut encoded_again = 0;
        let mut whole = |response: &Drawn<'_>| {
            if response.is_drawn_by(&opening, tok).map_err(text)? {
                let rest = if response.truncated { Vec::new() } else { self.after(response, &opening, tok)? };
                return Ok([&opening, response.tokens, &rest].concat());
            }
            encoded_again += usize::from(!response.tokens.is_empty());
            match (self, response.truncated) {
                (_, false) => self.whole(response.text, tok),
                (Asked::Text(_), true) => tok.encode_prompt(&(open.clone() + response.text)).map_err(text),
                (Asked::Chat(..), true) => tok.encode(&(open.clone() + response.text), false).map_err(text),
            }
        };
        let wholes = responses.iter().map(&mut whole).collect::<Result<Vec<_>, String>>()?;
        let prompt = wholes.iter().fold(opening.len(), |len, whole| shared(&opening[..len], whole));
        let responses = wholes.iter().map(|whole| whole[prompt..].to_vec()).collect();
        Ok(Answered { prompt: opening[..prompt].to_vec(), responses, encoded_again })
    }

    /// It and a response that comes to an end.
    fn whole(&self, response: &str, tok: &Tokenizer) -> Result<Vec<u32>, String> {
        match self {
            Asked::Text(prompt) => closed([prompt, response].concat(), tok),
            Asked::Chat(turns, context) => {
                let turns = [&turns[..], &[Message::new("assistant", response)]].concat();
                let whole = tok.chat(&turns, false, context).map_err(text)?.text;
                tok.encode(&whole, false).map_err(text)
            }
        }
    }

    /// What a template writes after the token that ends a turn (ChatML: a line's end), which a model that was trained
    /// on turns has read before it says what they are worth.
    fn after(&self, response: &Drawn<'_>, opening: &[u32], tok: &Tokenizer) -> Result<Vec<u32>, String> {
        let (Asked::Chat(..), Some(stop)) = (self, response.tokens.last()) else { return Ok(Vec::new()) };
        let whole = self.whole(response.text, tok)?;
        let turn = &whole[shared(opening, &whole)..];
        let end = turn.iter().rposition(|token| token == stop);
        Ok(end.map_or(Vec::new(), |end| turn[end + 1..].to_vec()))
    }
}

impl Drawn<'_> {
    /// Whether its tokens are what this tokenizer calls its text: one that reads them otherwise did not draw them.
    fn is_drawn_by(&self, opening: &[u32], tok: &Tokenizer) -> crate::Result<bool> {
        let ends = self.tokens.last().is_some_and(|last| self.truncated || tok.stops().contains(last));
        Ok(ends
            && (tok.decode_after(opening, self.tokens)? == self.text
                || tok.decode(self.tokens, true)? == self.text))
    }
}
