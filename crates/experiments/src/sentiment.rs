//! The paper's controlled-sentiment experiment in small, on data that the project makes itself: SFT from scratch on
//! reviews of a grammar, preferences of that model's own samples by the grammar's ground truth, DPO, and what it did.

use crate::grammar;
use duel_backend::{Backend, Real};
use duel_data::Tokenizer;
use duel_model::decode::{Completion, Engine, Request, Room, Sampling};
use duel_model::{Config as ModelConfig, Folder, Model};
use duel_train::config::{Config, Maybe, Method, Options, Scheduler};
use duel_train::report::progress::Progress;
use duel_train::sample::{SEQUENCES, sample, sequence_kl};
use duel_train::{Error, Outcome, train};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

const REVIEWS: usize = 12_000;
const PREFIXES: usize = 3_000;
const COMPLETIONS: usize = 4;
const EVAL: usize = 128;
const HELD_OUT: usize = 256;
const SHOWN: usize = 4;

/// What the experiment found, over the held-out prefixes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finding {
    /// Mean ground-truth reward of the SFT model's samples, in (0, 1).
    pub reward_before: f64,
    /// The same after DPO.
    pub reward_after: f64,
    /// Mean sequence KL of the trained model from the SFT model, in nats.
    pub kl: f64,
}

/// Runs the experiment in `dir` and prints what it found.
///
/// # Errors
/// The folder cannot be written, or Ctrl-C.
pub fn run<B: Backend>(b: &B, dir: &Path, seed: u64) -> Result<Finding, Error> {
    let started = Instant::now();
    eprintln!(
        "Controlled sentiment in small: reviews of a known grammar, whose sentiment is known exactly.\n"
    );
    let mut rng = fastrand::Rng::with_seed(seed);
    let base = dir.join("base");
    let tokenizer = write_base(b, &base, &mut rng)?;

    eprintln!("1. SFT of a model from scratch on {REVIEWS} reviews");
    let reviews: Vec<_> = (0..REVIEWS).map(|_| json!({"text": grammar::sample_review(&mut rng)})).collect();
    let sft = dir.join("sft");
    let options = Options {
        method: Some(Method::Sft),
        learning_rate: Some(2e-3),
        num_train_epochs: Some(1.0),
        per_device_train_batch_size: Some(48),
        warmup_steps: Some(20),
        lr_scheduler_type: Some(Scheduler::Cosine),
        ..Options::default()
    };
    stage(b, options, &base, &write_rows(dir, "reviews.jsonl", &reviews)?, &sft, seed)?;

    eprintln!("\n2. {COMPLETIONS} samples for each of {PREFIXES} prefixes, ranked by the ground truth");
    let folder = Folder::open(&sft)?;
    let model = folder.config();
    let before = duel_model::load(b, &folder)?;
    let sampler = Sampler { b, tokenizer: &tokenizer, model, seed };
    let prefixes: Vec<String> = (0..PREFIXES).map(|_| grammar::sample_prefix(&mut rng)).collect();
    let drawn = sampler.draw(&before, &prefixes, COMPLETIONS)?;
    let mut pairs = Vec::new();
    for (prefix, texts) in prefixes.iter().zip(drawn.texts.chunks(COMPLETIONS)) {
        let mut ranked: Vec<(f64, &String)> = texts
            .iter()
            .filter(|t| !t.is_empty())
            .map(|t| (grammar::reward(&format!("{prefix} {t}")), t))
            .collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        // Equal rewards say nothing about which is preferred.
        ranked.dedup_by(|a, b| a.0 == b.0);
        if ranked.len() > 1 {
            let responses: Vec<String> = ranked.iter().map(|(_, t)| format!(" {t}")).collect();
            pairs.push(json!({"prompt": prefix, "responses": responses}));
        }
    }

    let eval = pairs.split_off(pairs.len().saturating_sub(EVAL));
    eprintln!("\n3. DPO on {} ranked groups, evaluated on {} others", pairs.len(), eval.len());
    let dpo = dir.join("dpo");
    let options = Options {
        method: Some(Method::Dpo),
        beta: Some(0.1),
        learning_rate: Some(3e-4),
        num_train_epochs: Some(1.0),
        per_device_train_batch_size: Some(32),
        warmup_steps: Some(15),
        eval_dataset: Some(Maybe(Some(write_rows(dir, "preferences-eval.jsonl", &eval)?))),
        eval_steps: Some(20),
        generate_during_eval: Some(true),
        num_eval_samples: Some(EVAL),
        max_new_tokens: Some(40),
        ..Options::default()
    };
    stage(b, options, &sft, &write_rows(dir, "preferences.jsonl", &pairs)?, &dpo, seed)?;

    eprintln!("\n4. {HELD_OUT} held-out prefixes, before and after");
    let after = duel_model::load(b, &Folder::open(&dpo)?)?;
    let held_out: Vec<String> = (0..HELD_OUT).map(|_| grammar::sample_prefix(&mut rng)).collect();
    let old = sampler.draw(&before, &held_out, 1)?;
    let new = sampler.draw(&after, &held_out, 1)?;
    let kl = sequence_kl(b, model, &after, &before, &new.prompts, &new.samples)?;
    let mean = |d: &Drawn| d.rewards(&held_out).iter().sum::<f64>() / HELD_OUT as f64;
    let finding = Finding { reward_before: mean(&old), reward_after: mean(&new), kl };
    for (i, prefix) in held_out.iter().enumerate().take(SHOWN) {
        println!("\n{prefix} …");
        for (name, d) in [("SFT", &old), ("DPO", &new)] {
            println!("  {name}  {:.2}  {}", d.rewards(&held_out)[i], d.texts[i]);
        }
    }
    println!(
        "\nmean ground-truth reward  {:.3} before DPO, {:.3} after (1 is certainly positive)\n\
         KL from the reference     {:.2} nats a sequence\n\
         wall time                 {:.0} s\n\
         everything is in          {}",
        finding.reward_before,
        finding.reward_after,
        finding.kl,
        started.elapsed().as_secs_f64(),
        dir.display()
    );
    Ok(finding)
}

