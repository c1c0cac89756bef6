//! The safetensors files of a folder, mapped into memory, and their tensors by name.

use crate::advice;
use crate::error::{Error, Result};
use crate::file_dtype::FileDtype;
use crate::json;
use crate::names::{INDEX, SINGLE};
use duel_backend::Float;
use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::tensor::{Dtype, SafeTensors, TensorInfo};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Types that weights can be of, as [`Tensor::is_float`] has it.
pub(crate) const FLOATS: &str = "F64, F32, BF16 or F16";

/// Modules that hold a model while it is compiled or trained, and stay in the names of a careless writer.
const WRAPPERS: [&str; 2] = ["_orig_mod.", "module."];

/// A mapped safetensors file.
struct Shard {
    path: PathBuf,
    bytes: Mmap,
    /// Where the tensors begin.
    data: usize,
}

/// Memory-mapped safetensors files of a folder.
pub(crate) struct Shards {
    /// The file that would name a tensor that is not there.
    pub(crate) listing: PathBuf,
    files: Vec<Shard>,
    /// File and place of every tensor.
    tensors: BTreeMap<String, (usize, TensorInfo)>,
}

/// A tensor in a mapped file.
#[derive(Clone, Copy)]
pub(crate) struct Tensor<'a> {
    /// The file.
    pub(crate) path: &'a Path,
    pub(crate) dtype: Dtype,
    pub(crate) shape: &'a [usize],
    data: &'a [u8],
    /// The file that these are of.
    map: &'a Mmap,
}

impl Shards {
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let (single, index) = (dir.join(SINGLE), dir.join(INDEX));
        // A link into a cache that lost the file is there, and cannot be opened.
        let is_there = |path: &Path| path.symlink_metadata().is_ok();
        let (listing, names) = if is_there(&single) {
            (single, BTreeSet::from([SINGLE.to_string()]))
        } else if is_there(&index) {
            let names = files_of(&index)?;
            (index, names)
        } else {
            return Err(advice::no_weights(dir));
        };
        let mut shards = Shards { listing, files: Vec::new(), tensors: BTreeMap::new() };
        for name in names {
            shards.add(dir.join(name))?;
        }
        shards.unwrap();
        Ok(shards)
    }

    /// One file alone.
    pub(crate) fn of_file(path: PathBuf) -> Result<Self> {
        let mut shards = Shards { listing: path.clone(), files: Vec::new(), tensors: BTreeMap::new() };
        shards.add(path)?;
        Ok(shards)
    }

    /// Takes off what torch.compile and DataParallel put before every name: the tensors are the same.
    fn unwrap(&mut self) {
        let before_all = |tensors: &BTreeMap<String, _>| {
            let all = |wrapper: &&str| !tensors.is_empty() && tensors.keys().all(|n| n.starts_with(*wrapper));
            WRAPPERS.into_iter().find(all)
        };
        while let Some(wrapper) = before_all(&self.tensors) {
            let tensors = std::mem::take(&mut self.tensors);
            self.tensors = tensors.into_iter().map(|(name, at)| (name[wrapper.len()..].into(), at)).collect();
        }
    }

    /// Takes the names that `rename` has for tensors.
    pub(crate) fn rename(&mut self, rename: impl Fn(&str) -> Option<String>) {
        let tensors = std::mem::take(&mut self.tensors);
        self.tensors = tensors.into_iter().map(|(name, at)| (rename(&name).unwrap_or(name), at)).collect();
    }

    /// Adds a file. Its own header says what it holds: an index may be older than its files.
    fn add(&mut self, path: PathBuf) -> Result<()> {
        let bytes = map(&path)?;
        let (header, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| {
            let why = json::stand_in(&bytes).map_or_else(|| e.to_string(), |what| format!("it is {what}"));
            Error::file(&path, format!("is not a whole safetensors file ({why}); download or copy it again"))
        })?;
        for (name, info) in metadata.tensors() {
            self.tensors.insert(name, (self.files.len(), info.clone()));
        }
        self.files.push(Shard { path, bytes, data: size_of::<u64>() + header });
        Ok(())
    }

    /// Names of all tensors, sorted.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    pub(crate) fn get(&self, name: &str) -> Option<Tensor<'_>> {
        let (file, info) = self.tensors.get(name)?;
        let Shard { path, bytes, data } = &self.files[*file];
        let (start, end) = info.data_offsets;
        let data = &bytes[data + start..data + end];
        Some(Tensor { path, dtype: info.dtype, shape: &info.shape, data, map: bytes })
    }
}

