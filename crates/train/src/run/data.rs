//! The rows that a run reads.

use crate::Error;
use crate::config::{Config, Method, TruncationMode};
use crate::ranks::{Ranks, check_run};
use crate::report::progress::Progress;
use crate::signal;
use crate::tokens::{Found, LEAST, Tokens};
use duel_data::{Dataset, Files, Group, Labels, Options, Task, Tokenizer, Truncation, Whole};
use duel_loss::Needs;
use duel_model::{Config as ModelConfig, tokenizer_folder};
use std::collections::BTreeSet;
use std::path::Path;

/// The groups of a run.
pub struct Data {
    /// Those that it learns from.
    pub train: Dataset,
    /// Those that it is judged by.
    pub eval: Option<Dataset>,
    /// The prompts that it learns from, each with the response to another one, where a loss measures rewards by such.
    pub train_mismatched: Option<Dataset>,
    /// The same of those that it is judged by.
    pub eval_mismatched: Option<Dataset>,
}

impl Data {
    /// Reads the files that `config` names, as long as `model` can go, with what a loss `needs`.
    ///
    /// # Errors
    /// A file cannot be read, its rows do not fit the method or the model, or Ctrl-C.
    pub fn load(
        ranks: &Ranks<'_>,
        config: &Config,
        needs: Needs,
        model: &ModelConfig,
        tokenizer: &Tokenizer,
    ) -> Result<Self, Error> {
        let max_length = max_length(config, model);
        let load = |files: &Files| rows(ranks, files, config, max_length, model, tokenizer);
        let (of_train, of_eval) = config.all_files()?;
        let train = load(&of_train)?;
        let eval = of_eval.as_ref().map(load).transpose()?;
        // As TRL pairs them: in the order of the file, whatever the order of the steps, in blocks as large as a step.
        let mismatched = |ds: &Dataset, files: &Files, block: usize| {
            let named = |e| Error::new(format!("{}: {e}", files.name().display()));
            needs.kl.then(|| ds.mismatched(block).map_err(named)).transpose()
        };
        // An evaluation has no steps: its block is the file, whatever is scored at a time.
        let evaluated = eval.as_ref().zip(of_eval.as_ref());
        Ok(Data {
            train_mismatched: mismatched(&train, &of_train, config.batch_size())?,
            eval_mismatched: evaluated
                .map(|(ds, files)| mismatched(ds, files, ds.len()))
                .transpose()?
                .flatten(),
            train,
            eval,
        })
    }
}

/// The groups of the rows of `files`, as `config` has them for `model`, of up to `max_length` tokens ([`max_length`]).
///
/// # Errors
/// A file cannot be read, its rows do not fit the method or the model, a rank has others, or Ctrl-C.
pub fn rows(
    ranks: &Ranks<'_>,
    files: &Files,
    config: &Config,
    max_length: usize,
    model: &ModelConfig,
    tokenizer: &Tokenizer,
) -> Result<Dataset, Error> {
    let ds = read(ranks, files, config, tokenizer, &row_options(config, max_length))?;
    check_rows(&ds, files.name(), config, model)?;
    Ok(ds)
}

/// Whether a run that is as `config` says can learn from groups of `path`.
///
/// # Errors
/// It cannot: `model` has not their tokens, or no loss has a use for what is known of the responses.
pub fn check_rows(ds: &Dataset, path: &Path, config: &Config, model: &ModelConfig) -> Result<(), Error> {
    check_tokens(ds, &config.model, model)?;
    check_labels(ds, path, config)
}

/// How a run that is as `c` says reads rows, of up to `max_length` tokens ([`max_length`]).
pub fn row_options(c: &Config, max_length: usize) -> Options {
    Options {
        task: match c.method {
            Method::Sft => Task::Sft,
            Method::Kto => Task::Unpaired,
            Method::Reward => Task::Reward,
            _ => Task::Preference,
        },
        whole: Whole { completions: !c.completion_only_loss, conversations: !c.assistant_only_loss },
        max_length: Some(max_length),
        truncation: match c.truncation_mode {
            TruncationMode::KeepStart => Truncation::KeepStart,
            TruncationMode::KeepEnd => Truncation::KeepEnd,
        },
    }
}

/// The configured length, but no longer than the model can go; says so where it is less.
pub fn max_length(c: &Config, model: &ModelConfig) -> usize {
    match c.max_length {
        Some(n) if n <= model.max_positions => n,
        asked => {
            let asked = asked.map_or("none".to_string(), |n| n.to_string());
            say!("max_length {asked} is lowered to {}: the model has no more positions", model.max_positions);
            model.max_positions
        }
    }
}

