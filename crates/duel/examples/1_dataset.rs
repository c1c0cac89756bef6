//! Rows of a file become groups of tokens, and groups become a packed batch.
//!
//!     cargo run --package duel --example 1_dataset
//!
//! Needs `duel-data` alone, which knows no device and no model.

use duel_data::{Batch, Dataset, Options, Task, Tokenizer, Truncation, Whole, order, pack};
use serde_json::json;
use std::error::Error;
use std::fs;

const ROWS: &str = r#"
{"prompt": "is snow warm ?", "chosen": " no , snow is cold", "rejected": " yes"}
{"prompt": "name a colour", "responses": [" blue", " a cold blue", " snow"]}
{"prompt": "is snow cold ?", "chosen": " yes", "rejected": " yes"}
"#;

/// A tokenizer with a token a word, as a model's folder would hold it.
fn tokenizer_json() -> String {
    let words = "<s> </s> <unk> ? , a blue cold colour is name no snow warm yes".split(' ');
    let vocab: serde_json::Map<_, _> = words.zip(0..).map(|(word, id)| (word.into(), json!(id))).collect();
    let special = |id: u32, content: &str| {
        json!({
            "id": id, "content": content, "special": true, "normalized": false,
            "single_word": false, "lstrip": false, "rstrip": false,
        })
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [special(0, "<s>"), special(1, "</s>")],
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": false },
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "<unk>" },
    })
    .to_string()
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("duel-example-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let rows = folder.join("rows.jsonl");
    fs::write(&rows, ROWS)?;
    fs::write(folder.join("tokenizer.json"), tokenizer_json())?;
    fs::write(folder.join("tokenizer_config.json"), r#"{"bos_token": "<s>", "eos_token": "</s>"}"#)?;

    let tokenizer = Tokenizer::from_dir(&folder)?;
    let options = Options {
        task: Task::Preference,
        whole: Whole::default(),
        max_length: Some(32),
        truncation: Truncation::KeepStart,
    };
    let data = Dataset::load(&rows, &tokenizer, &options)?;
    fs::remove_dir_all(&folder)?;
    // Nothing prefers a response to itself: the third row is left out, and counted.
    println!("{}\n", data.report());
    assert_eq!((data.len(), data.report().identical), (2, 1));

    // An epoch's order depends on its seed and number alone; a micro-batch takes as many groups as fit.
    let order = order(data.len(), 42, 0, true);
    let sizes = order.iter().map(|&i| data.group(i as usize).tokens());
    for range in pack(sizes, 64) {
        let batch = Batch::new(&data, &order[range]);
        println!("row  position  sees               token");
        for segment in &batch.segments {
            let prompt = segment.prefix_start..segment.prefix_start + segment.prefix_len;
            let prompt = if prompt.is_empty() { String::new() } else { format!("{prompt:?} and ") };
            for row in segment.start..segment.start + segment.len {
                let sees = format!("{prompt}{:?}", segment.start..row + 1);
                let token = tokenizer.decode(&batch.tokens[row..=row], false)?;
                println!("{row:3}  {:8}  {sees:17}  {token}", segment.prefix_len + row - segment.start);
            }
        }
        // Five responses share two prompts; no row is padding.
        assert_eq!(batch.segments.len(), 2 + 5);
        assert_eq!(batch.tokens.len(), data.report().tokens);
    }
    Ok(())
}
