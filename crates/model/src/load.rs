//! Weights from a folder onto a device.

use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::shards::Tensor;
use crate::weights::{Frozen, Model, Piece, Shape, Stored};
use duel_backend::{Acc, Backend, Blocks, Element, Float, Real};

/// Reads the weights of a Hugging Face folder onto the device.
///
/// # Errors
/// A weight that is not a finite number; the file and the tensor are named. Or the device has no room.
pub fn load<B: Backend>(b: &B, folder: &Folder) -> Result<Model<Real<B>>> {
    read_all(folder, |_, host: &[B::Real]| upload(b, host))
}

/// The weights of a Hugging Face folder in the precision of sums, as a list in the order of [`Model::iter`]: masters
/// for an optimizer.
///
/// # Errors
/// As [`load`].
pub fn load_masters<B: Backend>(b: &B, folder: &Folder) -> Result<Vec<Acc<B>>> {
    let mut all = Vec::new();
    read_all(folder, |_, host: &[B::Acc]| {
        all.push(upload(b, host)?);
        Ok(())
    })?;
    Ok(all)
}

/// As [`load`], for a model that is only read.
///
/// # Errors
/// As [`load`].
pub fn load_frozen<B: Backend>(b: &B, folder: &Folder) -> Result<Frozen<B>> {
    let narrows = narrows(folder);
    let parameters = read_all(folder, |shape, host: &[B::Real]| {
        let narrow = |x: &B::Real| B::Narrow::from_f64(x.to_f64());
        let exact = |x: &B::Real| narrow(x).to_f64() == x.to_f64();
        let narrower = size_of::<B::Narrow>() < size_of::<B::Real>();
        if narrower && narrows(shape) && host.iter().all(exact) {
            let narrow: Vec<B::Narrow> = host.iter().map(narrow).collect();
            return Ok(Stored::Narrow(upload(b, &narrow)?));
        }
        Ok(Stored::Real(upload(b, host)?))
    })?;
    Ok(Frozen { parameters })
}

/// As [`load_frozen`], with the matrices in 8-bit blocks, made of a tensor at a time: for sampling, where half to a
/// quarter of the memory is worth an error that [`Blocks`] states. Vectors and learned positions keep their precision.
///
/// # Errors
/// As [`load`], or the device reads no such weights.
pub fn load_in_8bit<B: Backend>(b: &B, folder: &Folder) -> Result<Frozen<B>> {
    if !B::READS_BLOCKS {
        let what = format!(
            "8-bit weights have no products on {}; take the CPU, or leave them as they are",
            b.describe()
        );
        return Err(Error::Device(duel_backend::Error::NoDevice(what)));
    }
    let narrows = narrows(folder);
    let parameters = read_all(folder, |shape, host: &[B::Real]| match narrows(shape) {
        true => Ok(Stored::Blocks(Blocks::of(b, host, shape.rows, shape.cols)?)),
        false => Ok(Stored::Real(upload(b, host)?)),
    })?;
    Ok(Frozen { parameters })
}

/// What a frozen model may hold in a narrower form: not vectors, which are too short to matter, nor the table of
/// positions, which is added to rows.
fn narrows(folder: &Folder) -> impl Fn(&Shape) -> bool {
    let positions = Model::manifest(folder.config()).positions;
    move |shape| !shape.vector && positions.as_ref() != Some(shape)
}

fn upload<B: Backend, T: Element>(b: &B, host: &[T]) -> Result<B::Buf<T>> {
    let mut buf = b.alloc(host.len())?;
    b.upload(&mut buf, 0, host);
    Ok(buf)
}

/// Reads every parameter and hands it to `keep`.
fn read_all<R: Float, T>(
    folder: &Folder,
    mut keep: impl FnMut(&Shape, &[R]) -> Result<T>,
) -> Result<Model<T>> {
    Model::manifest(folder.config()).as_ref().try_map(|shape| {
        if let Some(drawn) = folder.drawn(shape) {
            return keep(shape, &drawn.map(R::from_f64).collect::<Vec<R>>());
        }
        let mut host = vec![R::default(); shape.len()];
        let mut first = 0;
        for piece in &shape.pieces {
            let tensor = folder.tensor(&piece.name)?;
            read(&mut host, &tensor, shape, first, piece).map_err(|i| {
                let what =
                    format!("tensor `{}` holds a value that is not finite, at element {i}", piece.name);
                Error::file(tensor.path, what)
            })?;
            first += piece.rows;
        }
        keep(shape, &host)
    })
}

/// Copies a tensor into its rows of a parameter, from `first` on; the index of the first non-finite element is
/// returned as the error.
fn read<R: Float>(
    host: &mut [R],
    tensor: &Tensor,
    shape: &Shape,
    first: usize,
    piece: &Piece,
) -> std::result::Result<(), usize> {
    for (i, x) in tensor.values().enumerate() {
        if !x.is_finite() {
            return Err(i);
        }
        let (row, col) = match shape.transposed {
            true => (i % piece.rows, i / piece.rows),
            false => (i / shape.cols, i % shape.cols),
        };
        let at = (first + piece.place(row)) * shape.cols + col;
        host[at] = R::from_f64(x);
    }
    Ok(())
}
