//! Plain lists of buffers on the disk: an optimizer's state.

use crate::error::{Error, Result};
use crate::shards::{element, map};
use crate::write::{Failure, bytes_of, write_tensors};
use duel_backend::{Acc, Backend, Element, Float};
use safetensors::tensor::{Dtype, SafeTensors, View};
use std::borrow::Cow;
use std::path::Path;

/// A buffer as a tensor of one axis, in its own precision.
struct Flat<'a, B: Backend> {
    b: &'a B,
    failure: &'a Failure,
    buf: &'a Acc<B>,
    len: [usize; 1],
}

impl<B: Backend> View for &Flat<'_, B> {
    fn dtype(&self) -> Dtype {
        if B::Acc::DTYPE == duel_backend::Dtype::F64 { Dtype::F64 } else { Dtype::F32 }
    }
    fn shape(&self) -> &[usize] {
        &self.len
    }
    fn data(&self) -> Cow<'_, [u8]> {
        bytes_of(self.b, self.failure, self.buf, 0..self.len[0])
    }
    fn data_len(&self) -> usize {
        self.len[0] * size_of::<B::Acc>()
    }
}

/// Writes buffers (an optimizer's state) under the given names; they reach the disk before this returns.
pub fn save_flat<B: Backend>(b: &B, path: &Path, buffers: &[(String, &Acc<B>)]) -> Result<()> {
    let failure = &Failure::default();
    let flat = |buf| Flat { b, failure, buf, len: [b.len(buf)] };
    let flats: Vec<_> = buffers.iter().map(|(name, buf)| (name.as_str(), flat(*buf))).collect();
    write_tensors(path, flats.iter().map(|(name, f)| (*name, f)).collect(), None, failure)
}

/// Reads what [`save_flat`] wrote, bit for bit, into buffers of the same lengths.
///
/// # Errors
/// The file is damaged, or a tensor is missing or of another length or precision.
pub fn load_flat<B: Backend>(b: &B, path: &Path, buffers: Vec<(String, &mut Acc<B>)>) -> Result<()> {
    let bytes = map(path)?;
    let tensors = SafeTensors::deserialize(&bytes)
        .map_err(|e| Error::file(path, format!("is not a whole safetensors file ({e})")))?;
    for (name, buf) in buffers {
        let fail = |what| Error::file(path, format!("tensor `{name}` {what}"));
        let view = tensors.tensor(&name).map_err(|_| fail("is missing"))?;
        let want = if B::Acc::DTYPE == duel_backend::Dtype::F64 { Dtype::F64 } else { Dtype::F32 };
        if view.dtype() != want || view.shape() != [b.len(buf)] {
            return Err(fail("has another length or precision than this run needs"));
        }
        let size = size_of::<B::Acc>();
        let host: Vec<B::Acc> =
            view.data().chunks_exact(size).map(|x| B::Acc::from_f64(element(x, want))).collect();
        b.upload(buf, 0, &host);
    }
    Ok(())
}
