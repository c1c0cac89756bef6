//! Windows of layers, by the keys that many families share.

use crate::config::{LayerKind, MOST_LAYERS};
use crate::keys::{Keys, Read};
use crate::plural::counted;

/// How far back layers with a window look. `null` says that there is none; without the key it is `default`.
pub(crate) fn window(keys: Keys, default: Option<usize>) -> Read<Option<usize>> {
    const KEY: &str = "sliding_window";
    match keys.count(KEY)? {
        Some(0) => Err(format!("`{KEY}` is 0; a token sees itself at least, and null means no window")),
        None if !keys.is_null(KEY) => Ok(default),
        said => Ok(said),
    }
}

/// Which layers have a window: those that `layer_types` names, where it is there, or else those of `default`.
pub(crate) fn sliding(keys: Keys, layers: usize, default: impl Fn(usize) -> bool) -> Read<Vec<bool>> {
    // Of a file that lies, no list is made.
    let layers = layers.min(MOST_LAYERS + 1);
    let Some(types) = keys.list("layer_types")? else { return Ok((0..layers).map(default).collect()) };
    if types.len() != layers {
        return Err(format!(
            "`layer_types` has {} for {}",
            counted(types.len(), "entry", "entries"),
            counted(layers, "layer", "layers")
        ));
    }
    let slides = |of: &serde_json::Value| match of.as_str() {
        Some("full_attention") => Ok(false),
        Some("sliding_attention") => Ok(true),
        _ => Err(format!("`layer_types` has {of}; duel knows full_attention and sliding_attention")),
    };
    types.iter().map(slides).collect()
}

/// The kinds of layers of which `sliding` is said, given both; as short as they can be said.
pub(crate) fn kinds(sliding: &[bool], full: LayerKind, windowed: LayerKind) -> Vec<LayerKind> {
    let kinds: Vec<_> = sliding.iter().map(|&slides| if slides { windowed } else { full }).collect();
    match kinds.first() {
        Some(first) if kinds.iter().all(|kind| kind == first) => vec![*first],
        _ => kinds,
    }
}

/// One kind of layer, with this window or none, for families whose layers are all alike.
pub(crate) fn everywhere(keys: Keys, layers: usize, window: Option<usize>) -> Read<Vec<LayerKind>> {
    if sliding(keys, layers, |_| window.is_some())?.contains(&window.is_none()) {
        return Err(
            "`layer_types` is there; layers of this family are all alike, as `sliding_window` says".into()
        );
    }
    Ok(vec![LayerKind { window, ..LayerKind::default() }])
}

/// Windows as Qwen has them: of the layers from `max_window_layers` on, where they are switched on.
pub(crate) fn from_some_layer(keys: Keys, layers: usize) -> Read<Vec<LayerKind>> {
    let from = keys.count("max_window_layers")?.unwrap_or(28);
    switched(keys, layers, Some(4096), |l| l >= from)
}

/// Windows of the layers that `slides` names, where they are switched on and have a length, by itself `default`.
pub(crate) fn switched(
    keys: Keys,
    layers: usize,
    default: Option<usize>,
    slides: impl Fn(usize) -> bool,
) -> Read<Vec<LayerKind>> {
    let on = keys.flag("use_sliding_window")?.unwrap_or(false);
    let window = if on { window(keys, default)? } else { None };
    let sliding = sliding(keys, layers, |l| window.is_some() && slides(l))?;
    if window.is_none() && sliding.contains(&true) {
        return Err(
            "`layer_types` has sliding_attention, but no window is on; set `use_sliding_window` to true and \
                    `sliding_window` to its length"
                .into(),
        );
    }
    let full = LayerKind::default();
    Ok(kinds(&sliding, full, LayerKind { window, ..full }))
}

/// Models without windows: their configs may have the keys, and must leave all of them off.
pub(crate) fn refuse_windows(keys: Keys, layers: usize) -> Read<()> {
    match from_some_layer(keys, layers)?.iter().find_map(|kind| kind.window) {
        Some(n) => {
            Err(format!("`use_sliding_window` is true, with {n} positions; this family has no windows"))
        }
        None => Ok(()),
    }
}
