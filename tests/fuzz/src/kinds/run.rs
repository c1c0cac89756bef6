//! What a run leaves and a later one reads: checkpoints, metrics, the reference's log-probabilities.

use super::{CPU, file, made, model, rows};
use crate::Files;
use duel_comm::Alone;
use duel_cpu::Cpu;
use duel_data::Dataset;
use duel_model::{Config, Folder, Held, Keep, Model};
use duel_optim::{Algorithm, Optimizer};
use duel_tests::{Case, FAMILIES, TempDir, tiny};
use duel_train::cache::Cache;
use duel_train::checkpoint::{Checkpoint, Checkpoints, Content, State};
use duel_train::config::{self, Options, ReportTo};
use duel_train::critic::Critic;
use duel_train::engine::{Engine, Room};
use duel_train::reference::{ModelId, Reference};
use duel_train::report::trackers::Trackers;
use duel_train::report::trainer_state::TrainerState;
use duel_train::report::{metrics, plot};
use duel_train::{Error, Ranks, Updater};
use std::path::Path;
use std::sync::LazyLock;

/// What all checkpoints are of.
fn options(output_dir: &Path) -> config::Config {
    let options = Options::parse("model = './model'\ndataset = 'rows.jsonl'\ncache_dir = '.'");
    let options = options.map(|o| Options { output_dir: Some(output_dir.into()), ..o });
    options.and_then(Options::resolve).expect("they are right")
}

fn updater(model: &Config) -> Updater<Cpu<f32>> {
    let algorithm = Algorithm::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
    let shapes = Model::manifest(model);
    let shapes = shapes.iter().into_iter().map(|s| (s.len(), s.decays()));
    Updater::Whole(Optimizer::new(&*CPU, algorithm, shapes).expect("room for a test"))
}

fn critic(model: &Config) -> Critic<Cpu<f32>> {
    Critic::new(&*CPU, model.width).expect("room for a test")
}

/// A checkpoint at the first step, and one in the middle of a logged window.
pub fn checkpoints() -> Vec<Files> {
    let window = vec![("loss".into(), 0.5, 2), ("rewards/margins".into(), -1e-3, 1)];
    let content = "0".repeat(32);
    [State::default(), State { step: 3, content, updates: 3, num_tokens: 99, window, ..State::default() }]
        .map(checkpoint)
        .to_vec()
}

fn checkpoint(state: State) -> Files {
    let dir = TempDir::new().expect("room for a folder");
    let (of, model) = (options(dir.path()), tiny(FAMILIES[0]));
    let weights = || Case::new(model.clone(), 1).upload(&*CPU);
    let reference = weights();
    let checkpoints = Checkpoints::of(&of).expect("it is right");
    let content = Content {
        model: &model,
        weights: &Held::from(weights()),
        critic: Some(&critic(&model)),
        reference: Some(&reference),
        stops: &[2],
        updater: &updater(&model),
        state: &state,
        // Nothing reads it again.
        trainer_state: (&TrainerState::default(), Path::new("nothing was logged")),
    };
    checkpoints.save(&*CPU, &Ranks::new(&Alone), &content).expect("room for a checkpoint");
    let mut files = crate::read(&checkpoints.folder(state.step)).expect("it was just written");
    // The temporary folder's name would make every run's inputs other ones.
    files.extend([file("duel.toml", options(Path::new("out")).to_toml().expect("they are right"))]);
    files
}

/// Continues from a checkpoint as a run does.
pub fn resume(dir: &Path) -> Result<(), String> {
    let said = |e: Error| e.to_string();
    let checkpoint = Checkpoint::open(dir, &options(Path::new("out"))).map_err(said)?;
    let model = tiny(FAMILIES[0]);
    let folder = checkpoint.model_of(&model).map_err(said)?;
    for folder in [folder, checkpoint.reference_of(&model).map_err(said)?] {
        duel_model::load(&*CPU, &folder).map_err(|e| e.to_string())?;
    }
    checkpoint.restore(&*CPU, &mut updater(&model), Some(&mut critic(&model))).map_err(said)
}

