//! From what a user says to what a run does: defaults, and everything that can be wrong with values that are read.

use super::range::out_of_range;
use super::steps::Steps;
use super::table::{Config, KEYS, Key, Options};
use super::values::{EvalStrategy, Losses, Method, Resume, SaveStrategy};
use crate::Error;
use duel_loss::policy;

impl Options {
    /// Fills in the defaults and checks everything.
    ///
    /// # Errors
    /// A required key is missing, a value is out of range, two keys contradict each other, or a key was set to
    /// something that would have no effect.
    pub fn resolve(self) -> Result<Config, Error> {
        let options = self.settle()?;
        let rank = options.lora_r.as_ref().map(|rank| rank.0);
        let contradiction = match (options.use_peft, rank) {
            (Some(false), Some(Some(r))) => Some(format!("`use_peft = false` and `lora_r = {r}`")),
            (Some(true), Some(None)) => Some("`use_peft = true` and `lora_r = none`".to_owned()),
            _ => None,
        };
        if let Some(both) = contradiction {
            return Err(Error::new(format!("{both} contradict each other; remove one")));
        }
        let mut config = options.clone().with_defaults()?;
        config.use_peft = config.lora_r.is_some();
        for key in KEYS {
            key.check_range(&config)?;
        }
        config.check_contradictions()?;
        match options.without_effect(&config)?.first() {
            Some((key, reason)) => Err(Error::new(format!("`{key}` has no effect {reason}; remove it"))),
            None => Ok(config),
        }
    }

    /// The keys that are given and have no effect on `config`, which these options make; and why.
    ///
    /// # Errors
    /// A path is not UTF-8.
    pub(super) fn without_effect(&self, config: &Config) -> Result<Vec<(&'static str, &'static str)>, Error> {
        let given = self.table()?;
        // The defaults that these options would have met, had only the deciding keys been given.
        let basis = Self {
            model: self.model.clone(),
            dataset: self.dataset.clone(),
            datasets: self.datasets.clone(),
            test_split_size: self.test_split_size.clone(),
            method: self.method,
            ..Self::default()
        };
        let defaults = basis.with_defaults()?.said().table()?;
        // A value equal to the default may stand: a written configuration names every key.
        let changed = |key: &&Key| given.get(key.name).is_some_and(|v| Some(v) != defaults.get(key.name));
        let idle = |key: &'static Key| Some((key.name, key.no_effect(config)?));
        Ok(KEYS.iter().filter(changed).filter_map(idle).collect())
    }
}

impl Config {
    /// Whether a loss compares the policy with a reference.
    pub fn compares_with_reference(&self) -> bool {
        let of_pairs = self.method.has_reference() && self.loss_type.known().any(|word| word.reference);
        of_pairs || self.method == Method::Sppo
    }

    /// Whether what is drawn is of the model's own distribution.
    pub fn draws_as_is(&self) -> bool {
        let filtered = self.top_k != 0 || self.top_p != 1.0 || self.min_p != 0.0;
        self.temperature == 1.0 && !filtered && self.repetition_penalty == 1.0
    }

    /// Whether its samples are held to a reference at all.
    pub fn holds_samples(&self) -> bool {
        match self.method {
            Method::Ppo => self.kl_coef > 0.0,
            Method::Reinforce | Method::Rloo | Method::Grpo => self.beta > 0.0,
            method => method.is_online(),
        }
    }

    /// Which losses go with which method.
    fn check_losses(&self) -> Result<(), Error> {
        let own = |name: &&&str| self.method.takes_loss(name);
        let Some(odd) = self.loss_type.0.iter().find(|name| !own(name)) else { return Ok(()) };
        let takes = |method: &&Method| method.takes_loss(odd);
        let other = Method::ALL.iter().filter(|m| **m != Method::Sft).find(takes);
        let other = other.map_or(String::new(), |m| format!(" but with `method = {m}`"));
        let all = Losses::all();
        let taken: Vec<&str> = all.iter().filter(own).copied().collect();
        Err(Error::new(format!(
            "`loss_type = {odd}` does not go with `method = {}`{other}; {} takes {}",
            self.method,
            self.method,
            taken.join(", ")
        )))
    }

