//! Adapters as PEFT's folders: `adapter_config.json` and `adapter_model.safetensors`.

use crate::config::Config;
use crate::error::{Error, Result};
use crate::family::Output;
use crate::file_dtype::FileDtype;
use crate::json;
use crate::keys::{Keys, Read};
use crate::lora::{Lora, LoraSettings, Modules};
use crate::names::{INDEX, SINGLE};
use crate::save::write_model;
use crate::weights::{Model, Weights};
use crate::write::write_synced;
use duel_backend::Backend;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// The file that says what an adapter is.
pub(crate) const CONFIG: &str = "adapter_config.json";
/// Its weights.
pub(crate) const WEIGHTS: &str = "adapter_model.safetensors";

/// Keys that say nothing of what an adapter computes once it is there.
const SILENT: [&str; 12] = [
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "eva_config",
    "fan_in_fan_out",
    "inference_mode",
    "lora_ga_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
];

/// Keys that are read.
const READ: [&str; 15] = [
    "alpha_pattern",
    "bias",
    "exclude_modules",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_dropout",
    "modules_to_save",
    "peft_type",
    "r",
    "rank_pattern",
    "target_modules",
    "task_type",
    "use_rslora",
];

/// What the config of an adapter's folder says.
pub(crate) struct Peft {
    pub settings: LoraSettings,
    /// All that the file says.
    pub json: Map<String, Value>,
    /// Folder of the model that it adapts.
    pub base: PathBuf,
    /// It is that of a reward model.
    pub score: bool,
}

/// Whether a folder has an adapter and no model.
fn is_adapter(dir: &Path) -> bool {
    let is_there = |name| dir.join(name).symlink_metadata().is_ok();
    is_there(CONFIG) && !is_there(SINGLE) && !is_there(INDEX)
}

impl Peft {
    /// What a folder with an adapter says; `None`: it has none, or a model beside it.
    ///
    /// # Errors
    /// The file is broken, says what is not known, or names no folder of a model.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        if !is_adapter(dir) {
            return Ok(None);
        }
        let path = dir.join(CONFIG);
        let bytes = std::fs::read(&path).map_err(|e| Error::file(&path, format!("cannot be read: {e}")))?;
        let json: Map<String, Value> =
            serde_json::from_slice(&bytes).map_err(|e| json::broken(&path, &bytes, &e))?;
        let keys = Keys::new(&json);
        let settings = settings(keys).map_err(|what| Error::file(&path, what))?;
        let base = base(dir, keys).map_err(|what| Error::file(&path, what))?;
        let task = keys.text("task_type").map_err(|what| Error::file(&path, what))?;
        let score = task == Some("SEQ_CLS");
        Ok(Some(Peft { settings, base, score, json }))
    }
}

/// The folder that an adapter is for: as it is written, or from the adapter's own folder on, or that of a name on the
/// Hub.
fn base(dir: &Path, keys: Keys) -> Read<PathBuf> {
    let name = keys.text("base_model_name_or_path")?.filter(|name| !name.is_empty());
    let name = name.ok_or("lacks `base_model_name_or_path`; write the folder of the model that it adapts")?;
    let places = [PathBuf::from(name), dir.join(name)];
    if let Some(place) = places.into_iter().find(|place| place.is_dir()) {
        return Ok(place);
    }
    let revision = keys.text("revision")?.map_or(String::new(), |revision| format!("@{revision}"));
    let found = duel_hub::model(Path::new(&format!("{name}{revision}")));
    let found = found.map_err(|e| format!("`base_model_name_or_path`: {e}"))?.at;
    match found.is_dir() {
        true => Ok(found),
        false => Err(format!(
            "`base_model_name_or_path` is {name:?}, and there is no such folder; download the model and write its \
             folder there"
        )),
    }
}

/// The folder of the model that the adapter in `dir` is for; `None`: there is a model in `dir`.
///
/// # Errors
/// The adapter's config is broken, or names no folder.
pub fn base_folder(dir: &Path) -> Result<Option<PathBuf>> {
    Ok(Peft::read(dir)?.map(|peft| peft.base))
}

