//! What an experiment is made with, whoever made it: a model, prompts, and what its samples are worth.

use crate::runs;
use duel_backend::{Backend, Real};
use duel_data::{Files, Prompt, Prompts, Tokenizer};
use duel_judge::{Judge, Opinion};
use duel_model::decode::{Request, Room, Sampling};
use duel_model::{Config, Folder, Model};
use duel_rollout::{Asked, Rollout, Sampler, case, groups};
use duel_train::config::{Maybe, Options};
use duel_train::report::progress::Progress;
use duel_train::sample::{SEQUENCES, sequence_kls};
use duel_train::{Error, signal};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A model and prompts for it.
pub struct Scene<'b, B: Backend> {
    b: &'b B,
    pub(crate) dir: PathBuf,
    pub(crate) seed: u64,
    /// Folder of the model that everything begins with, and is compared with.
    pub model: PathBuf,
    /// File of the prompts that are learned from.
    pub prompts: PathBuf,
    tokenizer: Tokenizer,
    config: Config,
    /// Its weights.
    pub before: Model<Real<B>>,
    /// Prompts that are learned from.
    pub learned: Vec<Prompt>,
    /// Prompts that are not.
    pub held_out: Vec<Prompt>,
    /// Longest sample in tokens.
    pub new_tokens: usize,
}

/// Samples to the held-out prompts, in their order, each prompt's together.
pub struct Measured {
    /// What was written, behind the prompt.
    pub texts: Vec<String>,
    /// What each is worth.
    pub rewards: Vec<f64>,
    /// KL from the model before, exact at each prefix of the sample, in nats.
    pub kls: Vec<f64>,
}

/// Files of prompts.
pub struct PromptFiles<'p> {
    /// Those that are learned from.
    pub learned: &'p Path,
    /// Those that are not.
    pub held_out: &'p Path,
}

impl<'b, B: Backend> Scene<'b, B> {
    /// Opens the model in `model` and the files of prompts; runs are made in `dir`. Samples have up to `new_tokens`.
    ///
    /// # Errors
    /// One of them cannot be read, or there is no room for the model.
    pub fn open(
        b: &'b B,
        dir: &Path,
        seed: u64,
        model: &Path,
        prompts: PromptFiles<'_>,
        new_tokens: usize,
    ) -> Result<Self, Error> {
        let folder = Folder::open(model)?.language_model()?;
        let tokenizer = duel_train::tokenizer(model)?;
        let read = |path, split| read_prompts(&duel_train::split(path, split)?, &tokenizer, folder.config());
        let (learned, held_out) = (read(prompts.learned, "train")?, read(prompts.held_out, "test")?);
        Ok(Scene {
            b,
            dir: dir.to_path_buf(),
            seed,
            model: model.to_path_buf(),
            prompts: prompts.learned.to_path_buf(),
            config: folder.config().clone(),
            before: duel_model::load(b, &folder)?,
            tokenizer,
            learned,
            held_out,
            new_tokens,
        })
    }

    /// So many samples of each prompt, of the model with these weights. What is drawn follows from `seed`.
    ///
    /// # Errors
    /// There is no room, or Ctrl-C.
    pub fn draw<'p>(
        &self,
        weights: &Model<Real<B>>,
        prompts: &'p [Prompt],
        each: usize,
        seed: u64,
    ) -> Result<Vec<Rollout<'p>>, Error> {
        let sizes = prompts.iter().map(|prompt| (prompt.tokens.len(), each));
        let how = Sampling { max_new_tokens: self.new_tokens, seed, ..Sampling::default() };
        let room = Room::for_sizes(sizes, SEQUENCES, how.max_new_tokens);
        let mut sampler = Sampler::new(self.b, &self.config, room, how)?;
        let mut progress = Progress::new("sampling", "samples", 0, (prompts.len() * each) as u64);
        let asked: Vec<Asked<'p>> =
            prompts.iter().zip(0..).map(|(prompt, id)| Asked { prompt, id }).collect();
        let drawn = sampler.draw(self.b, weights, &self.tokenizer, &asked, each, |ended| {
            progress.advance(ended as u64);
            !signal::interrupted()
        })?;
        drawn.ok_or_else(|| Error::new("stopped while sampling"))
    }

    /// What the model in `folder` writes to the held-out prompts, so many samples each, and what `judge` says of it.
    ///
    /// # Errors
    /// The folder is no model of the scene's shape, the judge failed or does not judge a sample, or Ctrl-C.
    pub fn measure(&self, folder: &Path, each: usize, judge: &mut dyn Judge) -> Result<Measured, Error> {
        let (drawn, kls) = self.answers(folder, each)?;
        let rewards = scores(judge, &drawn)?.concat();
        let texts = drawn.into_iter().flat_map(|rollout| rollout.samples).map(|sample| sample.text);
        Ok(Measured { texts: texts.collect(), rewards, kls })
    }

    /// What the model in `folder` writes to the held-out prompts, so many samples each, and the KL of each of them, in
    /// order, as [`Measured::kls`].
    ///
    /// # Errors
    /// The folder is no model of the scene's shape, there is no room, or Ctrl-C.
    pub fn answers(&self, folder: &Path, each: usize) -> Result<(Vec<Rollout<'_>>, Vec<f64>), Error> {
        let after = duel_model::load(self.b, &Folder::open(folder)?)?;
        let drawn = self.draw(&after, &self.held_out, each, self.seed)?;
        let ds = groups(&drawn)?;
        let all: Vec<u32> = (0..ds.len() as u32).collect();
        let kls = sequence_kls(self.b, &self.config, &after, &self.before, &ds, &all)?;
        Ok((drawn, kls))
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
        let longest = self.learned.iter().map(|prompt| prompt.tokens.len()).max().unwrap_or(0);
        let limit = options.max_length.clone().unwrap_or(Maybe(Some(longest + self.new_tokens + 1)));
        let options = Options { model: Some(self.model.clone()), max_length: Some(limit), ..options };
        let config = settled(options, &self.dir, &output, self.seed).resolve()?;
        let last = runs::run(self.b, config, judge)?;
        Ok((output, last))
    }
}

