//! What was written, read back by a reader of the tests' own.

use crate::{Outtype, export};
use duel_cpu::Cpu;
use duel_data::Tokenizer;
use duel_model::{Config, Family, Folder, Model, NormKind, save};
use duel_tests::{Case, FAMILIES, TempDir, config, merge, shared_data, tiny};
use half::{bf16, f16};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A file as it says it is.
struct Gguf {
    keys: HashMap<String, Value>,
    tensors: HashMap<String, (Vec<usize>, Vec<f64>)>,
}

struct Bytes<'b>(&'b [u8]);

impl Bytes<'_> {
    fn take(&mut self, n: usize) -> &[u8] {
        let (taken, rest) = self.0.split_at(n);
        self.0 = rest;
        taken
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().unwrap())
    }

    fn len(&mut self) -> usize {
        u64::from_le_bytes(self.take(8).try_into().unwrap()) as usize
    }

    fn text(&mut self) -> String {
        let len = self.len();
        String::from_utf8(self.take(len).to_vec()).unwrap()
    }

    fn value(&mut self, of: u32) -> Value {
        match of {
            4 => self.u32().into(),
            5 => self.u32().cast_signed().into(),
            6 => f32::from_bits(self.u32()).into(),
            7 => (self.take(1) == [1]).into(),
            8 => self.text().into(),
            9 => {
                let of = self.u32();
                (0..self.len()).map(|_| self.value(of)).collect()
            }
            other => panic!("a value of type {other}"),
        }
    }
}

impl Gguf {
    fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let mut rest = Bytes(&bytes);
        assert_eq!(rest.take(4), b"GGUF");
        assert_eq!(rest.u32(), 3);
        let (tensors, keys) = (rest.len(), rest.len());
        let key = |rest: &mut Bytes| {
            let key = rest.text();
            let of = rest.u32();
            (key, rest.value(of))
        };
        let keys: HashMap<_, _> = (0..keys).map(|_| key(&mut rest)).collect();
        let info = |rest: &mut Bytes| {
            let (name, dims) = (rest.text(), rest.u32());
            let dims: Vec<usize> = (0..dims).map(|_| rest.len()).collect();
            (name, dims, rest.u32(), rest.len())
        };
        let infos: Vec<_> = (0..tensors).map(|_| info(&mut rest)).collect();
        let data = (bytes.len() - rest.0.len()).next_multiple_of(32);
        let tensor = |(name, dims, kind, offset): (String, Vec<usize>, u32, usize)| {
            assert!(offset.is_multiple_of(32), "{name}");
            let numbers = numbers(&bytes[data + offset..], kind, dims.iter().product());
            (name, (dims, numbers))
        };
        Gguf { keys, tensors: infos.into_iter().map(tensor).collect() }
    }
}

/// The first `n` numbers of a type.
fn numbers(bytes: &[u8], kind: u32, n: usize) -> Vec<f64> {
    match kind {
        0 => bytes.as_chunks().0[..n].iter().map(|x| f32::from_le_bytes(*x).into()).collect(),
        1 => bytes.as_chunks().0[..n].iter().map(|x| f16::from_le_bytes(*x).to_f64()).collect(),
        30 => bytes.as_chunks().0[..n].iter().map(|x| bf16::from_le_bytes(*x).to_f64()).collect(),
        8 => {
            let block = |block: &[u8; 34]| {
                let factor = f16::from_le_bytes([block[0], block[1]]).to_f64();
                block[2..].iter().map(move |x| factor * f64::from(x.cast_signed())).collect::<Vec<_>>()
            };
            bytes.as_chunks().0[..n / 32].iter().flat_map(block).collect()
        }
        other => panic!("numbers of type {other}"),
    }
}

/// A tokenizer of bytes with the words of GPT-2.
fn byte_level() -> Value {
    let vocab = json!({"a": 0, "b": 1, "ab": 2, "\u{120}": 3, "\u{10a}": 4});
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "special": true, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false})
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [special(5, "<s>"), special(6, "</s>")],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocab, "merges": [["a", "b"]]}
    })
}

/// A folder with a model, and the weights that are in it.
fn folder(config: Config, tokenizer: &Value) -> (TempDir, Case) {
    let dir = TempDir::new().unwrap();
    let b = Cpu::<f32>::new(1);
    let case = Case::new(config, 3);
    save(&b, dir.path(), &case.config, &case.upload(&b)).unwrap();
    fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let said = json!({"bos_token": "<s>", "eos_token": "</s>", "chat_template": "{{ messages }}"});
    fs::write(dir.path().join("tokenizer_config.json"), said.to_string()).unwrap();
    (dir, case)
}