impl Tensor<'_> {
    /// Whether it holds numbers that weights can be.
    pub(crate) fn is_float(&self) -> bool {
        matches!(self.dtype, Dtype::F64 | Dtype::F32 | Dtype::BF16 | Dtype::F16)
    }

    /// Whether its numbers are of `T`.
    pub(crate) fn is_of<T: Float>(&self) -> bool {
        FileDtype::from_file(self.dtype).is_some_and(|dtype| dtype == FileDtype::of::<T>())
    }

    /// Its elements, where they are floating-point numbers.
    pub(crate) fn values(&self) -> impl Iterator<Item = f64> + '_ {
        let dtype = self.dtype;
        self.data.chunks_exact((dtype.bitsize() / 8).max(1)).map(move |bytes| element(bytes, dtype))
    }

    /// Its elements from number `from` on, each rounded once. The number of the first that is not finite is the error.
    pub(crate) fn read<R: Float>(&self, from: usize, out: &mut [R]) -> std::result::Result<(), usize> {
        let size = (self.dtype.bitsize() / 8).max(1);
        let data = &self.data[from * size..(from + out.len()) * size];
        let finite = match self.dtype {
            Dtype::BF16 => lift(data, out, |x| R::from_f32(bf16::from_le_bytes(x).to_f32())),
            Dtype::F16 => lift(data, out, |x| R::from_f32(f16::from_le_bytes(x).to_f32())),
            Dtype::F32 => lift(data, out, |x| R::from_f32(f32::from_le_bytes(x))),
            _ => lift(data, out, |x| R::from_f64(f64::from_le_bytes(x))),
        };
        if finite {
            return Ok(());
        }
        let bad = data.chunks_exact(size).position(|x| !element(x, self.dtype).is_finite());
        bad.map_or(Ok(()), |bad| Err(from + bad))
    }

    /// Takes what was read of it out of this process's memory; it is read again where it is wanted again.
    pub(crate) fn give_back(&self) {
        #[cfg(unix)]
        {
            let from = self.data.as_ptr().addr() - self.map.as_ptr().addr();
            // SAFETY: the mapping is of a file and only read, so that its pages come again with what the file holds. A
            // system that does not take the advice keeps them, no more.
            drop(unsafe {
                self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, from, self.data.len())
            });
        }
    }

    /// Whether both hold the same numbers.
    pub(crate) fn equals(&self, other: &Self) -> bool {
        let same = || self.is_float() && other.is_float() && self.values().eq(other.values());
        self.shape == other.shape && ((self.dtype == other.dtype && self.data == other.data) || same())
    }
}

/// The files that an index names.
fn files_of(index: &Path) -> Result<BTreeSet<String>> {
    let bytes = std::fs::read(index).map_err(|e| Error::file(index, format!("cannot be read: {e}")))?;
    let json: Value = serde_json::from_slice(&bytes).map_err(|e| json::broken(index, &bytes, &e))?;
    let weight_map =
        json["weight_map"].as_object().ok_or_else(|| Error::file(index, "has no `weight_map` object"))?;
    let file = |(tensor, file): (&String, &Value)| {
        file.as_str()
            .filter(|f| !f.contains(['/', '\\']))
            .map(str::to_string)
            .ok_or_else(|| Error::file(index, format!("`{tensor}` is not mapped to a file of this folder")))
    };
    weight_map.iter().map(file).collect()
}

/// Maps a whole file.
pub(crate) fn map(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(|e| Error::file(path, format!("cannot be opened: {e}")))?;
    // SAFETY: the mapping is only read, while it is held. Another process that truncates the file meanwhile can
    // stop this one with a signal; that is the price of every memory-mapped loader and does no harm to memory.
    unsafe { Mmap::map(&file) }.map_err(|e| Error::file(path, format!("cannot be mapped: {e}")))
}

/// Numbers of `N` bytes, one after another, as `of` makes them; whether all are finite.
fn lift<R: Float, const N: usize>(data: &[u8], out: &mut [R], of: impl Fn([u8; N]) -> R) -> bool {
    let mut finite = true;
    for (out, bytes) in out.iter_mut().zip(data.as_chunks::<N>().0) {
        *out = of(*bytes);
        finite &= out.to_f32().is_finite();
    }
    finite
}

/// One number of a file of floating-point numbers.
pub(crate) fn element(bytes: &[u8], dtype: Dtype) -> f64 {
    match dtype {
        Dtype::BF16 => bf16::from_le_bytes([bytes[0], bytes[1]]).to_f64(),
        Dtype::F16 => f16::from_le_bytes([bytes[0], bytes[1]]).to_f64(),
        Dtype::F32 => f64::from(f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])),
        _ => f64::from_le_bytes(bytes.try_into().unwrap_or_default()),
    }
}
