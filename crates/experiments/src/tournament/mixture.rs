//! A mixture of policies: each sample is drawn by one of them.

use duel_random::{at, fraction};
use duel_train::Error;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A policy and how often it is the one.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// Its probability.
    pub weight: f64,
}

/// Policies with probabilities that sum to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixture(Vec<Part>);

/// How far from 1 the weights of a file may sum to: they were written by hand, perhaps.
const SUM: f64 = 1e-6;

impl Mixture {
    /// That which a file holds under `mixture`: a list of `{name, model, weight}`, where a folder that is no absolute
    /// path lies beside the file.
    ///
    /// # Errors
    /// The file is no such file, or its weights are no probabilities.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let wrong = |what: &str| Error::new(format!("{}: {what}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|e| wrong(&format!("cannot be read: {e}")))?;
        let whole: Value = serde_json::from_str(&text)
            .map_err(|e| wrong(&format!("is no JSON ({e}); give a tournament.json")))?;
        let list = whole["mixture"].as_array().ok_or_else(|| {
            wrong("has no list `mixture` of {name, model, weight}; give the tournament.json of `duel tournament`")
        })?;
        let mut names = BTreeSet::new();
        let mut parts = Vec::new();
        for (row, part) in list.iter().enumerate() {
            let wrong = |what: &str| wrong(&format!("`mixture`, entry {}: {what}", row + 1));
            let text = |key: &str| {
                part[key].as_str().ok_or_else(|| wrong(&format!("`{key}` is missing or no text; write it")))
            };
            let (name, folder) = (text("name")?, path.with_file_name("").join(text("model")?));
            let weight = part["weight"].as_f64().filter(|weight| (0.0..=1.0).contains(weight));
            let weight = weight.ok_or_else(|| wrong("`weight` is no number of 0 to 1; write one"))?;
            if !names.insert(name) {
                return Err(wrong(&format!("another entry is called {name} too; rename one")));
            }
            parts.push(Part { name: name.to_owned(), folder, weight });
        }
        let sum = parts.iter().fold(0.0, |sum, part| sum + part.weight);
        if (sum - 1.0).abs() > SUM {
            return Err(wrong(&format!("the weights of `mixture` sum to {sum}, not to 1; correct them")));
        }
        parts.retain(|part| part.weight > 0.0);
        Ok(Mixture(parts))
    }

    /// As a file in the folder `dir` has it: folders in `dir` by the way from there, others by their absolute path.
    pub fn json(parts: &[Part], dir: &Path) -> Value {
        let dir = absolute(dir);
        let part = |part: &Part| {
            let folder = absolute(&part.folder);
            let folder = folder.strip_prefix(&dir).unwrap_or(&folder);
            json!({"name": part.name, "model": folder.display().to_string(), "weight": part.weight})
        };
        parts.iter().map(part).collect()
    }

    /// The policies that are ever drawn.
    pub fn parts(&self) -> &[Part] {
        &self.0
    }

    /// Which of the policies draws this sample of this prompt: it follows from the three numbers alone.
    pub fn pick(&self, seed: u64, prompt: u64, sample: u64) -> usize {
        // Of its own: not the number that draws a token.
        const POLICY: u64 = 0x706F_6C69_6379;
        let drawn = fraction(at(&[seed, POLICY, prompt, sample]));
        let mut below = 0.0;
        let here = |part: &Part| {
            below += part.weight;
            drawn < below
        };
        // Weights may sum to a little less than 1.
        self.0.iter().position(here).unwrap_or(self.0.len() - 1)
    }
}

/// The folder where it is, if it is.
fn absolute(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn written(name: &str, text: &str) -> (PathBuf, Result<Mixture, Error>) {
        let dir = std::env::temp_dir().join(format!("duel-mixture-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("tournament.json");
        fs::write(&path, text).unwrap();
        let read = Mixture::read(&path);
        fs::remove_dir_all(&dir).unwrap();
        (dir, read)
    }

    #[test]
    fn policies_are_drawn_as_often_as_is_said() {
        let text = r#"{"mixture": [{"name": "a", "model": "a", "weight": 0.25},
            {"name": "b", "model": "/far/b", "weight": 0.75}, {"name": "c", "model": "c", "weight": 0}]}"#;
        let (dir, mixture) = written("good", text);
        let mixture = mixture.unwrap();
        let folders: Vec<&Path> = mixture.parts().iter().map(|part| &*part.folder).collect();
        assert_eq!(folders, [&*dir.join("a"), Path::new("/far/b")]);
        // 4,000 draws: the deviation of the share is 0.0068.
        let all = || (0..1000).flat_map(|prompt| (0..4).map(move |sample| (prompt, sample)));
        let share = all().filter(|(p, s)| mixture.pick(7, *p, *s) == 0).count() as f64 / 4000.0;
        assert!((share - 0.25).abs() < 4.0 * 0.0068, "{share}");
        assert!(all().any(|(p, s)| mixture.pick(7, p, s) != mixture.pick(8, p, s)));
        let json = json!({"mixture": Mixture::json(mixture.parts(), &dir)});
        assert_eq!(json["mixture"][1], json!({"name": "b", "model": "/far/b", "weight": 0.75}));
    }

    #[test]
    fn what_is_no_mixture_is_refused() {
        let error = |text: &str| written("bad", text).1.unwrap_err().to_string();
        assert!(error("{").contains("is no JSON"));
        assert!(error("{}").contains("has no list `mixture`"));
        let entry =
            |name: &str, weight: &str| format!(r#"{{"name": "{name}", "model": "m", "weight": {weight}}}"#);
        let of = |entries: &[String]| error(&format!(r#"{{"mixture": [{}]}}"#, entries.join(", ")));
        assert!(
            of(&[entry("a", "0.5"), entry("a", "0.5")]).contains("entry 2: another entry is called a too")
        );
        assert!(of(&[entry("a", "-0.5")]).contains("entry 1: `weight` is no number of 0 to 1"));
        assert!(of(&[entry("a", "0.5")]).contains("sum to 0.5, not to 1"));
        assert!(of(&[]).contains("sum to 0, not to 1"));
        assert!(of(&[r#"{"name": "a", "weight": 1}"#.into()]).contains("`model` is missing"));
    }
}
