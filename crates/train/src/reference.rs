//! Log-probabilities of the reference model: computed once, kept on disk by content.

use crate::Error;
use crate::engine::Engine;
use crate::progress::Progress;
use crate::signal;
use duel_backend::{Backend, Element, Real};
use duel_data::Dataset;
use duel_model::Model;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Part of the key: changes when the same inputs would give other numbers or another file.
const FORMAT: u64 = 4;

/// Name of the checksum in the file's metadata: the one damage that the format itself does not show is in the numbers.
const CHECKSUM: &str = "xxh3";

/// Identity of a model folder's content: its config and every weight file.
pub struct ModelId(Xxh3);

impl ModelId {
    /// Reads the files through once.
    pub fn of(dir: &Path) -> Result<Self, Error> {
        let entries =
            fs::read_dir(dir).map_err(|e| Error::new(format!("{}: cannot be read: {e}", dir.display())))?;
        let mut paths: Vec<PathBuf> = entries
            .filter_map(|e| e.ok().map(|e| e.path()))
            .filter(|p| p.extension().is_some_and(|x| x == "safetensors") || p.ends_with("config.json"))
            .collect();
        paths.sort();
        let mut hash = Xxh3::new();
        hash.update(&FORMAT.to_le_bytes());
        let mut buf = vec![0; 1 << 20];
        for path in paths {
            let failed = |e| Error::new(format!("{}: cannot be read: {e}", path.display()));
            let mut file = File::open(&path).map_err(failed)?;
            loop {
                let n = file.read(&mut buf).map_err(failed)?;
                if n == 0 {
                    break;
                }
                hash.update(&buf[..n]);
            }
            hash.update(b"/");
        }
        Ok(ModelId(hash))
    }

    /// Identity of this model in the precision of `B` together with a dataset: its tokens and their grouping.
    pub fn with<B: Backend>(&self, ds: &Dataset) -> String {
        self.hash(&format!("{:?}", B::Real::DTYPE), ds)
    }

    /// The same together with all that decides the bits that a backend gives: log-probabilities of another device are
    /// near, but at the first step the policy must be the reference to the bit.
    fn on<B: Backend>(&self, b: &B, ds: &Dataset) -> String {
        self.hash(&b.identity(), ds)
    }

    fn hash(&self, computed: &str, ds: &Dataset) -> String {
        let mut hash = self.0.clone();
        hash.update(computed.as_bytes());
        for group in ds.groups() {
            for part in std::iter::once(group.prompt).chain(group.responses()) {
                hash.update(&(part.len() as u64).to_le_bytes());
                part.iter().for_each(|t| hash.update(&t.to_le_bytes()));
            }
            hash.update(&u64::MAX.to_le_bytes());
        }
        format!("{:032x}", hash.digest128())
    }
}

/// The reference's summed log-probability of every response of a dataset.
pub struct Reference {
    logps: Vec<f64>,
    offsets: Vec<usize>,
    /// Seconds that computing them took; 0 when they were read from the cache.
    pub runtime: f64,
}

impl Reference {
    /// Of the responses of group `i`.
    pub fn group(&self, i: usize) -> &[f64] {
        &self.logps[self.offsets[i]..self.offsets[i + 1]]
    }

    /// Reads them from the cache, or computes them with `weights` and puts them there.
    pub fn of<B: Backend>(
        engine: &mut Engine<'_, B>,
        weights: &Model<Real<B>>,
        id: &ModelId,
        ds: &Dataset,
        cache: &Path,
    ) -> Result<Self, Error> {
        let offsets: Vec<usize> = std::iter::once(0)
            .chain(ds.groups().scan(0, |at, g| {
                *at += g.responses().len();
                Some(*at)
            }))
            .collect();
        let responses = offsets.last().copied().unwrap_or(0);
        let path = cache.join(format!("reference-{}.safetensors", id.on(engine.b, ds)));
        if let Some(logps) = read(&path, responses) {
            eprintln!("reference log-probs of {responses} responses read from {}", path.display());
            return Ok(Reference { logps, offsets, runtime: 0.0 });
        }
        let started = Instant::now();
        let indices: Vec<u32> = (0..ds.len() as u32).collect();
        let mut progress = Progress::new("reference log-probs", "groups", 0, ds.len() as u64);
        let stats = engine.score(weights, ds, &indices, |groups| {
            progress.advance(groups as u64);
            !signal::interrupted()
        })?;
        drop(progress);
        if stats.len() < responses {
            return Err(Error::new(
                "stopped while computing the reference log-probs; nothing was trained yet",
            ));
        }
        let logps: Vec<f64> = stats.iter().map(|s| s.logp).collect();
        if let Some(bad) = logps.iter().position(|x| !x.is_finite()) {
            let group = offsets.partition_point(|&o| o <= bad) - 1;
            return Err(Error::new(format!(
                "the model gives row {} of the data a log-probability of {}; its weights are broken",
                ds.group(group).row,
                logps[bad]
            )));
        }
        let runtime = started.elapsed().as_secs_f64();
        write(&path, &logps)?;
        Ok(Reference { logps, offsets, runtime })
    }
}

/// A cache file that is damaged or does not fit is as good as none.
fn read(path: &Path, len: usize) -> Option<Vec<f64>> {
    let bytes = fs::read(path).ok()?;
    let (_, header) = SafeTensors::read_metadata(&bytes).ok()?;
    let tensors = SafeTensors::deserialize(&bytes).ok()?;
    let view = tensors.tensor("logps").ok()?;
    let values: Vec<f64> =
        view.data().chunks_exact(8).map(|c| f64::from_le_bytes(c.try_into().unwrap_or_default())).collect();
    let sum = header.metadata().as_ref()?.get(CHECKSUM)?;
    let whole = view.dtype() == Dtype::F64 && values.len() == len && *sum == checksum(view.data());
    whole.then_some(values)
}

fn checksum(data: &[u8]) -> String {
    format!("{:016x}", xxh3_64(data))
}

fn write(path: &Path, logps: &[f64]) -> Result<(), Error> {
    let failed = |e: &dyn std::fmt::Display| {
        Error::new(format!(
            "{}: cannot be written ({e}); set cache_dir to a folder with room",
            path.display()
        ))
    };
    let bytes: Vec<u8> = logps.iter().flat_map(|x| x.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F64, vec![logps.len()], &bytes).map_err(|e| failed(&e))?;
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(|e| failed(&e))?;
    }
    let temporary = path.with_extension(format!("tmp{}", std::process::id()));
    let metadata = HashMap::from([(CHECKSUM.to_string(), checksum(&bytes))]);
    safetensors::serialize_to_file([("logps", view)], Some(metadata), &temporary).map_err(|e| failed(&e))?;
    fs::rename(&temporary, path).map_err(|e| failed(&e))
}
