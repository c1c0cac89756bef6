//! Rewards of mean 0 and deviation 1: a reward model is known up to a shift, and its scale is an accident of its
//! training (Ziegler et al., 2019, section 2).

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// `gain * reward + bias`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalization {
    /// Greater than 0: no order changes.
    pub gain: f64,
    /// Added afterwards.
    pub bias: f64,
    /// How many rewards it was made of.
    pub samples: u64,
}

impl Normalization {
    /// Its name beside a reward model, which then gives normalised rewards.
    pub const FILE: &str = "reward_normalization.json";

    /// What gives these rewards, of samples of the reference, the mean 0 and the deviation 1.
    ///
    /// # Errors
    /// One of them is not finite, or they do not differ.
    pub fn of(rewards: &[f64]) -> Result<Self> {
        if let Some(bad) = rewards.iter().find(|reward| !reward.is_finite()) {
            return Err(Error::new(format!("rewards cannot be normalised: one of them is {bad}")));
        }
        let n = rewards.len() as f64;
        let mean = rewards.iter().sum::<f64>() / n;
        let deviation = (rewards.iter().map(|reward| (reward - mean).powi(2)).sum::<f64>() / n).sqrt();
        let found =
            Normalization { gain: 1.0 / deviation, bias: -mean / deviation, samples: rewards.len() as u64 };
        let differ = rewards.iter().any(|reward| *reward != rewards[0]);
        found.check().ok().filter(|()| differ).map(|()| found).ok_or_else(|| {
            Error::new(format!(
                "rewards cannot be normalised: the deviation of these {} is 0 (the first is {}), and no gain makes it 1; \
                 the judge tells no answers apart, or more samples are needed",
                rewards.len(),
                rewards.first().map_or("none".to_owned(), f64::to_string)
            ))
        })
    }

    /// The reward as it is used.
    pub fn apply(self, reward: f64) -> f64 {
        self.gain * reward + self.bias
    }

    /// That of a reward model's folder, where it has one.
    ///
    /// # Errors
    /// The file cannot be read, or is none.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(Self::FILE);
        let failed = |what: String| Error::new(format!("{}: {what}", path.display()));
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed(format!("cannot be read: {e}"))),
        };
        let wanted = "it is {\"gain\": .., \"bias\": .., \"samples\": ..}; remove it for rewards as they are";
        let found: Self =
            serde_json::from_slice(&bytes).map_err(|e| failed(format!("is broken ({e}): {wanted}")))?;
        found.check().map_err(|what| failed(format!("{what}: {wanted}")))?;
        Ok(Some(found))
    }

    /// As the file has it.
    pub fn text(&self) -> String {
        serde_json::json!(self).to_string()
    }

    fn check(&self) -> std::result::Result<(), String> {
        match (self.gain, self.bias) {
            (gain, _) if !(gain > 0.0 && gain.is_finite()) => {
                Err(format!("has the gain {gain}, which is no finite number above 0"))
            }
            (_, bias) if !bias.is_finite() => Err(format!("has the bias {bias}, which is not finite")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewards_get_mean_0_and_deviation_1() {
        let rewards = [3.0, 5.0, 3.5, 8.25, -1.0];
        let found = Normalization::of(&rewards).unwrap();
        assert_eq!(found.samples, 5);
        let used = rewards.map(|reward| found.apply(reward));
        let n = used.len() as f64;
        let (mean, square) =
            (used.iter().sum::<f64>() / n, used.iter().map(|reward| reward * reward).sum::<f64>() / n);
        // Sums of five numbers of up to 10, each rounded a few times.
        assert!(mean.abs() < 1e-15 * 50.0 && (square - 1.0).abs() < 1e-15 * 50.0, "{mean} {square}");
        assert!(used[1] > used[2] && used[2] > used[0], "the order stays");
    }

    #[test]
    fn what_cannot_be_normalised_is_said() {
        let error = |rewards: &[f64]| Normalization::of(rewards).unwrap_err().to_string();
        // The mean of three times 0.1 is not 0.1.
        assert!(error(&[0.1; 3]).contains("the deviation of these 3 is 0 (the first is 0.1)"));
        assert!(error(&[]).contains("of these 0 is 0 (the first is none)"));
        assert!(error(&[1.0]).contains("of these 1 is 0"));
        assert_eq!(error(&[1.0, f64::NAN]), "rewards cannot be normalised: one of them is NaN");
        // So near that their deviation is 0.
        assert!(error(&[0.0, 5e-324]).contains("of these 2 is 0"));
    }

    #[test]
    fn a_folder_keeps_it() {
        let folder = std::env::temp_dir().join(format!("duel-normalization-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let read = || Normalization::read(&folder);
        assert_eq!(read(), Ok(None));
        let found = Normalization::of(&[0.1, 0.7, -1.3]).unwrap();
        let path = folder.join(Normalization::FILE);
        fs::write(&path, found.text()).unwrap();
        assert_eq!(read(), Ok(Some(found)));
        for (text, what) in [
            (
                "{\"gain\": 0, \"bias\": 0, \"samples\": 4}",
                "has the gain 0, which is no finite number above 0",
            ),
            ("{\"gain\": -1, \"bias\": 0, \"samples\": 4}", "has the gain -1, which"),
            ("{\"gain\": 1, \"bias\": 0}", "is broken (missing field `samples`"),
            ("{\"gain\": 1, \"bias\": 0, \"samples\": 4, \"clip\": 5}", "is broken (unknown field `clip`"),
        ] {
            fs::write(&path, text).unwrap();
            let error = read().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{}: {what}", path.display())), "{error}");
            assert!(error.ends_with("remove it for rewards as they are"), "{error}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
