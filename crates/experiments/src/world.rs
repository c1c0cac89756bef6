//! The world that the experiments play in: a model that has learned to write the grammar's reviews, prompts for it, and
//! preferences among its own samples by the ground truth.

use crate::gaussian::gaussian;
pub use crate::scene::Measured;
use crate::scene::{PromptFiles, Scene, scores, settled, write_rows};
use crate::truth::Truth;
use crate::{grammar, runs};
use duel_backend::Backend;
use duel_data::Tokenizer;
use duel_judge::{Judge, Scale};
use duel_model::{Config, Model};
use duel_train::Error;
use duel_train::config::{Maybe, Method, Options, Scheduler};
use serde_json::json;
use std::path::{Path, PathBuf};

const REVIEWS: usize = 12_000;
const PREFIXES: usize = 3_000;
const COMPLETIONS: usize = 4;
const EVAL: usize = 128;
const HELD_OUT: usize = 256;
/// Longest sample in tokens; hardly a review is longer.
pub const NEW_TOKENS: usize = 40;
/// Longest review in tokens.
const LENGTH: Option<Maybe<usize>> = Some(Maybe(Some(64)));

/// A model that writes reviews, and what is asked of it.
pub struct World<'b, B: Backend> {
    /// The model that has learned the reviews, the prefixes that are learned from, and those that are not.
    pub scene: Scene<'b, B>,
    held_out: Vec<String>,
}

/// Files of preferences among samples of the model, by the ground truth.
pub struct Preferences {
    /// Rankings of up to four responses.
    pub ranked: PathBuf,
    /// The best and the worst response of each.
    pub pairs: PathBuf,
    /// Rankings that nothing is learned from.
    pub eval: PathBuf,
    /// Pairs that nothing is learned from.
    pub eval_pairs: PathBuf,
}

impl<'b, B: Backend> World<'b, B> {
    /// Makes it in `dir`: a model from scratch, trained on reviews. What was made there before of the same is read, and
    /// what was begun is gone on with.
    ///
    /// # Errors
    /// The folder cannot be written, or Ctrl-C.
    pub fn make(b: &'b B, dir: &Path, seed: u64) -> Result<Self, Error> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let base = dir.join("base");
        write_base(b, &base, &mut rng)?;
        duel_train::say!("SFT of a model from scratch on {REVIEWS} reviews");
        let reviews: Vec<_> =
            (0..REVIEWS).map(|_| json!({"text": grammar::sample_review(&mut rng)})).collect();
        let sft = dir.join("sft");
        let options = Options {
            method: Some(Method::Sft),
            model: Some(base),
            dataset: Some(write_rows(dir.join("reviews.jsonl"), &reviews)?),
            max_length: LENGTH,
            // Half the batch and twice the rate of what seems safe: 79 and not 67 of 100 samples are reviews of the
            // grammar, for the same time.
            learning_rate: Some(4e-3),
            num_train_epochs: Some(1.0),
            per_device_train_batch_size: Some(24),
            warmup_steps: Some(40.into()),
            lr_scheduler_type: Some(Scheduler::Cosine),
            ..Options::default()
        };
        runs::run(b, settled(options, dir, &sft, seed).resolve()?, None)?;
        let mut prefixes =
            |n: usize| -> Vec<String> { (0..n).map(|_| grammar::sample_prefix(&mut rng)).collect() };
        let row = |prefix: &String| json!({"prompt": prefix});
        let (learned, held_out) = (prefixes(PREFIXES), prefixes(HELD_OUT));
        let prompts = write_rows(dir.join("prompts.jsonl"), &learned.iter().map(row).collect::<Vec<_>>())?;
        let others =
            write_rows(dir.join("prompts-held-out.jsonl"), &held_out.iter().map(row).collect::<Vec<_>>())?;
        let files = PromptFiles { learned: &prompts, held_out: &others };
        Ok(World { scene: Scene::open(b, dir, seed, &sft, files, NEW_TOKENS)?, held_out })
    }

