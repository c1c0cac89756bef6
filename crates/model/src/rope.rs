//! Rotary positions, by the ways in which configs describe them.

use crate::keys::{Keys, Read};
use serde_json::{Map, Value};
use std::f64::consts::PI;

/// How rotary frequencies are stretched for long contexts.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    Plain,
    /// Positions divided by a factor.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// By the length of a sequence that is longer than the model's positions: of those that duel takes, not at all.
    Dynamic {
        /// What lengths beyond are multiplied by.
        factor: f64,
    },
    /// Llama 3: low frequencies divided by `factor`, high ones kept, a ramp between.
    Llama3 {
        /// The divisor of low frequencies.
        factor: f64,
        /// Wavelengths above `original / low_freq_factor` are low frequencies.
        low_freq_factor: f64,
        /// Wavelengths below `original / high_freq_factor` are high frequencies.
        high_freq_factor: f64,
        /// Context length before the stretch.
        original: f64,
    },
    /// YaRN (Peng et al., 2023): frequencies that turn less than `beta_slow` times in `original` positions divided by
    /// `factor`, those that turn more than `beta_fast` times kept, a ramp over the pairs between.
    Yarn {
        /// The divisor of low frequencies.
        factor: f64,
        /// Context length before the stretch.
        original: f64,
        /// Turns from which on a frequency is kept.
        beta_fast: f64,
        /// Turns below which a frequency is divided.
        beta_slow: f64,
        /// Whether the ramp ends at whole pairs.
        truncate: bool,
        /// Multiplies cosines and sines.
        attention_factor: f64,
    },
    /// LongRoPE (Ding et al., 2024): every frequency has divisors of its own, others in sequences of more than
    /// `original` tokens.
    Long {
        /// Divisors in short sequences, one a pair.
        short: Vec<f64>,
        /// Divisors in long sequences.
        long: Vec<f64>,
        /// Tokens of the longest short sequence.
        original: usize,
        /// Multiplies cosines and sines.
        attention_factor: f64,
    },
}

/// Rotary position embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// Elements of a head that turn, from the first on; the others have no position.
    pub dims: usize,
    /// Whether files hold the two elements of a pair beside each other, not half of `dims` apart.
    pub pairs: bool,
    /// Stretch for long contexts.
    pub scaling: RopeScaling,
}

