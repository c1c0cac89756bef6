//! What updates the weights: all of them by one optimizer, or each piece of them by the rank that owns it.

use super::cut::{Part, Piece};
use super::wire::{each_number, put_numbers};
use super::{Cut, Ranks};
use crate::Error;
use duel_backend::{Acc, Backend, Float, Real};
use duel_comm::Exchange;
use duel_model::{Gradients, Model, Trained};
use duel_optim::{Algorithm, Optimizer};
use std::collections::VecDeque;
use std::iter::{StepBy, repeat_n};
use std::ops::Range;

/// Name of the optimizer's file in a checkpoint.
const FILE: &str = "optimizer.safetensors";
/// Elements that are sent at a time: what lies on the host meanwhile is so much from and for every rank.
const SENT: usize = 1 << 18;
/// Bytes of gradients that are under way at most, beside those that are sent at a time.
const UNDER_WAY: usize = 64 << 20;

/// Exchanges between so many processes, of numbers of `size` bytes, that may be under way when another is begun.
fn room(processes: usize, size: usize) -> usize {
    (UNDER_WAY / exchange(processes, size)).max(1)
}

/// Bytes of an exchange, what is sent and what is received.
fn exchange(processes: usize, size: usize) -> usize {
    2 * processes * SENT * size
}

/// Bytes of the host that gradients of `elements` take at most while they are under way between the processes of `cut`,
/// in numbers of `size` bytes.
pub fn most_under_way(cut: Cut, elements: usize, size: usize) -> usize {
    match cut.processes {
        1 => 0,
        // No more than the gradient of a share, and what all send of it to one.
        n => ((room(n, size) + 1) * exchange(n, size)).min((elements + n * cut.owned(elements, 0)) * size),
    }
}

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
    all: Vec<Piece>,
    /// Groups of the model's parameters; there may be one behind them.
    of_model: usize,
    own: Vec<Own<B>>,
    round: Round,
    /// What goes to and comes from each rank, a chunk at a time, without use now.
    free: Vec<Exchange>,
}

/// A round of shares, of which the gradients are sent from the last group of parameters to the first, as a backward
/// pass makes them; what the model does not have, such as a critic, comes after it.
#[derive(Default)]
struct Round {
    /// Which ranks have a share.
    has: Vec<bool>,
    /// The groups that are still to be sent, the next one last.
    left: Vec<usize>,
    /// What was sent and not yet added: which of the own pieces, and the elements of it.
    under_way: VecDeque<(usize, Range<usize>)>,
    /// What went wrong while the backward pass went on.
    failed: Option<Error>,
}

/// What hears of a gradient that it is whole, and sends it on: gradients of one share, all passes of which an engine
/// makes in one call.
pub struct Sending<'s, B: Backend> {
    grads: &'s mut Trained<B>,
    to: Option<(&'s mut Pieces<B>, &'s Ranks<'s>)>,
}

