//! A reward model's folder as a judge: it reads an answer's tokens, and its value at the last of them is the score.

use crate::engine::{Engine, Room};
use crate::reference::content;
use crate::{Error, check_tokens};
use duel_backend::Backend;
use duel_data::{
    Asked, Builder, Context, Dataset, Drawn, Message, Options, Task, Tokenizer, Truncation, Whole,
};
use duel_judge::{
    Case, Judge, Maker, Normalization, Opinion, Pair, Prompt, Says, Stop, Tally, compare_by_scoring,
};
use duel_model::{Config as ModelConfig, Folder, Held, Keep, Model, Output};
use std::path::{Path, PathBuf};

/// Of each answer of each case: that its tokens are scored, or why not.
type Fits = Vec<Vec<Result<(), String>>>;

/// A model with a scalar head, ours or one of transformers' sequence classification with one label.
///
/// The answers of a case are one group, of which the prompt is computed once. Where the longest of them leaves no room
/// for all of the prompt, its start goes, for all of them alike; an answer that has itself no room is unjudged.
pub struct RewardModel<'b, B: Backend> {
    b: &'b B,
    path: PathBuf,
    identity: String,
    tokenizer: Tokenizer,
    model: ModelConfig,
    weights: Held<B>,
    normalization: Option<Normalization>,
    /// Room for the largest cases so far.
    engine: Option<(Room, Engine<'b, B>)>,
    stop: Stop,
    tally: Tally,
}

impl<'b, B: Backend> RewardModel<'b, B> {
    /// What makes it by the name `model:FOLDER`.
    pub fn maker(b: &'b B) -> Maker<'b> {
        Maker::new("model", "FOLDER", "a reward model's folder", move |folder, _, stop| {
            Ok(Box::new(RewardModel::open(b, Path::new(folder), stop.clone())?))
        })
    }

    /// Reads the folder `path`. Its rewards are normalised where it has a [`Normalization::FILE`]. Work ends at the
    /// next micro-batch after `stop` says so.
    ///
    /// # Errors
    /// The folder is broken, or that of a language model; or the device has no room.
    pub fn open(b: &'b B, path: &Path, stop: Stop) -> Result<Self, Error> {
        let path = &crate::folder(path)?;
        let folder = Folder::open(path)?;
        folder.notes().iter().for_each(|note| say!("note: {note}"));
        let model = folder.config().clone();
        if model.output == Output::Logits {
            return Err(Error::new(format!(
                "{}: is a language model, without a head that gives scores; train a reward model with --method reward",
                path.display()
            )));
        }
        let normalization = Normalization::read(path)?;
        let normalised = normalization.map_or_else(String::new, |n| format!(", {}", n.text()));
        let identity = format!("reward model {} on {}{normalised}", content(path)?, b.identity());
        let weights = duel_model::load_frozen(b, &folder)?;
        say!(
            "judge {}: {:.2} M parameters, {:?}, {:.2} GB; {}{}",
            path.display(),
            Model::manifest(&model).parameters() as f64 / 1e6,
            model.family,
            weights.bytes(b) as f64 / 1e9,
            b.describe(),
            if normalization.is_some() { "; normalised rewards" } else { "" }
        );
        Ok(RewardModel {
            b,
            path: path.to_path_buf(),
            identity,
            tokenizer: crate::tokenizer(path)?,
            model,
            weights,
            normalization,
            engine: None,
            stop,
            tally: Tally::default(),
        })
    }

    /// The answers as tokens, a group a case.
    fn read(&mut self, cases: &[Case]) -> Result<(Builder, Fits), Error> {
        let most = self.model.max_positions;
        // Of a prompt that is too long the start goes, of an answer nothing.
        let (task, truncation) = (Task::Reward, Truncation::KeepEnd);
        let mut builder =
            Builder::new(&Options { task, whole: Whole::default(), max_length: Some(most), truncation });
        let mut all = Vec::with_capacity(cases.len());
        for (i, case) in cases.iter().enumerate() {
            let drawn: Vec<Drawn<'_>> = case
                .answers
                .iter()
                .map(|a| Drawn { text: &a.text, tokens: &a.tokens, truncated: a.truncated })
                .collect();
            let answered = asked(&case.prompt)?.answered(&drawn, &self.tokenizer).map_err(|what| {
                let shown: String = case.prompt.text().chars().take(60).collect();
                Error::new(format!("{}: an answer to {shown:?} {what}", self.path.display()))
            })?;
            self.tally.encoded_again += answered.encoded_again as u64;
            let fits = |response: &Vec<u32>| match response.len() {
                0 => Err("it says nothing".to_owned()),
                n if n > most => Err(format!(
                    "its {n} tokens are more than the {most} positions of {}",
                    self.path.display()
                )),
                _ => Ok(()),
            };
            let verdicts: Vec<_> = answered.responses.iter().map(fits).collect();
            let kept = answered.responses.iter().zip(&verdicts).filter(|(_, fits)| fits.is_ok());
            let kept: Vec<&[u32]> = kept.map(|(response, _)| response.as_slice()).collect();
            if !kept.is_empty() {
                builder.push_every(i + 1, &answered.prompt, &kept)?;
            }
            all.push(verdicts);
        }
        Ok((builder, all))
    }

    /// The value of every response of `ds`, in order; fewer where it was stopped.
    fn values(&mut self, ds: &Dataset) -> Result<Vec<f64>, Error> {
        let needed = Room::plan(self.b, ds, ds.len(), 0, self.model.vocab);
        let room = self.engine.as_ref().map_or(needed, |(room, _)| room.and(needed));
        let engine = match self.engine.take().filter(|(had, _)| *had == room) {
            Some((_, engine)) => engine,
            // The smaller one is gone by now.
            None => Engine::new(self.b, &self.model, room, Keep::Nothing)?,
        };
        let (_, engine) = self.engine.insert((room, engine));
        let groups: Vec<u32> = (0..ds.len() as u32).collect();
        let stats = engine.score(&self.weights, ds, &groups, |_| !(self.stop)())?;
        Ok(stats.iter().map(|response| response.value).collect())
    }
}

/// A prompt as tokenizers have it.
fn asked(prompt: &Prompt) -> Result<Asked, Error> {
    Ok(match prompt {
        Prompt::Text(text) => Asked::Text(text.clone()),
        Prompt::Chat(turns, context) => {
            let turns = turns.iter().map(|turn| Message::new(&*turn.role, &*turn.text)).collect();
            let context = Context::of(context.clone());
            Asked::Chat(turns, context.map_err(|what| Error::new(format!("a prompt {what}")))?)
        }
    })
}

impl<B: Backend> Judge for RewardModel<'_, B> {
    fn describe(&self) -> String {
        format!("the reward model {}", self.path.display())
    }

