//! Which maps of a model have adapters, of what rank and weight.

use crate::adapter::{Adapter, Part};
use crate::config::Config;
use crate::families::inside::whole_name;
use crate::family::Output;
use crate::weights::{Model, Piece, Shape};
use duel_random::{SplitMix, at, fraction};
use fancy_regex::Regex;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// What PEFT puts before every name.
pub(crate) const ROOT: &str = "base_model.model.";

/// Names of modules, as PEFT takes them.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Modules {
    /// Those that PEFT would adapt in a model of this kind.
    #[default]
    Usual,
    /// Every map but the head: `all-linear`.
    All,
    /// Those with one of these names, or one that ends in it after a dot.
    Names(Vec<String>),
    /// Those whose whole name this regular expression matches.
    Pattern(String),
}

/// What is said of adapters before a model is known, by PEFT's words.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraSettings {
    /// Rank.
    pub r: usize,
    /// What the adapter is multiplied by, over the rank.
    pub alpha: f64,
    /// Over the root of the rank instead (rsLoRA: Kalajdzievski, 2023).
    pub rslora: bool,
    /// Share of an adapter's inputs that is dropped in training.
    pub dropout: f64,
    /// What is adapted.
    pub targets: Modules,
    /// What is not, although it is among these.
    pub excluded: Modules,
    /// Numbers of the layers that are; `None`: all.
    pub layers: Option<Vec<usize>>,
    /// The name before a layer's number; `None`: any.
    pub layers_pattern: Option<Vec<String>>,
    /// Ranks of single modules: a regular expression, matched at the end of a name after a dot, and a rank.
    pub ranks: Vec<(String, usize)>,
    /// The same of `alpha`.
    pub alphas: Vec<(String, f64)>,
    /// Modules that are trained as they are.
    pub saved: Vec<String>,
    /// What fresh adapters are drawn from.
    pub seed: u64,
}

impl Default for LoraSettings {
    fn default() -> Self {
        LoraSettings {
            r: 16,
            alpha: 32.0,
            rslora: false,
            dropout: 0.0,
            targets: Modules::Usual,
            excluded: Modules::Names(Vec::new()),
            layers: None,
            layers_pattern: None,
            ranks: Vec::new(),
            alphas: Vec::new(),
            saved: Vec::new(),
            seed: 0,
        }
    }
}

/// The adapters of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    /// What was said.
    pub settings: LoraSettings,
    /// Rank and factor of each adapted module.
    modules: BTreeMap<String, (usize, f64)>,
    /// Modules that are trained as they are.
    saved: Vec<String>,
    /// The `adapter_config.json` that it was read from; empty: none.
    pub(crate) json: Map<String, Value>,
    /// The model is the text model inside another: PEFT loads the whole, and has its names.
    pub(crate) inside: bool,
}

impl Lora {
    /// The adapters that `settings` ask for in the model of `config`, which may be the text model `inside` another. A
    /// name that is nothing's is an error with `strict`.
    ///
    /// # Errors
    /// What is wrong with a name, a pattern or a rank, for whoever knows what said it.
    pub fn of(settings: LoraSettings, config: &Config, inside: bool, strict: bool) -> Result<Self, String> {
        let manifest = Model::manifest(&Config { lora: None, ..config.clone() });
        let linear = linears(&manifest);
        let rest = rest(&manifest, config);
        let targets = Matcher::of(&settings.targets, config)?;
        let excluded = Matcher::of(&settings.excluded, config)?;
        let (ranks, alphas) = (ends(&settings.ranks)?, ends(&settings.alphas)?);
        targets.refuse_rest(&rest)?;
        if strict {
            targets.refuse_unknown(&linear)?;
        }
        let mut modules = BTreeMap::new();
        for module in &linear {
            let whole = whole_name(module).filter(|_| inside);
            let name = whole.as_ref().unwrap_or(module);
            let layer = layer_of(module, settings.layers_pattern.as_deref());
            let in_layers =
                settings.layers.as_ref().is_none_or(|all| layer.is_some_and(|layer| all.contains(&layer)));
            if !targets.is(name) || excluded.is(name) || !in_layers {
                continue;
            }
            let r = first(&ranks, name).unwrap_or(settings.r);
            let alpha = first(&alphas, name).unwrap_or(settings.alpha);
            if r == 0 || r > 1 << 16 {
                return Err(format!("the rank of `{module}` is {r}; it must be at least 1"));
            }
            let over = if settings.rslora { (r as f64).sqrt() } else { r as f64 };
            modules.insert(module.clone(), (r, alpha / over));
        }
        if modules.is_empty() {
            return Err(format!("no map of the model is adapted; it has {}", ends_of(&linear)));
        }
        let mut wanted = settings.saved.clone();
        if config.output == Output::Score && !wanted.iter().any(|name| name == "score") {
            // The head is new: without it nothing would be learned.
            wanted.push("score".into());
        }
        let saved = saved(&wanted, &manifest, config, &modules)?;
        Ok(Lora { settings, modules, saved, json: Map::new(), inside })
    }