/// What a family calls the keys of its rotary positions, and what they are where it leaves them out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeKeys {
    /// The base, beside the object that transformers 5 has it in.
    pub(crate) theta: &'static str,
    /// Its value.
    pub(crate) default_theta: f64,
    /// The share of a head that turns, where that is not all of it, and its value.
    pub(crate) share: Option<(&'static str, f64)>,
    /// The base of local layers, where they have one of their own, and its value. In transformers 5 there is an object
    /// for each kind of layer then.
    pub(crate) local: Option<(&'static str, f64)>,
}

/// Key of transformers 4, whose base stands beside it.
const OLD: &str = "rope_scaling";
/// Key of transformers 5, with the base inside.
const NEW: &str = "rope_parameters";
/// Layers that see everything, where others are local.
const FULL: &str = "full_attention";
/// Layers with a window.
const LOCAL: &str = "sliding_attention";
/// The share of a head that turns, in transformers 5.
const SHARE: &str = "partial_rotary_factor";
/// Context length before the stretch.
const ORIGINAL: &str = "original_max_position_embeddings";

impl Rope {
    /// Reads a config with either key or both, by the precedence of transformers 5.
    pub(crate) fn read(keys: Keys, names: RopeKeys, head_dim: usize, max_positions: usize) -> Read<Self> {
        let nothing = Map::new();
        let dict = match (keys.object(OLD)?.filter(|dict| !dict.is_empty()), names.local) {
            (Some(dict), _) => Some(dict),
            (None, Some(_)) => of_kind(keys, FULL)?,
            (None, None) => keys.object(NEW)?,
        };
        Self::read_dict(keys, dict.unwrap_or(Keys::new(&nothing)), names, head_dim, max_positions)
    }

    /// That of local layers, where the family has a base of their own.
    pub(crate) fn read_local(
        keys: Keys,
        names: RopeKeys,
        head_dim: usize,
        max_positions: usize,
    ) -> Read<Option<Self>> {
        let Some((key, default_theta)) = names.local else { return Ok(None) };
        let nothing = Map::new();
        let dict = of_kind(keys, LOCAL)?.unwrap_or(Keys::new(&nothing));
        let theta = first(dict.positive("rope_theta")?, || keys.positive(key))?.unwrap_or(default_theta);
        let scaling = scaling(keys, dict, head_dim, max_positions)?;
        Ok(Some(Rope { theta, dims: head_dim, pairs: false, scaling }))
    }

    /// The same of the object that was chosen.
    pub(crate) fn read_dict(
        keys: Keys,
        dict: Keys,
        names: RopeKeys,
        head_dim: usize,
        max_positions: usize,
    ) -> Read<Self> {
        if let Some((layers, _)) = dict.iter().find(|(_, v)| v.is_object()) {
            return Err(format!(
                "{} is an object; rotary positions that differ from layer to layer are not known",
                dict.named(layers)
            ));
        }
        let beside = || first(keys.positive(names.theta)?, || keys.positive("rope_theta"));
        let theta = first(dict.positive("rope_theta")?, beside)?;
        let dims = rotated(keys, dict, names, head_dim)?;
        let scaling = scaling(keys, dict, dims, max_positions)?;
        Ok(Rope { theta: theta.unwrap_or(names.default_theta), dims, pairs: false, scaling })
    }

    /// Writes it for every reader: transformers 4 takes the base from beside `rope_scaling` and knows no
    /// `rope_parameters`, transformers 5 takes either. `local` is that of local layers.
    pub(crate) fn write(
        &self,
        local: Option<&Self>,
        json: &mut Map<String, Value>,
        names: RopeKeys,
        head_dim: usize,
    ) {
        let object = |value: Option<&Value>| {
            value.and_then(Value::as_object).filter(|dict| !dict.is_empty()).cloned().unwrap_or_default()
        };
        let of_kind = |json: &Map<String, Value>, kind: &str| {
            let new = json.get(NEW);
            object(if local.is_some() { new.and_then(|new| new.get(kind)) } else { new })
        };
        let old = object(json.get(OLD));
        let dict = self.stated(if old.is_empty() { of_kind(json, FULL) } else { old });
        let share = names.share.map(|(key, _)| (key, self.dims as f64 / head_dim as f64));
        if json.contains_key(NEW) {
            let mut new = dict.clone();
            new.insert("rope_theta".into(), self.theta.into());
            if let Some((_, share)) = share {
                new.insert(SHARE.into(), share.into());
            }
            let new = match local {
                None => new,
                Some(local) => {
                    let mut of_local = local.stated(of_kind(json, LOCAL));
                    of_local.insert("rope_theta".into(), local.theta.into());
                    [(FULL, new), (LOCAL, of_local)]
                        .map(|(kind, dict)| (kind.into(), dict.into()))
                        .into_iter()
                        .collect()
                }
            };
            json.insert(NEW.into(), new.into());
        }
        json.insert(names.theta.into(), self.theta.into());
        if let (Some(local), Some((key, _))) = (local, names.local) {
            json.insert(key.into(), local.theta.into());
        }
        if let Some((key, share)) = share {
            json.insert(key.into(), share.into());
        }
        let old = if self.scaling == RopeScaling::Plain { Value::Null } else { dict.into() };
        json.insert(OLD.into(), old);
    }

    /// What a config says of the stretch, given what it said, in the words of every reader.
    fn stated(&self, mut dict: Map<String, Value>) -> Map<String, Value> {
        for key in ["type", "rope_theta", SHARE] {
            dict.remove(key);
        }
        dict.insert("rope_type".into(), self.scaling.name().into());
        if let Some(original) = self.scaling.original() {
            dict.insert(ORIGINAL.into(), original.into());
        }
        dict
    }

    /// Angle of each pair of a head's elements at position 1, zero of those that have no position; `long` is whether
    /// the sequence is.
    fn frequencies(&self, head_dim: usize, long: bool) -> Vec<f64> {
        let d = self.dims as f64;
        let stretched = |i: usize, f: f64| match &self.scaling {
            RopeScaling::Plain | RopeScaling::Dynamic { .. } => f,
            RopeScaling::Linear { factor } => f / factor,
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original } => {
                let wavelength = 2.0 * PI / f;
                if wavelength < original / high_freq_factor {
                    f
                } else if wavelength > original / low_freq_factor {
                    f / factor
                } else {
                    let smooth =
                        (original / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
                    (1.0 - smooth) * f / factor + smooth * f
                }
            }
            RopeScaling::Yarn { factor, original, beta_fast, beta_slow, truncate, .. } => {
                // The pair that turns so many times in the original context.
                let pair = |turns: f64| d * (original / (turns * 2.0 * PI)).ln() / (2.0 * self.theta.ln());
                let (mut low, mut high) = (pair(*beta_fast), pair(*beta_slow));
                if *truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                (low, high) = (low.max(0.0), high.min(d - 1.0));
                if low == high {
                    high += 0.001;
                }
                let slow = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                slow * f / factor + (1.0 - slow) * f
            }
            RopeScaling::Long { short, long: divisors, .. } => f / (if long { divisors } else { short })[i],
        };
        let turning = (0..self.dims / 2).map(|i| stretched(i, self.theta.powf(-2.0 * i as f64 / d)));
        turning.chain(std::iter::repeat(0.0)).take(head_dim / 2).collect()
    }

    /// By what the stretch divides the frequency of each pair that turns, the first turning fastest; `long` is whether
    /// the sequence is, where that makes a difference.
    pub fn divisors(&self, long: bool) -> Vec<f64> {
        let stretched = self.frequencies(self.dims, long);
        let plain = Rope { scaling: RopeScaling::Plain, ..self.clone() };
        plain.frequencies(self.dims, long).iter().zip(stretched).map(|(plain, f)| plain / f).collect()
    }

    /// `[positions, head_dim]`: half cosines, half sines a position, for [`duel_backend::Attention::rope`]; where long
    /// sequences turn in another way, as many rows of theirs behind them.
    pub(crate) fn table(&self, head_dim: usize, positions: usize) -> Vec<f64> {
        let (factor, lengths) = match &self.scaling {
            RopeScaling::Yarn { attention_factor, .. } => (*attention_factor, &[false][..]),
            RopeScaling::Long { attention_factor, original, .. } => {
                (*attention_factor, if positions > *original { &[false, true][..] } else { &[false] })
            }
            _ => (1.0, &[false][..]),
        };
        let turning = self.dims / 2;
        let row = |frequencies: &[f64], p: usize| -> Vec<f64> {
            let angles = frequencies.iter().map(|f| p as f64 * f);
            // What has no position is not multiplied either.
            let scaled = |(i, x): (usize, f64)| if i < turning { factor * x } else { x };
            let cosines = angles.clone().map(f64::cos).enumerate().map(scaled);
            cosines.chain(angles.map(f64::sin).enumerate().map(scaled)).collect()
        };
        let tables = lengths.iter().flat_map(|&long| {
            let frequencies = self.frequencies(head_dim, long);
            (0..positions).flat_map(move |p| row(&frequencies, p))
        });
        tables.collect()
    }

    /// Tokens of the longest sequence that turns as short ones do, where longer ones turn in another way.
    pub(crate) fn longest_short(&self) -> Option<usize> {
        match self.scaling {
            RopeScaling::Long { original, .. } => Some(original),
            _ => None,
        }
    }

    /// Where a head's elements lie of which the file's are the first, second and so on: pairs that turn stand half a
    /// head apart, as verbs want them, and what has no position between them. Scores are sums over elements, and do not
    /// see it. `None` where nothing moves.
    pub(crate) fn places(&self, head_dim: usize) -> Option<Vec<usize>> {
        let (turning, half) = (self.dims / 2, head_dim / 2);
        if turning == half && !self.pairs {
            return None;
        }
        let place = |j: usize| match j.checked_sub(self.dims) {
            None if self.pairs => j / 2 + j % 2 * half,
            None => j % turning + j / turning * half,
            Some(rest) => rest % (half - turning) + rest / (half - turning) * half + turning,
        };
        Some((0..head_dim).map(place).collect())
    }
}

impl RopeScaling {
    /// As configs have it.
    fn name(&self) -> &'static str {
        match self {
            RopeScaling::Plain => "default",
            RopeScaling::Linear { .. } => "linear",
            RopeScaling::Dynamic { .. } => "dynamic",
            RopeScaling::Llama3 { .. } => "llama3",
            RopeScaling::Yarn { .. } => "yarn",
            RopeScaling::Long { .. } => "longrope",
        }
    }

    fn original(&self) -> Option<u64> {
        match self {
            RopeScaling::Llama3 { original, .. } | RopeScaling::Yarn { original, .. } => {
                Some(*original as u64)
            }
            RopeScaling::Long { original, .. } => Some(*original as u64),
            RopeScaling::Plain | RopeScaling::Linear { .. } | RopeScaling::Dynamic { .. } => None,
        }
    }
}

