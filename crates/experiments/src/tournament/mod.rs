//! Policies against each other: each writes, a judge compares, and the game of their win rates is solved.

pub mod bandit;
pub mod contest;
pub mod entrant;
pub mod game;
pub mod held_out;
pub mod intransitive;
pub mod mixture;
mod report;
pub mod selfplay;
pub mod standing;

use crate::study::Study;
use duel_backend::Backend;
use duel_data::Files;
use duel_judge::Judge;
use duel_model::decode::Sampling;
use duel_train::Error;
use duel_train::content::digest;
use duel_train::reference::ModelId;
use duel_train::sample::said;
use entrant::Entrant;
use serde_json::{Map, Value, json};
use standing::Standing;
use std::path::PathBuf;

/// What is played.
pub struct Tournament {
    /// Who plays.
    pub entrants: Vec<Entrant>,
    /// Prompts, as `duel sample` reads them.
    pub dataset: Files,
    /// Samples of each prompt and policy.
    pub samples: usize,
    /// How they are drawn; its seed is that of the intervals too.
    pub how: Sampling,
    /// Whether weights are held in 8-bit blocks.
    pub load_in_8bit: bool,
    /// Where everything is put down; what is there of the same tournament is gone on with.
    pub output_dir: PathBuf,
}

impl Tournament {
    /// Plays it, and writes `tournament.json`, `.csv`, `.svg` and `.md` to the folder, of which the last is returned.
    ///
    /// # Errors
    /// The policies cannot play; the device, the judge or the disk failed; or Ctrl-C.
    pub fn play<B: Backend>(&self, b: &B, judge: &mut dyn Judge) -> Result<String, Error> {
        entrant::check(&self.entrants)?;
        let prompts: Vec<_> =
            self.entrants.iter().map(|e| e.prompts(&self.dataset)).collect::<Result<_, _>>()?;
        let settings = self.settings(b, judge)?;
        let mut study = Study::open(&self.output_dir, &settings)?;
        let mut answers = Vec::new();
        for (entrant, prompts) in self.entrants.iter().zip(&prompts) {
            answers.push(entrant.draw(b, &mut study, self, prompts)?);
        }
        let names: Vec<String> = self.entrants.iter().map(|entrant| entrant.name.clone()).collect();
        let judged = contest::judged(judge, &mut study, &names, &prompts[0], &answers)?;
        let standing = Standing::of(&judged.contests, self.how.seed)?;
        self.report(&settings, &judged, &standing)
    }

    /// What all samples and verdicts are of, each under a name that an error can call what differs.
    fn settings<B: Backend>(&self, b: &B, judge: &dyn Judge) -> Result<Map<String, Value>, Error> {
        let names: Vec<&str> = self.entrants.iter().map(|entrant| &*entrant.name).collect();
        let weights = |entrant: &Entrant| {
            Ok::<_, Error>((
                format!("weights_of_{}", entrant.name),
                json!(ModelId::of(&entrant.folder)?.digest()),
            ))
        };
        let weights = self.entrants.iter().map(weights).collect::<Result<Vec<_>, _>>()?;
        let all = [
            ("set_of_policies", json!(names.join(", "))),
            ("prompt_file", json!(digest(&self.dataset)?)),
            ("judge", json!(judge.describe())),
            ("judge_identity", json!(judge.identity())),
            ("device", json!(b.identity())),
            ("load_in_8bit", json!(self.load_in_8bit)),
            ("num_generations", json!(self.samples)),
        ];
        let all = all.into_iter().chain(said(&self.how));
        Ok(all.map(|(name, value)| (name.to_owned(), value)).chain(weights).collect())
    }
}
