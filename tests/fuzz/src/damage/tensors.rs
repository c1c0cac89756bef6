//! Damage to a safetensors file: a header's size, a header of JSON, and data.

use super::{bytes, json};
use duel_tests::Random;

/// The header changed, or its size, or the data.
pub fn damage(file: &[u8], other: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    let (size, header, data) = parts(file)?;
    let assemble = |size: u64, header: &[u8], data: &[u8]| [&size.to_le_bytes(), header, data].concat();
    Some(match random.pick(0..8) {
        0 => {
            let lies = [0, 1, size - 1, size + 1, size + data.len() as u64, 1 << 32, 1 << 63, u64::MAX];
            assemble(lies[random.pick(0..lies.len())], header, data)
        }
        1 => assemble(size, header, &bytes::damage(data, parts(other).map_or(&[], |p| p.2), random)),
        how => {
            let foreign = parts(other).and_then(|p| serde_json::from_slice(p.1).ok()).unwrap_or_default();
            let mut tree = serde_json::from_slice(header).ok()?;
            let mut header = json::change(&mut tree, &foreign, random);
            header.resize(header.len().next_multiple_of(8), b' ');
            // Most often as a program would write it that believes its header.
            let size = if how == 2 { size } else { header.len() as u64 };
            assemble(size, &header, data)
        }
    })
}

fn parts(file: &[u8]) -> Option<(u64, &[u8], &[u8])> {
    let (size, rest) = file.split_first_chunk()?;
    let size = u64::from_le_bytes(*size);
    let (header, data) = rest.split_at_checked(usize::try_from(size).ok()?)?;
    (size > 0).then_some((size, header, data))
}
