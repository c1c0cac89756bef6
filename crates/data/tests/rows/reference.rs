//! Against tokenizers, chat templates and TRL, on real files.

use crate::common::{PREFERENCE, SFT, UNPAIRED, shared};
use duel_data::{Context, Dataset, Message, Options, Tokenizer};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::fs;

const FOLDERS: [(&str, &str); 4] = [
    ("gpt2", "tokenizers/gpt2"),
    ("smollm2", "tokenizers/smollm2"),
    ("qwen3", "tokenizers/qwen3"),
    ("stories260k", "models/stories260k"),
];

fn tokenizer(name: &str) -> Option<Tokenizer> {
    let (_, folder) = FOLDERS.iter().find(|(n, _)| *n == name).unwrap();
    Some(Tokenizer::from_dir(&shared(folder)?).unwrap())
}

fn json_lines<T: DeserializeOwned>(path: &str) -> Option<Vec<T>> {
    let text = fs::read_to_string(shared(path)?).unwrap();
    Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

#[test]
fn tokenizer_vectors() {
    #[derive(Deserialize)]
    struct Vector {
        text: String,
        ids: Vec<u32>,
        ids_no_special: Vec<u32>,
        decoded: String,
    }
    for (name, _) in FOLDERS {
        let Some(tok) = tokenizer(name) else { return };
        let vectors: Vec<Vector> = json_lines(&format!("tokenizers/vectors.{name}.jsonl")).unwrap();
        assert_eq!(vectors.len(), 87);
        for v in vectors {
            assert_eq!(tok.encode(&v.text, true).unwrap(), v.ids, "{name}: {:?}", v.text);
            assert_eq!(tok.encode(&v.text, false).unwrap(), v.ids_no_special, "{name}: {:?}", v.text);
            assert_eq!(tok.decode(&v.ids_no_special, false).unwrap(), v.decoded, "{name}: {:?}", v.text);
        }
    }
}

#[test]
fn chat_vectors() {
    #[derive(Deserialize)]
    struct Vector {
        messages: Vec<serde_json::Value>,
        add_generation_prompt: bool,
        text: String,
        ids: Vec<u32>,
    }
    for name in ["smollm2", "qwen3"] {
        let Some(tok) = tokenizer(name) else { return };
        let vectors: Vec<Vector> = json_lines(&format!("tokenizers/chat_vectors.{name}.jsonl")).unwrap();
        assert_eq!(vectors.len(), 6);
        for v in vectors {
            let message = |m| Message::from_json("message", m).unwrap();
            let messages: Vec<Message> = v.messages.into_iter().map(message).collect();
            let text = tok.chat(&messages, v.add_generation_prompt, &Context::default()).unwrap().text;
            assert_eq!(text, v.text, "{name}");
            assert_eq!(tok.encode(&text, false).unwrap(), v.ids, "{name}");
        }
    }
}

#[test]
fn special_tokens_and_sizes() {
    let Some(gpt2) = tokenizer("gpt2") else { return };
    assert_eq!((gpt2.bos(), gpt2.eos()), (Some(("<|endoftext|>", 50256)), Some(("<|endoftext|>", 50256))));
    assert_eq!((gpt2.vocab_size(), gpt2.has_chat_template()), (50257, false));
    let qwen3 = tokenizer("qwen3").unwrap();
    assert_eq!((qwen3.bos(), qwen3.eos()), (None, Some(("<|im_end|>", 151_645))));
    let stories = tokenizer("stories260k").unwrap();
    assert_eq!((stories.bos(), stories.eos()), (Some(("<s>", 1)), Some(("</s>", 2))));
    assert_eq!(stories.vocab_size(), 512);
    // A template in its own file, beside a config without one.
    let golden = Tokenizer::from_dir(&shared("golden/qwen2").unwrap()).unwrap();
    assert!(
        golden
            .chat(&[Message::new("user", "Hi")], false, &Context::default())
            .unwrap()
            .text
            .ends_with("<|im_start|>user\nHi<|im_end|>\n")
    );
}

#[test]
fn the_rows_trl_tokenised() {
    let (Some(tok), Some(golden)) = (tokenizer("stories260k"), shared("golden/trl_stories260k_polite.json"))
    else {
        return;
    };
    #[derive(Deserialize)]
    struct Golden {
        kept: usize,
        first_rows: Vec<Ids>,
    }
    #[derive(Deserialize)]
    struct Ids {
        prompt_ids: Vec<u32>,
        chosen_ids: Vec<u32>,
        rejected_ids: Vec<u32>,
    }
    let golden: Golden = serde_json::from_slice(&fs::read(golden).unwrap()).unwrap();
    let all = fs::read_to_string(shared("preference/rasbt_polite_pairs.jsonl").unwrap()).unwrap();
    let first: String = all.lines().take(80).map(|line| format!("{line}\n")).collect();
    let opt = Options { max_length: Some(256), ..PREFERENCE };
    let data = crate::common::load("first.jsonl", first, &tok, &opt).unwrap();

    assert_eq!(data.len(), golden.kept);
    assert_eq!(golden.first_rows.len(), 2);
    for (group, want) in data.groups().zip(&golden.first_rows) {
        assert_eq!(group.prompt, want.prompt_ids);
        assert_eq!(group.responses().collect::<Vec<_>>(), [&want.chosen_ids, &want.rejected_ids]);
    }
}

#[test]
fn every_file_loads() {
    let load = |file: &str, tok: &str, opt: &Options| {
        let tok = tokenizer(tok)?;
        Some(
            Dataset::load(&shared(&format!("preference/{file}"))?, &tok, opt)
                .unwrap_or_else(|e| panic!("{e}")),
        )
    };
    let Some(polite) = load("rasbt_polite_pairs.jsonl", "stories260k", &PREFERENCE) else { return };
    let report = polite.report();
    assert_eq!((report.rows, report.groups, report.responses, report.identical), (1100, 1094, 2188, 6));
    assert!(polite.max_token() < 512);
    assert!(
        polite.groups().all(|g| g.responses().all(|r| r.ends_with(&[2]) && !r[..r.len() - 1].contains(&2)))
    );
    assert!(polite.groups().all(|g| ![123, 227, 401, 567, 629, 677].contains(&g.row)));

    let qwen3 = tokenizer("qwen3").unwrap();
    let pairs = load("dpo_en_demo.json", "qwen3", &PREFERENCE).unwrap();
    assert_eq!((pairs.report().groups, pairs.report().boundary_moved), (300, 0));
    for group in pairs.groups() {
        assert!(qwen3.decode(group.prompt, false).unwrap().ends_with("<|im_start|>assistant\n"));
        assert!(group.responses().all(|r| qwen3.decode(r, false).unwrap().ends_with("<|im_end|>\n")));
    }
    assert_eq!(load("dpo_en_demo.json", "smollm2", &SFT).unwrap().report().responses, 300);

    let ranked = load("oasst_ranked.jsonl", "smollm2", &PREFERENCE).unwrap();
    let report = ranked.report();
    assert_eq!((report.groups, report.responses, report.duplicates), (212, 641, 0));
    assert_eq!(ranked.groups().map(|g| g.responses().len()).max(), Some(9));

    assert_eq!(load("v1_sft_demo.jsonl", "qwen3", &SFT).unwrap().len(), 500);
    // Instruction rows work with a chat template and without.
    assert_eq!(load("identity.json", "smollm2", &SFT).unwrap().len(), 91);
    assert_eq!(load("identity.json", "gpt2", &SFT).unwrap().len(), 91);
    let labelled = load("kto_en_demo.json", "smollm2", &UNPAIRED).unwrap();
    assert_eq!((labelled.len(), labelled.report().good + labelled.report().bad), (300, 300));
    let unpaired = load("kto_en_demo.json", "smollm2", &SFT).unwrap();
    assert_eq!((unpaired.report().rows, unpaired.len()), (300, labelled.report().good));
    assert!(unpaired.report().undesirable > 0 && unpaired.len() + unpaired.report().undesirable == 300);
    let kto =
        Dataset::load(&shared("preference/kto_en_demo.json").unwrap(), &qwen3, &PREFERENCE).unwrap_err();
    assert!(
        kto.to_string().contains("kto_en_demo.json: row 1: ") && kto.to_string().contains("unpaired"),
        "{kto}"
    );
    let sentences =
        Dataset::load(&shared("sentiment/sentence_polarity.jsonl").unwrap(), &qwen3, &SFT).unwrap();
    assert_eq!(sentences.len(), 10_662);
    // A model without a template cannot take conversations.
    let gpt2 = tokenizer("gpt2").unwrap();
    let e = Dataset::load(&shared("preference/dpo_en_demo.json").unwrap(), &gpt2, &PREFERENCE).unwrap_err();
    assert!(e.to_string().contains("row 1: ") && e.to_string().contains("chat template"), "{e}");
}
