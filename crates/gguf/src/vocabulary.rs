//! A tokenizer in llama.cpp's keys: byte-level BPE, which it calls `gpt2`, or sentencepiece's with bytes to fall back
//! on, which it calls `llama`.

use crate::file::{Entry, Value};
use crate::pre;
use duel_data::Tokenizer;
use serde_json::Value as Json;
use std::collections::HashMap;

/// What llama.cpp takes a token for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

/// The space of sentencepiece.
const SPACE: &str = "\u{2581}";

/// A token and what it is.
type Token = (String, Role);

/// Its keys for a model of `size` embeddings, with what the user should hear.
///
/// # Errors
/// llama.cpp would read texts as other tokens, or has no such tokenizer.
pub(crate) fn vocabulary(tokenizer: &Tokenizer, size: usize) -> Result<(Vec<Entry>, Vec<String>), String> {
    let json = tokenizer.to_json().map_err(|e| e.to_string())?;
    let mut notes = Vec::new();
    let model = &json["model"];
    if model["type"] != "BPE" {
        return Err(format!("its model is {}, and llama.cpp is given BPE alone", model["type"]));
    }
    for key in ["dropout", "continuing_subword_prefix", "end_of_word_suffix"] {
        if !matches!(&model[key], Json::Null) && model[key] != "" {
            return Err(format!("its `{key}` is {}, which llama.cpp does not have", model[key]));
        }
    }
    let tokens = tokens(&json, size, &mut notes)?;
    let merges = merges(model);
    let mut keys = if model["byte_fallback"] == true {
        pieces(&json, &tokens, &merges, &mut notes)?
    } else {
        let bytes = |step: &&Json| step["type"] == "ByteLevel";
        if !pre::steps(&json["pre_tokenizer"], "pretokenizers").iter().any(bytes) {
            return Err(
                "it neither makes bytes of texts nor has bytes to fall back on, as llama.cpp's do".into()
            );
        }
        let name = pre::name(&json)?;
        for step in pre::steps(&json["normalizer"], "normalizers") {
            match step["type"].as_str() {
                Some("NFC") => notes.push(
                    "the tokenizer brings texts to Unicode's form NFC first, which llama.cpp does not do"
                        .into(),
                ),
                _ => return Err(format!("its normalizer ({step}) is not in llama.cpp")),
            }
        }
        let merges = merges.iter().map(|[left, right]| format!("{left} {right}")).collect();
        vec![text("model", "gpt2"), text("pre", name), ("merges".into(), Value::Texts(merges))]
    };
    keys.extend(specials(tokenizer, model, &tokens, &mut notes)?);
    let (texts, roles): (Vec<_>, Vec<_>) = tokens.into_iter().map(|(text, role)| (text, role as i32)).unzip();
    keys.push(("tokens".into(), Value::Texts(texts)));
    keys.push(("token_type".into(), Value::I32s(roles)));
    let mut keys: Vec<Entry> =
        keys.into_iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)).collect();
    keys.extend(templates(tokenizer));
    Ok((keys, notes))
}

fn text(key: &str, text: &str) -> Entry {
    (key.into(), Value::Text(text.into()))
}

/// Every token of the model's embeddings; those that the tokenizer does not have are never used.
fn tokens(json: &Json, size: usize, notes: &mut Vec<String>) -> Result<Vec<Token>, String> {
    let model = &json["model"];
    let mut tokens: Vec<Token> = (0..size).map(|id| (format!("[PAD{id}]"), Role::Unused)).collect();
    let id_of = |id: &Json| id.as_u64().map_or(usize::MAX, |id| id as usize);
    let (unknown, bytes) = (model["unk_token"].as_str(), model["byte_fallback"] == true);
    for (text, id) in model["vocab"].as_object().into_iter().flatten() {
        let Some(token) = tokens.get_mut(id_of(id)) else {
            return Err(format!("its token {id} ({text:?}) is beyond the {size} that the model has"));
        };
        let role = match unknown == Some(text) {
            true => Role::Unknown,
            false if bytes && is_byte(text) => Role::Byte,
            false => Role::Normal,
        };
        *token = (text.clone(), role);
    }
    for added in json["added_tokens"].as_array().into_iter().flatten() {
        let content = added["content"].as_str().unwrap_or_default();
        let Some(token) = tokens.get_mut(id_of(&added["id"])) else {
            notes.push(format!(
                "the tokenizer's {content:?} is beyond the {size} tokens that the model has, and left out"
            ));
            continue;
        };
        let role = match added["special"] == true {
            _ if token.1 == Role::Unknown => Role::Unknown,
            true => Role::Control,
            false => Role::UserDefined,
        };
        // These are found in a text before its spaces become another letter.
        let text = if bytes { content.replace(SPACE, " ") } else { content.into() };
        *token = (text, role);
    }
    Ok(tokens)
}

/// `<0x00>` to `<0xFF>`.
fn is_byte(token: &str) -> bool {
    let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}

/// Pairs that become one token, the first of them first.
fn merges(model: &Json) -> Vec<[&str; 2]> {
    fn pair(pair: &Json) -> Option<[&str; 2]> {
        Some([pair.get(0)?.as_str()?, pair.get(1)?.as_str()?])
    }
    model["merges"].as_array().into_iter().flatten().filter_map(pair).collect()
}

