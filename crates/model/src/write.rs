//! Bytes from a device, or from anywhere, onto the disk.

use crate::error::{Error, Result};
use duel_backend::{Backend, Float};
use half::bf16;
use safetensors::tensor::View;
use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::path::Path;

/// Writes a whole file and waits until the disk has it.
pub fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|e| Error::file(path, format!("cannot be written: {e}")))
}

/// Waits until the disk has a file, or the names in a folder.
pub(crate) fn sync(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|f| f.sync_all())
        .map_err(|e| Error::file(path, format!("did not reach the disk: {e}")))
}

/// What went wrong while the bytes of a file's tensors were made: safetensors asks for bytes alone.
pub(crate) type Failure = Cell<Option<Error>>;

/// Writes a file of tensors, of a device that may fail while it is read.
pub(crate) fn write_tensors<'a, V: View + 'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, V)>,
    metadata: Option<HashMap<String, String>>,
    failure: &Failure,
) -> Result<()> {
    safetensors::serialize_to_file(tensors, metadata, path)
        .map_err(|e| Error::file(path, format!("cannot be written ({e}); is the disk full?")))?;
    failure.take().map_or(Ok(()), Err)
}

/// Elements that are copied from a device at a time.
pub(crate) const STAGED: usize = 1 << 20;

/// Elements `range` of a buffer as files hold them: borrowed where they lie in the host's memory anyway, so that
/// saving a model needs no second copy of its largest tensor. After a failure they are as many zeros.
pub(crate) fn bytes_of<'a, B: Backend, T: Float>(
    b: &B,
    failure: &Failure,
    buf: &'a B::Buf<T>,
    range: Range<usize>,
) -> Cow<'a, [u8]> {
    let size = size_of::<T>();
    if let Some(bytes) = b.host_bytes(buf) {
        return Cow::Borrowed(&bytes[range.start * size..range.end * size]);
    }
    let mut bytes = Vec::with_capacity(range.len() * size);
    let mut staging = vec![T::default(); STAGED.min(range.len())];
    for from in range.clone().step_by(STAGED) {
        let part = &mut staging[..STAGED.min(range.end - from)];
        if let Err(e) = b.download(part, buf, from) {
            failure.set(Some(e.into()));
            return vec![0; range.len() * size].into();
        }
        for x in part {
            match T::DTYPE {
                duel_backend::Dtype::Bf16 => bytes.extend(bf16::from_f32(x.to_f32()).to_le_bytes()),
                duel_backend::Dtype::F64 => bytes.extend(x.to_f64().to_le_bytes()),
                _ => bytes.extend(x.to_f32().to_le_bytes()),
            }
        }
    }
    bytes.into()
}