/// A model folder with fresh weights and the grammar's tokenizer.
fn write_base<B: Backend>(b: &B, base: &Path, rng: &mut fastrand::Rng) -> Result<Tokenizer, Error> {
    fs::create_dir_all(base)
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
    let config =
        ModelConfig::from_json(config.as_object().cloned().unwrap_or_default()).map_err(Error::new)?;
    let normal = || (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * (std::f64::consts::TAU * rng.f64()).cos();
    let weights = Model::manifest(&config).init(b, &config, normal)?;
    duel_model::save(b, base, &config, &weights)?;
    Ok(tokenizer)
}

pub(crate) fn write_rows(dir: &Path, name: &str, rows: &[serde_json::Value]) -> Result<PathBuf, Error> {
    fs::create_dir_all(dir).map_err(|e| Error::new(format!("{}: cannot be written: {e}", dir.display())))?;
    let path = dir.join(name);
    let text: String = rows.iter().map(|r| format!("{r}\n")).collect();
    duel_model::write_synced(&path, text.as_bytes())?;
    Ok(path)
}

/// A run of the experiment; what it measured last.
pub(crate) fn stage<B: Backend>(
    b: &B,
    options: Options,
    model: &Path,
    dataset: &Path,
    output_dir: &Path,
    seed: u64,
) -> Result<Vec<(String, f64)>, Error> {
    let config: Config = Options {
        model: Some(model.into()),
        dataset: Some(dataset.into()),
        output_dir: Some(output_dir.into()),
        overwrite_output_dir: Some(true),
        max_length: Some(Maybe(Some(64))),
        save_steps: Some(0),
        cache_dir: Some(output_dir.with_file_name("cache")),
        seed: Some(seed),
        ..options
    }
    .resolve()?;
    match train(b, &config)? {
        Outcome::Done { last, .. } => Ok(last),
        Outcome::Interrupted { .. } => {
            Err(Error::new("stopped; run the same command to do the experiment again"))
        }
    }
}

struct Sampler<'a, B: Backend> {
    b: &'a B,
    tokenizer: &'a Tokenizer,
    model: &'a ModelConfig,
    seed: u64,
}

struct Drawn {
    prompts: Vec<Vec<u32>>,
    samples: Vec<Completion>,
    texts: Vec<String>,
}

impl Drawn {
    fn rewards(&self, prefixes: &[String]) -> Vec<f64> {
        prefixes.iter().zip(&self.texts).map(|(p, t)| grammar::reward(&format!("{p} {t}"))).collect()
    }
}

impl<B: Backend> Sampler<'_, B> {
    fn draw(&self, weights: &Model<Real<B>>, prefixes: &[String], each: usize) -> Result<Drawn, Error> {
        let encode = |p: &String| self.tokenizer.encode_prompt(p);
        let prompts = prefixes.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        let requests = Request::repeated(&prompts, each);
        let how = Sampling { max_new_tokens: 40, seed: self.seed, ..Sampling::default() };
        let room = Room::of(requests.iter().copied(), SEQUENCES, how.max_new_tokens);
        let mut engine = Engine::new(self.b, self.model, room)?;
        let mut progress = Progress::new("sampling", "samples", 0, (prompts.len() * each) as u64);
        let stop = self.tokenizer.stops();
        let drawn = sample(self.b, &mut engine, weights, &requests, &how, stop, |ended| {
            progress.advance(ended as u64)
        })?;
        let samples = drawn.flat();
        let text = |s: &Completion| self.tokenizer.decode(&s.tokens, true);
        let texts = samples.iter().map(text).collect::<Result<_, _>>()?;
        Ok(Drawn { prompts, samples, texts })
    }
}