    /// Whether a parameter is trained.
    pub fn trains(&self, shape: &Shape) -> bool {
        is_adapter(shape)
            || shape.pieces.iter().all(|piece| self.saved.iter().any(|m| m == module(&piece.name)))
    }

    /// Whether both adapt the same modules in the same way, in whatever words it was said.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.modules == other.modules && self.saved == other.saved
    }

    /// A fresh parameter: `A` uniform within 1/sqrt(inputs), as PEFT draws it, and `B` 0. Rounded to single precision,
    /// as a file would hold it.
    pub(crate) fn fresh(&self, shape: &Shape) -> impl Iterator<Item = f64> {
        let name = shape.pieces[0].name.bytes().map(u64::from);
        let place: Vec<u64> = [self.settings.seed].into_iter().chain(name).collect();
        let (mut random, fill) = (SplitMix::new(at(&place)), shape.fill);
        let bound = 1.0 / (shape.cols as f64).sqrt();
        let draw = move || f64::from((bound * (2.0 * fraction(random.number()) - 1.0)) as f32);
        std::iter::repeat_with(draw).map(move |x| fill.unwrap_or(x)).take(shape.len())
    }

    /// Puts the adapters beside the maps of a manifest.
    pub(crate) fn adapt(&self, model: &mut Model<Shape>) {
        for map in model.layers.iter_mut().flat_map(|layer| layer.maps_mut()) {
            let mut first = 0;
            for piece in &map.weight.pieces {
                let (path, rows) = (module(&piece.name), piece.rows);
                if let Some(&(r, scale)) = self.modules.get(path) {
                    let words: Vec<u64> = path.bytes().map(u64::from).collect();
                    let dropout = self.settings.dropout;
                    let part = Part { at: first, rows, r, scale, dropout, stream: at(&words) };
                    let side = |name, rows, cols, places, fill| Shape {
                        rows,
                        cols,
                        pieces: vec![Piece { name: format!("{ROOT}{path}.{name}.weight"), rows, places }],
                        transposed: false,
                        vector: false,
                        fill,
                    };
                    let (a, b) = (
                        side("lora_A", r, map.weight.cols, None, None),
                        side("lora_B", rows, r, piece.places.clone(), Some(0.0)),
                    );
                    map.adapters.push(Adapter { part, a, b });
                }
                first += rows;
            }
        }
    }

    /// Last parts of the names of what is adapted, each once.
    pub(crate) fn ends(&self) -> Vec<&str> {
        unique_ends(self.modules.keys())
    }

    /// Modules that are trained as they are, by the names that were given or had to be.
    pub(crate) fn saved_names(&self) -> Vec<String> {
        let mut names = self.settings.saved.clone();
        let others = self.saved.iter().filter(|module| !names.iter().any(|name| is_end(module, name)));
        let others: Vec<String> = others.cloned().collect();
        names.extend(others);
        names
    }
}