/// The prompts of files, each of which a model of this shape can go on from.
///
/// # Errors
/// A row has no prompt, or one that leaves no room for an answer.
pub fn read_prompts(files: &Files, tokenizer: &Tokenizer, config: &Config) -> Result<Vec<Prompt>, Error> {
    let file = Prompts { files, tokenizer, as_messages: false };
    let mut all = Vec::new();
    file.each(|prompt| {
        let request = Request { prompt: &prompt.tokens, samples: 1, id: 0 };
        request.check(config).map_err(|e| file.wrong(&prompt, e))?;
        all.push(prompt);
        Ok(())
    })?;
    Ok(all)
}

/// What `judge` says of samples, prompt by prompt, where it says something of every one.
///
/// # Errors
/// The judge failed, or does not judge one of them.
pub fn scores(judge: &mut dyn Judge, drawn: &[Rollout<'_>]) -> Result<Vec<Vec<f64>>, Error> {
    let score = |opinion: Opinion| match opinion {
        Opinion::Said(score) => Ok(score),
        Opinion::Unjudged(why) => Err(Error::new(format!("the judge does not judge a sample: {why}"))),
    };
    opinions(judge, drawn)?.into_iter().map(|of| of.into_iter().map(score).collect()).collect()
}

/// What `judge` says of samples, prompt by prompt; `None` of those that it does not judge.
///
/// # Errors
/// The judge failed, or judges none of them.
pub fn judged(judge: &mut dyn Judge, drawn: &[Rollout<'_>]) -> Result<Vec<Vec<Option<f64>>>, Error> {
    let opinions = opinions(judge, drawn)?;
    let all = opinions.concat();
    if let (Some(Opinion::Unjudged(why)), None) = (all.first(), all.iter().find_map(Opinion::said)) {
        let (who, n) = (judge.describe(), all.len());
        return Err(Error::new(format!(
            "{who} judges none of {n} samples ({why}); name a judge that does, or mend what it is asked"
        )));
    }
    Ok(opinions.iter().map(|of| of.iter().map(Opinion::said).collect()).collect())
}

fn opinions(judge: &mut dyn Judge, drawn: &[Rollout<'_>]) -> Result<Vec<Vec<Opinion>>, Error> {
    Ok(judge.scores(&drawn.iter().map(case).collect::<Result<Vec<_>, _>>()?)?)
}

/// A run of an experiment in `dir`: its folder, and what is not said otherwise.
pub(crate) fn settled(options: Options, dir: &Path, output_dir: &Path, seed: u64) -> Options {
    Options {
        output_dir: Some(output_dir.into()),
        save_steps: options.save_steps.or(Some(0.into())),
        cache_dir: Some(dir.join("cache")),
        seed: options.seed.or(Some(seed)),
        ..options
    }
}

/// Writes a file of rows, and names it.
pub(crate) fn write_rows(path: PathBuf, rows: &[Value]) -> Result<PathBuf, Error> {
    let text: String = rows.iter().map(|r| format!("{r}\n")).collect();
    duel_model::write_synced(&path, text.as_bytes())?;
    Ok(path)
}
