//! A Hugging Face tokenizer folder: text to ids and back, special tokens, the chat template, where a text ends.

use crate::contain::contain;
use crate::cuts::Cuts;
use crate::row::common_prefix;
use crate::stream::Stream;
use crate::template::{Context, Rendered, Template, tells};
use crate::{Error, Message, Result};
use serde_json::{Map, Value};
use std::fmt;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::Path;

/// A tokenizer with its special tokens and chat template. It can be shared between threads.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    bos: Option<(String, u32)>,
    eos: Option<(String, u32)>,
    pad: Option<u32>,
    stops: Vec<u32>,
    appends_eos: bool,
    templates: Templates,
    cuts: Cuts,
}

/// The chat templates of a folder by name. One that does not compile matters only once a conversation has to be
/// rendered with it.
struct Templates(Vec<Named>);

struct Named {
    name: String,
    source: String,
    compiled: std::result::Result<Template, String>,
}

impl Tokenizer {
    /// Reads a model folder's `tokenizer.json` with the special tokens, the chat template and the stop tokens that the
    /// files beside it name, by the rules of transformers: `special_tokens_map.json` wins over
    /// `tokenizer_config.json` unless that has an `added_tokens_decoder`, `chat_template.jinja` over both, and
    /// `generation_config.json` over `config.json`.
    ///
    /// # Errors
    /// When `tokenizer.json` is missing, a file is broken, or the BOS or EOS token is not in the vocabulary.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let file = dir.join("tokenizer.json");
        let bytes = read(&file)?.ok_or_else(|| {
            let other = ["tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json"];
            let other = other.into_iter().find(|name| dir.join(name).exists());
            let way = other.map_or_else(String::new, |name| {
                format!("; {name} is there: transformers makes one of it, AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)")
            });
            Error::file(&file, format!("not found; a model folder needs the tokenizer.json of the `tokenizers` library{way}"))
        })?;
        let broken = |e: &dyn fmt::Display| Error::file(&file, format!("is not a tokenizer: {e}"));
        let mut inner = contain(|| tokenizers::Tokenizer::from_bytes(&bytes))
            .map_err(|panic| broken(&panic))?
            .map_err(|e| broken(&e))?;
        // A saved tokenizer remembers the cutting and padding of whoever saved it; both are ours to decide.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| broken(&e))?;

        let config = object(&dir.join("tokenizer_config.json"))?.unwrap_or_default();
        add_tokens(&mut inner, &config).map_err(|e| broken(&e))?;
        steady(&inner).map_err(|e| broken(&e))?;
        // A config that knows its added tokens is of a version that writes no map; a map beside it is left from before.
        let map = object(&dir.join("special_tokens_map.json"))?;
        let map = map.filter(|_| !config.contains_key("added_tokens_decoder")).unwrap_or_default();
        let specials = specials(&config, &map);
        let named = named(&specials, &config, &map);
        if let Some((name, text)) = named.iter().find(|(_, text)| inner.token_to_id(text).is_none()) {
            return Err(Error::file(
                &file,
                format!("does not know the {name} `{text}` that its config names"),
            ));
        }
        add_specials(&mut inner, &named).map_err(|e| broken(&e))?;
        let special = |name: &str| {
            let text = specials.get(name).and_then(Value::as_str)?;
            inner.token_to_id(text).map(|id| (text.to_owned(), id))
        };
        let (bos, eos) = (special("bos_token"), special("eos_token"));
        let pad = special("pad_token").map(|(_, id)| id);
        let stops = stops(dir, eos.as_ref().map(|(_, id)| *id))?;
        let templates = Templates::read(dir, &config, &specials)?;