/// sentencepiece's: llama.cpp merges what makes the token of the highest score, so that the order of the merges has to
/// be one of the tokens that they make.
fn pieces(
    json: &Json,
    tokens: &[Token],
    merges: &[[&str; 2]],
    notes: &mut Vec<String>,
) -> Result<Vec<Entry>, String> {
    let mut prefix = false;
    for step in pre::steps(&json["normalizer"], "normalizers") {
        match (step["type"].as_str(), &step["pattern"]["String"], &step["content"], &step["prepend"]) {
            (Some("Prepend"), _, _, prepended) if prepended == SPACE => prefix = true,
            (Some("Replace"), pattern, content, _) if pattern == " " && content == SPACE => {}
            _ => return Err(format!("its normalizer ({step}) is not in llama.cpp")),
        }
    }
    for step in pre::steps(&json["pre_tokenizer"], "pretokenizers") {
        let scheme = step["prepend_scheme"].as_str();
        match step["type"].as_str() {
            Some("Metaspace") if step["replacement"] == SPACE && step["split"] == false => {
                prefix |= scheme != Some("never");
                if scheme == Some("first") {
                    notes.push(
                        "llama.cpp puts the space before a text's first word after every special token too, the \
                         tokenizer at the beginning alone"
                            .into(),
                    );
                }
            }
            // There are none left.
            Some("Split") if step["pattern"]["String"] == " " => {}
            _ => return Err(format!("its pre-tokenizer ({step}) is not in llama.cpp")),
        }
    }
    let (mut scores, mut last) = (HashMap::new(), String::new());
    for (rank, [left, right]) in merges.iter().enumerate() {
        let made = format!("{left}{right}");
        if made != last && scores.insert(made.clone(), -(rank as f32)).is_some() {
            return Err(format!(
                "its merges make {made:?} again after others; llama.cpp merges by the token that is made, and would read \
                 texts as other tokens"
            ));
        }
        last = made;
    }
    let made_of_many = |(text, role): &&Token| *role == Role::Normal && text.chars().count() > 1;
    let unmade = tokens.iter().filter(made_of_many).filter(|token| !scores.contains_key(&token.0)).count();
    if unmade > 0 {
        notes.push(format!("llama.cpp may make {unmade} tokens that no merge of the tokenizer makes"));
    }
    let lowest = -(merges.len() as f32);
    let score = |(text, role): &Token| match role {
        Role::Normal => {
            scores.get(text).copied().unwrap_or(if text.chars().count() > 1 { lowest } else { 0.0 })
        }
        _ => 0.0,
    };
    Ok(vec![
        text("model", "llama"),
        text("pre", "default"),
        ("scores".into(), Value::F32s(tokens.iter().map(score).collect())),
        ("add_space_prefix".into(), Value::Bool(prefix)),
    ])
}

/// Ids of special tokens, and which of them stand around every text.
fn specials(
    tokenizer: &Tokenizer,
    model: &Json,
    tokens: &[Token],
    notes: &mut Vec<String>,
) -> Result<Vec<Entry>, String> {
    let encode = |special| tokenizer.encode("a", special).map_err(|e| e.to_string());
    let (plain, whole) = (encode(false)?, encode(true)?);
    let (bos, eos) = (tokenizer.bos().map(|bos| bos.1), tokenizer.eos().map(|eos| eos.1));
    let before = whole.first().filter(|id| whole.len() > plain.len() && Some(**id) == bos);
    let after = whole.last().filter(|id| whole.len() > plain.len() && Some(**id) == eos);
    let around: Vec<u32> = before.into_iter().chain(&plain).chain(after).copied().collect();
    if around != whole {
        return Err(
            "its post-processor adds other tokens than BOS and EOS to a text, which llama.cpp does not"
                .into(),
        );
    }
    let stops = tokenizer.stops();
    let unknown = model["unk_token"].as_str();
    let unknown = tokens.iter().position(|token| Some(token.0.as_str()) == unknown).map(|id| id as u32);
    let end = eos.or(stops.first().copied());
    let mut others = stops.iter().copied().filter(|id| Some(*id) != end);
    let ids = [
        ("bos_token_id", bos),
        ("eos_token_id", end),
        ("eot_token_id", others.next()),
        ("unknown_token_id", unknown),
        ("padding_token_id", tokenizer.pad()),
    ];
    let unsaid: Vec<&str> = others.filter_map(|id| Some(tokens.get(id as usize)?.0.as_str())).collect();
    if !unsaid.is_empty() {
        notes.push(format!(
            "the file has two tokens that end a text; {} ends one in llama.cpp where it knows that by its name",
            unsaid.join(", ")
        ));
    }
    let there = |(key, id): (&str, Option<u32>)| Some((key.to_owned(), Value::U32(id?)));
    let mut keys: Vec<Entry> = ids.into_iter().filter_map(there).collect();
    keys.push(("add_bos_token".into(), Value::Bool(before.is_some())));
    keys.push(("add_eos_token".into(), Value::Bool(after.is_some())));
    Ok(keys)
}

/// The chat templates: the usual one, and others by their names.
fn templates(tokenizer: &Tokenizer) -> Vec<Entry> {
    const KEY: &str = "tokenizer.chat_template";
    let named = || tokenizer.chat_templates().filter(|(name, _)| *name != "default");
    let names: Vec<String> = named().map(|(name, _)| name.into()).collect();
    let list = (!names.is_empty()).then(|| (format!("{KEY}s"), Value::Texts(names)));
    let usual = tokenizer.chat_templates().find(|(name, _)| *name == "default");
    let usual = usual.map(|(_, source)| (KEY.to_owned(), Value::Text(source.into())));
    let others = named().map(|(name, source)| (format!("{KEY}.{name}"), Value::Text(source.into())));
    usual.into_iter().chain(list).chain(others).collect()
}
