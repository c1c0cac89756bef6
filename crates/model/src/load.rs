//! Weights from a folder onto a device.

use crate::adapter::{Adapter, Part};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::lora::is_adapter;
use crate::shards::Tensor;
use crate::weights::{Frozen, Model, Piece, Shape, Stored};
use duel_backend::{Acc, Backend, Blocks, Element, Float, Real};
use std::collections::HashMap;

/// Reads the weights of a Hugging Face folder onto the device; those of an adapter's folder merged.
///
/// # Errors
/// A weight that is not a finite number; the file and the tensor are named. Or the device has no room.
pub fn load<B: Backend>(b: &B, folder: &Folder) -> Result<Model<Real<B>>> {
    load_as(b, folder, folder.config())
}

/// As [`load`], of the model of `config`, which may have adapters: those of the folder, or fresh ones where it has
/// none.
///
/// # Errors
/// As [`load`].
pub fn load_as<B: Backend>(b: &B, folder: &Folder, config: &Config) -> Result<Model<Real<B>>> {
    read_all(folder, config, |_| true, |_, host: &[B::Real]| upload(b, host))
}

/// The weights of a model that are trained in the precision of sums, as a list in the order of [`Model::iter`]: masters
/// for an optimizer.
///
/// # Errors
/// As [`load`].
pub fn load_masters<B: Backend>(b: &B, folder: &Folder, config: &Config) -> Result<Vec<Acc<B>>> {
    let mut all = Vec::new();
    read_all(
        folder,
        config,
        |shape| config.trains(shape),
        |shape, host: &[B::Acc]| {
            if config.trains(shape) {
                all.push(upload(b, host)?);
            }
            Ok(())
        },
    )?;
    Ok(all)
}

/// As [`load`], for a model that is only read.
///
/// # Errors
/// As [`load`].
pub fn load_frozen<B: Backend>(b: &B, folder: &Folder) -> Result<Frozen<B>> {
    load_frozen_as(b, folder, folder.config())
}

/// As [`load_as`], for a model that is only read.
///
/// # Errors
/// As [`load`].
pub fn load_frozen_as<B: Backend>(b: &B, folder: &Folder, config: &Config) -> Result<Frozen<B>> {
    let narrows = narrows(folder);
    let parameters = read_all(
        folder,
        config,
        |_| true,
        |shape, host: &[B::Real]| {
            let narrow = |x: &B::Real| B::Narrow::from_f64(x.to_f64());
            let exact = |x: &B::Real| narrow(x).to_f64() == x.to_f64();
            let narrower = size_of::<B::Narrow>() < size_of::<B::Real>();
            if narrower && narrows(shape) && host.iter().all(exact) {
                let narrow: Vec<B::Narrow> = host.iter().map(narrow).collect();
                return Ok(Stored::Narrow(upload(b, &narrow)?));
            }
            Ok(Stored::Real(upload(b, host)?))
        },
    )?;
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
    let parameters = read_all(
        folder,
        folder.config(),
        |_| true,
        |shape, host: &[B::Real]| match narrows(shape) {
            true => Ok(Stored::Blocks(Blocks::of(b, host, shape.rows, shape.cols)?)),
            false => Ok(Stored::Real(upload(b, host)?)),
        },
    )?;
    Ok(Frozen { parameters })
}

/// What a frozen model may hold in a narrower form: not vectors, which are too short to matter, nor the table of
/// positions, which is added to rows, nor adapters.
fn narrows(folder: &Folder) -> impl Fn(&Shape) -> bool {
    let positions = Model::manifest(folder.config()).positions;
    move |shape| !shape.vector && !is_adapter(shape) && positions.as_ref() != Some(shape)
}

fn upload<B: Backend, T: Element>(b: &B, host: &[T]) -> Result<B::Buf<T>> {
    let mut buf = b.alloc(host.len())?;
    b.upload(&mut buf, 0, host);
    Ok(buf)
}

/// Reads the parameters of the model of `config` that are `wanted`, and hands all to `keep`, those that are not as
/// nothing.
fn read_all<R: Float, T>(
    folder: &Folder,
    config: &Config,
    wanted: impl Fn(&Shape) -> bool,
    mut keep: impl FnMut(&Shape, &[R]) -> Result<T>,
) -> Result<Model<T>> {
    let merged = match config.lora {
        Some(_) => HashMap::new(),
        None => folder.adapted().map(beside).unwrap_or_default(),
    };
    Model::manifest(config).as_ref().try_map(|shape| {
        if !wanted(shape) {
            return keep(shape, &[]);
        }
        match merged.get(&shape.pieces[0].name) {
            None => keep(shape, &read_one::<R>(folder, config, shape)?),
            Some(adapters) => {
                let mut host = read_one::<f64>(folder, config, shape)?;
                for Adapter { part, a, b } in adapters {
                    let (a, b) = (read_one(folder, config, a)?, read_one(folder, config, b)?);
                    merge(&mut host, &a, &b, part, shape.cols);
                }
                keep(shape, &host.into_iter().map(R::from_f64).collect::<Vec<R>>())
            }
        }
    })
}

/// The adapters of a model, by the first tensor of the weight that they are beside.
fn beside(config: &Config) -> HashMap<String, Vec<Adapter<Shape>>> {
    let layers = Model::manifest(config).layers;
    let maps = layers.iter().flat_map(|layer| layer.maps()).filter(|map| !map.adapters.is_empty());
    maps.map(|map| (map.weight.pieces[0].name.clone(), map.adapters.clone())).collect()
}

/// `W += c B A`, in single precision, in which PEFT merges.
fn merge(w: &mut [f64], a: &[f32], b: &[f32], part: &Part, cols: usize) {
    let mut sums = vec![0f32; cols];
    for (w, b) in w[part.at * cols..].chunks_exact_mut(cols).zip(b.chunks_exact(part.r)) {
        sums.fill(0.0);
        for (b, a) in b.iter().zip(a.chunks_exact(cols)) {
            sums.iter_mut().zip(a).for_each(|(sum, a)| *sum += b * a);
        }
        w.iter_mut().zip(&sums).for_each(|(w, sum)| *w = f64::from(*w as f32 + part.scale as f32 * sum));
    }
}

/// A parameter: an adapter's, of its folder or fresh; or the model's own.
fn read_one<R: Float>(folder: &Folder, config: &Config, shape: &Shape) -> Result<Vec<R>> {
    let fresh = config.lora.as_ref().filter(|_| is_adapter(shape) && folder.adapted().is_none());
    if let Some(lora) = fresh {
        return Ok(lora.fresh(shape).map(R::from_f64).collect());
    }
    if let Some(drawn) = folder.drawn(shape) {
        return Ok(drawn.map(R::from_f64).collect());
    }
    let mut host = vec![R::default(); shape.len()];
    let mut first = 0;
    for piece in &shape.pieces {
        let tensor = match folder.attached(shape, &piece.name) {
            Some(attached) => attached,
            None => folder.tensor(&piece.name)?,
        };
        read(&mut host, &tensor, shape, first, piece).map_err(|i| {
            let what = format!("tensor `{}` holds a value that is not finite, at element {i}", piece.name);
            Error::file(tensor.path, what)
        })?;
        first += piece.rows;
    }
    Ok(host)
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