/// The rows of `files` as tokens: those that are kept of them, or made now, and kept.
fn read(
    ranks: &Ranks<'_>,
    files: &Files,
    config: &Config,
    tokenizer: &Tokenizer,
    options: &Options,
) -> Result<Dataset, Error> {
    let keeps = config.cache_tokens && files.bytes() >= LEAST;
    if !keeps && ranks.size() == 1 {
        return tokenise(ranks, files, tokenizer, options);
    }
    let tokens = same(ranks, files, config, options)?;
    if !keeps {
        return tokenise(ranks, files, tokenizer, options);
    }
    let found = match tokens.read(options) {
        Found::Whole(ds) => Some(ds),
        Found::Nothing => None,
        Found::Damaged => {
            say!("note: {} is damaged, and made anew", tokens.path().display());
            None
        }
    };
    // Where processes have a folder each, one may be without.
    let missing = ranks.all(found.is_none())?;
    if let Some(ds) = found.filter(|_| !missing.contains(&true)) {
        say!("tokens of {} read from {}", files.name().display(), tokens.path().display());
        return Ok(*ds);
    }
    let ds = tokenise(ranks, files, tokenizer, options)?;
    // A file that was changed while it was read is of neither content.
    if ranks.any(tokens_of(files, config, options)?.path() != tokens.path())? {
        return Ok(ds);
    }
    // Each heard of the time what the rows asked for that it tokenised.
    let told: BTreeSet<(String, String)> = ranks.all(tokenizer.told())?.into_iter().flatten().collect();
    let told = Vec::from_iter(told);
    // One after the other: in one folder for all, the first of them is enough.
    for rank in 0..ranks.size() {
        if rank == ranks.rank() && !matches!(tokens.read(options), Found::Whole(_)) {
            keep(&tokens, &ds, &told, files);
        }
        ranks.any(false)?;
    }
    Ok(ds)
}

/// Where the tokens of `files` are kept, or would be, once all ranks are known to have the same before them.
///
/// # Errors
/// One has not, or a file cannot be read.
pub fn same(ranks: &Ranks<'_>, files: &Files, config: &Config, options: &Options) -> Result<Tokens, Error> {
    let tokens = tokens_of(files, config, options)?;
    check_run(ranks, &[("set of rows", format!("{} ({})", files.name().display(), tokens.key()))])?;
    Ok(tokens)
}

/// Puts tokens where the next run looks for them. It does without where that cannot be.
fn keep(tokens: &Tokens, ds: &Dataset, told: &[(String, String)], files: &Files) {
    if let Err(e) = tokens.write(ds, told) {
        say!(
            "note: the tokens of {} are not kept: {}: {e}; set cache_dir to a folder with room, or cache_tokens to false",
            files.name().display(),
            tokens.path().display()
        );
    }
}

fn tokens_of(files: &Files, config: &Config, options: &Options) -> Result<Tokens, Error> {
    let tokenizer = tokenizer_folder(&super::folder(&config.model)?)?;
    Tokens::of(&config.cache_dir, files, &tokenizer, options)
}

fn tokenise(
    ranks: &Ranks<'_>,
    files: &Files,
    tokenizer: &Tokenizer,
    options: &Options,
) -> Result<Dataset, Error> {
    let mut progress: Option<(Progress, u64)> = None;
    let loaded = Dataset::load_watched(files, tokenizer, options, Some(ranks), &mut |at| {
        let (bar, done) = progress.get_or_insert_with(|| (Progress::reading("tokenising", at.total), 0));
        bar.advance(at.bytes - *done);
        *done = at.bytes;
        !signal::interrupted()
    });
    drop(progress);
    match loaded {
        Err(_) if signal::interrupted() => {
            Err(Error::new(format!("stopped while reading {}", files.name().display())))
        }
        loaded => Ok(loaded?),
    }
}

/// What is known of responses and no loss would use is not dropped.
fn check_labels(ds: &Dataset, path: &Path, c: &Config) -> Result<(), Error> {
    let wrong = |group: Group<'_>, what: &str, way: &str| {
        let (path, losses) = (path.display(), c.loss_type.0.join(","));
        Err(Error::new(format!(
            "{path}, row {}: has {what}, which `loss_type = {losses}` has no place for; {way}",
            group.row
        )))
    };
    let has_margin = |g: &Group<'_>| matches!(g.labels(), Labels::Ranked { margin: Some(m) } if m != 0.0);
    if let Some(group) = ds.groups().find(has_margin).filter(|_| !c.loss_type.use_setting("margin")) {
        return wrong(group, "a `margin`", "remove the column, or use sigmoid or hinge");
    }
    let ties = |g: &Group<'_>| g.labels().ties() > 0;
    if let Some(group) = ds.groups().find(ties).filter(|_| c.loss_type.known().any(|word| word.ranks())) {
        return wrong(group, "two responses with the same score", "use a loss of pairs, as sigmoid");
    }
    Ok(())
}

/// Checks that the model in the folder `path` has an embedding for every token, and that it turns all sequences of a
/// group in one way: their prompt is computed once.
///
/// # Errors
/// It has not, or does not.
pub fn check_tokens(ds: &Dataset, path: &Path, model: &ModelConfig) -> Result<(), Error> {
    let on_both_sides = |g: &Group<'_>, most: usize| {
        let is_long = |response: &[u32]| g.prompt.len() + response.len() > most;
        g.responses().any(is_long) && !g.responses().all(is_long)
    };
    if let Some(most) = model.longest_short()
        && let Some(group) = ds.groups().find(|g| on_both_sides(g, most))
    {
        return Err(Error::new(format!(
            "row {}: has a response that ends within {most} tokens and one that does not, between which {} changes how \
             it turns positions (longrope), and the prompt is computed once for both; give max_length = {most}, or \
             leave the row out",
            group.row,
            path.display()
        )));
    }
    if (ds.max_token() as usize) < model.vocab {
        return Ok(());
    }
    Err(Error::new(format!(
        "{}: the tokenizer gives token {}, the model has only {} embeddings; they do not belong together",
        path.display(),
        ds.max_token(),
        model.vocab
    )))
}