/// The folder with the tokenizer of the model in `dir`: that of an adapter's base where the adapter brought none.
///
/// # Errors
/// As [`base_folder`].
pub fn tokenizer_folder(dir: &Path) -> Result<PathBuf> {
    match base_folder(dir)? {
        Some(base) if !dir.join("tokenizer.json").exists() => Ok(base),
        _ => Ok(dir.to_path_buf()),
    }
}

fn settings(keys: Keys) -> Read<LoraSettings> {
    if let Some(kind) = keys.text("peft_type")?.filter(|kind| *kind != "LORA") {
        return Err(format!("`peft_type` is {kind}; duel knows LORA"));
    }
    if keys.flag("use_dora").ok().flatten() == Some(true) {
        return Err(
            "`use_dora` is true; DoRA is not known; merge it with PEFT, or train a LoRA adapter".into()
        );
    }
    if let Some(bias) = keys.text("bias")?.filter(|bias| *bias != "none") {
        return Err(format!("`bias` is {bias}; duel knows adapters without biases, with none"));
    }
    // These ways to begin change the base, so that the adapter fits no other.
    match keys.get("init_lora_weights") {
        None | Some(Value::Bool(_)) => {}
        Some(Value::String(how)) if ["gaussian", "eva", "orthogonal"].contains(&how.as_str()) => {}
        Some(how) => {
            return Err(format!(
                "`init_lora_weights` is {how}, which changes the base; merge it with PEFT first"
            ));
        }
    }
    if let Some((key, value)) = keys.iter().find(|(key, value)| !is_known(key) && !is_off(value)) {
        return Err(format!("`{key}` is {value}, which duel does not know; merge the adapter with PEFT"));
    }
    if let Some(task) = keys.text("task_type")?.filter(|task| !["CAUSAL_LM", "SEQ_CLS"].contains(task)) {
        return Err(format!("`task_type` is {task}; duel knows CAUSAL_LM and SEQ_CLS"));
    }
    let dropout = keys.number("lora_dropout")?.unwrap_or(0.0);
    if !(0.0..1.0).contains(&dropout) {
        return Err(format!("`lora_dropout` is {dropout}; it must be from 0 to below 1"));
    }
    Ok(LoraSettings {
        r: keys.count("r")?.unwrap_or(8),
        alpha: keys.number("lora_alpha")?.unwrap_or(8.0),
        rslora: keys.flag("use_rslora")?.unwrap_or(false),
        dropout,
        targets: modules(keys, "target_modules")?,
        excluded: match modules(keys, "exclude_modules")? {
            Modules::Usual => Modules::Names(Vec::new()),
            excluded => excluded,
        },
        layers: numbers(keys, "layers_to_transform")?,
        layers_pattern: names(keys, "layers_pattern")?.filter(|names| !names.is_empty()),
        ranks: patterns(keys, "rank_pattern", |x| x.as_u64().and_then(|n| usize::try_from(n).ok()))?,
        alphas: patterns(keys, "alpha_pattern", Value::as_f64)?,
        saved: names(keys, "modules_to_save")?.unwrap_or_default(),
        seed: 0,
    })
}

fn is_known(key: &str) -> bool {
    SILENT.contains(&key) || READ.contains(&key)
}

/// Whether a value asks for nothing.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.is_empty(),
        _ => false,
    }
}

/// A list of names, or the one that is there alone.
fn names(keys: Keys, key: &str) -> Read<Option<Vec<String>>> {
    let wrong = || format!("{} must be a list of names", keys.named(key));
    Ok(match keys.get(key) {
        None => None,
        Some(Value::String(one)) => Some(vec![one.clone()]),
        Some(Value::Array(all)) => {
            let name = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(wrong);
            Some(all.iter().map(name).collect::<Read<_>>()?)
        }
        Some(_) => return Err(wrong()),
    })
}

fn modules(keys: Keys, key: &str) -> Read<Modules> {
    Ok(match keys.get(key) {
        Some(Value::String(all)) if all == "all-linear" => Modules::All,
        Some(Value::String(pattern)) => Modules::Pattern(pattern.clone()),
        _ => names(keys, key)?.map_or(Modules::Usual, Modules::Names),
    })
}