/// What transformers 5 says of layers of one kind, where there are two.
fn of_kind<'a>(keys: Keys<'a>, kind: &'static str) -> Read<Option<Keys<'a>>> {
    let Some(new) = keys.object(NEW)?.filter(|new| !new.is_empty()) else { return Ok(None) };
    new.object(kind)?.map_or_else(|| Err(format!("lacks {}", new.named(kind))), |dict| Ok(Some(dict)))
}

/// What is there, or else what `other` says.
fn first<T>(here: Option<T>, other: impl FnOnce() -> Read<Option<T>>) -> Read<Option<T>> {
    here.map_or_else(other, |here| Ok(Some(here)))
}

/// Elements of a head that turn.
fn rotated(keys: Keys, dict: Keys, names: RopeKeys, head_dim: usize) -> Read<usize> {
    let beside = names.share.map_or(SHARE, |(key, _)| key);
    let places = [(dict, SHARE), (keys, beside), (keys, SHARE)];
    let (place, key) = places.into_iter().find(|(place, key)| place.get(key).is_some()).unwrap_or(places[1]);
    let said = place.number(key)?;
    let Some((_, default)) = names.share else {
        return match said.filter(|part| *part != 1.0) {
            Some(part) => {
                Err(format!("`{key}` is {part}; heads that turn in part are not known of this family"))
            }
            None => Ok(head_dim),
        };
    };
    let share = said.unwrap_or(default);
    let dims = (head_dim as f64 * share) as usize;
    if !(0.0..=1.0).contains(&share) || dims == 0 || !dims.is_multiple_of(2) {
        return Err(format!(
            "{} is {share}, by which {dims} of a head's {head_dim} elements turn; it must be a share by which an even \
             number of them does",
            place.named(key)
        ));
    }
    Ok(dims)
}