        let said = templates.0.iter().map(|named| named.source.as_str());
        let cuts = Cuts::of(&inner, said.chain(bos.iter().chain(&eos).map(|(text, _)| text.as_str())));
        let mut tokenizer = Tokenizer { inner, bos, eos, pad, stops, appends_eos: false, templates, cuts };
        let (plain, special) = (tokenizer.encode("a", false), tokenizer.encode("a", true));
        let (plain, special) = (plain.map_err(|e| broken(&e))?, special.map_err(|e| broken(&e))?);
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
        let encoding = refusing(contain(|| self.inner.encode_fast(text, add_special_tokens)))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The ids of each of `texts` without special tokens; what all of them begin with is encoded once where they can be
    /// cut, as conversations can before a turn.
    pub(crate) fn encode_alike(&self, texts: &[&str]) -> Result<Vec<Vec<u32>>> {
        let cut = self.cuts.last(common_prefix(texts));
        let shared = match texts.first().filter(|_| cut > 0) {
            Some(text) => self.encode(&text[..cut], false)?,
            None => Vec::new(),
        };
        let whole = |text: &&str| Ok([&shared[..], &self.encode(&text[cut..], false)?].concat());
        texts.iter().map(whole).collect()
    }

    /// The ids of `text` without special tokens, and the bytes of the text that each stands for.
    pub(crate) fn encode_with_places(&self, text: &str) -> Result<(Vec<u32>, Vec<Range<usize>>)> {
        let encoding = refusing(contain(|| self.inner.encode(text, false)))?;
        let places = encoding.get_offsets().iter().map(|&(from, to)| from..to).collect();
        Ok((encoding.get_ids().to_vec(), places))
    }

