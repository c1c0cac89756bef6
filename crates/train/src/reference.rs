//! Log-probabilities of the reference model: computed once, kept on disk by content.
//!
//! They are computed before the first step, of the groups that the planned steps visit and of no others. Not between
//! the steps: the policy begins as the reference, so that until the first step one copy of the weights is both, and
//! after it there would have to be room for two.

use crate::Error;
use crate::cache::{Cache, Record};
use crate::content::{feed, feed_tokenizer};
use crate::engine::Engine;
use crate::ranks::Ranks;
use crate::report::progress::Progress;
use crate::signal;
use duel_backend::{Backend, Element};
use duel_data::{Dataset, Labels};
use duel_model::Weights;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Instant;
use xxhash_rust::xxh3::Xxh3;

/// Part of every identity: changes when the same inputs would give other numbers.
const NUMBERS: u64 = 4;

/// Identity of a model folder's content: its config and every weight file.
pub struct ModelId(Xxh3);

impl ModelId {
    /// Reads the files through once; of an adapter's folder those of the model that it is for too.
    ///
    /// # Errors
    /// One cannot be read.
    pub fn of(dir: &Path) -> Result<Self, Error> {
        let entries =
            fs::read_dir(dir).map_err(|e| Error::new(format!("{}: cannot be read: {e}", dir.display())))?;
        let mut paths: Vec<PathBuf> = entries
            .filter_map(|e| e.ok().map(|e| e.path()))
            .filter(|p| p.extension().is_some_and(|x| x == "safetensors") || p.ends_with("config.json"))
            .collect();
        paths.sort();
        let mut hash = match duel_model::base_folder(dir)? {
            Some(base) => {
                paths.push(dir.join("adapter_config.json"));
                Self::of(&base)?.0
            }
            None => Xxh3::new(),
        };
        hash.update(&NUMBERS.to_le_bytes());
        for path in paths {
            feed(&mut hash, &path)?;
            hash.update(b"/");
        }
        Ok(ModelId(hash))
    }

    /// The same model with weights that are rounded, to what is said.
    pub fn held(mut self, rounding: Option<&str>) -> Self {
        rounding.into_iter().for_each(|what| self.0.update(what.as_bytes()));
        self
    }

    /// It in hexadecimal digits.
    pub fn digest(&self) -> String {
        format!("{:032x}", self.0.digest128())
    }

    /// Identity of this model in the precision of `B` together with a dataset: its tokens, their grouping, which of
    /// them are learned, and what is known of the responses.
    pub fn with<B: Backend>(&self, ds: &Dataset) -> String {
        let mut labels = Xxh3::new();
        for group in ds.groups() {
            let (kind, numbers) = match group.labels() {
                Labels::Ranked { margin } => (0u8, margin.into_iter().collect()),
                Labels::Scored(scores) => (1, scores.to_vec()),
                Labels::Unpaired { desirable } => (2 + u8::from(desirable), Vec::new()),
            };
            labels.update(&[kind]);
            numbers.iter().for_each(|x| labels.update(&x.to_le_bytes()));
        }
        self.hash(&format!("{:?}, labels {:x}", B::Real::DTYPE, labels.digest128()), ds)
    }

    /// The same without the labels, and with all that decides the bits that a backend gives: log-probabilities of
    /// another device are near, but at the first step the policy must be the reference to the bit. `ld_alpha` weighs
    /// the tokens of its sums.
    pub fn on<B: Backend>(&self, b: &B, ds: &Dataset, ld_alpha: Option<f64>) -> String {
        let weighed = ld_alpha.map_or_else(String::new, |alpha| format!(", ld_alpha {alpha}"));
        self.hash(&(b.identity() + &weighed), ds)
    }

    fn hash(&self, computed: &str, ds: &Dataset) -> String {
        let mut hash = self.0.clone();
        hash.update(computed.as_bytes());
        let mut bytes = Vec::new();
        for group in ds.groups() {
            bytes.clear();
            for part in std::iter::once(group.prompt).chain(group.responses()) {
                bytes.extend((part.len() as u64).to_le_bytes());
                bytes.extend(part.iter().flat_map(|t| t.to_le_bytes()));
            }
            hash.update(&bytes);
            for run in group.given() {
                [run.start, run.end].iter().for_each(|at| hash.update(&(*at as u64).to_le_bytes()));
            }
            hash.update(&u64::MAX.to_le_bytes());
        }
        format!("{:032x}", hash.digest128())
    }
}

/// Identity of a folder's model and tokenizer.
///
/// # Errors
/// A file cannot be read.
pub fn content(path: &Path) -> Result<String, Error> {
    let mut hash = Xxh3::new();
    feed_tokenizer(&mut hash, path)?;
    Ok(format!("{}-{:032x}", ModelId::of(path)?.digest(), hash.digest128()))
}

