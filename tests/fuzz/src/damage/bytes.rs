//! Damage to a file of any content.

use super::run;
use duel_tests::Random;

/// Bytes that mean something to one format or another.
const MARKS: &[u8] = b"\0\x01\x7f\x80\xc3\xff\n\r\t \"'\\{}[]:,-%";

/// A bit, a byte, or a run of bytes changed.
pub fn damage(file: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut file = file.to_vec();
    let len = file.len();
    let mark = |random: &mut Random| MARKS[random.pick(0..MARKS.len())];
    match random.pick(0..7) {
        0 if len > 0 => file[random.pick(0..len)] ^= 1 << random.pick(0..8),
        1 if len > 0 => file[random.pick(0..len)] = mark(random),
        2 => file.truncate(random.pick(0..len + 1)),
        3 => drop(file.drain(run(len, 64, random))),
        4 => {
            let copy = file[run(len, 64, random)].repeat(random.pick(1..9));
            let at = random.pick(0..len + 1);
            file.splice(at..at, copy);
        }
        5 => {
            let at = run(len, 64, random);
            file.splice(at, other[run(other.len(), 64, random)].iter().copied());
        }
        _ => {
            let at = random.pick(0..len + 1);
            let marks: Vec<u8> = (0..random.pick(1..9)).map(|_| mark(random)).collect();
            file.splice(at..at, marks);
        }
    }
    file
}