    /// The ids of a text that goes on, as training sees a prompt: one BOS if the model wants one, no EOS.
    ///
    /// # Errors
    /// When the tokenizer refuses the text.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = self.encode_with_one_bos(text)?;
        if self.appends_eos {
            ids.pop();
        }
        Ok(ids)
    }

    /// The ids of a text with special tokens, but no second BOS where the text brings its own.
    pub(crate) fn encode_with_one_bos(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = self.encode(text, true)?;
        if let Some((bos, id)) = self.bos()
            && text.starts_with(bos)
            && ids.starts_with(&[id, id])
            && self.encode("", true)?.first() == Some(&id)
        {
            ids.remove(0);
        }
        Ok(ids)
    }

    /// The text of `ids`. Ids outside the vocabulary give no text.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String> {
        let failed = |e: &dyn fmt::Display| Error::Tokenizer(format!("the tokenizer cannot decode: {e}"));
        contain(|| self.inner.decode(ids, skip_special_tokens))
            .map_err(|panic| failed(&panic))?
            .map_err(|e| failed(&e))
    }

    /// The text that `ids` add to that of `before`, which they go on from, without special tokens: `before` and it are
    /// one text, where [`Tokenizer::decode`] leaves out the space that some tokenizers put before a word.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn decode_after(&self, before: &[u32], ids: &[u32]) -> Result<String> {
        // What a token looks like depends on few before it.
        let near = &before[before.len().saturating_sub(8)..];
        let (before, whole) = (self.decode(near, true)?, self.decode(&[near, ids].concat(), true)?);
        match whole.strip_prefix(&before) {
            Some(text) => Ok(text.to_owned()),
            // A character that both share.
            None => self.decode(ids, true),
        }
    }

    /// The text that each of `ids` adds to those before it, special tokens too. Of a token that ends inside a
    /// character, or has no text, its name in the vocabulary.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn pieces(&self, ids: &[u32]) -> Result<Vec<String>> {
        const UNKNOWN: char = '\u{FFFD}';
        let piece = |(i, &id): (usize, &u32)| {
            let near = &ids[i.saturating_sub(8)..=i];
            let before = self.decode(&near[..near.len() - 1], false)?;
            let whole = self.decode(near, false)?;
            // The token that completes a character shows it.
            let added = whole.strip_prefix(before.trim_end_matches(UNKNOWN));
            Ok(match added.filter(|text| !text.is_empty() && !text.contains(UNKNOWN)) {
                Some(text) => text.to_owned(),
                None => self.inner.id_to_token(id).unwrap_or_else(|| format!("<{id}>")),
            })
        };
        ids.iter().enumerate().map(piece).collect()
    }

    /// Makes text of tokens as they come.
    pub fn stream(&self) -> Stream<'_> {
        Stream::new(self)
    }

    /// The end-of-sequence token, if the model has one.
    pub fn eos(&self) -> Option<(&str, u32)> {
        self.eos.as_ref().map(|(text, id)| (text.as_str(), *id))
    }

    /// The beginning-of-sequence token, if the model has one.
    pub fn bos(&self) -> Option<(&str, u32)> {
        self.bos.as_ref().map(|(text, id)| (text.as_str(), *id))
    }

    /// The token that pads a batch, if the model has one.
    pub fn pad(&self) -> Option<u32> {
        self.pad
    }

    /// The tokens that end a generated text: the tokenizer's EOS first, then those that `generation_config.json` lists,
    /// or `config.json` in a folder without it.
    pub fn stops(&self) -> &[u32] {
        &self.stops
    }

    /// How many tokens there are, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Whether [`chat`](Self::chat) has a template to work with.
    pub fn has_chat_template(&self) -> bool {
        !self.templates.0.is_empty()
    }

    /// The chat templates as their files have them, each with its name; the usual one is `default`.
    pub fn chat_templates(&self) -> impl Iterator<Item = (&str, &str)> {
        self.templates.0.iter().map(|named| (named.name.as_str(), named.source.as_str()))
    }

    /// What `tokenizer.json` says in the words of this version of the `tokenizers` library, with the tokens that the
    /// files beside it add.
    ///
    /// # Errors
    /// When the library cannot write it.
    pub fn to_json(&self) -> Result<Value> {
        let failed = |e: &dyn fmt::Display| Error::Tokenizer(format!("the tokenizer cannot be written: {e}"));
        let text = self.inner.to_string(false).map_err(|e| failed(&e))?;
        serde_json::from_str(&text).map_err(|e| failed(&e))
    }

    /// Renders a conversation as text. The template writes the special tokens itself, so encode the result
    /// without adding any.
    ///
    /// # Errors
    /// When there is no template, it does not compile, or it refuses the conversation (with its own message).
    pub fn chat(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        context: &Context,
    ) -> Result<Rendered> {
        let rendered = self.template(context)?.render(messages, add_generation_prompt, context);
        rendered.map_err(Error::Tokenizer)
    }

    /// The template for conversations with this context.
    pub(crate) fn template(&self, context: &Context) -> Result<&Template> {
        self.templates.pick(!context.tools.is_empty()).map_err(Error::Tokenizer)
    }

    /// What its chat templates were told of the time so far, by the formats that they asked in: rows were rendered as
    /// they would be now where [`Tokenizer::tells`] says the same of each.
    pub fn told(&self) -> Vec<(String, String)> {
        let compiled = self.templates.0.iter().filter_map(|named| named.compiled.as_ref().ok());
        compiled.flat_map(Template::told).collect()
    }

    /// What a chat template is told now that asks for the time in this format of `strftime`; `None` where it is none.
    pub fn tells(format: &str) -> Option<String> {
        tells(format)
    }

    /// Whether the post-processor ends every encoding with EOS.
    pub(crate) fn appends_eos(&self) -> bool {
        self.appends_eos
    }
}

/// What the tokenizer makes of a text, or the error that it refused it or panicked.
fn refusing<T>(result: std::result::Result<tokenizers::Result<T>, String>) -> Result<T> {
    let refuses = |e: &dyn fmt::Display| Error::Tokenizer(format!("the tokenizer refuses a text: {e}"));
    result.map_err(|panic| refuses(&panic))?.map_err(|e| refuses(&e))
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size())
            .field("bos", &self.bos)
            .field("eos", &self.eos)
            .field("stops", &self.stops)
            .field("has_chat_template", &self.has_chat_template())
            .finish_non_exhaustive()
    }
}

