//! Where the elements of parameters come from, some rows at a time: no parameter is ever on the host as a whole beside
//! itself on the device.

use crate::adapter::{Adapter, Part};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::lora::is_adapter;
use crate::shards::Tensor;
use crate::weights::{Model, Piece, Shape};
use duel_backend::Float;
use std::collections::HashMap;
use std::ops::Range;

/// Elements that are read at a time, about.
const AT_A_TIME: usize = 1 << 18;

/// Rows that lie side by side on a device go there together.
const TOGETHER: usize = 16;

/// Reads the parameters of one model, in the order and the layout of [`Model::manifest`].
pub struct Reader<'f> {
    folder: &'f Folder,
    config: &'f Config,
    /// Adapters that are merged, by the first tensor of the weight that they are beside.
    merged: HashMap<String, Vec<Adapter<Shape>>>,
}

impl<'f> Reader<'f> {
    /// Of the model of `config`, whose adapters are those of `folder` or fresh; where it has none, those of the folder
    /// are merged.
    pub fn new(folder: &'f Folder, config: &'f Config) -> Self {
        let merged = match config.lora {
            Some(_) => HashMap::new(),
            None => folder.adapted().map(beside).unwrap_or_default(),
        };
        Reader { folder, config, merged }
    }

    /// Where a parameter comes from.
    ///
    /// # Errors
    /// The adapters that are merged with it are damaged.
    pub fn source<'s>(&'s self, shape: &'s Shape) -> Result<Source<'s>> {
        let adapters = self.merged.get(&shape.pieces[0].name).map_or(&[][..], Vec::as_slice);
        let adapter = |Adapter { part, a, b }: &'s Adapter<Shape>| {
            Ok(Merged { part: *part, a: self.whole(a)?, b: self.whole(b)? })
        };
        Ok(Source {
            shape,
            origin: self.origin(shape)?,
            adapters: adapters.iter().map(adapter).collect::<Result<_>>()?,
        })
    }

    /// All elements of a small parameter.
    fn whole<R: Float>(&self, shape: &Shape) -> Result<Vec<R>> {
        let source = Source { shape, origin: self.origin(shape)?, adapters: Vec::new() };
        let mut all = vec![R::default(); shape.len()];
        source.read(0..shape.rows, &mut all)?;
        source.give_back();
        Ok(all)
    }

    fn origin<'s>(&'s self, shape: &'s Shape) -> Result<Origin<'s>> {
        let Reader { folder, config, .. } = self;
        let fresh = config.lora.as_ref().filter(|_| is_adapter(shape) && folder.adapted().is_none());
        if let Some(lora) = fresh {
            return Ok(Origin::Drawn(lora.fresh(shape).collect()));
        }
        if let Some(drawn) = folder.drawn(shape) {
            return Ok(Origin::Drawn(drawn.collect()));
        }
        let mut first = 0;
        let run = |piece: &'s Piece| {
            let tensor = match folder.attached(shape, &piece.name) {
                Some(attached) => attached,
                None => folder.tensor(&piece.name)?,
            };
            let rows = first..first + piece.rows;
            first = rows.end;
            let order = piece.places.as_ref().map(|_| {
                let mut order = vec![0; piece.rows];
                (0..piece.rows).for_each(|i| order[piece.place(i)] = i);
                order
            });
            Ok(Run { piece, tensor, rows, order })
        };
        Ok(Origin::Files(shape.pieces.iter().map(run).collect::<Result<_>>()?))
    }
}

/// The adapters of a model, by the first tensor of the weight that they are beside.
fn beside(config: &Config) -> HashMap<String, Vec<Adapter<Shape>>> {
    let layers = Model::manifest(config).layers;
    let maps = layers.iter().flat_map(|layer| layer.maps()).filter(|map| !map.adapters.is_empty());
    maps.map(|map| (map.weight.pieces[0].name.clone(), map.adapters.clone())).collect()
}

/// Where a parameter comes from.
pub struct Source<'s> {
    shape: &'s Shape,
    origin: Origin<'s>,
    adapters: Vec<Merged>,
}

enum Origin<'s> {
    Drawn(Vec<f64>),
    Files(Vec<Run<'s>>),
}

/// Rows of a parameter that a tensor of a file holds.
struct Run<'s> {
    piece: &'s Piece,
    tensor: Tensor<'s>,
    rows: Range<usize>,
    /// Of each of these rows the tensor's; `None`: in order.
    order: Option<Vec<usize>>,
}

/// An adapter that is added to a weight.
struct Merged {
    part: Part,
    a: Vec<f32>,
    b: Vec<f32>,
}