    /// What is said of samples that steps learn from.
    fn check_samples(&self) -> Result<(), Error> {
        let wrong = |message: String| Err(Error::new(message));
        let method = self.method;
        if !method.is_online() {
            return match self.judging.said().next() {
                Some((name, _)) => {
                    wrong(format!("`{name}` has no effect but with methods that have a judge; remove it"))
                }
                None => Ok(()),
            };
        }
        if self.judge.is_none() {
            return wrong(format!(
                "`method = {method}` needs a judge of its samples; give `judge`, for example lexicon:FILE, program:COMMAND \
                 or http:URL"
            ));
        }
        let least = match method {
            Method::Rloo | Method::Grpo | Method::OnlineDpo | Method::Sppo => 2,
            _ => 1,
        };
        let n = self.num_generations;
        if n < least {
            return wrong(format!(
                "`num_generations = {n}` is too few for `method = {method}`, which compares the samples of a prompt; give at \
                 least {least}"
            ));
        }
        if matches!(method, Method::Xpo | Method::NashMd) && n != 1 {
            return wrong(format!(
                "`num_generations = {n}` does not go with `method = {method}`, which draws one sample of the policy and one \
                 that it is compared with; remove it"
            ));
        }
        if self.loss_type.0.len() != 1 && self.loss_type.0.iter().any(|name| policy::word(name).is_some()) {
            return wrong("`loss_type` has a loss of samples beside another; keep one".into());
        }
        let plain = self.draws_as_is();
        if method.is_policy_gradient() && !plain {
            return wrong(format!(
                "`temperature`, `top_k`, `top_p`, `min_p` and `repetition_penalty` do not go with `method = {method}`: its \
                 gradient is of samples of the policy itself; remove them"
            ));
        }
        if self.temperature == 0.0 {
            return wrong(format!(
                "`temperature = 0` draws the same sample again and again, and `method = {method}` compares different ones"
            ));
        }
        let samples = self.batch_size() * n;
        if self.target_kl.is_some() && self.kl_horizon < samples as f64 {
            return wrong(format!(
                "`kl_horizon = {}` is less than the {samples} samples of a step: kl_coef would overshoot its target; raise it",
                self.kl_horizon
            ));
        }
        if !self.batch_size().is_multiple_of(self.num_mini_batches) {
            return wrong(format!(
                "`num_mini_batches = {}` does not divide the {} prompts of a step",
                self.num_mini_batches,
                self.batch_size()
            ));
        }
        if self.target_kl.is_some() && self.kl_coef == 0.0 {
            return wrong(
                "`target_kl` moves `kl_coef` by a factor, and it is 0; give it a value above".into(),
            );
        }
        if let Some(all) = self.max_length.filter(|all| self.max_completion_length >= *all) {
            return wrong(format!(
                "`max_completion_length = {}` leaves no room for a prompt in `max_length = {all}`; lower it, or raise that",
                self.max_completion_length
            ));
        }
        if self.replay > 0 && !plain {
            return wrong(
                "`replay` weighs pairs by how likely the policy was to draw them, and `temperature`, `top_k`, `top_p`, \
                 `min_p` and `repetition_penalty` change that; remove them"
                    .into(),
            );
        }
        Ok(())
    }

    /// What does not go with adapters yet, where there are `adapters`.
    ///
    /// # Errors
    /// It is asked for.
    pub fn check_adapters(&self, adapters: bool, dropout: f64) -> Result<(), Error> {
        if adapters && self.sync_ref_model {
            return Err(Error::new(format!(
                "{} a reference that follows the policy does not go with adapters yet; train all weights, or {}",
                if self.method == Method::Sppo { "`method = sppo`:" } else { "`sync_ref_model`:" },
                if self.method == Method::Sppo { "take another method" } else { "remove it" }
            )));
        }
        if adapters && dropout > 0.0 && self.method.is_online() {
            return Err(Error::new(format!(
                "`lora_dropout = {dropout}` does not go with `method = {}`, which weighs samples by what the policy says of \
                 them; set it to 0",
                self.method
            )));
        }
        Ok(())
    }

    /// What is said of the rows.
    fn check_rows(&self) -> Result<(), Error> {
        let wrong = |message: String| Err(Error::new(message));
        if let Some(all) = &self.datasets {
            if self.dataset != all.name() {
                return wrong("`dataset` and `datasets` are both given; keep one".into());
            }
            let beside = [
                ("dataset_config", self.dataset_config.is_some()),
                ("dataset_train_split", self.dataset_train_split != "train"),
                ("data_files", self.data_files.is_some()),
                ("dataset_revision", self.dataset_revision.is_some()),
                ("columns", self.columns.is_some()),
            ];
            if let Some((key, _)) = beside.iter().find(|(_, said)| *said) {
                return wrong(format!(
                    "`{key}` says nothing of `datasets`; give it in the entries that it is of"
                ));
            }
        }
        if let Some(all) = &self.eval_datasets {
            if self.eval_dataset != Some(all.name()) {
                return wrong("`eval_dataset` and `eval_datasets` are both given; keep one".into());
            }
            if self.dataset_test_split != "test" {
                return wrong(
                    "`dataset_test_split` says nothing of `eval_datasets`; give `split` in the entries that it is of"
                        .into(),
                );
            }
        }
        self.columns.iter().try_for_each(|called| called.columns().map(drop))?;
        match self.test_split_size {
            Some(_) if self.eval_dataset.as_ref() != Some(&self.dataset) => {
                wrong("`test_split_size` and `eval_dataset` both say what is evaluated on; keep one".into())
            }
            Some(_) if self.dataset_test_split != "test" => wrong(
                "`dataset_test_split` and `test_split_size` both say what is evaluated on; keep one".into(),
            ),
            Some(size) if size >= 1.0 && size.fract() != 0.0 => {
                wrong(format!("`test_split_size = {size}` is no share below 1 and no number of rows"))
            }
            _ => Ok(()),
        }
    }