fn numbers(keys: Keys, key: &str) -> Read<Option<Vec<usize>>> {
    let one = |value: &Value| {
        let number = value.as_u64().and_then(|n| usize::try_from(n).ok());
        number.ok_or_else(|| format!("{} must be a number, or a list of numbers", keys.named(key)))
    };
    match keys.get(key) {
        None => Ok(None),
        Some(Value::Array(all)) => all.iter().map(one).collect::<Read<_>>().map(Some),
        Some(number) => Ok(Some(vec![one(number)?])),
    }
}

fn patterns<T>(keys: Keys, key: &str, of: impl Fn(&Value) -> Option<T>) -> Read<Vec<(String, T)>> {
    let wrong = || format!("{} must be an object of patterns and numbers", keys.named(key));
    match keys.get(key) {
        None => Ok(Vec::new()),
        Some(Value::Object(all)) => {
            let one = |(pattern, x): (&String, &Value)| Ok((pattern.clone(), of(x).ok_or_else(wrong)?));
            all.iter().map(one).collect()
        }
        Some(_) => Err(wrong()),
    }
}

/// `adapter_config.json` of an adapter: that which it was read from, or what PEFT would write.
fn written(lora: &Lora, config: &Config, base: &str) -> Map<String, Value> {
    let said = &lora.settings;
    // What stands for many is written out, as PEFT does.
    let names: Vec<&str> = match &said.targets {
        Modules::Names(names) => names.iter().map(String::as_str).collect(),
        _ => lora.ends(),
    };
    let targets = match &said.targets {
        Modules::Pattern(pattern) => json!(pattern),
        // What sees pictures has maps of the same names.
        _ if lora.inside => json!(format!(r".*language_model\.(?:.*\.)?(?:{})", names.join("|"))),
        _ => json!(names),
    };
    let whole = |x: f64| if x.fract() == 0.0 && x < 1e9 { json!(x as u64) } else { json!(x) };
    let mut json = lora.json.clone();
    if json.is_empty() {
        let turned = Model::manifest(config).layers.iter().any(|layer| layer.qkv.weight.transposed);
        let task = if config.output == Output::Score { "SEQ_CLS" } else { "CAUSAL_LM" };
        let saved = lora.saved_names();
        let all = json!({
            "peft_type": "LORA",
            "task_type": task,
            "r": said.r,
            "lora_alpha": whole(said.alpha),
            "lora_dropout": said.dropout,
            "target_modules": targets,
            "use_rslora": said.rslora,
            "use_dora": false,
            "bias": "none",
            "fan_in_fan_out": turned,
            "init_lora_weights": true,
            "modules_to_save": if saved.is_empty() { Value::Null } else { json!(saved) },
        });
        json = all.as_object().cloned().unwrap_or_default();
    }
    json.insert("base_model_name_or_path".into(), base.into());
    json.insert("inference_mode".into(), true.into());
    json
}

/// Writes the adapters of `model` into `dir` (which exists) as PEFT loads them beside the model of the folder `base`.
/// Files reach the disk before this returns.
///
/// # Errors
/// They cannot be written, or a path is not UTF-8.
///
/// # Panics
/// When the model has none.
pub fn save_adapter<B: Backend>(
    b: &B,
    dir: &Path,
    config: &Config,
    model: &impl Weights<B>,
    base: &Path,
) -> Result<()> {
    let lora = config.lora.as_ref().expect("a model with adapters");
    let absolute = std::path::absolute(base).unwrap_or_else(|_| base.to_path_buf());
    let text = absolute.to_str().ok_or_else(|| Error::file(&absolute, "is not UTF-8; rename it"))?;
    // What came from the Hub is named as there: on other machines its files lie elsewhere.
    let (text, revision) = match duel_hub::named(base) {
        Some((name, commit)) => (name, Value::from(commit)),
        None => (text.to_owned(), Value::Null),
    };
    let path = dir.join(CONFIG);
    let mut json = written(lora, config, &text);
    json.insert("revision".into(), revision);
    let json = serde_json::to_string_pretty(&json).map_err(|e| Error::file(&path, e))?;
    write_synced(&path, json.as_bytes())?;
    let dtype = FileDtype::of::<B::Real>();
    write_model(b, &dir.join(WEIGHTS), config, model, dtype, |shape| config.trains(shape))
}
