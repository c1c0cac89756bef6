//! Bytes from a device, or from anywhere, onto the disk.

use crate::error::{Error, Result};
use duel_backend::{Backend, Float};
use duel_disk::Draft;
use half::bf16;
use safetensors::tensor::{Metadata, TensorInfo, View};
use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashMap;
use std::io::Write;
use std::ops::Range;
use std::path::Path;

/// Writes a whole file and waits until the disk has it.
pub fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    duel_disk::write_synced(path, bytes).map_err(|e| Error::file(path, format!("cannot be written: {e}")))
}

/// Waits until the disk has the names in a folder.
pub(crate) fn sync(path: &Path) -> Result<()> {
    duel_disk::sync(path).map_err(|e| Error::file(path, format!("did not reach the disk: {e}")))
}

/// What went wrong while the bytes of a file's tensors were made: safetensors asks for bytes alone.
pub(crate) type Failure = Cell<Option<Error>>;

/// Writes a file of tensors, of a device that may fail while it is read; it reaches the disk before this returns. The
/// layout is that of the safetensors crate: the widest types first, then by name, after a header of whole words.
pub(crate) fn write_tensors<V: View>(
    path: &Path,
    mut tensors: Vec<(&str, V)>,
    metadata: Option<HashMap<String, String>>,
    failure: &Failure,
) -> Result<()> {
    const WORD: usize = size_of::<u64>();
    tensors.sort_by(|(a, one), (b, other)| other.dtype().cmp(&one.dtype()).then(a.cmp(b)));
    let mut end = 0;
    let place = |(name, tensor): &(&str, V)| {
        let begin = end;
        end += tensor.data_len();
        let (dtype, shape) = (tensor.dtype(), tensor.shape().to_vec());
        ((*name).to_owned(), TensorInfo { dtype, shape, data_offsets: (begin, end) })
    };
    let places = tensors.iter().map(place).collect();
    let header = Metadata::new(metadata, places).map_err(|e| Error::file(path, e))?;
    let mut header = serde_json::to_vec(&header).map_err(|e| Error::file(path, e))?;
    header.resize(header.len().next_multiple_of(WORD), b' ');
    let write = || {
        let mut draft = Draft::new(path)?;
        draft.write_all(&(header.len() as u64).to_le_bytes())?;
        draft.write_all(&header)?;
        for (_, tensor) in &tensors {
            draft.write_all(&tensor.data())?;
        }
        // What a device could not give is not written as if it were.
        match failure.take() {
            None => Ok(draft.keep().map(drop)?),
            Some(e) => Err(Failed::Device(e)),
        }
    };
    write().map_err(|e| match e {
        Failed::Device(e) => e,
        Failed::Disk(e) => Error::file(path, format!("cannot be written ({e}); is the disk full?")),
    })
}

/// Who failed while tensors were written.
enum Failed {
    Device(Error),
    Disk(std::io::Error),
}

impl From<std::io::Error> for Failed {
    fn from(e: std::io::Error) -> Self {
        Failed::Disk(e)
    }
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