impl<B: Backend> Gradients<B> for Sending<'_, B> {
    fn view(&mut self) -> Model<Option<&mut Acc<B>>> {
        self.grads.view()
    }

    fn whole(&mut self, b: &B, layer: usize) {
        let Some((pieces, ranks)) = &mut self.to else { return };
        let grads = self.grads.list();
        // What is on a device would have to be waited for: only where its memory is needed.
        let now = self.grads.are_relayed() || grads.iter().all(|g| b.host_bytes(g).is_some());
        if now && pieces.round.failed.is_none() {
            // The first group is what lies before the layers.
            pieces.round.failed = pieces.send(b, ranks, Some(&grads), layer + 1).err();
        }
    }
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
    /// What updates parameters of these lengths, of which `true` marks those that weight decay is for, and those before
    /// each of `ends` are a group of the model's; what is behind them is beside the model. Where weights have masters,
    /// `masters` gives them one after another.
    ///
    /// # Errors
    /// There is no room; or those of `masters`.
    pub fn new(
        b: &B,
        (cut, rank): (Cut, usize),
        algorithm: Algorithm,
        (parameters, ends): (&[(usize, bool)], &[usize]),
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
        let beside = (ends.last() != Some(&lens.len())).then_some(lens.len());
        let ends_of_all: Vec<usize> = ends.iter().copied().chain(beside).collect();
        let all = cut.pieces(&lens, &ends_of_all);
        let mut of_masters: Vec<Vec<Acc<B>>> = (0..cut.shares).map(|_| Vec::new()).collect();
        let has_masters = masters.is_some();
        if let Some(masters) = masters {
            let mut parameter = 0;
            masters(&mut |master| {
                for piece in (rank..cut.shares).step_by(cut.processes) {
                    for part in all[piece].parts.iter().filter(|part| part.parameter == parameter) {
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
            let parts = &all[piece].parts;
            let own = parts.iter().map(|part| (part.len(), parameters[part.parameter].1));
            let lens = || parts.iter().map(Part::len);
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
        Ok(Updater::Pieces(Pieces {
            cut,
            all,
            of_model: ends.len(),
            own,
            round: Round::default(),
            free: Vec::new(),
        }))
    }

    /// Takes note of the weights that the updates begin with.
    ///
    /// # Errors
    /// The device failed.
    pub fn begin(&mut self, b: &B, weights: &[&mut Real<B>]) -> Result<(), Error> {
        let Updater::Pieces(pieces) = self else { return Ok(()) };
        for own in &mut pieces.own {
            for (to, part) in own.weights.iter_mut().zip(&pieces.all[own.piece].parts) {
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

    /// Begins a round of shares, of which every rank that `has` one will give its gradient.
    pub fn begin_round(&mut self, has: Vec<bool>) {
        if let Updater::Pieces(pieces) = self {
            let groups = pieces.all[0].begins.len() - 1;
            let left = (pieces.of_model..groups).chain(0..pieces.of_model).collect();
            pieces.round = Round { has, left, ..Round::default() };
        }
    }

    /// The gradient of a share, which is sent on as it becomes whole, where there are shares.
    pub fn sending<'s>(&'s mut self, ranks: &'s Ranks<'s>, grads: &'s mut Trained<B>) -> Sending<'s, B> {
        match self {
            Updater::Whole(_) => Sending { grads, to: None },
            Updater::Pieces(pieces) => Sending { grads, to: Some((pieces, ranks)) },
        }
    }

    /// Adds the round of shares, of which this rank's is `grads`: each piece of it to the owner of that piece, who adds
    /// them in the order of the shares. A single share is its own sum.
    ///
    /// # Errors
    /// The device failed, or a rank is lost.
    pub fn add(&mut self, b: &B, ranks: &Ranks<'_>, grads: Option<&[&Acc<B>]>) -> Result<(), Error> {
        let Updater::Pieces(pieces) = self else { return Ok(()) };
        pieces.round.failed.take().map_or(Ok(()), Err)?;
        pieces.send(b, ranks, grads, 0)?;
        pieces.add_up(b, ranks, |_| true)
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
        let places = pieces.all.iter().flat_map(|piece| &piece.parts).map(|part| part.parameter);
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
    /// Where the longest of some stretches is cut, of the pieces that all ranks own in round `slot`.
    fn cuts(&self, slot: usize, len: impl Fn(&Piece) -> usize) -> StepBy<Range<usize>> {
        let first = slot * self.cut.processes;
        let pieces = first..self.cut.shares.min(first + self.cut.processes);
        (0..self.all[pieces].iter().map(len).max().unwrap_or(0)).step_by(SENT)
    }

    /// Sends what is left of the gradient, as far down as this group, and adds what has come meanwhile.
    fn send(
        &mut self,
        b: &B,
        ranks: &Ranks<'_>,
        grads: Option<&[&Acc<B>]>,
        lowest: usize,
    ) -> Result<(), Error> {
        let (size, n) = (size_of::<B::Acc>(), self.cut.processes);
        while let Some(group) = self.round.left.pop_if(|group| *group >= lowest) {
            for slot in 0..self.cut.rounds() {
                for cut in self.cuts(slot, |piece| piece.begins[group + 1] - piece.begins[group]) {
                    // Of each piece the elements that this is; none beyond the last.
                    let chunk = |piece: &Piece| {
                        let end = piece.begins[group + 1];
                        let from = end.min(piece.begins[group] + cut);
                        from..end.min(from + SENT)
                    };
                    let Exchange { mut send, mut recv } = self.free.pop().unwrap_or_default();
                    send.resize(n, Vec::new());
                    recv.resize(n, Vec::new());
                    for (q, bytes) in send.iter_mut().enumerate() {
                        bytes.clear();
                        let (Some(grads), Some(piece)) = (grads, self.all.get(slot * n + q)) else {
                            continue;
                        };
                        within(&piece.parts, &chunk(piece), |i, at, range| {
                            let part = piece.parts[i];
                            read(b, grads[part.parameter], part.from + at, range.len(), bytes)
                        })?;
                    }
                    let own = self.all.get(slot * n + ranks.rank()).map_or(0..0, chunk);
                    for (bytes, has) in recv.iter_mut().zip(&self.round.has) {
                        bytes.resize(if *has { own.len() * size } else { 0 }, 0);
                    }
                    self.round.under_way.push_back((slot, own));
                    if let Some(done) = ranks.begin(Exchange { send, recv })? {
                        self.add_one(b, done)?;
                    }
                    self.add_up(b, ranks, |under_way| under_way > room(n, size))?;
                }
            }
        }
        Ok(())
    }

    /// Adds what has come, and waits for it where so much is under way.
    fn add_up(&mut self, b: &B, ranks: &Ranks<'_>, waits: impl Fn(usize) -> bool) -> Result<(), Error> {
        while !self.round.under_way.is_empty() {
            let waits = waits(self.round.under_way.len());
            match ranks.exchanged(waits)? {
                Some(done) => self.add_one(b, done)?,
                None if waits => return Err(Error::new("an exchange of gradients was begun and is lost")),
                None => break,
            }
        }
        Ok(())
    }

    /// Adds what has come of the first that was sent.
    fn add_one(&mut self, b: &B, done: Exchange) -> Result<(), Error> {
        let size = size_of::<B::Acc>();
        let Some((slot, chunk)) = self.round.under_way.pop_front() else { return Ok(()) };
        if let Some(own) = self.own.get_mut(slot) {
            let mut host: Vec<B::Acc> = repeat_n(B::Acc::default(), chunk.len()).collect();
            within(&self.all[own.piece].parts, &chunk, |i, at, range| {
                let host = &mut host[..range.len()];
                b.download(host, &own.sums[i], at)?;
                for bytes in done.recv.iter().filter(|bytes| !bytes.is_empty()) {
                    let bytes = &bytes[range.start * size..range.end * size];
                    each_number(bytes, host, |sum, x| *sum = B::Acc::from_f64(sum.to_f64() + x.to_f64()));
                }
                b.upload(&mut own.sums[i], at, host);
                Ok(())
            })?;
        }
        self.free.push(done);
        Ok(())
    }

    /// Tells all ranks the new weights of every piece.
    fn tell(&mut self, b: &B, ranks: &Ranks<'_>, weights: &mut [&mut Real<B>]) -> Result<(), Error> {
        let (size, n) = (size_of::<B::Real>(), self.cut.processes);
        let mut host: Vec<B::Real> = repeat_n(B::Real::default(), SENT).collect();
        let (mut mine, mut recv) = (Vec::new(), vec![Vec::new(); n]);
        for slot in 0..self.cut.rounds() {
            for cut in self.cuts(slot, Piece::len) {
                let chunk = |piece: &Piece| cut.min(piece.len())..piece.len().min(cut + SENT);
                mine.clear();
                if let Some(own) = self.own.get(slot) {
                    let piece = &self.all[own.piece];
                    within(&piece.parts, &chunk(piece), |i, at, range| {
                        read(b, &own.weights[i], at, range.len(), &mut mine)
                    })?;
                }
                for (q, bytes) in recv.iter_mut().enumerate() {
                    let len = self.all.get(slot * n + q).map_or(0, |piece| chunk(piece).len());
                    bytes.resize(len * size, 0);
                }
                let mut rooms: Vec<&mut [u8]> = recv.iter_mut().map(Vec::as_mut_slice).collect();
                ranks.exchange(&vec![&mine[..]; n], &mut rooms)?;
                for (q, bytes) in recv.iter().enumerate() {
                    let Some(piece) = self.all.get(slot * n + q) else { continue };
                    within(&piece.parts, &chunk(piece), |i, at, range| {
                        let host = &mut host[..range.len()];
                        each_number(&bytes[range.start * size..range.end * size], host, |to, x| *to = x);
                        b.upload(weights[piece.parts[i].parameter], piece.parts[i].from + at, host);
                        Ok(())
                    })?;
                }
            }
        }
        Ok(())
    }
}
