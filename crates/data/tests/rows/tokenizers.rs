//! Tokenizer folders: which file wins, what is broken, where a text begins and ends.

use crate::common::{CHAT, Dir, SFT, TINY, Tiny, ids};
use duel_data::{Context, Dataset, Message, Row, Tokenizer};
use serde_json::{Value, json};
use std::fs;

/// A folder with a small tokenizer, and more files.
fn folder(files: &[(&str, &str)]) -> Dir {
    let dir = Dir::new();
    TINY.write(&dir);
    files.iter().for_each(|(name, text)| drop(dir.write(name, text)));
    dir
}

fn open(files: &[(&str, &str)]) -> Result<Tokenizer, String> {
    Tokenizer::from_dir(&folder(files).0).map_err(|e| e.to_string())
}

#[test]
fn errors_of_tokenizers() {
    let dir = Dir::new();
    let error = || Tokenizer::from_dir(&dir.0).unwrap_err().to_string();
    assert!(error().contains("tokenizer.json: not found"));
    dir.write("tokenizer.json", "{}");
    assert!(error().contains("tokenizer.json: is not a tokenizer"));
    let model = r#"{"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "unk_token": "u", "vocab": {"u": 0, "end": 1}}}"#;
    dir.write("tokenizer.json", model);
    // special_tokens_map.json says what tokenizer_config.json does not, and wins over it ...
    dir.write("special_tokens_map.json", r#"{"eos_token": {"content": "end"}}"#);
    assert_eq!(Tokenizer::from_dir(&dir.0).unwrap().eos(), Some(("end", 1)));
    dir.write("tokenizer_config.json", r#"{"eos_token": "stop", "bos_token": null}"#);
    assert_eq!(Tokenizer::from_dir(&dir.0).unwrap().eos(), Some(("end", 1)));
    // ... but for a config of the versions that keep the added tokens in it: beside that the map is a left-over.
    dir.write("tokenizer_config.json", r#"{"eos_token": "stop", "added_tokens_decoder": {}}"#);
    assert!(error().contains("does not know the eos_token `stop`"));
    fs::remove_file(dir.0.join("special_tokens_map.json")).unwrap();
    // An EOS that is an ordinary word would be learned as text, and never end anything.
    dir.write("tokenizer_config.json", r#"{"eos_token": "end"}"#);
    let tok = Tokenizer::from_dir(&dir.0).unwrap();
    let e = Dataset::from_texts([Row::plain("a", ["b"])], &tok, &SFT).unwrap_err();
    assert!(e.to_string().starts_with("row 1: does not end in EOS"), "{e}");
    dir.write("tokenizer_config.json", "[");
    assert!(error().contains("tokenizer_config.json: is not a JSON object"));
    // A broken template matters only to conversations.
    dir.write(
        "tokenizer_config.json",
        r#"{"chat_template": [{"name": "default", "template": "{% for %}"}]}"#,
    );
    let tok = Tokenizer::from_dir(&dir.0).unwrap();
    assert!(
        tok.chat(&[Message::new("user", "hi")], true, &Context::default())
            .unwrap_err()
            .to_string()
            .contains("does not compile")
    );
}

/// Tokens that only the config calls special are not cut, as in transformers; one that is none is an error.
#[test]
fn special_tokens_that_the_config_names() {
    let whole = open(&[]).unwrap().encode("abc", false).unwrap();
    let word = |name: &str, text: &str| open(&[("tokenizer_config.json", &format!("{{{name}: {text}}}"))]);
    for (name, text) in [
        ("\"additional_special_tokens\"", "[\"no such\"]"),
        ("\"extra_special_tokens\"", "[{\"content\": \"no such\"}]"),
        ("\"extra_special_tokens\"", "{\"user_token\": \"no such\"}"),
        ("\"pad_token\"", "\"no such\""),
    ] {
        let e = word(name, text).map(drop).expect_err("accepted");
        assert!(e.contains("`no such` that its config names"), "{name}: {e}");
    }
    assert!(whole.len() > 1, "{whole:?}");
    // In the vocabulary, and made of pieces by its merges otherwise.
    let model = json!({
        "version": "1.0", "added_tokens": [],
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4}, "merges": ["a b"]}
    });
    let named = |files: &[(&str, &str)]| {
        let dir = Dir::new();
        dir.write("tokenizer.json", model.to_string());
        files.iter().for_each(|(name, text)| drop(dir.write(name, text)));
        Tokenizer::from_dir(&dir.0).unwrap().encode("cabca", false).unwrap()
    };
    assert_eq!(named(&[]), [2, 3, 2, 0]);
    for said in
        ["\"additional_special_tokens\": [\"abc\"]", "\"extra_special_tokens\": {\"x_token\": \"abc\"}"]
    {
        assert_eq!(named(&[("tokenizer_config.json", &format!("{{{said}}}"))]), [2, 4, 0], "{said}");
    }
    // A map is a left-over beside a config that knows its added tokens.
    let map = ("special_tokens_map.json", "{\"additional_special_tokens\": [\"abc\"]}");
    assert_eq!(named(&[map]), [2, 4, 0]);
    let config = ("tokenizer_config.json", "{\"added_tokens_decoder\": {}}");
    assert_eq!(named(&[map, config]), [2, 3, 2, 0]);
}

/// The same text has the same tokens.
#[test]
fn a_tokenizer_that_draws_is_refused() {
    let model = |dropout: Value| {
        let dir = Dir::new();
        let model =
            json!({"type": "BPE", "dropout": dropout, "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]});
        dir.write(
            "tokenizer.json",
            json!({"version": "1.0", "added_tokens": [], "model": model}).to_string(),
        );
        Tokenizer::from_dir(&dir.0).map(|_| ()).map_err(|e| e.to_string())
    };
    assert_eq!((model(Value::Null), model(json!(0.0))), (Ok(()), Ok(())));
    assert!(model(json!(0.1)).unwrap_err().contains("its `dropout` gives the same text other tokens"));
}

/// `generation_config.json` wins over `config.json`, as a whole; the tokenizer's own EOS comes first.
#[test]
fn where_a_text_ends() {
    let stops = |files: &[(&str, &str)]| open(files).unwrap().stops().to_vec();
    assert_eq!(stops(&[]), [2]);
    let config = ("config.json", r#"{"eos_token_id": [5, 2]}"#);
    assert_eq!(stops(&[config]), [2, 5]);
    assert_eq!(stops(&[config, ("generation_config.json", r#"{"eos_token_id": 7}"#)]), [2, 7]);
    // Also a BOS that is listed, as stories260k does, and a file that lists nothing.
    assert_eq!(stops(&[config, ("generation_config.json", r#"{"eos_token_id": [1, 2]}"#)]), [2, 1]);
    assert_eq!(stops(&[config, ("generation_config.json", r#"{"eos_token_id": null}"#)]), [2]);
    assert_eq!(stops(&[config, ("generation_config.json", "{}")]), [2]);
    assert_eq!(stops(&[("config.json", r#"{"eos_token_id": 9}"#)]), [2, 9]);
    for (file, text, what) in [
        ("generation_config.json", "[", "generation_config.json: is not a JSON object"),
        (
            "generation_config.json",
            r#"{"eos_token_id": "</s>"}"#,
            "`eos_token_id` has \"</s>\", which is not the id",
        ),
        ("config.json", r#"{"eos_token_id": [-1]}"#, "config.json: `eos_token_id` has -1"),
    ] {
        let e = open(&[(file, text)]).unwrap_err();
        assert!(e.contains(what), "{e}");
    }
}

/// A prompt begins as training has it, and never ends in EOS.
#[test]
fn prompts_go_on() {
    for (bos, appends_eos) in [(false, false), (false, true), (true, false), (true, true)] {
        let tok = Tiny { bos, appends_eos, ..TINY }.build();
        let want = |text: &str| ids(&if bos { format!("^{text}") } else { text.to_owned() });
        assert_eq!(tok.encode_prompt("Q").unwrap(), want("Q"));
        assert_eq!(tok.encode_prompt("<s>Q").unwrap(), ids("^Q"));
        assert_eq!(tok.encode_prompt("").unwrap(), want(""));
        let data = Dataset::from_texts([Row::plain("Q", ["y"])], &tok, &SFT).unwrap();
        assert_eq!(data.group(0).prompt, tok.encode_prompt("Q").unwrap());
    }
}

#[test]
fn which_template() {
    let say = |files: &[(&str, &str)], tools: Vec<Value>| {
        let tok = open(files).unwrap();
        tok.chat(&[Message::new("user", "Q")], false, &Context { tools, ..Context::default() })
            .map(|r| r.text)
            .map_err(|e| e.to_string())
    };
    let list = r#"{"chat_template": [{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T"}, {"name": "rag", "template": "R"}]}"#;
    let config = ("tokenizer_config.json", list);
    assert_eq!(say(&[config], vec![]), Ok("D".into()));
    assert_eq!(say(&[config], vec![json!({})]), Ok("T".into()));
    assert_eq!(say(&[config, ("chat_template.jinja", "J")], vec![json!({})]), Ok("J".into()));
    let dir = folder(&[("chat_template.jinja", "J")]);
    fs::create_dir(dir.0.join("additional_chat_templates")).unwrap();
    dir.write("additional_chat_templates/tool_use.jinja", "A");
    let tok = Tokenizer::from_dir(&dir.0).unwrap();
    let context = |tools| Context { tools, ..Context::default() };
    assert_eq!(tok.chat(&[], false, &context(vec![])).unwrap().text, "J");
    assert_eq!(tok.chat(&[], false, &context(vec![json!({})])).unwrap().text, "A");
    let only = r#"{"chat_template": [{"name": "rag", "template": "R"}]}"#;
    let e = say(&[("tokenizer_config.json", only)], vec![]).unwrap_err();
    assert!(e.contains("has the chat templates rag and none named default"), "{e}");
    assert!(say(&[], vec![]).unwrap_err().contains("no chat template"));
    // Line ends of the file are not part of the text.
    let crlf = CHAT.replace("content }}", "content }}\r\n");
    let source = ("chat_template.jinja", crlf.as_str());
    let eos = ("tokenizer_config.json", r#"{"eos_token": "</s>"}"#);
    assert_eq!(say(&[source, eos], vec![]), Ok("u:Q\n</s>".into()));
}

/// What the library panics on is an error that names the file.
#[test]
fn broken_decoders() {
    let text = fs::read_to_string(folder(&[]).0.join("tokenizer.json")).unwrap();
    let decoder = r#""decoder":{"type":"Fuse"}"#;
    assert!(text.contains(decoder));
    for broken in
        [r#""decoder":{"type":"Fuse"#, r#""decoder":{"type":1e999}"#, r#""decoder":{"type":"Nothing"}"#]
    {
        let e = open(&[("tokenizer.json", &text.replace(decoder, broken))]).unwrap_err();
        assert!(e.contains("tokenizer.json: is not a tokenizer: "), "{broken}: {e}");
    }
}

/// Tokens of a byte each: a letter is given once it is whole, and what never becomes one at the end.
#[test]
fn a_stream_cuts_no_letter() {
    let vocab: serde_json::Map<String, Value> =
        (0..256).map(|byte| (format!("<0x{byte:02X}>"), byte.into())).collect();
    let tokenizer = json!({
        "version": "1.0", "added_tokens": [], "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "byte_fallback": true, "unk_token": "<0x00>", "vocab": vocab, "merges": []}
    });
    let dir = Dir::new();
    dir.write("tokenizer.json", tokenizer.to_string());
    let tok = Tokenizer::from_dir(&dir.0).unwrap();
    let text = "naïve 你好 🙂 end";
    let ids = tok.encode(text, false).unwrap();
    assert_eq!(ids.len(), text.len(), "a byte each");
    let mut stream = tok.stream();
    let pieces: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    assert!(pieces.iter().all(|piece| piece.chars().count() <= 1), "{pieces:?}");
    assert_eq!((pieces.concat(), stream.finish().unwrap()), (text.to_owned(), String::new()));
    let mut stream = tok.stream();
    let cut: String = ids[..ids.len() - 6].iter().map(|&id| stream.push(id).unwrap()).collect();
    assert_eq!(cut, "naïve 你好 ");
    assert!(stream.finish().unwrap().chars().all(|c| c == '\u{FFFD}'));
}