/// Whether it is an adapter's.
pub(crate) fn is_adapter(shape: &Shape) -> bool {
    shape.pieces[0].name.starts_with(ROOT)
}

/// The name of the module that a tensor belongs to.
pub(crate) fn module(tensor: &str) -> &str {
    tensor.rsplit_once('.').map_or(tensor, |(module, _)| module)
}

/// Names of all maps of the layers, in order.
fn linears(manifest: &Model<Shape>) -> Vec<String> {
    let maps = manifest.layers.iter().flat_map(|layer| layer.maps());
    maps.flat_map(|map| &map.weight.pieces).map(|piece| module(&piece.name).to_owned()).collect()
}

/// Names of all other modules.
fn rest(manifest: &Model<Shape>, config: &Config) -> Vec<String> {
    let linear = linears(manifest);
    let pieces = manifest.iter().into_iter().flat_map(|shape| &shape.pieces);
    let mut all: Vec<String> = pieces.map(|piece| module(&piece.name).to_owned()).collect();
    all.dedup();
    all.retain(|name| !linear.contains(name));
    all.push(config.names.head.into());
    all
}

/// Last parts of names, each once.
fn unique_ends<'a>(names: impl IntoIterator<Item = &'a String>) -> Vec<&'a str> {
    let mut ends: Vec<&str> = Vec::new();
    for name in names.into_iter().map(|name| name.rsplit('.').next().unwrap_or(name)) {
        if !ends.contains(&name) {
            ends.push(name);
        }
    }
    ends
}

/// As [`unique_ends`], for people.
fn ends_of(names: &[String]) -> String {
    unique_ends(names).join(", ")
}

