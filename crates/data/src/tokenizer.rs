//! A Hugging Face tokenizer folder: text to ids and back, special tokens, the chat template.

use std::fmt;
use std::io::ErrorKind;
use std::path::Path;

use minijinja::Environment;
use serde_json::{Map, Value};

use crate::template::{self, Message};
use crate::{Error, Result};

/// A tokenizer with its special tokens and chat template. It can be shared between threads.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    bos: Option<(String, u32)>,
    eos: Option<(String, u32)>,
    appends_eos: bool,
    /// `Some(Err)` is a template that does not compile: that matters only once a conversation has to be rendered.
    template: Option<std::result::Result<Environment<'static>, String>>,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, the special tokens from `tokenizer_config.json` (else `special_tokens_map.json`)
    /// and the chat template from `chat_template.jinja` (else `tokenizer_config.json`) in `dir`.
    ///
    /// # Errors
    /// When `tokenizer.json` is missing, a file is broken, or the BOS or EOS token is not in the vocabulary.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let file = dir.join("tokenizer.json");
        let bytes = read(&file)?.ok_or_else(|| {
            Error::file(
                &file,
                "not found; a model folder needs the tokenizer.json of the `tokenizers` library",
            )
        })?;
        let mut inner = tokenizers::Tokenizer::from_bytes(&bytes)
            .map_err(|e| Error::file(&file, format!("is not a tokenizer: {e}")))?;
        // A saved tokenizer remembers the cutting and padding of whoever saved it; both are ours to decide.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| Error::file(&file, e))?;

        let config = object(&dir.join("tokenizer_config.json"))?;
        let map = object(&dir.join("special_tokens_map.json"))?;
        let mut specials: Vec<(String, String)> = Vec::new();
        for (name, value) in config.iter().chain(&map) {
            if let Some(text) = token_text(value).filter(|_| name.ends_with("_token"))
                && !specials.iter().any(|(known, _)| known == name)
            {
                specials.push((name.clone(), text.to_owned()));
            }
        }
        let special = |name: &str| -> Result<Option<(String, u32)>> {
            let Some((_, text)) = specials.iter().find(|(known, _)| known == name) else { return Ok(None) };
            match inner.token_to_id(text) {
                Some(id) => Ok(Some((text.clone(), id))),
                None => Err(Error::file(
                    &file,
                    format!("does not know the {name} `{text}` that its config names"),
                )),
            }
        };
        let (bos, eos) = (special("bos_token")?, special("eos_token")?);

        let source = match read(&dir.join("chat_template.jinja"))? {
            Some(bytes) => {
                Some(String::from_utf8(bytes).map_err(|e| Error::file(&dir.join("chat_template.jinja"), e))?)
            }
            None => config.get("chat_template").and_then(default_template),
        };
        let template = source.map(|source| template::compile(source, &specials));

        let mut tokenizer = Tokenizer { inner, bos, eos, appends_eos: false, template };
        let (plain, special) = (tokenizer.encode("a", false)?, tokenizer.encode("a", true)?);
        tokenizer.appends_eos = tokenizer
            .eos
            .as_ref()
            .is_some_and(|(_, id)| special.last() == Some(id) && plain.last() != Some(id));
        Ok(tokenizer)
    }

    /// The ids of `text`; `add_special_tokens` runs the post-processor, which adds BOS where the model wants one.
    ///
    /// # Errors
    /// When the tokenizer refuses the text.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        match self.inner.encode_fast(text, add_special_tokens) {
            Ok(encoding) => Ok(encoding.get_ids().to_vec()),
            Err(e) => Err(Error::Tokenizer(format!("the tokenizer refuses a text: {e}"))),
        }
    }

    /// The text of `ids`. Ids outside the vocabulary give no text.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String> {
        self.inner
            .decode(ids, skip_special_tokens)
            .map_err(|e| Error::Tokenizer(format!("the tokenizer cannot decode: {e}")))
    }

    /// The end-of-sequence token, if the model has one.
    pub fn eos(&self) -> Option<(&str, u32)> {
        self.eos.as_ref().map(|(text, id)| (text.as_str(), *id))
    }

    /// The beginning-of-sequence token, if the model has one.
    pub fn bos(&self) -> Option<(&str, u32)> {
        self.bos.as_ref().map(|(text, id)| (text.as_str(), *id))
    }

    /// How many tokens there are, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Whether [`chat`](Self::chat) has a template to work with.
    pub fn has_chat_template(&self) -> bool {
        self.template.is_some()
    }

    /// Renders a conversation as text. The template writes the special tokens itself, so encode the result
    /// without adding any.
    ///
    /// # Errors
    /// When there is no template, it does not compile, or it refuses the conversation (with its own message).
    pub fn chat(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let rendered = match &self.template {
            None => {
                Err("the tokenizer has no chat template, which message lists need; use a chat model, add a \
                         chat_template.jinja to the model folder, or give plain strings"
                    .to_owned())
            }
            Some(Err(broken)) => Err(broken.clone()),
            Some(Ok(env)) => template::render(env, messages, add_generation_prompt),
        };
        rendered.map_err(Error::Tokenizer)
    }

    /// Whether the post-processor ends every encoding with EOS.
    pub(crate) fn appends_eos(&self) -> bool {
        self.appends_eos
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size())
            .field("bos", &self.bos)
            .field("eos", &self.eos)
            .field("has_chat_template", &self.has_chat_template())
            .finish_non_exhaustive()
    }
}

/// The bytes of a file that may be absent.
fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::file(path, e)),
    }
}

/// The JSON object in a file that may be absent (then it is empty).
fn object(path: &Path) -> Result<Map<String, Value>> {
    let Some(bytes) = read(path)? else { return Ok(Map::new()) };
    serde_json::from_slice(&bytes).map_err(|e| Error::file(path, format!("is not a JSON object: {e}")))
}

/// A special token is written as its text or as `{"content": text, ...}`.
fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

/// A template is one string, or a list of `{name, template}` of which `default` is the one for plain chat.
fn default_template(value: &Value) -> Option<String> {
    let one = value.as_str().or_else(|| {
        let named = value.as_array()?.iter().find(|t| t.get("name").is_some_and(|n| n == "default"))?;
        named.get("template")?.as_str()
    });
    one.map(str::to_owned)
}
