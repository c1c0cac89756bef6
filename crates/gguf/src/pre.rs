//! What cuts a text into pieces before their bytes are merged, by llama.cpp's names: it has code for each in the place
//! of the tokenizer's own expression.

use serde_json::Value;

/// Words of GPT-2, as the ByteLevel pre-tokenizer cuts them by itself.
const WORDS: &str = "ByteLevel";
/// Bytes alone.
const BYTES: &str = "ByteLevel without words";
/// Every digit alone.
const DIGITS: &str = "Digits";

/// Names, with the steps of which each is, and whether a piece that is a token is one without any merges.
const KNOWN: [(&str, &[&str], bool); 7] = [
    ("gpt-2", &[WORDS], false),
    ("smollm", &[DIGITS, WORDS], false),
    (
        "llama-bpe",
        &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            BYTES,
        ],
        true,
    ),
    (
        "dbrx",
        &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            BYTES,
        ],
        false,
    ),
    (
        "qwen2",
        &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            BYTES,
        ],
        false,
    ),
    (
        "gpt-4o",
        &[
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            BYTES,
        ],
        false,
    ),
    (
        "tekken",
        &[
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            BYTES,
        ],
        true,
    ),
];

/// The steps of a part of `tokenizer.json` that may be nothing, one, or a sequence of them in `list`.
pub(crate) fn steps<'j>(part: &'j Value, list: &str) -> Vec<&'j Value> {
    match (part, part["type"].as_str()) {
        (Value::Null, _) => Vec::new(),
        (_, Some("Sequence")) => {
            part[list].as_array().into_iter().flatten().flat_map(|p| steps(p, list)).collect()
        }
        _ => vec![part],
    }
}

/// llama.cpp's name for what a tokenizer of bytes does to a text first.
///
/// # Errors
/// It has none; what the tokenizer does.
pub(crate) fn name(json: &Value) -> Result<&'static str, String> {
    let pre = &json["pre_tokenizer"];
    let steps = steps(pre, "pretokenizers").into_iter().map(step).collect::<Option<Vec<_>>>();
    let ignores = json["model"]["ignore_merges"].as_bool().unwrap_or(false);
    let found = steps.and_then(|steps| KNOWN.iter().find(|known| known.1 == steps && known.2 == ignores));
    found.map(|known| known.0).ok_or_else(|| {
        let named = KNOWN.map(|known| known.0).join(", ");
        format!(
            "its pre-tokenizer (ignore_merges {ignores}, {pre}) is none that llama.cpp is known to have ({named}), and \
             with another one it would read texts as other tokens"
        )
    })
}

/// A step as [`KNOWN`] has it.
fn step(step: &Value) -> Option<&str> {
    let is = |key: &str, value: bool| step[key].as_bool() == Some(value);
    match step["type"].as_str()? {
        "ByteLevel" if is("add_prefix_space", false) => {
            Some(if is("use_regex", false) { BYTES } else { WORDS })
        }
        "Digits" if is("individual_digits", true) => Some(DIGITS),
        "Split" if step["behavior"] == "Isolated" && is("invert", false) => step["pattern"]["Regex"].as_str(),
        _ => None,
    }
}
