//! The rows that TRL made of unpaired, reward and supervised files: how many it kept, and the tokens of the first ones.

use crate::common::{Dir, PREFERENCE, shared};
use duel_data::{Dataset, Group, Labels, Options, Task, Tokenizer, Whole};
use serde_json::{Value, json};
use std::fs;

/// One run of a trainer: what it read and what became of it.
struct Run<'a> {
    name: &'a str,
    golden: &'a Value,
    args: &'a Value,
}

/// The runs of `golden2/trl/FILE`, each through `check`.
fn runs(file: &str, check: impl Fn(&Run)) {
    let Some(path) = shared(&format!("golden2/trl/{file}")) else { return };
    let golden: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let all = golden["run_args"].as_object().unwrap();
    assert!(!all.is_empty());
    all.iter().for_each(|(name, args)| check(&Run { name, golden: &golden, args }));
}

impl Run<'_> {
    /// What the first run says of a thing, or this one where they differ.
    fn of<'a>(&'a self, all: &str, own: &str) -> &'a Value {
        let own = &self.golden[own][self.name];
        if own.is_null() { &self.golden[all] } else { own }
    }

    fn kept(&self) -> usize {
        self.of("kept", "run_kept").as_u64().unwrap() as usize
    }

    fn first_rows(&self) -> &Vec<Value> {
        self.of("first_rows", "run_first_rows").as_array().unwrap()
    }

    fn number(&self, name: &str) -> usize {
        self.args["resolved"][name].as_u64().unwrap_or_else(|| panic!("{}: no {name}", self.name)) as usize
    }

    fn options(&self, task: Task) -> Options {
        Options { task, max_length: Some(self.number("max_length")), ..PREFERENCE }
    }

    /// What the run read, in words that start with a file's name.
    fn data(&self) -> &str {
        self.args["data"].as_str().unwrap()
    }

    /// The words of its description that end so.
    fn file(&self, end: &str) -> Option<&str> {
        self.data().split([' ', ',', ';']).find(|word| word.ends_with(end))
    }

    /// Its rows as they lie in its file.
    fn rows(&self) -> Vec<Value> {
        let file = self.file(".jsonl").unwrap();
        let path = if file.contains('/') { file.to_owned() } else { format!("golden2/trl/{file}") };
        let text = fs::read_to_string(shared(&path).unwrap()).unwrap();
        let rows = text.lines().take(self.args["rows"].as_u64().unwrap() as usize);
        rows.map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The tokenizer of its model, with the chat template of its own where it has one.
    fn tokenizer(&self) -> Tokenizer {
        let model = shared(self.args["model"].as_str().unwrap()).unwrap();
        let Some(template) = self.file(".jinja") else { return Tokenizer::from_dir(&model).unwrap() };
        let dir = Dir::new();
        for name in ["tokenizer.json", "tokenizer_config.json"] {
            dir.write(name, fs::read(model.join(name)).unwrap());
        }
        let template = shared(&format!("golden2/trl/{template}")).unwrap();
        dir.write("chat_template.jinja", fs::read(template).unwrap());
        Tokenizer::from_dir(&dir.0).unwrap()
    }

    /// `rows` as the crate reads them, as many as TRL kept.
    fn load(&self, rows: &[Value], opt: &Options) -> Dataset {
        let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
        let data = crate::common::load("rows.jsonl", text, &self.tokenizer(), opt);
        let data = data.unwrap_or_else(|e| panic!("{}: {e}", self.name));
        assert_eq!(data.len(), self.kept(), "{}", self.name);
        assert!(data.len() >= self.first_rows().len());
        data
    }
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// Its first rows are listed before the cut at `max_length`.
#[test]
fn unpaired_rows() {
    runs("kto.json", |run| {
        let (opt, name) = (run.options(Task::Unpaired), run.name);
        let data = run.load(&run.rows(), &opt);
        let other = data.mismatched(run.number("per_device_train_batch_size")).unwrap();
        for ((group, mismatched), want) in data.groups().zip(other.groups()).zip(run.first_rows()) {
            let prompt = ids(&want["prompt_ids"]);
            let cut = |response: &Value| {
                let room = opt.max_length.unwrap() - prompt.len();
                ids(response).into_iter().take(room).collect::<Vec<_>>()
            };
            let (own, others) = (cut(&want["completion_ids"]), want.get("KL_completion_ids").map(cut));
            assert_eq!((group.prompt, group.best()), (&prompt[..], &own[..]), "{name}");
            let desirable = want["label"].as_bool().unwrap();
            assert_eq!(group.labels(), Labels::Unpaired { desirable }, "{name}");
            if let Some(others) = others {
                assert_eq!((mismatched.prompt, mismatched.best()), (&prompt[..], &others[..]), "{name}");
            }
        }
        // All that is known of a group's length is the tokens that the first step counted.
        let batch = run.number("per_device_train_batch_size") * run.number("gradient_accumulation_steps");
        let first: usize = data.groups().take(batch).map(|g| g.tokens()).sum();
        assert_eq!(Some(first as f64), run.golden[name][0]["num_tokens"].as_f64(), "{name}");
    });
}

#[test]
fn pairs_of_rewards() {
    runs("reward.json", |run| {
        let mut rows = run.rows();
        if let Some(margin) = run.data().split("margin = ").nth(1) {
            let (factor, modulus) = margin.split_once("*(row index mod ").expect("a known kind of margin");
            let factor: f64 = factor.parse().unwrap();
            let modulus: usize = modulus.trim_end_matches(')').parse().unwrap();
            for (i, row) in rows.iter_mut().enumerate() {
                row["margin"] = json!(factor * (i % modulus) as f64);
            }
        }
        let data = run.load(&rows, &run.options(Task::Reward));
        for (group, want) in data.groups().zip(run.first_rows()) {
            let sides: Vec<Vec<u32>> = group.responses().map(|r| [group.prompt, r].concat()).collect();
            assert_eq!(sides, [ids(&want["chosen_ids"]), ids(&want["rejected_ids"])], "{}", run.name);
            let margin = want.get("margin").and_then(Value::as_f64);
            assert_eq!(group.labels(), Labels::Ranked { margin }, "{}", run.name);
        }
    });
}

#[test]
fn supervised_rows() {
    runs("sft.json", |run| {
        let (set, mut rows) = (&run.args["resolved"], run.rows());
        for row in &mut rows {
            let (prompt, chosen) = (row["prompt"].take(), row["chosen"].take());
            if let (Some(prompt), Some(chosen)) = (prompt.as_str(), chosen.as_str()) {
                *row = match run.data().contains("text = ") {
                    true => json!({"text": format!("{prompt} {chosen}")}),
                    false => json!({"prompt": prompt, "completion": chosen}),
                };
            }
        }
        // Unless it is told otherwise, it learns completions where there are some, and all turns of conversations.
        let part =
            if rows[0].get("completion").is_some() { "completion_only_loss" } else { "assistant_only_loss" };
        let whole = !set[part].as_bool().unwrap_or(part == "completion_only_loss");
        let whole = Whole { completions: whole, conversations: whole };
        let data = run.load(&rows, &Options { whole, ..run.options(Task::Sft) });
        for (group, want) in data.groups().zip(run.first_rows()) {
            let (tokens, labels) = (ids(&want["input_ids"]), want["labels"].as_array().unwrap());
            let ours = [group.prompt, group.best()].concat();
            // What nothing is learned behind is left out.
            assert!(tokens.starts_with(&ours), "{}", run.name);
            // Nothing predicts the first token.
            let theirs: Vec<usize> = (1..labels.len()).filter(|&i| labels[i] != -100).collect();
            assert_eq!(learned(group), theirs, "{}", run.name);
        }
    });
}

/// The places of the tokens that a group learns.
fn learned(group: Group<'_>) -> Vec<usize> {
    let prompt = group.prompt.len();
    let given: Vec<_> = group.given().collect();
    let response = (0..group.best().len()).filter(|at| !given.iter().any(|run| run.contains(at)));
    response.map(|at| at + prompt).filter(|at| *at > 0).collect()
}