impl Templates {
    /// `chat_template.jinja` and `additional_chat_templates/NAME.jinja`; without the former, what
    /// `tokenizer_config.json` has: one text, or a list of `{name, template}`.
    fn read(dir: &Path, config: &Map<String, Value>, specials: &Map<String, Value>) -> Result<Self> {
        let text = |path: &Path| {
            let bytes = read(path)?;
            bytes.map(|b| String::from_utf8(b).map_err(|e| Error::file(path, e))).transpose()
        };
        let mut sources: Vec<(String, String)> = Vec::new();
        if let Some(source) = text(&dir.join("chat_template.jinja"))? {
            sources.push(("default".into(), source));
        } else {
            match config.get("chat_template") {
                Some(Value::String(source)) => sources.push(("default".into(), source.clone())),
                Some(Value::Array(named)) => sources.extend(named.iter().filter_map(|t| {
                    Some((t.get("name")?.as_str()?.to_owned(), t.get("template")?.as_str()?.to_owned()))
                })),
                Some(Value::Object(named)) => sources.extend(
                    named.iter().filter_map(|(name, t)| Some((name.clone(), t.as_str()?.to_owned()))),
                ),
                _ => {}
            }
        }
        let more = dir.join("additional_chat_templates");
        let mut files: Vec<_> =
            std::fs::read_dir(&more).into_iter().flatten().filter_map(|e| Some(e.ok()?.path())).collect();
        files.sort();
        for path in files.iter().filter(|path| path.extension().is_some_and(|e| e == "jinja")) {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if let (false, Some(source)) = (sources.iter().any(|(known, _)| *known == name), text(path)?) {
                sources.push((name, source));
            }
        }
        let compile = |(name, source): (String, String)| {
            let compiled = Template::compile(&source, specials, dir);
            Named { name, source, compiled }
        };
        Ok(Templates(sources.into_iter().map(compile).collect()))
    }

    /// `tool_use` where there are tools and it is there, else `default`.
    fn pick(&self, tools: bool) -> std::result::Result<&Template, String> {
        let named = |name: &str| self.0.iter().find(|template| template.name == name);
        match named("tool_use").filter(|_| tools).or(named("default")) {
            Some(template) => template.compiled.as_ref().map_err(Clone::clone),
            None if self.0.is_empty() => {
                Err("the tokenizer has no chat template, which message lists need; use a chat model, add a \
                     chat_template.jinja to the model folder, or give plain strings"
                    .to_owned())
            }
            None => {
                let names: Vec<&str> = self.0.iter().map(|template| template.name.as_str()).collect();
                Err(format!(
                    "the tokenizer has the chat templates {} and none named default; add it as chat_template.jinja",
                    names.join(", ")
                ))
            }
        }
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

/// The JSON object in a file that may be absent.
fn object(path: &Path) -> Result<Option<Map<String, Value>>> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|e| Error::file(path, format!("is not a JSON object: {e}")))
}

/// The special tokens by name (`eos_token`, ...), each as its text.
fn specials(config: &Map<String, Value>, map: &Map<String, Value>) -> Map<String, Value> {
    let mut specials = Map::new();
    for (name, value) in map.iter().chain(config) {
        if let Some(text) = token_text(value).filter(|_| name.ends_with("_token")) {
            specials.entry(name.clone()).or_insert_with(|| text.into());
        }
    }
    // Those of a name of the model's own.
    for (name, value) in config.get("extra_special_tokens").and_then(Value::as_object).into_iter().flatten() {
        if let Some(text) = token_text(value) {
            specials.entry(name.clone()).or_insert_with(|| text.into());
        }
    }
    specials
}