/// Metrics of a supervised and of a preference run, the second torn by a crash.
pub fn metrics() -> Vec<Files> {
    let sft = "{\"step\":1,\"loss\":2.5,\"num_tokens\":7}\n{\"step\":2,\"loss\":null,\"grad_norm\":1e9}\n\
               {\"step\":2,\"eval_loss\":1,\"eval_samples_per_second\":0.5}\n";
    let dpo: String = (1..6)
        .map(|step| {
            let x = f64::from(step) / 7.0;
            let rewards =
                format!("\"rewards/chosen\":{x},\"rewards/rejected\":{},\"rewards/margins\":{x}", -x);
            format!(
                "{{\"step\":{step},\"loss\":{},\"rewards/accuracies\":0.5,{rewards},\"eval_kl\":{x}}}\n",
                0.69 - x
            )
        })
        .collect();
    [sft, &(dpo + "{\"step\":6,\"lo")].map(|text| Files::from([file("metrics.jsonl", text)])).to_vec()
}

/// Continues the file, with all that is made of it, and draws it.
pub fn append(dir: &Path) -> Result<(), String> {
    let path = dir.join("metrics.jsonl");
    let go_on = || -> Result<(), Error> {
        let report_to = ReportTo { tensorboard: true, csv: true };
        Trackers::open(dir, report_to, Some((3, false)))?.write(4, &[("loss", 0.5.into())])?;
        plot::write_svg(&dir.join("metrics.svg"), &metrics::read(&path)?)
    };
    go_on().map_err(|e| e.to_string())
}

/// The cache's one file, whatever a run calls it on this machine.
pub const REFERENCE: &str = "reference.logps";

/// A model with data, and what the reference says about them.
struct Scored {
    config: Config,
    weights: Model<Vec<f32>>,
    id: ModelId,
    data: Dataset,
    /// The file's name in a cache.
    name: String,
    file: Vec<u8>,
    logps: Vec<f64>,
}

static SCORED: LazyLock<Scored> = LazyLock::new(|| {
    let data = rows::pairs();
    let mut config = tiny(FAMILIES[0]).json;
    config.insert("vocab_size".into(), (data.max_token() + 1).into());
    let config = Config::from_json(config).expect("a config of the tests is right");
    let dir = TempDir::new().expect("room for a folder");
    model::save(dir.path(), &config);
    let id = ModelId::of(dir.path()).expect("it was just written");
    let folder = Folder::open(dir.path()).expect("it was just written");
    let weights = duel_model::load(&*CPU, &folder).expect("it was just written");
    let mut scored =
        Scored { config, weights, id, data, name: String::new(), file: Vec::new(), logps: Vec::new() };
    let cache = made(|dir| scored.logps = logps(&scored, dir).expect("a cache of the tests is right"));
    (scored.name, scored.file) = cache.into_iter().next().expect("it has one file");
    scored
});

fn logps(s: &Scored, cache: &Path) -> Result<Vec<f64>, Error> {
    let room = Room::plan(&*CPU, &s.data, 1, 0, s.config.vocab);
    let mut engine = Engine::new(&*CPU, &s.config, room, Keep::Nothing)?;
    let cache = Cache::new(cache, &s.id.on(&*CPU, &s.data, None));
    let all: Vec<u32> = (0..s.data.len() as u32).collect();
    let reference =
        Reference::of(&Ranks::new(&Alone), &mut engine, &s.weights, &s.data, &all, &cache, "groups")?;
    Ok((0..s.data.len() as u32).flat_map(|i| reference.group(i)).copied().collect())
}

/// A cache with the log-probabilities of a small model.
pub fn references() -> Vec<Files> {
    vec![Files::from([file(REFERENCE, SCORED.file.clone())])]
}

/// Scores with the cache. What is damaged there is computed again: the numbers are the right ones, always.
pub fn score(dir: &Path) -> Result<(), String> {
    std::fs::rename(dir.join(REFERENCE), dir.join(&SCORED.name)).map_err(|e| e.to_string())?;
    let logps = logps(&SCORED, dir).map_err(|e| e.to_string())?;
    assert_eq!(logps, SCORED.logps, "a damaged cache is as good as none");
    Ok(())
}
