//! Weights from a folder onto a device.

use crate::config::Config;
use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::held::{Form, Held, InBlocks, Numbers, Stored};
use crate::lora::is_adapter;
use crate::source::{Reader, Source};
use crate::weights::{Model, Shape};
use duel_backend::{Acc, Backend, Bits, Blocks, Float, Real, Storage};
use std::collections::HashSet;

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
    let reader = Reader::new(folder, config);
    Model::manifest(config).as_ref().try_map(|shape| upload(b, &reader.source(shape)?, shape))
}

/// The weights of a model that are trained in the precision of sums, one after another in the order of [`Model::iter`]:
/// masters for an optimizer.
///
/// # Errors
/// As [`load`], and those of `each`.
pub fn each_master<B: Backend, E: From<Error>>(
    b: &B,
    folder: &Folder,
    config: &Config,
    mut each: impl FnMut(Acc<B>) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let (reader, manifest) = (Reader::new(folder, config), Model::manifest(config));
    let mut trained = manifest.iter().into_iter().filter(|shape| config.trains(shape));
    trained.try_for_each(|shape| each(upload(b, &reader.source(shape)?, shape)?))
}

/// As [`load`], for a model that is only read.
///
/// # Errors
/// As [`load`].
pub fn load_frozen<B: Backend>(b: &B, folder: &Folder) -> Result<Held<B>> {
    load_frozen_in(b, folder, Form::default())
}

/// As [`load_frozen`], in a form that may round.
///
/// # Errors
/// As [`load`], or the device reads no such weights.
pub fn load_frozen_in<B: Backend>(b: &B, folder: &Folder, form: Form) -> Result<Held<B>> {
    held(b, Choice::new(folder, folder.config(), form, false))
}

/// Bytes that [`load_frozen_in`] will allocate.
///
/// # Errors
/// As [`load_frozen_in`], as far as files are looked at.
pub fn frozen_bytes<B: Storage>(folder: &Folder, form: Form) -> Result<usize> {
    let PolicyBytes { trained, real, narrow, blocks } = bytes_of::<B>(folder, folder.config(), form, false)?;
    Ok(trained + real + narrow + blocks)
}

/// As [`load_frozen`], with the matrices in 8-bit blocks: for sampling, where half to a quarter of the memory is worth
/// an error that [`Blocks`] states.
///
/// # Errors
/// As [`load`], or the device reads no such weights.
pub fn load_in_8bit<B: Backend>(b: &B, folder: &Folder) -> Result<Held<B>> {
    let form = Form { numbers: Numbers::Real, blocks: InBlocks::Matrices(Bits::Eight) };
    held(b, Choice::new(folder, folder.config(), form, false))
}

/// As [`load_as`], for a model of which is trained what [`Config::trains`] says; the rest is held as `form` says.
///
/// # Errors
/// As [`load`], or the device reads no such weights.
pub fn load_policy<B: Backend>(b: &B, folder: &Folder, config: &Config, form: Form) -> Result<Held<B>> {
    held(b, Choice::new(folder, config, form, true))
}

/// Bytes of the weights of a model that is trained, as [`load_policy`] has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyBytes {
    /// What is trained.
    pub trained: usize,
    /// What is not, as the backend computes.
    pub real: usize,
    /// In bf16.
    pub narrow: usize,
    /// In blocks.
    pub blocks: usize,
}

/// What [`load_policy`] will allocate. Nothing but whether bf16 holds a weight is looked up in the files, and that ends
/// with the first that it does not hold.
///
/// # Errors
/// As [`load_policy`], as far as it is looked.
pub fn policy_bytes<B: Storage>(folder: &Folder, config: &Config, form: Form) -> Result<PolicyBytes> {
    bytes_of::<B>(folder, config, form, true)
}