/// Whether `name` is all of a module's name, or its end after a dot.
fn is_end(module: &str, name: &str) -> bool {
    module.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The number of a module's layer: after `pattern`, or the last number between dots.
fn layer_of(module: &str, pattern: Option<&[String]>) -> Option<usize> {
    let parts: Vec<&str> = module.split('.').collect();
    let number = |i: &usize| {
        let named = pattern.is_none_or(|all| all.iter().any(|name| name == parts[i - 1]));
        parts[*i].parse::<usize>().ok().filter(|_| named)
    };
    (1..parts.len().saturating_sub(1)).rev().find_map(|i| number(&i))
}

/// A pattern for all of a text, after what matches `before`.
fn regex(before: &str, pattern: &str) -> Result<Regex, String> {
    Regex::new(&format!(r"\A{before}(?:{pattern})\z"))
        .map_err(|e| format!("`{pattern}` is no regular expression: {e}"))
}

/// Whether a pattern matches all of a text; where it is too hard to say it does not.
fn matches(pattern: &Regex, text: &str) -> bool {
    pattern.is_match(text).unwrap_or(false)
}

/// Patterns of single modules, as PEFT matches them: at the end of a name, after a dot.
fn ends<T: Copy>(patterns: &[(String, T)]) -> Result<Vec<(Regex, T)>, String> {
    let one = |(pattern, x): &(String, T)| Ok((regex(r"(?:.*\.)?", pattern)?, *x));
    patterns.iter().map(one).collect()
}

fn first<T: Copy>(patterns: &[(Regex, T)], module: &str) -> Option<T> {
    patterns.iter().find(|(pattern, _)| matches(pattern, module)).map(|(_, x)| *x)
}

/// [`Modules`] for one model.
enum Matcher {
    All,
    Names(Vec<String>),
    Pattern(Regex),
}

impl Matcher {
    fn of(modules: &Modules, config: &Config) -> Result<Self, String> {
        Ok(match modules {
            Modules::All => Matcher::All,
            Modules::Names(names) => Matcher::Names(names.clone()),
            Modules::Pattern(pattern) => Matcher::Pattern(regex("", pattern)?),
            Modules::Usual => Matcher::Names(usual(config)?),
        })
    }

    fn is(&self, module: &str) -> bool {
        match self {
            Matcher::All => true,
            Matcher::Names(names) => names.iter().any(|name| is_end(module, name)),
            Matcher::Pattern(pattern) => matches(pattern, module),
        }
    }

    /// An embedding, a head or a norm has no adapters here.
    fn refuse_rest(&self, rest: &[String]) -> Result<(), String> {
        if matches!(self, Matcher::All) {
            return Ok(());
        }
        match rest.iter().find(|module| self.is(module)) {
            Some(module) => Err(format!(
                "`{module}` would be adapted, which is no map of a layer; leave it out, or train it as it is by \
                 modules_to_save"
            )),
            None => Ok(()),
        }
    }

    fn refuse_unknown(&self, linear: &[String]) -> Result<(), String> {
        let Matcher::Names(names) = self else { return Ok(()) };
        match names.iter().find(|name| !linear.iter().any(|module| is_end(module, name))) {
            Some(name) => {
                Err(format!("`{name}` is the name of no map of the model; it has {}", ends_of(linear)))
            }
            None => Ok(()),
        }
    }
}

/// What PEFT adapts where nothing is said.
fn usual(config: &Config) -> Result<Vec<String>, String> {
    match config.names.adapted {
        [] => {
            let kind = config.json.get("model_type").and_then(Value::as_str).unwrap_or_default();
            Err(format!("there are no usual ones for `{kind}`; name them, or give all-linear"))
        }
        names => Ok(names.iter().map(|&name| name.to_owned()).collect()),
    }
}

/// Whole names of the modules that are trained as they are.
fn saved(
    wanted: &[String],
    manifest: &Model<Shape>,
    config: &Config,
    adapted: &BTreeMap<String, (usize, f64)>,
) -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    for name in wanted {
        let before = all.len();
        for shape in manifest.iter() {
            let its: Vec<&str> = shape.pieces.iter().map(|piece| module(&piece.name)).collect();
            let chosen: Vec<&str> = its.iter().copied().filter(|module| is_end(module, name)).collect();
            let also = |module: &&&str| wanted.iter().any(|name| is_end(module, name));
            if let (Some(one), Some(other)) = (chosen.first(), its.iter().find(|module| !also(module))) {
                return Err(format!(
                    "modules_to_save has `{one}`, which is one matrix with `{other}` here; name that too, or adapt it"
                ));
            }
            if let Some(twice) = chosen.iter().find(|module| adapted.contains_key(**module)) {
                return Err(format!("`{twice}` is adapted and in modules_to_save; keep one"));
            }
            all.extend(chosen.into_iter().map(str::to_owned));
        }
        let tied = config.tied && config.output == Output::Logits;
        let head =
            tied && (name == config.names.head || all[before..].iter().any(|m| is_embedding(m, manifest)));
        if head {
            return Err(format!(
                "modules_to_save has `{name}`, and the model's head is its embedding: trained alone the two would \
                 part; leave it out"
            ));
        }
        // PEFT names both for every model with a score, whichever of them it has.
        if all.len() == before && !(name == "classifier" && config.output != Output::Logits) {
            return Err(format!("modules_to_save has `{name}`, which is the name of no module of the model"));
        }
    }
    all.sort();
    all.dedup();
    Ok(all)
}

fn is_embedding(path: &str, manifest: &Model<Shape>) -> bool {
    module(&manifest.embed.pieces[0].name) == path
}

/// A tensor's name in a file: in one of adapters all have PEFT's root.
pub(crate) fn in_file<'a>(config: &Config, name: &'a str) -> Cow<'a, str> {
    let Some(lora) = &config.lora else { return name.into() };
    let own = name.strip_prefix(ROOT).unwrap_or(name);
    match whole_name(own).filter(|_| lora.inside) {
        Some(whole) => format!("{ROOT}{whole}").into(),
        None => format!("{ROOT}{own}").into(),
    }
}
