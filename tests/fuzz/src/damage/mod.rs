//! Damage to files, of the kinds that disks, downloads, editors and other programs do.

mod bytes;
mod json;
mod lines;
mod tensors;
mod text;

use duel_tests::Random;

/// A file of this name with one more thing wrong. `other` is the same file of another folder, to take pieces from.
pub fn damage(name: &str, file: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let extension = name.rsplit('.').next().unwrap_or_default();
    let structured = match extension {
        // Now and then without regard to what the file holds.
        _ if random.pick(0..8) == 0 => None,
        "json" => json::damage(file, other, random),
        "jsonl" => lines::damage(file, other, random),
        "safetensors" => tensors::damage(file, other, random),
        "jinja" => text::damage(file, other, &text::JINJA, random),
        "toml" => text::damage(file, other, &text::TOML, random),
        _ => None,
    };
    // What an earlier damage made unreadable has no structure left.
    structured.unwrap_or_else(|| bytes::damage(file, other, random))
}

/// One of a list.
fn one<'a, T>(of: &'a [T], random: &mut Random) -> &'a T {
    &of[random.pick(0..of.len())]
}

/// A run of up to `most` of `len` things; none of none.
fn run(len: usize, most: usize, random: &mut Random) -> std::ops::Range<usize> {
    let start = random.pick(0..len + 1);
    start..start + random.pick(0..most.min(len - start) + 1)
}
