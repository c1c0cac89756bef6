//! The world that the experiments play in: a model that has learned to write the grammar's reviews, prompts for it, and
//! preferences among its own samples by the ground truth.

use crate::grammar;
use crate::study::{Mark, Stage};
use duel_backend::{Backend, Real};
use duel_data::Tokenizer;
use duel_judge::Judge;
use duel_model::decode::{Completion, Engine, Request, Room, Sampling};
use duel_model::{Config as ModelConfig, Folder, Model};
use duel_train::config::{Config, Maybe, Method, Options, Resume, Scheduler};
use duel_train::content::digest;
use duel_train::reference::ModelId;
use duel_train::report::metrics::{self, Record};
use duel_train::report::progress::Progress;
use duel_train::sample::{SEQUENCES, sample, sequence_kls};
use duel_train::{Error, Outcome, checkpoint, train, train_online};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

const REVIEWS: usize = 12_000;
const PREFIXES: usize = 3_000;
const COMPLETIONS: usize = 4;
const EVAL: usize = 128;
const HELD_OUT: usize = 256;
/// Longest sample in tokens; hardly a review is longer.
pub const NEW_TOKENS: usize = 40;

/// A model that writes reviews, and what is asked of it.
pub struct World<'b, B: Backend> {
    b: &'b B,
    dir: PathBuf,
    seed: u64,
    tokenizer: Tokenizer,
    model: ModelConfig,
    /// Folder of the model that has learned the reviews.
    pub sft: PathBuf,
    /// File of the prefixes, for methods that draw for themselves.
    pub prompts: PathBuf,
    before: Model<Real<B>>,
    prefixes: Vec<String>,
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

/// Samples of a model to the held-out prefixes, one each.
pub struct Measured {
    /// What was written.
    pub texts: Vec<String>,
    /// Probability that each review, prefix and all, is positive.
    pub rewards: Vec<f64>,
    /// KL from the model before, exact at each prefix of the sample, in nats.
    pub kls: Vec<f64>,
}

