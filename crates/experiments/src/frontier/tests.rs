//! A whole study of a tiny model, cut anywhere.

use super::*;
use crate::grammar;
use crate::scene::{settled, write_rows};
use crate::{cycle::Cycle, runs};
use duel_cpu::Cpu;
use duel_data::Tokenizer;
use duel_judge::{Case, Opinion, Pair, Settings};
use duel_model::{Config, Model};
use fastrand::Rng;
use std::fs;

/// A folder of a test, removed at its end.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("duel-frontier-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&dir));
        fs::create_dir_all(&dir).unwrap();
        Place(dir)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// A model of 20,000 parameters that writes reviews, badly, but to their end.
fn model(b: &Cpu<f32>, dir: &Path) -> PathBuf {
    let (base, sft) = (dir.join("base"), dir.join("sft"));
    fs::create_dir_all(&base).unwrap();
    let (tokenizer, tokenizer_config) = grammar::tokenizer_files();
    fs::write(base.join("tokenizer.json"), tokenizer).unwrap();
    fs::write(base.join("tokenizer_config.json"), tokenizer_config).unwrap();
    let tokenizer = Tokenizer::from_dir(&base).unwrap();
    let id = |token: Option<(&str, u32)>| token.map(|(_, id)| id);
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": tokenizer.vocab_size(),
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 2, "head_dim": 16, "hidden_act": "silu", "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true, "attention_bias": false,
        "mlp_bias": false, "bos_token_id": id(tokenizer.bos()), "eos_token_id": id(tokenizer.eos()),
        "torch_dtype": "float32"
    });
    let config = Config::from_json(config.as_object().cloned().unwrap()).unwrap();
    let mut rng = Rng::with_seed(7);
    let weights = Model::manifest(&config).init(b, &config, || 2.0 * rng.f64() - 1.0).unwrap();
    duel_model::save(b, &base, &config, &weights).unwrap();
    let reviews: Vec<_> = (0..800).map(|_| json!({"text": grammar::sample_review(&mut rng)})).collect();
    let options = Options {
        method: Some(Method::Sft),
        model: Some(base),
        dataset: Some(write_rows(dir.join("reviews.jsonl"), &reviews).unwrap()),
        max_length: Some(Maybe(Some(64))),
        learning_rate: Some(1e-2),
        num_train_epochs: Some(3.0),
        per_device_train_batch_size: Some(16),
        ..Options::default()
    };
    runs::run(b, settled(options, dir, &sft, 1).resolve().unwrap(), None).unwrap();
    sft
}

fn prompts(dir: &Path, name: &str, n: usize, seed: u64) -> PathBuf {
    let mut rng = Rng::with_seed(seed);
    let rows: Vec<_> = (0..n).map(|_| json!({"prompt": grammar::sample_prefix(&mut rng)})).collect();
    write_rows(dir.join(name), &rows).unwrap()
}

struct Files {
    model: PathBuf,
    dataset: PathBuf,
    eval_dataset: PathBuf,
}

impl Files {
    fn given<'j>(&self, judge: &'j mut dyn Judge) -> Given<'j> {
        Given {
            model: self.model.clone(),
            dataset: self.dataset.clone(),
            eval_dataset: self.eval_dataset.clone(),
            new_tokens: 24,
            name: "truth".into(),
            judge,
        }
    }
}

/// Says nothing of every fifth sample that it is shown; otherwise the truth.
struct Shy;

impl Judge for Shy {
    fn describe(&self) -> String {
        "a shy judge".into()
    }
    fn identity(&self) -> String {
        "shy".into()
    }
    fn says(&self) -> Says {
        Says::Scores
    }
    fn scores(&mut self, cases: &[Case]) -> duel_judge::Result<Vec<Vec<Opinion>>> {
        let mut all = Truth(Scale::LogOdds).scores(cases)?;
        let refused = || Opinion::Unjudged("refused".into());
        all.iter_mut().flatten().skip(1).step_by(5).for_each(|opinion| *opinion = refused());
        Ok(all)
    }
    fn compare(&mut self, pairs: &[Pair<'_>]) -> duel_judge::Result<Vec<Opinion>> {
        duel_judge::compare_by_scoring(self, pairs)
    }
}

#[test]
fn a_study_cut_in_its_middle_ends_with_the_same_bytes() {
    let (b, place) = (Cpu::<f32>::new(1), Place::new("cut"));
    let model = model(&b, &place.0);
    let files = Files {
        dataset: prompts(&place.0, "a.jsonl", 80, 1),
        eval_dataset: prompts(&place.0, "b.jsonl", 16, 2),
        model,
    };
    let dir = place.0.join("study");
    let ask = |dir: &Path| Ask { dir: dir.into(), seed: 3, seeds: vec![1], quick: true, rate: 1.0 };
    let go = || sized(&b, &ask(&dir), files.given(&mut Shy), Size::TINY).unwrap();
    let bytes = || {
        let files = ["points.jsonl", "frontier.svg", "frontier.csv", "frontier.json", "frontier.md"];
        files.map(|name| fs::read(dir.join(name)).unwrap())
    };
    go();
    let whole = bytes();
    let text = String::from_utf8_lossy(&whole[4]).into_owned();
    assert!(text.contains("PPO, the judge") && text.contains("samples were not judged"), "{text}");
    assert!(text.contains("that the judge does not judge"), "pairs are counted: {text}");
    // Inside a line behind the middle of the file.
    fs::write(dir.join("points.jsonl"), &whole[0][..whole[0].len() * 3 / 5]).unwrap();
    go();
    assert!(bytes() == whole, "another result after it was cut");
    go();
    assert!(bytes() == whole, "another result of the same command");

    let refused = |given: Given<'_>| {
        let other = place.0.join("other");
        sized(&b, &ask(&other), given, Size::TINY).unwrap_err().to_string()
    };
    let error = refused(Given { eval_dataset: files.dataset.clone(), ..files.given(&mut Shy) });
    assert!(error.contains("are the same prompts"), "{error}");
    let never: duel_judge::Stop = Arc::new(|| false);
    let mut cycle = duel_judge::open("cycle", &Settings::default(), &[Cycle::maker()], &never).unwrap();
    let error = refused(files.given(&mut *cycle));
    assert!(error.contains("--judge-ask score"), "{error}");
    let error = refused(Given { new_tokens: 1, ..files.given(&mut Shy) });
    assert!(error.contains("cut at the limit of 1 tokens") && error.contains("too few"), "{error}");
}
