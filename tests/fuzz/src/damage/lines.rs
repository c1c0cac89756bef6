//! Damage to a file of one JSON value a line.

use super::{bytes, json};
use duel_tests::Random;

/// One line changed, or the lines themselves.
pub fn damage(file: &[u8], other: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = file.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
    let others: Vec<&[u8]> = other.split_inclusive(|b| *b == b'\n').collect();
    if lines.is_empty() || others.is_empty() {
        return None;
    }
    let at = random.pick(0..lines.len());
    let foreign = others[random.pick(0..others.len())];
    match random.pick(0..12) {
        0 => drop(lines.remove(at)),
        1 => lines.insert(at, lines[at].clone()),
        2 => lines.insert(at, foreign.to_vec()),
        3 => drop(lines[at].pop()), // two in one line
        4 => lines.insert(at, b"\r\n \t\n".to_vec()),
        5 => lines.insert(0, b"\xef\xbb\xbf".to_vec()),
        _ => {
            lines[at] = match json::damage(lines[at].trim_ascii_end(), foreign, random) {
                Some(line) => [line, b"\n".to_vec()].concat(),
                None => bytes::damage(&lines[at], foreign, random),
            }
        }
    }
    Some(lines.concat())
}
