//! Tokenizers: `tokenizer.json` with parts of many types, and the small files beside it.

use super::{file, template};
use crate::Files;
use duel_data::{Dataset, Options, Row, Task, Tokenizer, Truncation, Whole};
use serde_json::{Value, json};
use std::path::Path;

/// One of each model, with different normalizers, pre-tokenizers, post-processors and decoders around it.
pub fn seeds() -> Vec<Files> {
    let grammar =
        template::with_template("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}");
    let made = [byte_level(), byte_fallback(), word_piece(), unigram()];
    let made = made.map(|tokenizer| {
        let config = json!({
            "bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false, "__type": "AddedToken"},
            "add_bos_token": true, "model_max_length": 1e30, "tokenizer_class": "PreTrainedTokenizerFast",
            "added_tokens_decoder": {"1": {"content": "<s>", "special": true}},
            "chat_template": [
                {"name": "default", "template": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"},
                {"name": "tool_use", "template": "{{ tools }}"},
            ],
        });
        let map = json!({"unk_token": "<unk>", "pad_token": {"content": "</s>"}, "additional_special_tokens": ["<s>"]});
        let generation = json!({"eos_token_id": [2, 3], "bos_token_id": 1, "temperature": 0.6, "top_p": 0.9});
        Files::from([
            file("tokenizer.json", tokenizer.to_string()),
            file("tokenizer_config.json", config.to_string()),
            file("special_tokens_map.json", map.to_string()),
            file("generation_config.json", generation.to_string()),
        ])
    });
    [grammar].into_iter().chain(made).collect()
}

/// Reads a tokenizer, encodes and decodes.
pub fn load(dir: &Path) -> Result<(), String> {
    let tokenizer = Tokenizer::from_dir(dir).map_err(|e| e.to_string())?;
    let mut result = Ok(());
    for text in ["", "a", " the film , é ▁\n\n 12 </s>", "\0👩\u{200d}👧\u{301} ß İ ﬁ \u{2028}"] {
        for special in [true, false] {
            let again = tokenizer.encode(text, special).and_then(|ids| tokenizer.decode(&ids, special));
            result = result.and(again.map(drop));
        }
    }
    let ids: Vec<u32> = (0..300).chain([u32::MAX]).collect();
    result = result.and(tokenizer.decode(&ids, false).map(drop));
    let options = Options {
        task: Task::Preference,
        whole: Whole::default(),
        max_length: Some(64),
        truncation: Truncation::KeepEnd,
    };
    let row = Row::plain("the film", [" is good", " is bad </s>"]);
    result.and(Dataset::from_texts([row], &tokenizer, &options).map(drop)).map_err(|e| e.to_string())
}

/// A whole `tokenizer.json` around these parts.
fn whole(parts: Value) -> Value {
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let mut json = json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 6, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 4}, "direction": "Left", "pad_to_multiple_of": null, "pad_id": 0,
                    "pad_type_id": 0, "pad_token": "<unk>"},
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
    });
    duel_tests::merge(&mut json, parts);
    json
}

fn vocabulary<S: Into<String>>(words: impl IntoIterator<Item = S>) -> Value {
    words
        .into_iter()
        .enumerate()
        .map(|(id, word)| (word.into(), json!(id)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

const SPECIALS: [&str; 3] = ["<unk>", "<s>", "</s>"];

/// As GPT-2 and Qwen are: bytes as letters.
fn byte_level() -> Value {
    let letters = ('!'..='~').chain("ĠĊÃ©".chars()).map(String::from);
    let merged = ["th", "the", "Ġthe", "is", "12"].map(String::from);
    whole(json!({
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
            {"type": "Strip", "strip_left": true, "strip_right": true}, {"type": "Nmt"},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"},
             "behavior": "Isolated", "invert": false},
            {"type": "Digits", "individual_digits": true}, {"type": "Punctuation", "behavior": "Isolated"},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        ]},
        "post_processor": {"type": "Sequence", "processors": [
            {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true},
            {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1], "trim_offsets": true,
             "add_prefix_space": true},
        ]},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "ignore_merges": true,
            "vocab": vocabulary(SPECIALS.map(String::from).into_iter().chain(letters).chain(merged)),
            "merges": [["t", "h"], ["th", "e"], ["Ġ", "the"], ["i", "s"], ["1", "2"]],
        },
    }))
}

/// As Llama 2 is: spaces as a letter, unknown letters as bytes.
fn byte_fallback() -> Value {
    let bytes = (0..=255).map(|byte| format!("<0x{byte:02X}>"));
    let letters = ('a'..='z').map(String::from).chain(["▁", "▁a", "th", "▁th"].map(String::from));
    whole(json!({
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ]},
        "pre_tokenizer": null,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocabulary(SPECIALS.map(String::from).into_iter().chain(bytes).chain(letters)),
            "merges": ["▁ a", "t h", "▁ th"],
        },
    }))
}

/// As BERT is.
fn word_piece() -> Value {
    let letters = ('a'..='z').flat_map(|c| [format!("{c}"), format!("##{c}")]);
    whole(json!({
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                       "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece", "unk_token": "<unk>", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocabulary(SPECIALS.map(String::from).into_iter().chain(letters)),
        },
    }))
}

/// As SentencePiece's own model is.
fn unigram() -> Value {
    // Base64 of the size, 1024 bytes, and of a trie of as many zeros: one that has no words.
    let no_rules = format!("AAQA{}AAA=", "A".repeat(1364));
    let letters = ('a'..='z').enumerate().map(|(i, c)| json!([c, -3.0 - i as f64 / 7.0]));
    let pieces = [
        json!(["<unk>", 0.0]),
        json!(["<s>", 0.0]),
        json!(["</s>", 0.0]),
        json!(["▁the", -2.5]),
        json!(["▁", -2.0]),
    ];
    whole(json!({
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Lowercase"}, {"type": "NFKD"}, {"type": "StripAccents"},
            {"type": "Precompiled", "precompiled_charsmap": no_rules},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "WhitespaceSplit"}, {"type": "UnicodeScripts"}, {"type": "CharDelimiterSplit", "delimiter": "-"},
            {"type": "FixedLength", "length": 5},
            {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
        ]},
        "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
            {"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": true},
        ]},
        "model": {
            "type": "Unigram", "unk_id": 0, "byte_fallback": false,
            "vocab": pieces.into_iter().chain(letters).collect::<Vec<_>>(),
        },
    }))
}