    /// Samples of the model for every prefix, ranked by the ground truth.
    ///
    /// # Errors
    /// The files cannot be written, or Ctrl-C.
    pub fn preferences(&self) -> Result<Preferences, Error> {
        duel_train::say!("{COMPLETIONS} samples for each of {PREFIXES} prefixes, ranked by the ground truth");
        let scene = &self.scene;
        let drawn = scene.draw(&scene.before, &scene.learned, COMPLETIONS, scene.seed)?;
        let rewards = scores(&mut Truth(Scale::Probability), &drawn)?;
        let (mut ranked, mut pairs) = (Vec::new(), Vec::new());
        for (rollout, rewards) in drawn.iter().zip(rewards) {
            let texts = rollout.samples.iter().map(|sample| &sample.text);
            let mut all: Vec<(f64, &String)> =
                rewards.into_iter().zip(texts).filter(|(_, text)| !text.is_empty()).collect();
            all.sort_by(|a, b| b.0.total_cmp(&a.0));
            // Equal rewards say nothing about which is preferred.
            all.dedup_by(|a, b| a.0 == b.0);
            let responses: Vec<&String> = all.into_iter().map(|(_, text)| text).collect();
            if let [best, .., worst] = &responses[..] {
                let prompt = &rollout.prompt.columns["prompt"];
                pairs.push(json!({"prompt": prompt, "chosen": best, "rejected": worst}));
                ranked.push(json!({"prompt": prompt, "responses": responses}));
            }
        }
        let held = ranked.len().saturating_sub(EVAL);
        let (eval, eval_pairs) = (ranked.split_off(held), pairs.split_off(held));
        Ok(Preferences {
            ranked: write_rows(scene.dir.join("preferences.jsonl"), &ranked)?,
            pairs: write_rows(scene.dir.join("pairs.jsonl"), &pairs)?,
            eval: write_rows(scene.dir.join("preferences-eval.jsonl"), &eval)?,
            eval_pairs: write_rows(scene.dir.join("pairs-eval.jsonl"), &eval_pairs)?,
        })
    }

    /// [`Scene::train`] of reviews.
    ///
    /// # Errors
    /// As that.
    pub fn train(
        &self,
        name: &str,
        options: Options,
        judge: Option<&mut dyn Judge>,
    ) -> Result<(PathBuf, Vec<(String, f64)>), Error> {
        self.scene.train(name, Options { max_length: LENGTH, ..options }, judge)
    }

    /// What the model in `folder` writes to the held-out prefixes: a sample each, and the probability that the review,
    /// prefix and all, is positive.
    ///
    /// # Errors
    /// The folder is none of this world's models, or Ctrl-C.
    pub fn measure(&self, folder: &Path) -> Result<Measured, Error> {
        self.scene.measure(folder, 1, &mut Truth(Scale::Probability))
    }

    /// The best of `n` samples of the model before, to each held-out prefix, by the ground truth. Their KL is not that
    /// of any model.
    ///
    /// # Errors
    /// Ctrl-C.
    pub fn best_of(&self, n: usize) -> Result<Vec<f64>, Error> {
        let scene = &self.scene;
        let drawn = scene.draw(&scene.before, &scene.held_out, n, scene.seed)?;
        let rewards = scores(&mut Truth(Scale::Probability), &drawn)?;
        Ok(rewards.into_iter().map(|of| of.into_iter().fold(0.0, f64::max)).collect())
    }

    /// The held-out prefixes.
    pub fn held_out(&self) -> &[String] {
        &self.held_out
    }
}

/// A model folder with fresh weights and the grammar's tokenizer.
fn write_base<B: Backend>(b: &B, base: &Path, rng: &mut fastrand::Rng) -> Result<(), Error> {
    duel_disk::create_dir_all(base)
        .map_err(|e| Error::new(format!("{}: cannot be written: {e}", base.display())))?;
    let (tokenizer, tokenizer_config) = grammar::tokenizer_files();
    duel_model::write_synced(&base.join("tokenizer.json"), tokenizer.as_bytes())?;
    duel_model::write_synced(&base.join("tokenizer_config.json"), tokenizer_config.as_bytes())?;
    let tokenizer = Tokenizer::from_dir(base)?;
    let id = |token: Option<(&str, u32)>| token.map(|(_, id)| id);
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": tokenizer.vocab_size(),
        "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 6, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 32, "hidden_act": "silu", "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true, "attention_bias": false,
        "mlp_bias": false, "initializer_range": 0.05, "bos_token_id": id(tokenizer.bos()),
        "eos_token_id": id(tokenizer.eos()), "torch_dtype": "float32"
    });
    let config = Config::from_json(config.as_object().cloned().unwrap_or_default()).map_err(Error::new)?;
    let weights = Model::manifest(&config).init(b, &config, || gaussian(rng))?;
    duel_model::save(b, base, &config, &weights)?;
    Ok(())
}
