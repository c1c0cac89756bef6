//! Where inputs come from: a right folder, damaged in a few places.

use crate::damage::damage;
use crate::{Files, Kind};
use duel_tests::Random;
use std::path::Path;

/// The inputs of one kind. Each is known by a seed and a number alone.
pub struct Source {
    /// What they are inputs of.
    pub kind: &'static Kind,
    seeds: Vec<Files>,
}

impl Source {
    /// Makes the right folders that all inputs start from.
    pub fn new(kind: &'static Kind) -> Self {
        Source { kind, seeds: (kind.seeds)() }
    }

    /// The right folders.
    pub fn seeds(&self) -> &[Files] {
        &self.seeds
    }

    /// Input `number` of a seed: the same on every machine and in every run.
    pub fn input(&self, seed: u64, number: u64) -> Files {
        let mix = |key, byte| Random(key ^ u64::from(byte)).bits();
        let mut random = Random(self.kind.name.bytes().chain(number.to_le_bytes()).fold(seed, mix));
        let mut files = self.pick(&mut random).clone();
        // One, or two half as often, up to four: what is damaged too much is not read far.
        for _ in 0..1 + random.bits().trailing_zeros().min(3) {
            let damaged: Vec<&str> =
                self.kind.damaged.iter().copied().filter(|name| files.contains_key(*name)).collect();
            if damaged.is_empty() {
                break;
            }
            let name = damaged[random.pick(0..damaged.len())];
            let other = self.pick(&mut random).get(name).map_or(&[][..], Vec::as_slice);
            if let Some(bytes) = files.get_mut(name) {
                *bytes = damage(name, bytes, other, &mut random);
            }
        }
        files
    }

    /// An input that is kept: the damaged files of `folder`, and the others of the first right folder.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn kept(&self, folder: &Path) -> std::io::Result<Files> {
        let mut files = self.seeds[0].clone();
        files.extend(crate::read(folder)?);
        Ok(files)
    }

    fn pick(&self, random: &mut Random) -> &Files {
        &self.seeds[random.pick(0..self.seeds.len())]
    }
}