/// Adds the tokens that `tokenizer_config.json` has and `tokenizer.json` lacks, as transformers does.
fn add_tokens(
    inner: &mut tokenizers::Tokenizer,
    config: &Map<String, Value>,
) -> std::result::Result<(), String> {
    let known = config.get("added_tokens_decoder").and_then(Value::as_object);
    let mut missing: Vec<(u32, &str, &Value)> = known
        .into_iter()
        .flatten()
        .filter_map(|(id, token)| Some((id.parse().ok()?, token_text(token)?, token)))
        .filter(|(_, text, _)| inner.token_to_id(text).is_none())
        .collect();
    missing.sort_by_key(|(id, ..)| *id);
    for (id, text, token) in missing {
        let is = |name: &str| token.get(name).and_then(Value::as_bool);
        let added = tokenizers::AddedToken::from(text, is("special").unwrap_or(false))
            .lstrip(is("lstrip").unwrap_or(false))
            .rstrip(is("rstrip").unwrap_or(false))
            .single_word(is("single_word").unwrap_or(false));
        contain(|| inner.add_tokens([added]))
            .map_err(|panic| panic.to_string())?
            .map_err(|e| e.to_string())?;
        if inner.token_to_id(text) != Some(id) {
            return Err(format!(
                "`{text}` of tokenizer_config.json would not get its id {id}; the two files differ"
            ));
        }
    }
    Ok(())
}

/// Refuses a model of tokens that draws: the same text would get other tokens each time.
fn steady(inner: &tokenizers::Tokenizer) -> std::result::Result<(), String> {
    match inner.get_model() {
        tokenizers::ModelWrapper::BPE(bpe) if bpe.dropout.is_some_and(|share| share > 0.0) => {
            Err("its `dropout` gives the same text other tokens each time; set it to null".to_owned())
        }
        _ => Ok(()),
    }
}

/// All special tokens that the files name: what each is, and its text.
fn named<'a>(
    specials: &'a Map<String, Value>,
    config: &'a Map<String, Value>,
    map: &'a Map<String, Value>,
) -> Vec<(&'a str, &'a str)> {
    let single = specials.iter().filter_map(|(name, text)| Some((name.as_str(), text.as_str()?)));
    let listed = ["additional_special_tokens", "extra_special_tokens"].into_iter().flat_map(|name| {
        let list = config.get(name).or_else(|| map.get(name)).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(token_text).map(move |text| (name, text))
    });
    single.chain(listed).collect()
}

/// Makes tokens of the vocabulary special that are named so: no text of them is cut. One that a text begins or ends
/// with has to be that already.
fn add_specials(
    inner: &mut tokenizers::Tokenizer,
    named: &[(&str, &str)],
) -> std::result::Result<(), String> {
    let added = inner.get_added_vocabulary().get_vocab();
    let is_end = |name: &str| ["bos_token", "eos_token"].contains(&name);
    let missing = named.iter().filter(|(name, text)| !is_end(name) && !added.contains_key(*text));
    let missing: Vec<_> = missing.map(|(_, text)| tokenizers::AddedToken::from(*text, true)).collect();
    contain(|| inner.add_special_tokens(missing))
        .map_err(|panic| panic.to_string())?
        .map_err(|e| e.to_string())?;
    Ok(())
}

/// A special token is written as its text or as `{"content": text, ...}`.
fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

/// The tokens that end a text, the tokenizer's own first.
fn stops(dir: &Path, eos: Option<u32>) -> Result<Vec<u32>> {
    let generation = dir.join("generation_config.json");
    let (file, config) = match object(&generation)? {
        Some(config) => (generation, config),
        None => {
            let file = dir.join("config.json");
            let config = object(&file)?.unwrap_or_default();
            (file, config)
        }
    };
    let listed = match config.get("eos_token_id") {
        None | Some(Value::Null) => &[][..],
        Some(Value::Array(list)) => list,
        Some(one) => std::slice::from_ref(one),
    };
    let mut stops: Vec<u32> = eos.into_iter().collect();
    for id in listed {
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| {
            Error::file(&file, format!("`eos_token_id` has {id}, which is not the id of a token"))
        })?;
        if !stops.contains(&id) {
            stops.push(id);
        }
    }
    Ok(stops)
}