fn exported(dir: &Path, outtype: Outtype) -> Result<(Gguf, Vec<String>), String> {
    let to = dir.join(format!("model.{outtype}.gguf"));
    let tokenizer = Tokenizer::from_dir(dir).unwrap();
    let said = export(&Folder::open(dir).unwrap(), &tokenizer, &to, outtype).map_err(|e| e.to_string())?;
    assert!(!PathBuf::from(format!("{}.partial", to.display())).exists());
    assert_eq!(fs::metadata(&to).unwrap().len(), said.bytes);
    let file = Gguf::read(&to);
    assert_eq!(file.tensors.len(), said.tensors);
    Ok((file, said.notes))
}

/// The tiny model of a family as llama.cpp has it.
fn tiny_there(family: Family) -> Config {
    let mut json = Value::Object(tiny(family).json);
    merge(
        &mut json,
        match family {
            Family::Gemma2 => json!({"query_pre_attn_scalar": 4}),
            Family::Gemma3 => json!({"layer_types": ["sliding_attention", "sliding_attention"]}),
            Family::SmolLm3 => json!({"no_rope_layers": [1, 1]}),
            Family::Phi => json!({"num_attention_heads": 2, "head_dim": 6}),
            Family::Olmo2 => {
                json!({"hidden_act": "silu", "num_attention_heads": 3, "num_key_value_heads": 1})
            }
            Family::Phi3 | Family::Starcoder2 => json!({"num_attention_heads": 3, "num_key_value_heads": 1}),
            _ => json!({}),
        },
    );
    config(json)
}

/// Every number of a model is in its file once, where llama.cpp looks for it: compared with what transformers' folders
/// hold, read by the names of their tensors.
#[test]
fn families_are_read_back() {
    for family in FAMILIES.into_iter().filter(|family| *family != Family::GptJ) {
        let (dir, case) = folder(tiny_there(family), &byte_level());
        let (file, _) = exported(dir.path(), Outtype::F32).unwrap_or_else(|e| panic!("{family:?}: {e}"));
        let c = &case.config;
        let plus = if c.norm == NormKind::RmsPlusOne { 1.0 } else { 0.0 };
        let manifest = Model::manifest(c);
        let mut left: HashMap<&str, usize> =
            file.tensors.iter().map(|(name, (_, all))| (name.as_str(), all.len())).collect();
        left.retain(|name, _| !name.starts_with("rope_"));
        if c.tied {
            left.remove("output.weight");
        }
        let all: usize = left.values().sum();
        assert_eq!(all, manifest.parameters(), "{family:?}");
        let sum = |all: &mut dyn Iterator<Item = f64>| all.map(|x| x * x).sum::<f64>();
        for (shape, weights) in manifest.iter().into_iter().zip(&case.weights) {
            // Rows of one parameter are in one or several tensors, in whatever order.
            let norm = shape.fill.is_some() && shape.pieces[0].name.ends_with("norm.weight");
            let want = sum(&mut weights.iter().map(|x| f64::from(*x as f32) + if norm { plus } else { 0.0 }));
            let found = file
                .tensors
                .values()
                .any(|(_, all)| (sum(&mut all.iter().copied()) - want).abs() < 1e-4 * want);
            assert!(found || shape.pieces.len() > 1, "{family:?}: {}", shape.pieces[0].name);
        }
        let arch = file.keys["general.architecture"].as_str().unwrap();
        let count = |key: &str| file.keys[&format!("{arch}.{key}")].as_u64().unwrap() as usize;
        assert_eq!([count("block_count"), count("embedding_length")], [c.layers, c.width]);
        assert_eq!(
            [count("attention.head_count"), count("attention.key_length")],
            [c.heads.heads, c.heads.head_dim]
        );
        let shortest = (0..c.layers).filter_map(|l| c.kind(l).window).min();
        let windows = matches!(family, Family::Gemma2 | Family::Gemma3);
        let context = shortest.filter(|_| !windows).unwrap_or(c.max_positions);
        assert_eq!(count("context_length"), context, "{family:?}");
    }
}

