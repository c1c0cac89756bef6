//! Signs that weights are quantised, which no arithmetic here reads.

use crate::error::{Error, Result};
use crate::keys::{Keys, Read};
use crate::shards::{FLOATS, Shards};
use safetensors::tensor::Dtype;
use std::path::Path;

/// Files that quantisers leave beside the weights.
pub(crate) const FILES: [&str; 3] = ["quantize_config.json", "quant_config.json", "hf_quant_config.json"];

/// Parts of the names of what quantisers save beside a weight or in its place, between dots.
const PARTS: [&str; 14] = [
    "qweight",
    "qzeros",
    "scales",
    "g_idx",
    "absmax",
    "quant_map",
    "quant_state",
    "SCB",
    "weight_packed",
    "weight_scale",
    "weight_scale_inv",
    "weight_scale_2",
    "weight_zero_point",
    "input_scale",
];

/// Refuses a config that says so.
pub(crate) fn refuse_config(keys: Keys) -> Read<()> {
    for key in ["quantization_config", "compression_config"] {
        let Some(how) = keys.object(key)? else { continue };
        let bits = ["load_in_4bit", "load_in_8bit"];
        let method = match how.text("quant_method")? {
            Some(method) => method,
            None if bits.iter().any(|bits| how.get(bits).is_some()) => "bitsandbytes",
            None => "an unnamed method",
        };
        return Err(format!(
            "`{key}` says that the weights are quantised ({method}), which cannot be trained; take the unquantised \
             model"
        ));
    }
    Ok(())
}

/// Refuses a folder with a quantiser's file.
pub(crate) fn refuse_folder(dir: &Path) -> Result<()> {
    match FILES.iter().find(|name| dir.join(name).is_file()) {
        Some(name) => Err(Error::file(
            dir,
            format!(
                "the weights are quantised (found {name}), which cannot be trained; take the unquantised model, or \
                 remove that file if it is not theirs"
            ),
        )),
        None => Ok(()),
    }
}

/// Refuses weights of a quantiser's types or names.
pub(crate) fn refuse_weights(shards: &Shards) -> Result<()> {
    let refusal = |path, sign| {
        Err(Error::file(
            path,
            format!(
                "the weights are quantised ({sign}), which cannot be trained; take the unquantised model"
            ),
        ))
    };
    for name in shards.names() {
        let Some(tensor) = shards.get(name) else { continue };
        if name.split('.').any(|part| PARTS.contains(&part)) {
            return refusal(tensor.path, format!("found `{name}`"));
        }
        // Constants beside the weights, as masks, may well be of such types.
        if name.ends_with("weight") && is_quantised(tensor.dtype) {
            return refusal(tensor.path, format!("`{name}` is {:?}, not {FLOATS}", tensor.dtype));
        }
    }
    Ok(())
}

fn is_quantised(dtype: Dtype) -> bool {
    use Dtype::*;
    matches!(
        dtype,
        U8 | I8 | I32 | F4 | F6_E2M3 | F6_E3M2 | F8_E4M3 | F8_E5M2 | F8_E8M0 | F8_E4M3FNUZ | F8_E5M2FNUZ
    )
}
