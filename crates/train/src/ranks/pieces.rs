//! What updates the weights: all of them by one optimizer, or each piece of them by the rank that owns it.

use super::cut::Part;
use super::wire::{each_number, put_numbers};
use super::{Cut, Ranks};
use crate::Error;
use duel_backend::{Acc, Backend, Float, Real};
use duel_optim::{Algorithm, Optimizer};
use std::iter::repeat_n;
use std::ops::Range;

/// Name of the optimizer's file in a checkpoint.
const FILE: &str = "optimizer.safetensors";
/// Elements that are sent at a time: what lies on the host meanwhile is so much from and for every rank.
const SENT: usize = 1 << 18;

/// What updates the weights. Moments and masters are here and nowhere else.
pub enum Updater<B: Backend> {
    /// All of them, by the one gradient of a batch.
    Whole(Optimizer<B>),
    /// Those of its own pieces, by the sum of the gradients of the shares.
    Pieces(Pieces<B>),
}

/// The pieces of one rank.
pub struct Pieces<B: Backend> {
    cut: Cut,
    /// Of every piece its parts.
    parts: Vec<Vec<Part>>,
    own: Vec<Own<B>>,
    /// What goes to and comes from each rank, a chunk at a time.
    send: Vec<Vec<u8>>,
    recv: Vec<Vec<u8>>,
}

/// A piece that is owned: of each part a buffer.
struct Own<B: Backend> {
    piece: usize,
    sums: Vec<Acc<B>>,
    weights: Vec<Real<B>>,
    optimizer: Optimizer<B>,
}

/// The buffers of a state in a file, by their names.
pub type Named<'s, B> = Vec<(String, &'s Acc<B>)>;

impl<B: Backend> Updater<B> {
    /// What updates parameters of these lengths, of which `true` marks those that weight decay is for. Where weights
    /// have masters, `masters` gives them one after another.
    ///
    /// # Errors
    /// There is no room; or those of `masters`.
    pub fn new(
        b: &B,
        (cut, rank): (Cut, usize),
        algorithm: Algorithm,
        parameters: &[(usize, bool)],
        masters: Option<impl FnOnce(&mut dyn FnMut(Acc<B>) -> Result<(), Error>) -> Result<(), Error>>,
    ) -> Result<Self, Error> {
        if cut.shares == 1 {
            let optimizer = Optimizer::new(b, algorithm, parameters.iter().copied())?;
            let Some(masters) = masters else { return Ok(Updater::Whole(optimizer)) };
            let mut all = Vec::new();
            masters(&mut |master| {
                all.push(master);
                Ok(())
            })?;
            return Ok(Updater::Whole(optimizer.with_masters(all)));
        }
        let lens: Vec<usize> = parameters.iter().map(|(len, _)| *len).collect();
        let parts = cut.pieces(&lens);
        let mut of_masters: Vec<Vec<Acc<B>>> = (0..cut.shares).map(|_| Vec::new()).collect();
        let has_masters = masters.is_some();
        if let Some(masters) = masters {
            let mut parameter = 0;
            masters(&mut |master| {
                for piece in (rank..cut.shares).step_by(cut.processes) {
                    for part in parts[piece].iter().filter(|part| part.parameter == parameter) {
                        let mut own = b.alloc(part.len())?;
                        copy(b, (&mut own, 0), (&master, part.from), part.len())?;
                        of_masters[piece].push(own);
                    }
                }
                parameter += 1;
                Ok(())
            })?;
        }
        let own = |piece: usize| -> Result<Own<B>, Error> {
            let own = parts[piece].iter().map(|part| (part.len(), parameters[part.parameter].1));
            let lens = || parts[piece].iter().map(Part::len);
            let optimizer = Optimizer::new(b, algorithm, own)?;
            let masters = std::mem::take(&mut of_masters[piece]);
            Ok(Own {
                piece,
                sums: lens().map(|len| b.alloc(len)).collect::<Result<_, _>>()?,
                weights: lens().map(|len| b.alloc(len)).collect::<Result<_, _>>()?,
                optimizer: if has_masters { optimizer.with_masters(masters) } else { optimizer },
            })
        };
        let own = (rank..cut.shares).step_by(cut.processes).map(own).collect::<Result<_, _>>()?;
        let buffers = || vec![Vec::new(); cut.processes];
        Ok(Updater::Pieces(Pieces { cut, parts, own, send: buffers(), recv: buffers() }))
    }

