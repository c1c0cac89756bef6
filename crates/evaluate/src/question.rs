//! What is asked: which rows, by which models.

use crate::compare::compare;
use crate::judge::Judge;
use crate::lines::{Lines, Of};
use crate::summary::Summary;
use crate::{Answer, Versus};
use duel_backend::Backend;
use duel_data::Files;
use duel_stats::Bootstrap;
use duel_train::config::Options;
use duel_train::content::digest;
use duel_train::reference::content;
use duel_train::{Error, at_revision, folder};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// Which rows are put to which models.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// `model` and `dataset`, and what else a run says of how rows are read and scored.
    pub options: Options,
    /// The reference that the rewards of policies are measured by.
    pub reference: Option<PathBuf>,
    /// A model to compare with.
    pub versus: Option<PathBuf>,
    /// The file of what is said of each row; it is gone on with where it is there.
    pub output: Option<PathBuf>,
    /// Seed of the bootstrap.
    pub seed: u64,
}

/// Puts every row to the models.
///
/// # Errors
/// Anything that the user must put right, or Ctrl-C; what was scored before stays in the output.
pub fn evaluate<B: Backend>(b: &B, question: &Question) -> Result<Answer, Error> {
    let model = question.options.model.as_deref().ok_or_else(|| missing("model"))?;
    let dataset = question.options.dataset.as_deref().ok_or_else(|| missing("dataset"))?;
    let revision = question.options.model_revision.as_ref().and_then(|said| said.0.as_deref());
    let model = at_revision(model, revision, "model_revision")?;
    let question = &Question { reference: folder_of(&question.reference)?, ..question.clone() };
    let mut judges = vec![Judge::open(question, Of::Model, &folder(&model)?, dataset)?];
    if let Some(versus) = &question.versus {
        judges.push(Judge::open(question, Of::Versus, &folder(versus)?, dataset)?);
    }
    check(question, &judges)?;
    let files = judges[0].files()?;
    let mut lines = Lines::open(question.output.as_deref(), &header(b, question, &files, &judges)?)?;
    let mut judged = Vec::new();
    for judge in judges {
        let (ds, records) = judge.score(b, question, &files, &mut lines)?;
        let comparison = compare(&ds, &records, judge.certainty());
        judged.push((judge.path().to_path_buf(), ds.report().clone(), comparison));
    }
    let bootstrap = Bootstrap::new(question.seed);
    let versus = match &judged[..] {
        [(_, _, a), (_, _, b)] => Some(Versus::of(a, b, &bootstrap)),
        _ => None,
    };
    let summaries =
        judged.into_iter().map(|(path, report, c)| Summary::of(&path, report, c, &bootstrap)).collect();
    Ok(Answer {
        dataset: files.name().to_path_buf(),
        reference: question.reference.clone(),
        summaries,
        versus,
    })
}

/// The folder of a model that may be named.
fn folder_of(said: &Option<PathBuf>) -> Result<Option<PathBuf>, Error> {
    said.as_deref().map(folder).transpose()
}

fn missing(key: &str) -> Error {
    Error::new(format!("`{key}` is missing: give --{key} PATH"))
}

/// What would have no effect is refused.
fn check(question: &Question, judges: &[Judge]) -> Result<(), Error> {
    let policies = judges.iter().filter(|judge| !judge.is_reward_model()).count();
    match (&question.reference, policies) {
        (Some(reference), 0) => Err(Error::new(format!(
            "--ref-model {} has no effect: {} is a reward model, which gives rewards without a reference; remove it",
            reference.display(),
            judges[0].path().display()
        ))),
        (None, n) if n == judges.len() && question.options.beta.is_some() => Err(Error::new(
            "`beta` has no effect without a reference: responses are compared by their log-probabilities; remove it, \
             or give --ref-model FOLDER",
        )),
        _ => Ok(()),
    }
}

/// What decides the numbers of a row, by its name.
fn header<B: Backend>(
    b: &B,
    question: &Question,
    files: &Files,
    judges: &[Judge],
) -> Result<Map<String, Value>, Error> {
    let folder = |path: Option<&Path>| match path {
        Some(path) => Ok(json!({"path": path, "content": content(path)?})),
        None => Ok::<_, Error>(Value::Null),
    };
    let config = judges[0].config();
    let beta = |judge: Option<&Judge>| judge.map(|judge| judge.config().beta);
    let said = [
        ("model", folder(Some(judges[0].path()))?),
        ("versus", folder(judges.get(1).map(Judge::path))?),
        ("ref_model", folder(question.reference.as_deref())?),
        ("dataset", json!({"path": files.name(), "content": digest(files)?})),
        ("beta", json!(question.reference.as_ref().map(|_| [beta(judges.first()), beta(judges.get(1))]))),
        ("max_length", json!(config.max_length)),
        ("truncation_mode", json!(config.truncation_mode)),
        ("device", json!(b.identity())),
    ];
    Ok(said.map(|(key, value)| (key.to_owned(), value)).into_iter().collect())
}