struct Drawn {
    prompts: Vec<Vec<u32>>,
    samples: Vec<Completion>,
    texts: Vec<String>,
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
        let tokenizer = write_base(b, &base, &mut rng)?;
        eprintln!("SFT of a model from scratch on {REVIEWS} reviews");
        let reviews: Vec<_> =
            (0..REVIEWS).map(|_| json!({"text": grammar::sample_review(&mut rng)})).collect();
        let sft = dir.join("sft");
        let options = Options {
            method: Some(Method::Sft),
            model: Some(base),
            dataset: Some(write_rows(dir, "reviews.jsonl", &reviews)?),
            learning_rate: Some(2e-3),
            num_train_epochs: Some(1.0),
            per_device_train_batch_size: Some(48),
            warmup_steps: Some(20),
            lr_scheduler_type: Some(Scheduler::Cosine),
            ..Options::default()
        };
        run(b, resolved(options, dir, &sft, seed)?, None)?;
        let folder = Folder::open(&sft)?;
        let prefixes: Vec<String> = (0..PREFIXES).map(|_| grammar::sample_prefix(&mut rng)).collect();
        let prompts: Vec<Value> = prefixes.iter().map(|prefix| json!({"prompt": prefix})).collect();
        Ok(World {
            b,
            dir: dir.to_path_buf(),
            seed,
            tokenizer,
            model: folder.config().clone(),
            before: duel_model::load(b, &folder)?,
            sft,
            prompts: write_rows(dir, "prompts.jsonl", &prompts)?,
            prefixes,
            held_out: (0..HELD_OUT).map(|_| grammar::sample_prefix(&mut rng)).collect(),
        })
    }

    /// Samples of the model for every prefix, ranked by the ground truth.
    ///
    /// # Errors
    /// The files cannot be written, or Ctrl-C.
    pub fn preferences(&self) -> Result<Preferences, Error> {
        eprintln!("{COMPLETIONS} samples for each of {PREFIXES} prefixes, ranked by the ground truth");
        let drawn = self.draw(&self.before, &self.prefixes, COMPLETIONS)?;
        let (mut ranked, mut pairs) = (Vec::new(), Vec::new());
        for (prefix, texts) in self.prefixes.iter().zip(drawn.texts.chunks(COMPLETIONS)) {
            let said = texts.iter().filter(|text| !text.is_empty());
            let mut all: Vec<(f64, &String)> = said.map(|text| (reward(prefix, text), text)).collect();
            all.sort_by(|a, b| b.0.total_cmp(&a.0));
            // Equal rewards say nothing about which is preferred.
            all.dedup_by(|a, b| a.0 == b.0);
            let responses: Vec<String> = all.iter().map(|(_, text)| format!(" {text}")).collect();
            if let [best, .., worst] = &responses[..] {
                pairs.push(json!({"prompt": prefix, "chosen": best, "rejected": worst}));
                ranked.push(json!({"prompt": prefix, "responses": responses}));
            }
        }
        let held = ranked.len().saturating_sub(EVAL);
        let (eval, eval_pairs) = (ranked.split_off(held), pairs.split_off(held));
        Ok(Preferences {
            ranked: write_rows(&self.dir, "preferences.jsonl", &ranked)?,
            pairs: write_rows(&self.dir, "pairs.jsonl", &pairs)?,
            eval: write_rows(&self.dir, "preferences-eval.jsonl", &eval)?,
            eval_pairs: write_rows(&self.dir, "pairs-eval.jsonl", &eval_pairs)?,
        })
    }

    /// Trains the model by `options` into the folder `name`, with a judge where the method learns from its own samples;
    /// goes on from what an earlier command left there of the same. Returns the folder and the last metrics.
    ///
    /// # Errors
    /// The folder cannot be written, the judge failed, or Ctrl-C.
    pub fn train(
        &self,
        name: &str,
        options: Options,
        judge: Option<&mut dyn Judge>,
    ) -> Result<(PathBuf, Vec<(String, f64)>), Error> {
        let output = self.dir.join(name);
        let options = Options { model: Some(self.sft.clone()), ..options };
        let config = resolved(options, &self.dir, &output, self.seed)?;
        let last = run(self.b, config, judge)?;
        Ok((output, last))
    }

    /// What the model in `folder` writes to the held-out prefixes.
    ///
    /// # Errors
    /// The folder is none of this world's models, or Ctrl-C.
    pub fn measure(&self, folder: &Path) -> Result<Measured, Error> {
        let after = duel_model::load(self.b, &Folder::open(folder)?)?;
        let drawn = self.draw(&after, &self.held_out, 1)?;
        let Drawn { prompts, samples, texts } = drawn;
        let kls = sequence_kls(self.b, &self.model, &after, &self.before, &prompts, &samples)?;
        Ok(Measured { rewards: self.rewards(&texts), texts, kls })
    }

    /// The best of `n` samples of the model before, to each held-out prefix, by the ground truth. Their KL is not that
    /// of any model.
    ///
    /// # Errors
    /// Ctrl-C.
    pub fn best_of(&self, n: usize) -> Result<Vec<f64>, Error> {
        let drawn = self.draw(&self.before, &self.held_out, n)?;
        let best = |(prefix, texts): (&String, &[String])| {
            texts.iter().map(|text| reward(prefix, text)).fold(0.0, f64::max)
        };
        Ok(self.held_out.iter().zip(drawn.texts.chunks(n)).map(best).collect())
    }

    /// The held-out prefixes.
    pub fn held_out(&self) -> &[String] {
        &self.held_out
    }

    fn rewards(&self, texts: &[String]) -> Vec<f64> {
        self.held_out.iter().zip(texts).map(|(prefix, text)| reward(prefix, text)).collect()
    }

    fn draw(&self, weights: &Model<Real<B>>, prefixes: &[String], each: usize) -> Result<Drawn, Error> {
        let encode = |p: &String| self.tokenizer.encode_prompt(p);
        let prompts = prefixes.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        let requests = Request::repeated(&prompts, each);
        let how = Sampling { max_new_tokens: NEW_TOKENS, seed: self.seed, ..Sampling::default() };
        let room = Room::of(requests.iter().copied(), SEQUENCES, how.max_new_tokens);
        let mut engine = Engine::new(self.b, &self.model, room)?;
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

/// What a review is worth that begins and goes on so.
fn reward(prefix: &str, text: &str) -> f64 {
    grammar::reward(&format!("{prefix} {text}"))
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

fn write_rows(dir: &Path, name: &str, rows: &[serde_json::Value]) -> Result<PathBuf, Error> {
    let path = dir.join(name);
    let text: String = rows.iter().map(|r| format!("{r}\n")).collect();
    duel_model::write_synced(&path, text.as_bytes())?;
    Ok(path)
}

fn resolved(options: Options, dir: &Path, output_dir: &Path, seed: u64) -> Result<Config, Error> {
    Options {
        output_dir: Some(output_dir.into()),
        max_length: Some(Maybe(Some(64))),
        save_steps: options.save_steps.or(Some(0)),
        cache_dir: Some(dir.join("cache")),
        seed: options.seed.or(Some(seed)),
        ..options
    }
    .resolve()
}

/// Does the run that `config` asks for, or what is left of it, and returns its last metrics.
fn run<B: Backend>(
    b: &B,
    config: Config,
    judge: Option<&mut dyn Judge>,
) -> Result<Vec<(String, f64)>, Error> {
    let output = &config.output_dir;
    let files = [Some(&config.dataset), config.eval_dataset.as_ref()];
    let files = files.into_iter().flatten().map(|file| digest(file)).collect::<Result<Vec<_>, _>>()?;
    let judged = judge.as_ref().map_or(String::new(), |judge| judge.identity());
    let model = ModelId::of(&config.model)?.digest();
    let of = [model, files.join(" "), judged, b.identity(), config.to_toml()?].join("\n");
    let mark = Mark::of(output.join("made.json"), of);
    let failed = |e: std::io::Error| Error::new(format!("{}: {e}", output.display()));
    if mark.stage() == Stage::Nothing {
        if output.exists() {
            fs::remove_dir_all(output).map_err(failed)?;
        }
        fs::create_dir_all(output).map_err(failed)?;
        mark.begin()?;
    }
    if mark.stage() == Stage::Begun {
        let whole = !checkpoint::list(output).is_empty();
        let resume_from_checkpoint = if whole { Resume::Newest } else { Resume::Off };
        // Without a checkpoint, what was written belongs to steps that are made again.
        let config = Config { resume_from_checkpoint, overwrite_output_dir: !whole, ..config.clone() };
        let outcome = match judge {
            Some(judge) => train_online(b, &config, judge)?,
            None => train(b, &config)?,
        };
        if let Outcome::Interrupted { .. } = outcome {
            return Err(Error::new("stopped; the same command goes on from here"));
        }
        mark.finish()?;
    }
    Ok(last(&metrics::read(&output.join("metrics.jsonl"))?))
}

/// What the last evaluation found, or the last logged step where there is none.
fn last(records: &[Record]) -> Vec<(String, f64)> {
    let evaluates = |record: &&Record| record.keys().any(|name| name.starts_with("eval_"));
    let record = records.iter().rev().find(evaluates).or(records.last());
    let numbers = record.into_iter().flatten().filter_map(|(name, v)| Some((name.clone(), v.as_f64()?)));
    numbers.collect()
}