    /// Takes note of the weights that the updates begin with.
    ///
    /// # Errors
    /// The device failed.
    pub fn begin(&mut self, b: &B, weights: &[&mut Real<B>]) -> Result<(), Error> {
        let Updater::Pieces(pieces) = self else { return Ok(()) };
        for own in &mut pieces.own {
            for (to, part) in own.weights.iter_mut().zip(&pieces.parts[own.piece]) {
                copy(b, (to, 0), (&*weights[part.parameter], part.from), part.len())?;
            }
        }
        Ok(())
    }

    /// Sets the sums of shares to 0.
    pub fn clear(&mut self, b: &B) {
        if let Updater::Pieces(pieces) = self {
            pieces.own.iter_mut().flat_map(|own| &mut own.sums).for_each(|sum| b.zero(sum));
        }
    }

    /// Adds a round of shares, of which every rank that `has` one gives its gradient, `grads`: each piece of it to the
    /// owner of that piece, who adds them in the order of the shares. A single share is its own sum.
    ///
    /// # Errors
    /// The device failed, or a rank is lost.
    pub fn add(
        &mut self,
        b: &B,
        ranks: &Ranks<'_>,
        has: &[bool],
        grads: Option<&[&Acc<B>]>,
    ) -> Result<(), Error> {
        match self {
            Updater::Whole(_) => Ok(()),
            Updater::Pieces(pieces) => pieces.add(b, ranks, has, grads),
        }
    }

    /// The sums of squares of the gradient of a batch, of each part, with the place of its parameter. `grads` are those
    /// of a batch that is no more than one share.
    ///
    /// # Errors
    /// The device failed, or a rank is lost.
    pub fn squares(&self, b: &B, ranks: &Ranks<'_>, grads: &[&Acc<B>]) -> Result<Vec<(usize, f64)>, Error> {
        let pieces = match self {
            Updater::Whole(_) => return Ok(b.square_sums(grads)?.into_iter().enumerate().collect()),
            Updater::Pieces(pieces) => pieces,
        };
        let of = |own: &Own<B>| Ok(b.square_sums(&own.sums.iter().collect::<Vec<_>>())?);
        let own = pieces.own.iter().map(of).collect::<Result<Vec<_>, Error>>()?;
        let mut all: Vec<_> = ranks.all(own)?.into_iter().map(Vec::into_iter).collect();
        let owned = (0..pieces.cut.shares).flat_map(|p| all[p % pieces.cut.processes].next());
        let places = pieces.parts.iter().flatten().map(|part| part.parameter);
        Ok(places.zip(owned.flatten()).collect())
    }

    /// One update at the rate `lr`, with gradients multiplied by `scale` first, of `weights` on all ranks.
    ///
    /// # Errors
    /// The device failed, or a rank is lost.
    pub fn step(
        &mut self,
        b: &B,
        ranks: &Ranks<'_>,
        mut weights: Vec<&mut Real<B>>,
        grads: Vec<&Acc<B>>,
        (lr, scale): (f64, f64),
    ) -> Result<(), Error> {
        match self {
            Updater::Whole(optimizer) => optimizer.step(b, weights, grads, lr, scale),
            Updater::Pieces(pieces) => {
                for Own { sums, weights, optimizer, .. } in &mut pieces.own {
                    optimizer.step(b, weights.iter_mut().collect(), sums.iter().collect(), lr, scale);
                }
                pieces.tell(b, ranks, &mut weights)?;
            }
        }
        Ok(())
    }

