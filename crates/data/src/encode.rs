//! Text to tokens, and where in the tokens the prompt ends.

use crate::row::common_prefix;
use crate::{Error, Message, Row, Tokenizer};

/// The turn marker before which Anthropic's HH files, which have no prompt column, end their prompts.
const ASSISTANT: &str = "\n\nAssistant:";

/// A row as tokens: every prompt + response as one sequence, all of which start with the same prompt.
pub(crate) struct Encoded {
    wholes: Vec<Vec<u32>>,
    prompt: usize,
    /// Whether the prompt is shorter than its own encoding, because the tokenizer merges across its end.
    pub(crate) boundary_moved: bool,
}

impl Encoded {
    pub(crate) fn prompt(&self) -> &[u32] {
        self.wholes.first().map_or(&[], |w| &w[..self.prompt])
    }

    pub(crate) fn responses(&self) -> Vec<&[u32]> {
        self.wholes.iter().map(|w| &w[self.prompt..]).collect()
    }
}

/// Tokenises a row. The boundary is decided in token space: the prompt is what its own encoding and all the whole
/// encodings begin with in common, so that prompt + response is always exactly the encoding of the whole text.
/// `None` is a row of identical whole texts, which show no boundary.
pub(crate) fn encode(row: &Row, tok: &Tokenizer) -> Result<Option<Encoded>, String> {
    let (alone, wholes) = match row {
        Row::Text { prompt, responses } => encode_text(prompt.as_deref(), responses, tok)?,
        Row::Chat { prompt, responses } => {
            let (alone, wholes) = encode_chat(prompt, responses, tok).map_err(text)?;
            (Some(alone), wholes)
        }
    };
    let (prompt, boundary_moved) = match (&alone, wholes.first()) {
        (Some(alone), _) => {
            let len = wholes.iter().fold(alone.len(), |len, whole| shared(&alone[..len], whole));
            (len, len < alone.len())
        }
        (None, Some(first)) if wholes.iter().all(|w| w == first) => return Ok(None),
        // One whole text can start another; it still keeps a token to respond with.
        (None, Some(first)) => {
            (wholes.iter().map(|w| shared(first, w).min(w.len() - 1)).min().unwrap_or(0), false)
        }
        (None, None) => (0, false),
    };
    Ok(Some(Encoded { wholes, prompt, boundary_moved }))
}

/// The prompt's own ids, if there is a prompt, and those of every whole text.
type Parts = (Option<Vec<u32>>, Vec<Vec<u32>>);

fn encode_text(prompt: Option<&str>, responses: &[String], tok: &Tokenizer) -> Result<Parts, String> {
    if let Some(i) = responses.iter().position(String::is_empty) {
        return Err(format!("response {} is empty", i + 1));
    }
    let split = prompt.or_else(|| {
        let common = common_prefix(responses);
        common.rfind(ASSISTANT).map(|at| &common[..at + ASSISTANT.len()])
    });
    let alone = split.map(|text| open(text, tok)).transpose()?;
    let wholes =
        responses.iter().map(|response| closed([prompt.unwrap_or_default(), response].concat(), tok));
    Ok((alone, wholes.collect::<Result<_, _>>()?))
}

fn encode_chat(
    prompt: &[Message],
    responses: &[Vec<Message>],
    tok: &Tokenizer,
) -> crate::Result<(Vec<u32>, Vec<Vec<u32>>)> {
    let encode = |turns: &[Message], generate| tok.encode(&tok.chat(turns, generate)?, false);
    // A response that opens with another turn than the assistant's does not continue a generation prompt.
    let generate = responses.iter().all(|r| r.first().is_some_and(|m| m.role == "assistant"));
    let wholes = responses.iter().map(|response| encode(&[prompt, response].concat(), false));
    Ok((encode(prompt, generate)?, wholes.collect::<crate::Result<_>>()?))
}

fn shared(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The ids of a text that goes on: BOS if the model wants one, no EOS.
fn open(prompt: &str, tok: &Tokenizer) -> Result<Vec<u32>, String> {
    let mut ids = one_bos(prompt, tok)?;
    if tok.appends_eos() {
        ids.pop();
    }
    Ok(ids)
}

/// The ids of a text that ends: with one EOS, whether the text, the post-processor or neither brings it.
fn closed(mut whole: String, tok: &Tokenizer) -> Result<Vec<u32>, String> {
    let Some((eos, id)) = tok.eos() else {
        return Err(
            "needs an EOS token to end its responses; set eos_token in tokenizer_config.json".to_owned()
        );
    };
    let ends = whole.ends_with(eos);
    if ends && tok.appends_eos() {
        whole.truncate(whole.len() - eos.len());
    } else if !ends && !tok.appends_eos() {
        whole.push_str(eos);
    }
    let ids = one_bos(&whole, tok)?;
    if ids.last() != Some(&id) {
        return Err(format!(
            "does not end in EOS: the tokenizer splits `{eos}` instead of reading it as token {id}"
        ));
    }
    Ok(ids)
}

/// The ids of a text with special tokens, but no second BOS where the text brings its own.
fn one_bos(content: &str, tok: &Tokenizer) -> Result<Vec<u32>, String> {
    let mut ids = tok.encode(content, true).map_err(text)?;
    if let Some((bos, id)) = tok.bos()
        && content.starts_with(bos)
        && ids.starts_with(&[id, id])
        && tok.encode("", true).map_err(text)?.first() == Some(&id)
    {
        ids.remove(0);
    }
    Ok(ids)
}

fn text(e: Error) -> String {
    e.to_string()
}
