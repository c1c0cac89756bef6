//! Who plays, and what each writes.

use super::Tournament;
use crate::scene::read_prompts;
use crate::study::Study;
use duel_backend::Backend;
use duel_data::{Files, Prompt};
use duel_judge::Answer;
use duel_model::Folder;
use duel_model::decode::{Room, Sampling};
use duel_random::at;
use duel_rollout::{Asked, Sampler};
use duel_train::report::progress::Progress;
use duel_train::sample::SEQUENCES;
use duel_train::{Error, signal};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Prompts whose samples are drawn, and written down, at a time.
const PORTION: usize = 64;

/// A policy that plays.
#[derive(Clone, Debug, PartialEq)]
pub struct Entrant {
    /// How it is called.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
}

impl Entrant {
    /// The policy of `FOLDER`, which its last part names, or of `NAME=FOLDER`; what is a folder as a whole is one.
    ///
    /// # Errors
    /// The name or the folder is empty.
    pub fn named(said: &str) -> Result<Self, Error> {
        let (name, folder) = match said.split_once('=').filter(|_| !Path::new(said).is_dir()) {
            Some((name, folder)) => (name.to_owned(), folder),
            None => {
                let last = Path::new(said).file_name().map(|name| name.to_string_lossy().into_owned());
                (last.unwrap_or_else(|| said.to_owned()), said)
            }
        };
        if name.is_empty() || folder.is_empty() {
            let what = if name.is_empty() { "name" } else { "folder" };
            return Err(Error::new(format!(
                "--policy {said:?} has an empty {what}; write FOLDER or NAME=FOLDER"
            )));
        }
        Ok(Entrant { name, folder: folder.into() })
    }

    /// The prompts of files as this policy reads them.
    ///
    /// # Errors
    /// Its folder is no language model, or it cannot go on from a row.
    pub fn prompts(&self, files: &Files) -> Result<Vec<Prompt>, Error> {
        let folder = Folder::open(&self.folder)?.language_model()?;
        folder.notes().iter().for_each(|note| duel_train::say!("note: {note}"));
        read_prompts(files, &duel_train::tokenizer(&self.folder)?, folder.config())
    }

    /// Its samples of each prompt, as they are drawn in the tournament that is played; what was drawn before is read.
    ///
    /// # Errors
    /// The device or the disk failed, or Ctrl-C.
    pub fn draw<B: Backend>(
        &self,
        b: &B,
        study: &mut Study,
        played: &Tournament,
        prompts: &[Prompt],
    ) -> Result<Vec<Vec<Answer>>, Error> {
        let (samples, how) = (played.samples, played.how);
        let folder = Folder::open(&self.folder)?.language_model()?;
        let tokenizer = duel_train::tokenizer(&self.folder)?;
        // Loaded where there is anything to draw.
        let mut desk = None;
        let mut progress = Progress::new(&self.name, "prompts", 0, prompts.len() as u64);
        let mut all = Vec::with_capacity(prompts.len());
        for (portion, some) in prompts.chunks(PORTION).enumerate() {
            let drawn = study.point(&format!("draw {} {portion}", self.name), || {
                if desk.is_none() {
                    let sizes = prompts.iter().map(|prompt| (prompt.tokens.len(), samples));
                    let room = Room::for_sizes(sizes, SEQUENCES, how.max_new_tokens);
                    let weights = match played.load_in_8bit {
                        true => duel_model::load_in_8bit(b, &folder)?,
                        false => duel_model::load_frozen(b, &folder)?,
                    };
                    desk = Some((weights, Sampler::new(b, folder.config(), room, self.sampling(how))?));
                }
                let Some((weights, sampler)) = &mut desk else { unreachable!("it was made") };
                let id = (portion * PORTION) as u64;
                let asked: Vec<_> = some.iter().zip(id..).map(|(prompt, id)| Asked { prompt, id }).collect();
                let drawn = sampler.draw(b, weights, &tokenizer, &asked, samples, |_| !signal::interrupted());
                let drawn = drawn?.ok_or_else(stopped)?;
                let sample = |s: &duel_rollout::Sample| json!([s.text, s.tokens, s.truncated]);
                Ok(drawn.iter().map(|r| r.samples.iter().map(sample).collect::<Value>()).collect())
            })?;
            all.extend(answers(&drawn).ok_or_else(|| {
                Error::new(format!("what was found of {} is damaged; remove points.jsonl", self.name))
            })?);
            progress.advance(some.len() as u64);
        }
        Ok(all)
    }

    /// Every policy draws with numbers of its own: those of its name, whoever plays beside it.
    fn sampling(&self, how: Sampling) -> Sampling {
        let place: Vec<u64> = [how.seed].into_iter().chain(self.name.bytes().map(u64::from)).collect();
        Sampling { seed: at(&place), ..how }
    }
}

/// Who is asked to end says how to go on.
pub(super) fn stopped() -> Error {
    Error::new("stopped; the same command goes on from here")
}

fn answers(drawn: &Value) -> Option<Vec<Vec<Answer>>> {
    let answer = |value: &Value| {
        let tokens = value[1].as_array()?.iter().map(|token| u32::try_from(token.as_u64()?).ok());
        Some(Answer {
            text: value[0].as_str()?.to_owned(),
            tokens: tokens.collect::<Option<_>>()?,
            truncated: value[2].as_bool()?,
        })
    };
    drawn.as_array()?.iter().map(|prompt| prompt.as_array()?.iter().map(answer).collect()).collect()
}

/// Whether they can play: two at least, with different names.
///
/// # Errors
/// They cannot.
pub fn check(entrants: &[Entrant]) -> Result<(), Error> {
    if let [] | [_] = entrants {
        return Err(Error::new(format!(
            "a tournament has two policies at least, and {} is given; name another --policy",
            if entrants.is_empty() { "none" } else { "one" }
        )));
    }
    for (i, entrant) in entrants.iter().enumerate() {
        if let Some(other) = entrants[..i].iter().find(|other| other.name == entrant.name) {
            return Err(Error::new(format!(
                "two policies are called {}: {} and {}; name one of them, as --policy NAME=FOLDER",
                entrant.name,
                other.folder.display(),
                entrant.folder.display()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_have_different_names() {
        let of = |said: &[&str]| {
            check(&said.iter().map(|said| Entrant::named(said)).collect::<Result<Vec<_>, _>>()?)
        };
        let error = |said: &[&str]| of(said).unwrap_err().to_string();
        assert!(error(&["a"]).contains("two policies at least, and one is given"));
        assert!(error(&["x/dpo/", "y/dpo"]).contains("called dpo: x/dpo/ and y/dpo; name one"));
        assert!(error(&["a", "b="]).contains("--policy \"b=\" has an empty folder; write"));
        assert!(error(&["a", "=b"]).contains("has an empty name"));
        assert_eq!(of(&["x/dpo", "new=y/dpo"]), Ok(()));
    }

    #[test]
    fn a_folder_may_have_an_equals_sign() {
        let folder =
            std::env::temp_dir().join(format!("duel-entrant-{}", std::process::id())).join("beta=0.1");
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.display().to_string();
        assert_eq!(Entrant::named(&path), Ok(Entrant { name: "beta=0.1".into(), folder: folder.clone() }));
        let named = Entrant::named(&format!("b={path}")).unwrap();
        assert_eq!((&*named.name, &named.folder), ("b", &folder));
        std::fs::remove_dir_all(folder.with_file_name("")).unwrap();
    }
}