    /// The states that this rank keeps, by the names of their files.
    pub fn files(&self) -> Vec<(String, Named<'_, B>)> {
        match self {
            Updater::Whole(optimizer) => vec![(FILE.into(), optimizer.state())],
            Updater::Pieces(Pieces { cut, own, .. }) => {
                own.iter().map(|own| (file(own.piece, cut.shares), own.optimizer.state())).collect()
            }
        }
    }

    /// Continues from a checkpoint: `read` fills the buffers of each file.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn restore(
        &mut self,
        updates: u64,
        mut read: impl FnMut(&str, Vec<(String, &mut Acc<B>)>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        match self {
            Updater::Whole(optimizer) => read(FILE, optimizer.restore(updates)),
            Updater::Pieces(Pieces { cut, own, .. }) => own
                .iter_mut()
                .try_for_each(|own| read(&file(own.piece, cut.shares), own.optimizer.restore(updates))),
        }
    }
}

/// The file of a piece.
fn file(piece: usize, pieces: usize) -> String {
    format!("optimizer-{:05}-of-{pieces:05}.safetensors", piece + 1)
}

/// Copies elements from one buffer to another, through the host: there are no views of buffers.
fn copy<B: Backend, T: Float>(
    b: &B,
    (to, at): (&mut B::Buf<T>, usize),
    (from, first): (&B::Buf<T>, usize),
    len: usize,
) -> Result<(), Error> {
    let mut host = vec![T::default(); SENT.min(len)];
    for done in (0..len).step_by(SENT) {
        let host = &mut host[..SENT.min(len - done)];
        b.download(host, from, first + done)?;
        b.upload(to, at + done, host);
    }
    Ok(())
}