/// Heads in pairs of neighbours, and a head's three beside each other: row by row.
#[test]
fn rows_are_where_the_graph_wants_them() {
    let (dir, case) = folder(tiny_there(Family::Llama), &byte_level());
    let (file, _) = exported(dir.path(), Outtype::F32).unwrap();
    let c = &case.config;
    let (dims, q) = &file.tensors["blk.0.attn_q.weight"];
    assert_eq!(dims, &[c.width, c.heads.q_width()]);
    let manifest = Model::manifest(c);
    let at =
        manifest.iter().iter().position(|s| s.pieces[0].name.ends_with("0.self_attn.q_proj.weight")).unwrap();
    let row = |row: usize| case.weights[at][row * c.width..][..c.width].iter().map(|x| f64::from(*x as f32));
    // A head's elements 0 and 2, 1 and 3 turn together (Llama's files); here they stand beside each other.
    for (ours, theirs) in [(0, 0), (1, 2), (2, 1), (3, 3), (4, 4), (5, 6)] {
        assert!(row(theirs).eq(q[ours * c.width..][..c.width].iter().copied()), "row {ours}");
    }
    assert!(file.tensors["rope_freqs.weight"].1.iter().any(|x| *x > 7.9), "low frequencies are divided");

    let (dir, case) = folder(tiny_there(Family::GptNeoX), &byte_level());
    let (file, notes) = exported(dir.path(), Outtype::F32).unwrap();
    assert!(notes.iter().any(|note| note.contains("tanh")), "{notes:?}");
    let (heads, width) = (case.config.heads, case.config.width);
    let bytes = fs::read(dir.path().join("model.safetensors")).unwrap();
    let header: Value = serde_json::from_slice(&bytes[8..8 + Bytes(&bytes).len()]).unwrap();
    let place = &header["gpt_neox.layers.0.attention.query_key_value.weight"]["data_offsets"][0];
    let stored = &bytes[8 + Bytes(&bytes).len() + place.as_u64().unwrap() as usize..];
    let stored = numbers(stored, 0, heads.qkv_width() * width);
    let qkv = &file.tensors["blk.0.attn_qkv.weight"].1;
    for (head, kind, j) in [(0, 0, 0), (0, 1, 2), (1, 0, 5), (1, 2, 1)] {
        let ours = (kind * heads.heads + head) * heads.head_dim + j;
        let theirs = (head * 3 + kind) * heads.head_dim + j;
        assert_eq!(qkv[ours * width..][..width], stored[theirs * width..][..width]);
    }
}

/// Each type holds numbers as well as it says; a row that does not divide into blocks is in half precision.
#[test]
fn numbers_within_the_error_of_their_type() {
    let mut json = Value::Object(tiny(Family::Qwen2).json);
    merge(
        &mut json,
        json!({"hidden_size": 96, "num_attention_heads": 24, "num_key_value_heads": 4, "intermediate_size": 40}),
    );
    let (dir, _) = folder(config(json), &byte_level());
    let exact = exported(dir.path(), Outtype::F32).unwrap().0;
    for outtype in [Outtype::F16, Outtype::Bf16, Outtype::Q8_0] {
        let file = exported(dir.path(), outtype).unwrap().0;
        for (name, (dims, all)) in &file.tensors {
            let want = &exact.tensors[name].1;
            for (block, want) in all.chunks(32).zip(want.chunks(32)) {
                let largest = want.iter().fold(0f64, |most, x| most.max(x.abs()));
                for (x, want) in block.iter().zip(want) {
                    let most = match outtype {
                        _ if dims.len() == 1 => 0.0,
                        Outtype::Bf16 => want.abs() / 256.0,
                        // Half a step, and the rounding of the factor, times as many steps.
                        Outtype::Q8_0 if dims[0] % 32 == 0 => largest * (0.5 / 127.0 + 1.0 / 2048.0),
                        _ => want.abs() / 2048.0 + 1e-7,
                    };
                    assert!((x - want).abs() <= most, "{name} in {outtype}: {x} for {want}");
                }
            }
        }
    }
}

#[test]
fn the_tokenizer_is_told() {
    let (dir, _) = folder(tiny_there(Family::Qwen2), &byte_level());
    let keys = exported(dir.path(), Outtype::F16).unwrap().0.keys;
    let said = |key: &str| keys[&format!("tokenizer.ggml.{key}")].clone();
    assert_eq!([said("model"), said("pre")], ["gpt2", "gpt-2"]);
    assert_eq!(said("merges"), json!(["a b"]));
    let tokens = said("tokens");
    assert_eq!(tokens.as_array().unwrap().len(), 19, "as many as the model has");
    assert_eq!([&tokens[2], &tokens[5], &tokens[18]], ["ab", "<s>", "[PAD18]"]);
    assert_eq!([&said("token_type")[2], &said("token_type")[5], &said("token_type")[18]], [1, 3, 5]);
    assert_eq!([said("bos_token_id"), said("eos_token_id")], [5, 6]);
    assert_eq!(said("add_bos_token"), false);
    assert_eq!(keys["tokenizer.chat_template"], "{{ messages }}");
}