    /// What is said of evaluations and of which is the best.
    fn check_evaluations(&self) -> Result<(), Error> {
        let wrong = |message: String| Err(Error::new(message));
        if self.eval_strategy != EvalStrategy::No && self.eval_dataset.is_none() {
            return wrong(format!(
                "`eval_strategy = {}` needs rows to evaluate on; give `eval_dataset`",
                self.eval_strategy
            ));
        }
        if self.chooses() && self.eval_strategy == EvalStrategy::No {
            let key = match (self.load_best_model_at_end, self.early_stopping_patience) {
                (true, _) => "load_best_model_at_end",
                (_, Some(_)) => "early_stopping_patience",
                _ => "save_strategy = best",
            };
            return wrong(format!("`{key}` compares evaluations; give `eval_dataset`"));
        }
        if !self.load_best_model_at_end || self.save_strategy == SaveStrategy::Best {
            return Ok(());
        }
        // A checkpoint that was not evaluated could not be the best.
        let together = match (self.eval_strategy, self.save_strategy) {
            (EvalStrategy::Epoch, SaveStrategy::Epoch) => true,
            (EvalStrategy::End, SaveStrategy::Steps) => self.save_steps == Steps::Of(0),
            (EvalStrategy::Steps, SaveStrategy::Steps) => {
                match (self.eval_steps.unwrap_or(self.logging_steps), self.save_steps) {
                    (_, Steps::Of(0)) => true,
                    (Steps::Of(eval), Steps::Of(save)) => eval > 0 && save.is_multiple_of(eval),
                    (Steps::Share(eval), Steps::Share(save)) => {
                        let times = save / eval;
                        times >= 0.5 && (times - times.round()).abs() < 1e-9
                    }
                    _ => false,
                }
            }
            _ => false,
        };
        match together {
            true => Ok(()),
            false => wrong(
                "`load_best_model_at_end` needs an evaluation of every checkpoint: `save_strategy = best`, or both \
                 strategies epoch, or both steps with `save_steps` a multiple of `eval_steps`"
                    .into(),
            ),
        }
    }

    fn check_contradictions(&self) -> Result<(), Error> {
        let wrong = |message: &str| Err(Error::new(message));
        self.check_rows()?;
        let (batch, batches) = (self.per_device_train_batch_size, self.gradient_accumulation_steps);
        if batch.checked_mul(batches).is_none() {
            return Err(out_of_range("gradient_accumulation_steps", &batches, "smaller"));
        }
        // An update of ppo is of a part of the samples.
        let groups = batch * batches / self.num_mini_batches;
        if self.gradient_shares > groups {
            let update = if self.num_mini_batches > 1 { "an update" } else { "a step" };
            return wrong(&format!(
                "`gradient_shares = {}` is more than the {groups} groups of {update}; lower it, or raise \
                 `per_device_train_batch_size` or `gradient_accumulation_steps`",
                self.gradient_shares
            ));
        }
        if self.loss_weights.as_ref().is_some_and(|w| w.0.len() != self.loss_type.0.len()) {
            return wrong(
                "`loss_weights` and `loss_type` are lists of different lengths; give a weight to each loss",
            );
        }
        if self.loss_weights.as_ref().is_some_and(|w| !w.0.iter().all(|x| x.is_finite() && *x >= 0.0)) {
            return wrong("`loss_weights` has a weight that is negative or no number");
        }
        if self.loss_weights.as_ref().is_some_and(|w| w.0.iter().all(|x| *x == 0.0)) {
            return wrong("`loss_weights` are all 0: nothing would be learned");
        }
        if self.method == Method::Kto && self.desirable_weight + self.undesirable_weight == 0.0 {
            return wrong("`desirable_weight` and `undesirable_weight` are both 0: nothing would be learned");
        }
        if self.loss_type.0.contains(&"exo_pair") && self.label_smoothing == 0.0 {
            return wrong("`loss_type = exo_pair` needs `label_smoothing` above 0, for example 1e-3");
        }
        if self.beta == 0.0 && !self.method.is_policy_gradient() && self.loss_type.use_setting("beta") {
            return Err(out_of_range("beta", &self.beta, "above 0"));
        }
        if self.load_in_8bit && self.load_in_4bit {
            return wrong("`load_in_8bit` and `load_in_4bit` are both set; keep one");
        }
        if self.lora_target_modules.as_ref().is_some_and(|names| names.0.is_empty()) {
            return wrong("`lora_target_modules` names nothing; remove it, or give all-linear");
        }
        self.check_adapters(self.lora_r.is_some(), self.lora_dropout)?;
        self.check_losses()?;
        self.check_samples()?;
        self.schedule_kind()?;
        self.check_evaluations()?;
        if self.overwrite_output_dir && self.resume_from_checkpoint != Resume::Off {
            return wrong(
                "`overwrite_output_dir` starts anew and `resume_from_checkpoint` continues; keep one",
            );
        }
        if self.generate_during_eval && self.method == Method::Reward {
            return wrong(
                "`generate_during_eval` has no effect with `method = reward`, which writes no text",
            );
        }
        if self.generate_during_eval && self.eval_dataset.is_none() {
            return wrong("`generate_during_eval` needs prompts; give `eval_dataset`");
        }
        Ok(())
    }
}
