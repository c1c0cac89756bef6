//! What learning from the groups of a file has beside a plan: its objective, its reference, its samples.

use super::data::Data;
use super::plan::Plan;
use super::visits::Visits;
use crate::Error;
use crate::config::Config;
use crate::engine::{Engine, Room, Scoring};
use crate::memory::{Bytes, KeptReference};
use crate::objective::Objective;
use crate::ranks::Cut;
use crate::sample;
use duel_backend::Backend;
use duel_data::Dataset;
use duel_model::decode::{self, Request, Room as SampleRoom, Sampling};
use duel_model::{Config as ModelConfig, Folder};
use std::path::{Path, PathBuf};

/// What is learned from the groups of a file, and what goes with it.
pub struct Aim {
    /// What is learned.
    pub objective: Objective,
    /// Where the reference's log-probabilities are kept; `None`: the objective needs none.
    pub reference_cache: Option<PathBuf>,
    /// What of a group is scored.
    pub scoring: Scoring,
    /// How the reference follows the policy: after every so many steps, by what share; `None`: it stays.
    pub follow: Option<(u64, f64)>,
    /// What is drawn at every evaluation.
    pub samples: Option<Samples>,
    /// The reference's weights stay: it follows the policy, or the KL of the samples is from it.
    pub keep_reference: bool,
}

/// Samples that an evaluation draws.
pub struct Samples {
    /// The prompts that are continued.
    pub prompts: Vec<Vec<u32>>,
    /// How.
    pub how: Sampling,
}

/// The plan of training `model`, of the folder `folder`, on the groups of `data` as `config` says, on `b`: what it
/// allocates, and its text.
///
/// # Errors
/// Those of [`Plan::new`], or a file of the model is damaged.
pub fn plan<B: Backend>(
    b: &B,
    config: &Config,
    processes: usize,
    (folder, model): (&Folder, &ModelConfig),
    data: &Data,
) -> Result<(Plan, Aim, Bytes, String), Error> {
    let objective = Objective::of(config);
    let (ds, eval) = (&data.train, data.eval.as_ref());
    let room = |ds: &Dataset, batch| Room::plan(b, ds, batch, config.micro_batch_tokens, model.vocab);
    let scored = eval.into_iter().chain(&data.train_mismatched).chain(&data.eval_mismatched);
    let visits = Visits::of(config, ds.len());
    let needs = objective.needs();
    let cut = Cut { shares: config.gradient_shares, processes };
    let share = cut.largest_share(visits.batch);
    let learning = match room(ds, share) {
        all if needs.prompt => all,
        all => all.for_responses(ds, share),
    };
    let samples = eval
        .filter(|_| config.generate_during_eval)
        .map(|e| Samples::of(config, model, e))
        .filter(|samples| !samples.prompts.is_empty());
    let aim = Aim {
        reference_cache: needs.reference.then(|| config.cache_dir.clone()),
        scoring: Scoring { tails: config.ld_alpha, prompts: needs.prompt },
        follow: config.follows(),
        keep_reference: config.sync_ref_model || samples.is_some() && needs.reference,
        objective,
        samples,
    };
    let all = scored.fold(learning, |all, ds| all.and(room(ds, config.per_device_eval_batch_size)));
    let plan = Plan::new::<B>(config, cut, model, visits, learning, all)?;
    let sampler = |samples: &Samples| decode::Engine::<B>::plan(b.portions(), model, samples.room());
    let sampler = aim.samples.as_ref().map(|samples| (samples, sampler(samples)));
    let kept = KeptReference::of(config, aim.keep_reference);
    let bytes =
        Bytes::of_model::<B>(folder, model, config.form(), plan.keep, (plan.algorithm, cut, 0), kept)?
            .with(Engine::<B>::bytes(model, plan.room, plan.keep))
            .and("samples", sampler.map_or(0, |(_, plan)| plan.bytes()));
    let mut beside = String::new();
    if let Some((samples, plan)) = sampler {
        beside += &format!("      samples: {plan}\n");
        if aim.keep_reference {
            let new = samples.how.max_new_tokens;
            let bytes = sample::kl_bytes::<B>(b.portions(), model, &samples.requests(), new);
            beside += &format!("      up to {:.2} GB more while their KL is measured\n", bytes as f64 / 1e9);
        }
    }
    let rows = rows("train", &config.dataset, ds)
        + &config.eval_dataset.as_deref().zip(eval).map_or(String::new(), |(path, e)| rows("eval ", path, e));
    let text = plan.text(b, config, model, &rows, &bytes, &beside);
    Ok((plan, aim, bytes, text))
}

impl Samples {
    /// One of each prompt.
    pub fn requests(&self) -> Vec<Request<'_>> {
        Request::each(&self.prompts)
    }

    /// Room to draw them.
    pub fn room(&self) -> SampleRoom {
        SampleRoom::of(self.requests(), sample::SEQUENCES, self.how.max_new_tokens)
    }

    fn of(c: &Config, model: &ModelConfig, eval: &Dataset) -> Self {
        let continued = eval.groups().filter(|g| (1..model.max_positions).contains(&g.prompt.len()));
        Samples {
            prompts: continued.take(c.num_eval_samples).map(|g| g.prompt.to_vec()).collect(),
            how: sample::sampling(c, c.max_new_tokens),
        }
    }
}

fn rows(what: &str, path: &Path, ds: &Dataset) -> String {
    // What nobody would notice is not worth a word.
    let bytes = Some(ds.bytes()).filter(|bytes| *bytes >= 10_000_000);
    let bytes = bytes.map_or(String::new(), |bytes| format!("; {:.2} GB in memory", bytes as f64 / 1e9));
    format!("{what} {}: {}{bytes}\n", path.display(), ds.report())
}
