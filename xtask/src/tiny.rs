//! A Llama so small that it is written by hand: what an installed program trains to show that it works.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

const WIDTH: usize = 8;
const WORDS: [&str; 6] = ["<unk>", "<s>", "</s>", "a", "b", "c"];

/// Writes its folder, `dir`, which is there; the folder.
///
/// # Errors
/// It cannot be written.
pub fn write(dir: &Path) -> Result<PathBuf, String> {
    let words: Vec<String> = WORDS.iter().zip(0..).map(|(word, id)| format!("\"{word}\": {id}")).collect();
    let special = |id: usize| {
        format!(
            r#"{{"id": {id}, "content": "{}", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}}"#,
            WORDS[id]
        )
    };
    let tokenizer = format!(
        r#"{{"version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null, "decoder": null,
"added_tokens": [{}, {}, {}], "pre_tokenizer": {{"type": "Whitespace"}},
"model": {{"type": "WordLevel", "unk_token": "<unk>", "vocab": {{{}}}}}}}"#,
        special(0),
        special(1),
        special(2),
        words.join(", ")
    );
    let config = format!(
        r#"{{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": {}, "hidden_size": {WIDTH},
"intermediate_size": {WIDTH}, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 32,
"tie_word_embeddings": true, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32"}}"#,
        WORDS.len()
    );
    let put = |name: &str, bytes: &[u8]| {
        let file = dir.join(name);
        fs::write(&file, bytes).map_err(|e| format!("{}: {e}", file.display()))
    };
    put("tokenizer.json", tokenizer.as_bytes())?;
    put("tokenizer_config.json", br#"{"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}"#)?;
    put("config.json", config.as_bytes())?;
    put("model.safetensors", &weights())?;
    Ok(dir.into())
}

/// Up to seven of its words.
fn words(from: usize) -> String {
    let word = |i: usize| ["a", "b", "c"][i % 3];
    (0..1 + from % 7).map(|i| word(from / 3 + i * i)).collect::<Vec<_>>().join(" ")
}

/// Lines of pairs in its words, by their numbers.
pub fn pairs(which: Range<usize>) -> String {
    let row = |i: usize| {
        let [prompt, chosen, rejected] = [i, i + 1, i + 2].map(words);
        format!(
            "{{\"prompt\": \"{prompt}\", \"chosen\": \" {chosen} a\", \"rejected\": \" {rejected} b\"}}\n"
        )
    };
    which.map(row).collect()
}

/// Lines of prompts in its words, by their numbers.
pub fn prompts(which: Range<usize>) -> String {
    which.map(|i| format!("{{\"prompt\": \"{}\"}}\n", words(i))).collect()
}

/// The weights as safetensors has them: the length of a header, the header, the numbers.
fn weights() -> Vec<u8> {
    let layer = |name: &str| format!("model.layers.0.{name}.weight");
    let square = vec![WIDTH, WIDTH];
    let maps = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"];
    let maps = maps.into_iter().chain(["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]);
    let norms = [layer("input_layernorm"), layer("post_attention_layernorm"), "model.norm.weight".into()];
    let tensors = std::iter::once(("model.embed_tokens.weight".to_owned(), vec![WORDS.len(), WIDTH]))
        .chain(norms.map(|name| (name, vec![WIDTH])))
        .chain(maps.map(|name| (layer(name), square.clone())));
    let (mut header, mut numbers) = (Vec::new(), Vec::new());
    for (name, shape) in tensors {
        let from = numbers.len();
        for i in 0..shape.iter().product::<usize>() {
            // Norms begin at 1; what matrices are hardly matters, but that no two rows are the same.
            let x = if shape.len() == 1 { 1.0 } else { ((from + 7 * i) % 23) as f32 / 23.0 - 0.5 };
            numbers.extend(x.to_le_bytes());
        }
        let to = numbers.len();
        header.push(format!(
            r#""{name}": {{"dtype": "F32", "shape": {shape:?}, "data_offsets": [{from}, {to}]}}"#
        ));
    }
    let header = format!("{{{}}}", header.join(", "));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(numbers);
    file
}