/// The reference's summed log-probability of every response of the groups that it was asked for.
pub struct Reference {
    groups: HashMap<u32, Vec<f64>>,
    /// Seconds that computing them took; 0 when all were read from the cache.
    pub runtime: f64,
}

impl Reference {
    /// Of the responses of group `i`.
    ///
    /// # Panics
    /// When that is none of the groups that were asked for.
    pub fn group(&self, i: u32) -> &[f64] {
        let logps = self.groups.get(&i);
        logps.unwrap_or_else(|| panic!("group {i} is none of those that the reference was asked for"))
    }

    /// Reads those of `groups` from the cache; what is missing there is computed with `weights`, in this order, and put
    /// there after every micro-batch, of which each rank computes one at a time. `what` calls them by a name.
    ///
    /// # Errors
    /// The device or the disk failed, the weights give what is no number, or Ctrl-C. What was computed stays in the
    /// cache.
    pub fn of<B: Backend>(
        ranks: &Ranks<'_>,
        engine: &mut Engine<'_, B>,
        weights: &impl Weights<B>,
        ds: &Dataset,
        groups: &[u32],
        cache: &Cache,
        what: &str,
    ) -> Result<Self, Error> {
        let asked: HashSet<u32> = groups.iter().copied().collect();
        let read = ranks.led(|| {
            Ok(cache.read(ds).into_iter().filter(|(i, _)| asked.contains(i)).collect::<Vec<Record>>())
        })?;
        let mut known: HashMap<u32, Vec<f64>> = read.into_iter().collect();
        let missing: Vec<u32> = groups.iter().copied().filter(|i| !known.contains_key(i)).collect();
        let read = groups.len() - missing.len();
        if !groups.is_empty() {
            say!(
                "reference log-probs of {} {what}: {read} read from {}, {} to be computed",
                groups.len(),
                cache.path().display(),
                missing.len()
            );
        }
        if missing.is_empty() {
            return Ok(Reference { groups: known, runtime: 0.0 });
        }
        let started = Instant::now();
        let mut appender = ranks.kept(|| cache.appender())?;
        let mut progress = Progress::new("reference log-probs", what, 0, missing.len() as u64);
        let mut computed = 0;
        for micros in engine.scored_together(ds, &missing).chunks(ranks.size()) {
            if ranks.any(signal::interrupted())? {
                return Err(Error::new(format!(
                    "stopped while computing the reference log-probs: those of {} of {} {what} are in {}, and the \
                     same command goes on from there; nothing was trained yet",
                    read + computed,
                    groups.len(),
                    cache.path().display()
                )));
            }
            let mine = micros.get(ranks.rank()).map_or(Ok(Vec::new()), |own| score(engine, weights, ds, own));
            let records = ranks.all(mine?)?.concat();
            ranks.agree(appender.as_mut().map_or(Ok(()), |appender| appender.append(&records)))?;
            computed += records.len();
            progress.advance(records.len() as u64);
            known.extend(records);
        }
        Ok(Reference { groups: known, runtime: started.elapsed().as_secs_f64() })
    }

    /// Forgets everything: the reference is another model now.
    pub fn forget(&mut self) {
        self.groups.clear();
    }

    /// Computes those of `groups` that are not there yet with `weights`, and keeps them in memory alone.
    ///
    /// # Errors
    /// The device failed, or the weights give what is no number.
    pub fn complete<B: Backend>(
        &mut self,
        ranks: &Ranks<'_>,
        engine: &mut Engine<'_, B>,
        weights: &impl Weights<B>,
        ds: &Dataset,
        groups: &[u32],
    ) -> Result<(), Error> {
        let missing: Vec<u32> = groups.iter().copied().filter(|i| !self.groups.contains_key(i)).collect();
        if !missing.is_empty() {
            let own = |own: Range<usize>| score(engine, weights, ds, &missing[own]);
            self.groups.extend(ranks.spread(missing.len(), own)?);
        }
        Ok(())
    }
}

/// The log-probabilities of the groups `micro`, all of them numbers.
fn score<B: Backend>(
    engine: &mut Engine<'_, B>,
    weights: &impl Weights<B>,
    ds: &Dataset,
    micro: &[u32],
) -> Result<Vec<Record>, Error> {
    let stats = engine.score(weights, ds, micro, |_| true)?;
    let mut rest = &stats[..];
    let record = |&i: &u32| {
        let group = ds.group(i as usize);
        let own = rest.split_off(..engine.parts(ds, i)).unwrap_or_default();
        let logps: Vec<f64> = own.iter().take(group.responses().len()).map(|s| s.logp).collect();
        match logps.iter().find(|x| !x.is_finite()) {
            Some(bad) => Err(Error::new(format!(
                "the model gives row {} of the data a log-probability of {bad}; its weights are broken",
                group.row
            ))),
            None => Ok((i, logps)),
        }
    };
    micro.iter().map(record).collect()
}