fn bytes_of<B: Storage>(folder: &Folder, config: &Config, form: Form, learns: bool) -> Result<PolicyBytes> {
    let choice = Choice::new(folder, config, form, learns);
    let mut bytes = PolicyBytes::default();
    for shape in Model::manifest(config).iter() {
        let real = shape.len() * size_of::<B::Real>();
        match choice.of::<B>(&choice.reader.source(shape)?, shape)? {
            _ if learns && config.trains(shape) => bytes.trained += real,
            Kept::Real => bytes.real += real,
            Kept::Narrow => bytes.narrow += shape.len() * size_of::<B::Narrow>(),
            Kept::Blocks(bits) => bytes.blocks += Blocks::<B>::size(bits, shape.rows, shape.cols),
        }
    }
    Ok(bytes)
}

/// How a parameter is held.
enum Kept {
    Real,
    Narrow,
    Blocks(Bits),
}

/// How the parameters of a model are held.
struct Choice<'f> {
    reader: Reader<'f>,
    config: &'f Config,
    form: Form,
    /// Whether anything is trained.
    learns: bool,
    positions: Option<Shape>,
    /// The first tensors of the maps of the layers.
    maps: HashSet<String>,
}

impl<'f> Choice<'f> {
    fn new(folder: &'f Folder, config: &'f Config, form: Form, learns: bool) -> Self {
        let Model { layers, positions, .. } = Model::manifest(config);
        let maps = layers.iter().flat_map(|layer| layer.maps()).map(|map| map.weight.pieces[0].name.clone());
        Choice { reader: Reader::new(folder, config), config, form, learns, positions, maps: maps.collect() }
    }

    fn of<B: Storage>(&self, source: &Source<'_>, shape: &Shape) -> Result<Kept> {
        let fixed = shape.vector || is_adapter(shape) || self.positions.as_ref() == Some(shape);
        if fixed || self.learns && self.config.trains(shape) {
            return Ok(Kept::Real);
        }
        match self.form.blocks {
            InBlocks::Matrices(bits) => return Ok(Kept::Blocks(bits)),
            InBlocks::Maps(bits) if self.maps.contains(&shape.pieces[0].name) => {
                return Ok(Kept::Blocks(bits));
            }
            InBlocks::Maps(_) | InBlocks::Nothing => {}
        }
        let narrows = size_of::<B::Narrow>() < size_of::<B::Real>()
            && match self.form.numbers {
                Numbers::AsStored => source.fits::<B::Narrow>()?,
                Numbers::Real => false,
                Numbers::Narrow => true,
            };
        Ok(if narrows { Kept::Narrow } else { Kept::Real })
    }
}

fn held<B: Backend>(b: &B, choice: Choice<'_>) -> Result<Held<B>> {
    if choice.form.blocks != InBlocks::Nothing && !B::READS_BLOCKS {
        let what = format!(
            "weights in blocks have no products on {}; take the CPU, or leave them as they are",
            b.describe()
        );
        return Err(Error::Device(duel_backend::Error::NoDevice(what)));
    }
    let parameters = Model::manifest(choice.config).as_ref().try_map(|shape| -> Result<_> {
        let source = choice.reader.source(shape)?;
        Ok(match choice.of::<B>(&source, shape)? {
            Kept::Real => Stored::Real(upload(b, &source, shape)?),
            Kept::Narrow => Stored::Narrow(upload(b, &source, shape)?),
            Kept::Blocks(bits) => {
                let mut blocks = Blocks::new(b, bits, shape.rows, shape.cols)?;
                source.each(|first, rows: &[f64]| blocks.fill(b, first, rows))?;
                Stored::Blocks(blocks)
            }
        })
    })?;
    Ok(Held { parameters })
}

/// A parameter in numbers of `T`.
fn upload<B: Backend, T: Float>(b: &B, source: &Source<'_>, shape: &Shape) -> Result<B::Buf<T>> {
    let mut buf = b.alloc(shape.len())?;
    source.each(|first, rows: &[T]| b.upload(&mut buf, first * shape.cols, rows))?;
    Ok(buf)
}
