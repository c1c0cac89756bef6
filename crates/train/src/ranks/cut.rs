//! How a batch is cut into shares and the list of parameters into pieces.

use super::part;
use std::ops::Range;

/// Into how many shares and pieces, and by how many processes they are taken: the share or piece i by rank
/// `i % processes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Shares of a batch, and pieces of the parameters.
    pub shares: usize,
    /// Processes; never more.
    pub processes: usize,
}

/// A part of a piece: elements `from..to` of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Place of the parameter in the list of those that are trained.
    pub parameter: usize,
    /// The first element.
    pub from: usize,
    /// That after the last.
    pub to: usize,
}

/// A piece of the parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its parts, in the order of the parameters.
    pub parts: Vec<Part>,
    /// Where each group of parameters begins in it, in elements; the last is its length.
    pub begins: Vec<usize>,
}

impl Piece {
    /// Elements of it.
    pub fn len(&self) -> usize {
        self.begins.last().copied().unwrap_or(0)
    }
}

impl Part {
    /// Elements of it.
    pub fn len(&self) -> usize {
        self.to - self.from
    }
}

impl Cut {
    /// Everything in one, by one process.
    pub const NONE: Cut = Cut { shares: 1, processes: 1 };

    /// Rounds in which every process takes a share, or a piece.
    pub fn rounds(self) -> usize {
        self.shares.div_ceil(self.processes)
    }

    /// Groups of a batch of `n` in share `which`.
    pub fn share(self, n: usize, which: usize) -> Range<usize> {
        part(n, self.shares, which)
    }

    /// Most groups of a batch of `n` in a share.
    pub fn largest_share(self, n: usize) -> usize {
        n.div_ceil(self.shares)
    }

    /// The pieces of parameters of these lengths, of which those before each of `ends` are a group: every piece has a
    /// part of each group, so that a group whose gradient is whole goes to all owners at once.
    pub fn pieces(self, lens: &[usize], ends: &[usize]) -> Vec<Piece> {
        (0..self.shares).map(|which| self.piece(lens, ends, which)).collect()
    }

    fn piece(self, lens: &[usize], ends: &[usize], which: usize) -> Piece {
        let mut piece = Piece { parts: Vec::new(), begins: vec![0] };
        let (mut first, mut len) = (0, 0);
        for &end in ends {
            let group = &lens[first..end];
            let own = part(group.iter().sum(), self.shares, which);
            len += own.len();
            let in_group = parts(group, own).into_iter();
            piece.parts.extend(in_group.map(|part| Part { parameter: first + part.parameter, ..part }));
            piece.begins.push(len);
            first = end;
        }
        piece
    }

    /// Elements that a rank owns of so many, but for an element a group of parameters.
    pub fn owned(self, elements: usize, rank: usize) -> usize {
        let own = (rank..self.shares).step_by(self.processes);
        own.map(|which| part(elements, self.shares, which).len()).sum()
    }

    /// Bytes that the first rank, which has most to do, sends in a step of full shares: gradients of `elements` in
    /// numbers of `sums` bytes, and its new weights in numbers of `reals`.
    pub fn sent(self, elements: usize, sums: usize, reals: usize) -> usize {
        let own = self.owned(elements, 0);
        self.rounds() * (elements - own) * sums + own * reals * (self.processes - 1)
    }
}

/// The elements `range` of all parameters in a row.
fn parts(lens: &[usize], range: Range<usize>) -> Vec<Part> {
    let (mut all, mut begin) = (Vec::new(), 0);
    for (parameter, len) in lens.iter().enumerate() {
        let (from, to) = (range.start.clamp(begin, begin + len), range.end.clamp(begin, begin + len));
        if from < to {
            all.push(Part { parameter, from: from - begin, to: to - begin });
        }
        begin += len;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_even_and_all() {
        let lens = [5, 1, 0, 7];
        let cut = |shares, processes| Cut { shares, processes };
        let part = |parameter, from, to| Part { parameter, from, to };
        let pieces = cut(3, 2).pieces(&lens, &[2, 4]);
        assert_eq!(pieces[0], Piece { parts: vec![part(0, 0, 2), part(3, 0, 2)], begins: vec![0, 2, 4] });
        assert_eq!(pieces[1], Piece { parts: vec![part(0, 2, 4), part(3, 2, 4)], begins: vec![0, 2, 4] });
        let last = vec![part(0, 4, 5), part(1, 0, 1), part(3, 4, 7)];
        assert_eq!(pieces[2], Piece { parts: last, begins: vec![0, 2, 5] });
        assert_eq!([0, 1].map(|rank| cut(3, 2).owned(13, rank)), [9, 4]);
        // Two rounds of 4 elements to the other, and 9 weights back.
        assert_eq!(cut(3, 2).sent(13, 4, 2), 2 * 4 * 4 + 9 * 2);
        assert_eq!(cut(4, 1).sent(13, 4, 2), 0);
        let whole = &Cut::NONE.pieces(&lens, &[4])[0];
        assert_eq!((&whole.parts[..], whole.len()), (&[part(0, 0, 5), part(1, 0, 1), part(3, 0, 7)][..], 13));
        assert_eq!((0..3).map(|s| cut(3, 1).share(4, s).len()).collect::<Vec<_>>(), [1, 1, 2]);
        assert_eq!(cut(3, 1).largest_share(4), 2);
    }
}