fn scaling(keys: Keys, dict: Keys, dims: usize, max_positions: usize) -> Read<RopeScaling> {
    let need = |x: Option<f64>, key: &str| x.ok_or_else(|| format!("lacks {}", dict.named(key)));
    let positive = |key: &str| need(dict.positive(key)?, key);
    let number = |key: &str| need(dict.number(key)?, key);
    // transformers reads the inner one, and when it builds the model puts the one beside it over that.
    let original = || {
        Ok::<usize, String>(first(keys.count(ORIGINAL)?, || dict.count(ORIGINAL))?.unwrap_or(max_positions))
    };
    let factor = |original: usize| {
        Ok::<f64, String>(dict.positive("factor")?.unwrap_or(max_positions as f64 / original as f64))
    };
    let name = dict.either("rope_type", "type");
    match dict.text(name)?.unwrap_or("default") {
        "default" => Ok(RopeScaling::Plain),
        "linear" => Ok(RopeScaling::Linear { factor: positive("factor")? }),
        "dynamic" => Ok(RopeScaling::Dynamic { factor: positive("factor")? }),
        "llama3" => Ok(RopeScaling::Llama3 {
            factor: positive("factor")?,
            low_freq_factor: number("low_freq_factor")?,
            high_freq_factor: number("high_freq_factor")?,
            original: original()? as f64,
        }),
        // Phi-3 called it by the two other names while it was new.
        "longrope" | "su" => long(dict, original()?, factor(original()?)?, dims),
        "yarn" if dict.get("short_factor").is_some() => long(dict, original()?, factor(original()?)?, dims),
        "yarn" => {
            let (original, beta) =
                (original()?, |key, default| Ok::<f64, String>(dict.positive(key)?.unwrap_or(default)));
            let s = factor(original)?;
            let grown = |m: f64| if s <= 1.0 { 1.0 } else { 0.1 * m * s.ln() + 1.0 };
            let attention_factor = match (dict.number("mscale")?, dict.number("mscale_all_dim")?) {
                (Some(m), Some(all)) if m != 0.0 && all != 0.0 => grown(m) / grown(all),
                _ => grown(1.0),
            };
            Ok(RopeScaling::Yarn {
                factor: s,
                original: original as f64,
                beta_fast: beta("beta_fast", 32.0)?,
                beta_slow: beta("beta_slow", 1.0)?,
                truncate: dict.flag("truncate")?.unwrap_or(true),
                attention_factor: dict.positive("attention_factor")?.unwrap_or(attention_factor),
            })
        }
        other => Err(format!(
            "{} is `{other}`, which is not known; duel knows default, linear, dynamic, yarn, llama3 and longrope",
            dict.named(name)
        )),
    }
}

fn long(dict: Keys, original: usize, s: f64, dims: usize) -> Read<RopeScaling> {
    let divisors = |key: &str| -> Read<Vec<f64>> {
        let list = dict.list(key)?.ok_or_else(|| format!("lacks {}", dict.named(key)))?;
        let divisors: Vec<f64> = list.iter().filter_map(Value::as_f64).filter(|x| *x > 0.0).collect();
        if divisors.len() != list.len() || list.len() != dims / 2 {
            return Err(format!(
                "{} must be {} numbers above 0, one for each pair of elements that turn",
                dict.named(key),
                dims / 2
            ));
        }
        Ok(divisors)
    };
    let grown = if s <= 1.0 { 1.0 } else { (1.0 + s.ln() / (original as f64).ln()).sqrt() };
    Ok(RopeScaling::Long {
        short: divisors("short_factor")?,
        long: divisors("long_factor")?,
        original,
        attention_factor: dict.positive("attention_factor")?.unwrap_or(grown),
    })
}
