//! A model onto the disk, as transformers loads it.

use crate::config::Config;
use crate::error::{Error, Result};
use crate::file_dtype::FileDtype;
use crate::lora::in_file;
use crate::names::SINGLE;
use crate::weights::{Model, Piece, Shape, Weights};
use crate::write::{Failure, STAGED, bytes_of, write_synced, write_tensors};
use duel_backend::{Backend, Float, Real, Weight};
use safetensors::tensor::{Dtype, View};
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

/// Writes config and weights into `dir` (which exists), in the precision they have, with the names and layout that
/// transformers loads. Files reach the disk before this returns.
///
/// # Errors
/// They cannot be written, or the device failed.
pub fn save<B: Backend>(b: &B, dir: &Path, config: &Config, model: &impl Weights<B>) -> Result<()> {
    save_as(b, dir, config, model, FileDtype::of::<B::Real>())
}

/// [`save`] in numbers of another type.
///
/// # Errors
/// As that, or a weight is beyond what the type holds.
pub fn save_as<B: Backend>(
    b: &B,
    dir: &Path,
    config: &Config,
    model: &impl Weights<B>,
    dtype: FileDtype,
) -> Result<()> {
    let path = dir.join("config.json");
    let text =
        serde_json::to_string_pretty(&config.saved(dtype.name())).map_err(|e| Error::file(&path, e))?;
    write_synced(&path, text.as_bytes())?;

    write_model(b, &dir.join(SINGLE), config, model, dtype, |_| true)
}

/// Writes the tensors of the parameters that `is_wanted` says so of into the file `path`.
pub(crate) fn write_model<B: Backend>(
    b: &B,
    path: &Path,
    config: &Config,
    model: &impl Weights<B>,
    dtype: FileDtype,
    is_wanted: impl Fn(&Shape) -> bool,
) -> Result<()> {
    let manifest = Model::manifest(config);
    let failure = &Failure::default();
    let mut tensors = Vec::new();
    for (shape, weight) in manifest.iter().into_iter().zip(model.view().into_vec()) {
        if !is_wanted(shape) {
            continue;
        }
        let (buf, mut first) = (weight.real(), 0);
        for piece in &shape.pieces {
            let dims = shape.stored(piece.rows);
            let name = in_file(config, &piece.name);
            tensors.push((name, Outgoing { b, failure, buf, shape, first, piece, dims, dtype, path }));
            first += piece.rows;
        }
    }
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let tensors = tensors.iter().map(|(name, t)| (name.as_ref(), t)).collect();
    write_tensors(path, tensors, Some(metadata), failure)
}

/// Name of the first tensor with a value that is not a finite number, if there is one. Fails when the device did.
pub fn first_not_finite<B: Backend>(
    b: &B,
    manifest: &Model<Shape>,
    weights: &impl Weights<B>,
) -> Result<Option<String>> {
    first_not_finite_of(b, manifest, &weights.view())
}

/// The same of a view of weights.
pub(crate) fn first_not_finite_of<B: Backend>(
    b: &B,
    manifest: &Model<Shape>,
    weights: &Model<Weight<'_, B>>,
) -> Result<Option<String>> {
    for (shape, weight) in manifest.iter().into_iter().zip(weights.iter()) {
        let finite = match weight {
            Weight::Real(buf) => finite::<B, B::Real>(b, buf, shape.len())?,
            Weight::Narrow(buf) => finite::<B, B::Narrow>(b, buf, shape.len())?,
            Weight::Blocks(blocks) => finite(b, blocks.factors(), b.len(blocks.factors()))?,
        };
        if !finite {
            return Ok(Some(shape.pieces[0].name.clone()));
        }
    }
    Ok(None)
}

/// Whether the first `len` elements are finite numbers.
fn finite<B: Backend, T: Float>(b: &B, buf: &B::Buf<T>, len: usize) -> Result<bool> {
    let mut staging = vec![T::default(); STAGED.min(len)];
    for from in (0..len).step_by(STAGED) {
        let part = &mut staging[..STAGED.min(len - from)];
        b.download(part, buf, from)?;
        if part.iter().any(|x| !x.to_f64().is_finite()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// One tensor of a file to be written; its bytes are made when its turn comes, so that a model is never held twice.
struct Outgoing<'a, B: Backend> {
    b: &'a B,
    failure: &'a Failure,
    buf: &'a Real<B>,
    shape: &'a Shape,
    first: usize,
    piece: &'a Piece,
    dims: Vec<usize>,
    dtype: FileDtype,
    path: &'a Path,
}

impl<B: Backend> View for &Outgoing<'_, B> {
    fn dtype(&self) -> Dtype {
        self.dtype.in_file()
    }
    fn shape(&self) -> &[usize] {
        &self.dims
    }
    fn data(&self) -> Cow<'_, [u8]> {
        let name = &self.piece.name;
        let bytes = FileDtype::of::<B::Real>().convert(self.dtype, self.arranged());
        bytes.unwrap_or_else(|what| {
            self.failure.set(Some(Error::file(self.path, format!("{name}: {what}"))));
            vec![0; self.data_len()].into()
        })
    }
    fn data_len(&self) -> usize {
        self.piece.rows * self.shape.cols * self.dtype.size()
    }
}

impl<B: Backend> Outgoing<'_, B> {
    /// The numbers in the order of the file, as the device computes with them.
    fn arranged(&self) -> Cow<'_, [u8]> {
        let (cols, rows) = (self.shape.cols, self.piece.rows);
        let range = self.first * cols..(self.first + rows) * cols;
        let bytes = bytes_of(self.b, self.failure, self.buf, range);
        let size = size_of::<B::Real>();
        let mut turned = Vec::new();
        if self.shape.transposed {
            turned.reserve_exact(bytes.len());
            for (c, r) in (0..cols).flat_map(|c| (0..rows).map(move |r| (c, r))) {
                turned.extend_from_slice(&bytes[(self.piece.place(r) * cols + c) * size..][..size]);
            }
        } else if self.piece.places.is_some() {
            turned.reserve_exact(bytes.len());
            for r in 0..rows {
                turned.extend_from_slice(&bytes[self.piece.place(r) * cols * size..][..cols * size]);
            }
        } else {
            return bytes;
        }
        turned.into()
    }
}
