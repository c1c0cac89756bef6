//! Rotary positions, by the two ways in which configs describe them.

use crate::keys::{Keys, Read};
use serde_json::{Map, Value, json};
use std::f64::consts::PI;

/// How rotary frequencies are stretched for long contexts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    Plain,
    /// Positions divided by a factor.
    Linear {
        /// The divisor.
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
}

/// Rotary position embedding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// Stretch for long contexts.
    pub scaling: RopeScaling,
}

/// Key of transformers 4, whose base stands beside it.
const OLD: &str = "rope_scaling";
/// Key of transformers 5, with the base inside.
const NEW: &str = "rope_parameters";

impl Rope {
    /// Reads a config with either key or both, by the precedence of transformers 5.
    pub(crate) fn read(keys: Keys, max_positions: usize) -> Read<Self> {
        let nothing = Map::new();
        let dict = match keys.object(OLD)?.filter(|dict| !dict.is_empty()) {
            Some(dict) => dict,
            None => keys.object(NEW)?.unwrap_or(Keys::new(&nothing)),
        };
        if let Some((layers, _)) = dict.iter().find(|(_, v)| v.is_object()) {
            return Err(format!(
                "{} is an object; rotary positions that differ from layer to layer are not known",
                dict.named(layers)
            ));
        }
        let theta = dict.positive("rope_theta")?;
        let theta = theta.map_or_else(|| keys.positive("rope_theta"), |inner| Ok(Some(inner)))?;
        let partial = dict.number("partial_rotary_factor")?;
        let partial =
            partial.map_or_else(|| keys.number("partial_rotary_factor"), |inner| Ok(Some(inner)))?;
        if let Some(part) = partial.filter(|part| *part != 1.0) {
            return Err(format!("`partial_rotary_factor` is {part}; heads that turn in part are not known"));
        }
        let need = |x: Option<f64>, key: &str| x.ok_or_else(|| format!("lacks {}", dict.named(key)));
        let positive = |key: &str| need(dict.positive(key)?, key);
        let number = |key: &str| need(dict.number(key)?, key);
        let name = dict.either("rope_type", "type");
        let scaling = match dict.text(name)?.unwrap_or("default") {
            "default" => RopeScaling::Plain,
            "linear" => RopeScaling::Linear { factor: positive("factor")? },
            "llama3" => {
                let key = "original_max_position_embeddings";
                // transformers reads the inner one, and when it builds the model puts the one beside it over that.
                let beside = keys.count(key)?;
                let original = beside.map_or_else(|| dict.count(key), |beside| Ok(Some(beside)))?;
                RopeScaling::Llama3 {
                    factor: positive("factor")?,
                    low_freq_factor: number("low_freq_factor")?,
                    high_freq_factor: number("high_freq_factor")?,
                    original: original.unwrap_or(max_positions) as f64,
                }
            }
            other => {
                return Err(format!(
                    "{} is `{other}`, which is not known; duel knows default, linear and llama3",
                    dict.named(name)
                ));
            }
        };
        Ok(Rope { theta: theta.unwrap_or(10_000.0), scaling })
    }

    /// Writes it for every reader: transformers 4 takes the base from beside `rope_scaling` and knows no
    /// `rope_parameters`, transformers 5 takes either.
    pub(crate) fn write(&self, json: &mut Map<String, Value>) {
        let scaling = match self.scaling {
            RopeScaling::Plain => Value::Null,
            RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original } => json!({
                "rope_type": "llama3", "factor": factor, "low_freq_factor": low_freq_factor,
                "high_freq_factor": high_freq_factor, "original_max_position_embeddings": original as u64,
            }),
        };
        if json.contains_key(NEW) {
            let mut new = if scaling.is_null() { json!({"rope_type": "default"}) } else { scaling.clone() };
            new["rope_theta"] = self.theta.into();
            json.insert(NEW.into(), new);
        }
        json.insert("rope_theta".into(), self.theta.into());
        json.insert(OLD.into(), scaling);
    }

    /// Angle of each pair of a head's elements at position 1.
    pub(crate) fn frequencies(&self, head_dim: usize) -> Vec<f64> {
        let stretched = |f: f64| match self.scaling {
            RopeScaling::Plain => f,
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
        };
        (0..head_dim / 2).map(|i| stretched(self.theta.powf(-2.0 * i as f64 / head_dim as f64))).collect()
    }
}