/// A tokenizer with scores; that of a real model, where it is there.
#[test]
fn pieces_have_the_scores_of_their_merges() {
    let Some(model) = shared_data("models/stories260k") else { return };
    let dir = TempDir::new().unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(model.join(name), dir.path().join(name)).unwrap();
    }
    let keys = exported(dir.path(), Outtype::Q8_0).unwrap().0.keys;
    let said = |key: &str| keys[&format!("tokenizer.ggml.{key}")].clone();
    assert_eq!([said("model"), said("pre")], ["llama", "default"]);
    assert_eq!([said("add_space_prefix"), said("add_bos_token")], [true, true]);
    let (tokens, scores, types) = (said("tokens"), said("scores"), said("token_type"));
    let place = |token: &str| tokens.as_array().unwrap().iter().position(|t| t == token).unwrap();
    assert_eq!([&types[place("<unk>")], &types[place("<s>")], &types[place("<0x0A>")]], [2, 3, 6]);
    // Every token of a text is one that no merge of two others beats: the first merge has the highest score.
    let json: Value = serde_json::from_slice(&fs::read(dir.path().join("tokenizer.json")).unwrap()).unwrap();
    let merges = json["model"]["merges"].as_array().unwrap();
    let made = |merge: &Value| match merge {
        Value::Array(pair) => pair.iter().filter_map(Value::as_str).collect::<String>(),
        other => other.as_str().unwrap().replace(' ', ""),
    };
    let scores: Vec<f64> = merges.iter().map(|m| scores[place(&made(m))].as_f64().unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b) && scores[0] == 0.0);
}

/// What llama.cpp would compute otherwise, or read otherwise, has no file.
#[test]
fn what_is_not_there_is_refused() {
    let refused = |config: Config, tokenizer: &Value, part: &str| {
        let (dir, _) = folder(config, tokenizer);
        let said = exported(dir.path(), Outtype::F16).err().unwrap_or_default();
        assert!(said.contains(part) && said.contains("has no GGUF file"), "{part}: {said}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4, "nothing is left of it");
    };
    let with = |family, more| {
        let mut json = Value::Object(tiny_there(family).json);
        merge(&mut json, more);
        config(json)
    };
    let good = byte_level();
    refused(tiny(Family::GptJ), &good, "no graph of GPT-J");
    refused(tiny(Family::Gemma2), &good, "query_pre_attn_scalar");
    refused(tiny(Family::Gemma3), &good, "in other layers than this model, as in layer 1");
    refused(tiny(Family::SmolLm3), &good, "in layer 1");
    refused(with(Family::Olmo2, json!({"hidden_act": "gelu"})), &good, "another activation than Gelu");
    refused(with(Family::Qwen3, json!({"attention_bias": true})), &good, "no biases on queries");
    refused(with(Family::GptNeoX, json!({"attention_bias": false})), &good, "always has biases");
    refused(with(Family::Gemma, json!({"tie_word_embeddings": false})), &good, "no head but the embedding");
    refused(with(Family::Qwen2, json!({"head_dim": 8})), &good, "as wide as the model");
    refused(with(Family::Phi, json!({"qk_layernorm": true})), &good, "qk_layernorm");
    refused(tiny_there(Family::Llama).with_score(), &good, "scores texts");
    let yarn = json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.0,
                                       "original_max_position_embeddings": 16}});
    refused(with(Family::Qwen2, yarn), &good, "such a yarn");

    let changed = |part: &str, key: &str, value: Value| {
        let mut json = byte_level();
        json[part][key] = value;
        json
    };
    let bad = |tokenizer: Value, part: &str| refused(tiny_there(Family::Qwen2), &tokenizer, part);
    bad(changed("pre_tokenizer", "add_prefix_space", true.into()), "its pre-tokenizer");
    bad(changed("model", "ignore_merges", true.into()), "ignore_merges true");
    bad(changed("model", "end_of_word_suffix", "</w>".into()), "`end_of_word_suffix`");
    let mut lower = byte_level();
    lower["normalizer"] = json!({"type": "Lowercase"});
    bad(lower, "its normalizer");
    let mut letters = byte_level();
    letters["pre_tokenizer"] = Value::Null;
    bad(letters, "nor has bytes to fall back on");
    let mut words = byte_level();
    words["model"] = json!({"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"});
    bad(words, "BPE alone");
    let mut beyond = byte_level();
    beyond["model"]["vocab"]["c"] = 19.into();
    bad(beyond, "beyond the 19");
}

/// A file of that name stays as it is.
#[test]
fn nothing_is_overwritten() {
    let (dir, _) = folder(tiny_there(Family::Qwen2), &byte_level());
    fs::write(dir.path().join("model.f16.gguf"), "mine").unwrap();
    let said = exported(dir.path(), Outtype::F16).err().unwrap_or_default();
    assert!(said.contains("is there already"), "{said}");
    assert_eq!(fs::read(dir.path().join("model.f16.gguf")).unwrap(), b"mine");
}