    fn identity(&self) -> String {
        self.identity.clone()
    }

    fn says(&self) -> Says {
        Says::Scores
    }

    fn scores(&mut self, cases: &[Case]) -> duel_judge::Result<Vec<Vec<Opinion>>> {
        let (builder, read) = self.read(cases)?;
        let judged: usize = read.iter().flatten().filter(|fits| fits.is_ok()).count();
        let mut values = Vec::new().into_iter();
        if judged > 0 {
            let ds = builder.finish().map_err(Error::from)?;
            check_tokens(&ds, &self.path, &self.model)?;
            self.tally.cut += ds.report().truncated as u64;
            let all = self.values(&ds)?;
            if all.len() < judged {
                return Err(duel_judge::Error::Stopped);
            }
            if let Some(bad) = all.iter().find(|value| !value.is_finite()) {
                let path = self.path.display();
                let what = format!("{path}: gives an answer a reward of {bad}; its weights are broken");
                return Err(duel_judge::Error::Failed(what));
            }
            values = all.into_iter();
        }
        let normalization = self.normalization;
        let mut score = |fits| match fits {
            Ok(()) => {
                let value = values.next().expect("a value of every answer that is among them");
                Opinion::Said(normalization.map_or(value, |n| n.apply(value)))
            }
            Err(why) => Opinion::Unjudged(why),
        };
        Ok(read.into_iter().map(|case| case.into_iter().map(&mut score).collect()).collect())
    }

    fn compare(&mut self, pairs: &[Pair<'_>]) -> duel_judge::Result<Vec<Opinion>> {
        compare_by_scoring(self, pairs)
    }

    fn computes(&self) -> bool {
        true
    }

    fn tally(&self) -> Tally {
        self.tally
    }
}