impl Source<'_> {
    /// Hands all rows to `put` in portions, with the number of the first; 16 or a multiple of them at a time.
    ///
    /// # Errors
    /// An element that is not a finite number; the file and the tensor are named.
    pub fn each<R: Float>(&self, mut put: impl FnMut(usize, &[R])) -> Result<()> {
        self.look(|first, rows| {
            put(first, rows);
            true
        })?;
        Ok(())
    }

    /// Whether `N` holds every element exactly.
    ///
    /// # Errors
    /// As [`Source::each`].
    pub(crate) fn fits<N: Float>(&self) -> Result<bool> {
        if let Origin::Files(runs) = &self.origin
            && self.adapters.is_empty()
            && runs.iter().all(|run| run.tensor.is_of::<N>())
        {
            return Ok(true);
        }
        self.look(|_, rows: &[f64]| rows.iter().all(|&x| N::from_f64(x).to_f64() == x))
    }

    /// As [`Source::each`], until `look` says no; whether it never did.
    fn look<R: Float>(&self, mut look: impl FnMut(usize, &[R]) -> bool) -> Result<bool> {
        let Shape { rows, cols, .. } = *self.shape;
        let portion = (AT_A_TIME / cols.max(1)).next_multiple_of(TOGETHER).max(TOGETHER).min(rows);
        let mut host = vec![R::default(); portion * cols];
        let mut goes_on = true;
        for first in (0..rows).step_by(portion.max(1)) {
            let some = first..rows.min(first + portion);
            let host = &mut host[..some.len() * cols];
            self.read(some, host)?;
            if !look(first, host) {
                goes_on = false;
                break;
            }
        }
        self.give_back();
        Ok(goes_on)
    }

    /// Some rows, with what adapters add.
    ///
    /// # Errors
    /// As [`Source::each`].
    ///
    /// # Panics
    /// When `out` has not the length of these rows.
    pub fn read<R: Float>(&self, rows: Range<usize>, out: &mut [R]) -> Result<()> {
        if self.adapters.is_empty() {
            return self.plain(rows, out);
        }
        let mut host = vec![0.0; out.len()];
        self.plain(rows.clone(), &mut host)?;
        self.adapters.iter().for_each(|adapter| adapter.merge(&mut host, &rows, self.shape.cols));
        out.iter_mut().zip(&host).for_each(|(out, x)| *out = R::from_f64(*x));
        Ok(())
    }

    fn plain<R: Float>(&self, rows: Range<usize>, out: &mut [R]) -> Result<()> {
        let cols = self.shape.cols;
        match &self.origin {
            Origin::Drawn(all) => {
                let drawn = &all[rows.start * cols..rows.end * cols];
                out.iter_mut().zip(drawn).for_each(|(out, x)| *out = R::from_f64(*x));
            }
            Origin::Files(runs) => {
                for run in runs {
                    let own = rows.start.max(run.rows.start)..rows.end.min(run.rows.end);
                    if !own.is_empty() {
                        let out = &mut out[(own.start - rows.start) * cols..(own.end - rows.start) * cols];
                        run.read(own, out, self.shape)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes what was read of the files out of memory.
    pub fn give_back(&self) {
        if let Origin::Files(runs) = &self.origin {
            runs.iter().for_each(|run| run.tensor.give_back());
        }
    }
}

impl Run<'_> {
    /// Rows `rows` of the parameter, all of them of this run.
    fn read<R: Float>(&self, rows: Range<usize>, out: &mut [R], shape: &Shape) -> Result<()> {
        let (cols, first) = (shape.cols, rows.start - self.rows.start);
        let place = |i: usize| self.order.as_ref().map_or(first + i, |order| order[first + i]);
        let mut all = || match (shape.transposed, &self.order) {
            (false, None) => self.tensor.read(first * cols, out),
            (false, Some(_)) => {
                let mut lines = out.chunks_exact_mut(cols).enumerate();
                lines.try_for_each(|(i, line)| self.tensor.read(place(i) * cols, line))
            }
            (true, _) => (0..cols).try_for_each(|c| {
                (0..rows.len()).try_for_each(|i| {
                    let at = c * self.piece.rows + place(i);
                    self.tensor.read(at, &mut out[i * cols + c..][..1])
                })
            }),
        };
        all().map_err(|i| {
            let what =
                format!("tensor `{}` holds a value that is not finite, at element {i}", self.piece.name);
            Error::file(self.tensor.path, what)
        })
    }
}

impl Merged {
    /// `W += c B A` of the rows `rows`, in single precision, in which PEFT merges.
    fn merge(&self, w: &mut [f64], rows: &Range<usize>, cols: usize) {
        let Merged { part, a, b } = self;
        let own = rows.start.max(part.at)..rows.end.min(part.at + part.rows);
        let mut sums = vec![0f32; cols];
        for row in own {
            sums.fill(0.0);
            let factors = &b[(row - part.at) * part.r..][..part.r];
            for (b, a) in factors.iter().zip(a.chunks_exact(cols)) {
                sums.iter_mut().zip(a).for_each(|(sum, a)| *sum += b * a);
            }
            let w = &mut w[(row - rows.start) * cols..][..cols];
            w.iter_mut().zip(&sums).for_each(|(w, sum)| *w = f64::from(*w as f32 + part.scale as f32 * sum));
        }
    }
}
