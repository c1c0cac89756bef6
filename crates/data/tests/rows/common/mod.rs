//! A tiny tokenizer whose ids a reader can work out, files in a temporary folder, and the shared data.

use duel_data::{Dataset, Error, Group, Options, Task, Tokenizer, Truncation, Whole};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

pub const BOS: u32 = 1;
pub const EOS: u32 = 2;

pub const PREFERENCE: Options =
    Options { task: Task::Preference, whole: NONE, max_length: None, truncation: Truncation::KeepStart };
pub const SFT: Options = Options { task: Task::Sft, ..PREFERENCE };
const NONE: Whole = Whole { completions: false, conversations: false };
pub const WHOLE: Options = Options { whole: Whole { completions: true, conversations: true }, ..SFT };
pub const UNPAIRED: Options = Options { task: Task::Unpaired, ..PREFERENCE };
pub const REWARD: Options = Options { task: Task::Reward, ..PREFERENCE };

/// A folder that goes away with the test.
pub struct Dir(pub PathBuf);

impl Dir {
    pub fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("duel-data-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Dir(path)
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// One token a character (`' '..='~'` and newline), a merge of "ab", BOS in front if the post-processor says so.
pub struct Tiny<'a> {
    pub bos: bool,
    pub appends_eos: bool,
    pub eos: Option<&'static str>,
    pub template: Option<&'a str>,
}

pub const TINY: Tiny<'static> = Tiny { bos: true, appends_eos: false, eos: Some("</s>"), template: None };
pub const CHAT: &str = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}{{ eos_token }}{% endfor %}\
                        {% if add_generation_prompt %}a:{% endif %}";

impl Tiny<'_> {
    pub fn build(&self) -> Tokenizer {
        let dir = Dir::new();
        self.write(&dir);
        Tokenizer::from_dir(&dir.0).unwrap()
    }

    /// Its files.
    pub fn write(&self, dir: &Dir) {
        let mut vocab = json!({"<unk>": 0, "<s>": BOS, "</s>": EOS, "\n": 3, "ab": 4});
        for c in ' '..='~' {
            vocab[c.to_string()] = json!(id(c));
        }
        let special = |id: u32, content: &str| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        };
        let mut single = vec![json!({"Sequence": {"id": "A", "type_id": 0}})];
        if self.bos {
            single.insert(0, json!({"SpecialToken": {"id": "<s>", "type_id": 0}}));
        }
        if self.appends_eos {
            single.push(json!({"SpecialToken": {"id": "</s>", "type_id": 0}}));
        }
        let tokenizer = json!({
            "version": "1.0", "truncation": {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0},
            "padding": null, "normalizer": null, "pre_tokenizer": null, "decoder": {"type": "Fuse"},
            "added_tokens": [special(0, "<unk>"), special(BOS, "<s>"), special(EOS, "</s>")],
            "post_processor": {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": {
                "<s>": {"id": "<s>", "ids": [BOS], "tokens": ["<s>"]},
                "</s>": {"id": "</s>", "ids": [EOS], "tokens": ["</s>"]}}},
            "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": ["a b"]},
        });
        dir.write("tokenizer.json", tokenizer.to_string());
        dir.write(
            "tokenizer_config.json",
            json!({"bos_token": {"content": "<s>"}, "eos_token": self.eos}).to_string(),
        );
        if let Some(template) = self.template {
            dir.write("chat_template.jinja", template);
        }
    }
}

/// The id of one character.
pub fn id(c: char) -> u32 {
    if c == '\n' { 3 } else { c as u32 - 32 + 5 }
}

/// The ids of a text without merges, with `^` for BOS and `$` for EOS.
pub fn ids(text: &str) -> Vec<u32> {
    text.chars()
        .map(|c| match c {
            '^' => BOS,
            '$' => EOS,
            c => id(c),
        })
        .collect()
}

/// A group in the notation of [`ids`], with `@` for the merged "ab".
pub fn show(group: Group<'_>) -> Vec<String> {
    let text = |ids: &[u32]| {
        let char = |&i: &u32| match i {
            BOS => '^',
            EOS => '$',
            3 => '\n',
            4 => '@',
            i => (i as u8 + 27) as char,
        };
        ids.iter().map(char).collect::<String>()
    };
    std::iter::once(group.prompt).chain(group.responses()).map(text).collect()
}

/// Loads `text` as a file called `name`.
pub fn load(name: &str, text: impl AsRef<[u8]>, tok: &Tokenizer, opt: &Options) -> Result<Dataset, Error> {
    let dir = Dir::new();
    let path = dir.write(name, text);
    Dataset::load(&path, tok, opt)
}

/// A path in the shared data, or a loud `None`.
pub fn shared(path: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    if !root.exists() {
        // Not eprintln: the test harness would keep that to itself.
        {
            use std::io::Write as _;
            drop(writeln!(std::io::stderr(), "SKIPPED: {path} cannot be read, ../shared/data is not here"));
        }
        return None;
    }
    Some(root.join(path))
}
