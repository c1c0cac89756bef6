//! Rotary positions in llama.cpp's keys, and the tensors of divisors that some of them need.

use crate::arch::Arch;
use crate::file::{Entry, Value};
use duel_model::{Config, Rope, RopeScaling};

/// What a file says of positions.
#[derive(Default)]
pub(crate) struct Positions {
    /// Keys without the architecture before them.
    pub keys: Vec<Entry>,
    /// Divisors of frequencies, by the name of their tensor.
    pub divisors: Vec<(&'static str, Vec<f32>)>,
    /// What the user should hear.
    pub note: Option<String>,
}

/// The same for a model.
///
/// # Errors
/// What llama.cpp does not have, or not for this architecture.
pub(crate) fn positions(c: &Config, arch: &Arch) -> Result<Positions, String> {
    let Some(rope) = &c.rope else { return Ok(Positions::default()) };
    let lacks = |what: &str| Err(format!("llama.cpp's {} has no {what}", arch.name));
    let mut said = Positions::default();
    let mut add = |key: &str, value| said.keys.push((format!("rope.{key}"), value));
    add("dimension_count", Value::U32(rope.dims as u32));
    add("freq_base", Value::F32(rope.theta as f32));
    if let Some(Rope { theta, scaling, .. }) = &c.local_rope {
        if *scaling != RopeScaling::Plain {
            return lacks("positions of its layers with windows that are stretched");
        }
        add("freq_base_swa", Value::F32(*theta as f32));
    }
    match &rope.scaling {
        // Up to the model's longest position there is nothing to it.
        RopeScaling::Plain | RopeScaling::Dynamic { .. } => {}
        RopeScaling::Linear { factor } => {
            add("scaling.type", Value::Text("linear".into()));
            add("scaling.factor", Value::F32(*factor as f32));
        }
        RopeScaling::Yarn { factor, original, beta_fast, beta_slow, truncate, attention_factor } => {
            // It multiplies cosines and sines by this, whatever else is said.
            let own = 0.1 * factor.ln() + 1.0;
            if !arch.yarn || !truncate || (attention_factor - own).abs() > 1e-6 {
                return lacks("positions stretched by such a yarn");
            }
            add("scaling.type", Value::Text("yarn".into()));
            add("scaling.factor", Value::F32(*factor as f32));
            add("scaling.original_context_length", Value::U32(*original as u32));
            add("scaling.yarn_beta_fast", Value::F32(*beta_fast as f32));
            add("scaling.yarn_beta_slow", Value::F32(*beta_slow as f32));
        }
        RopeScaling::Llama3 { .. } => {
            if !arch.divisors {
                return lacks("positions stretched as Llama 3's");
            }
            said.divisors.push(("rope_freqs.weight", single(rope.divisors(false))));
        }
        RopeScaling::Long { original, attention_factor, .. } => {
            if !arch.longrope {
                return lacks("positions stretched by longrope");
            }
            add("scaling.original_context_length", Value::U32(*original as u32));
            add("scaling.attn_factor", Value::F32(*attention_factor as f32));
            said.divisors.push(("rope_factors_long.weight", single(rope.divisors(true))));
            said.divisors.push(("rope_factors_short.weight", single(rope.divisors(false))));
            said.note = Some(format!(
                "llama.cpp takes the positions of long sequences wherever it has room for more than {original} tokens; give \
                 it a context of at most that for short ones"
            ));
        }
    }
    if arch.original_length && !said.keys.iter().any(|(key, _)| key.ends_with("original_context_length")) {
        let longest = Value::U32(c.max_positions as u32);
        said.keys.push(("rope.scaling.original_context_length".into(), longest));
    }
    Ok(said)
}

fn single(all: Vec<f64>) -> Vec<f32> {
    all.into_iter().map(|x| x as f32).collect()
}