/// Calls `each` with the parts of the elements `chunk` of a piece: the place of the part in the piece, where in it they
/// begin, and which of the chunk they are.
fn within(
    parts: &[Part],
    chunk: &Range<usize>,
    mut each: impl FnMut(usize, usize, Range<usize>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut begin = 0;
    for (i, part) in parts.iter().enumerate() {
        let end = begin + part.len();
        let (from, to) = (chunk.start.clamp(begin, end), chunk.end.clamp(begin, end));
        if from < to {
            each(i, from - begin, from - chunk.start..to - chunk.start)?;
        }
        begin = end;
    }
    Ok(())
}

/// Appends `len` elements of a buffer.
fn read<B: Backend, T: Float>(
    b: &B,
    from: &B::Buf<T>,
    first: usize,
    len: usize,
    to: &mut Vec<u8>,
) -> Result<(), Error> {
    let size = size_of::<T>();
    if let Some(bytes) = b.host_bytes(from) {
        to.extend_from_slice(&bytes[first * size..(first + len) * size]);
        return Ok(());
    }
    let mut host = vec![T::default(); len];
    b.download(&mut host, from, first)?;
    put_numbers(&host, to);
    Ok(())
}

impl<B: Backend> Pieces<B> {
    /// The chunks of the pieces that all ranks own in round `slot`, as elements of a piece.
    fn chunks(&self, slot: usize) -> impl Iterator<Item = Range<usize>> + use<B> {
        let first = slot * self.cut.processes;
        let len = |p| self.len(p);
        let longest = (first..self.cut.shares.min(first + self.cut.processes)).map(len).max().unwrap_or(0);
        (0..longest).step_by(SENT).map(|from| from..from + SENT)
    }

    /// Elements of a piece; none beyond the last.
    fn len(&self, piece: usize) -> usize {
        self.parts.get(piece).map_or(0, |parts| parts.iter().map(Part::len).sum())
    }

    /// Those elements of a chunk that a piece has.
    fn room(&self, piece: usize, chunk: &Range<usize>) -> usize {
        let len = self.len(piece);
        chunk.end.min(len) - chunk.start.min(len)
    }

    /// [`Updater::add`].
    fn add(
        &mut self,
        b: &B,
        ranks: &Ranks<'_>,
        has: &[bool],
        grads: Option<&[&Acc<B>]>,
    ) -> Result<(), Error> {
        let (size, n) = (size_of::<B::Acc>(), self.cut.processes);
        let mut host: Vec<B::Acc> = repeat_n(B::Acc::default(), SENT).collect();
        for slot in 0..self.cut.rounds() {
            for chunk in self.chunks(slot) {
                for (q, bytes) in self.send.iter_mut().enumerate() {
                    bytes.clear();
                    let piece = slot * n + q;
                    let (Some(grads), Some(parts)) = (grads, self.parts.get(piece)) else { continue };
                    within(parts, &chunk, |i, at, range| {
                        let part = parts[i];
                        read(b, grads[part.parameter], part.from + at, range.len(), bytes)
                    })?;
                }
                let mine = slot * n + ranks.rank();
                let own = self.room(mine, &chunk) * size;
                for (bytes, has) in self.recv.iter_mut().zip(has) {
                    bytes.resize(if *has { own } else { 0 }, 0);
                }
                exchange(ranks, &self.send, &mut self.recv)?;
                let Some(parts) = self.parts.get(mine) else { continue };
                let Some(own) = self.own.get_mut(slot) else { continue };
                within(parts, &chunk, |i, at, range| {
                    let host = &mut host[..range.len()];
                    b.download(host, &own.sums[i], at)?;
                    for bytes in self.recv.iter().filter(|bytes| !bytes.is_empty()) {
                        let bytes = &bytes[range.start * size..range.end * size];
                        each_number(bytes, host, |sum, x| *sum = B::Acc::from_f64(sum.to_f64() + x.to_f64()));
                    }
                    b.upload(&mut own.sums[i], at, host);
                    Ok(())
                })?;
            }
        }
        Ok(())
    }

    /// Tells all ranks the new weights of every piece.
    fn tell(&mut self, b: &B, ranks: &Ranks<'_>, weights: &mut [&mut Real<B>]) -> Result<(), Error> {
        let (size, n) = (size_of::<B::Real>(), self.cut.processes);
        let mut host: Vec<B::Real> = repeat_n(B::Real::default(), SENT).collect();
        for slot in 0..self.cut.rounds() {
            for chunk in self.chunks(slot) {
                let mine = slot * n + ranks.rank();
                let bytes = &mut self.send[0];
                bytes.clear();
                if let (Some(parts), Some(own)) = (self.parts.get(mine), self.own.get(slot)) {
                    within(parts, &chunk, |i, at, range| read(b, &own.weights[i], at, range.len(), bytes))?;
                }
                for q in 0..n {
                    let len = self.room(slot * n + q, &chunk) * size;
                    self.recv[q].resize(len, 0);
                }
                let send = vec![&self.send[0][..]; n];
                let mut recv: Vec<&mut [u8]> = self.recv.iter_mut().map(Vec::as_mut_slice).collect();
                ranks.exchange(&send, &mut recv)?;
                for (q, bytes) in self.recv.iter().enumerate() {
                    let Some(parts) = self.parts.get(slot * n + q) else { continue };
                    within(parts, &chunk, |i, at, range| {
                        let host = &mut host[..range.len()];
                        each_number(&bytes[range.start * size..range.end * size], host, |to, x| *to = x);
                        b.upload(weights[parts[i].parameter], parts[i].from + at, host);
                        Ok(())
                    })?;
                }
            }
        }
        Ok(())
    }
}

/// Sends `send` and gets `recv`, by rank.
fn exchange(ranks: &Ranks<'_>, send: &[Vec<u8>], recv: &mut [Vec<u8>]) -> Result<(), Error> {
    let send: Vec<&[u8]> = send.iter().map(Vec::as_slice).collect();
    let mut recv: Vec<&mut [u8]> = recv.iter_mut().map(Vec::as_mut_slice).collect();
    ranks.exchange(&send, &mut recv)
}
