//! Rows of the cache for prompts.

use std::ops::Range;

/// Which rows are free: runs in order, no two of them touching.
pub(super) struct Regions {
    free: Vec<Range<usize>>,
}

impl Regions {
    /// `rows` free rows.
    pub fn new(rows: usize) -> Self {
        Regions { free: Vec::from_iter((rows > 0).then_some(0..rows)) }
    }

    /// The first `len` free rows that lie side by side. Where all are free, any that fit are found: a prompt that waits
    /// begins at the latest when nothing else is left.
    pub fn take(&mut self, len: usize) -> Option<Range<usize>> {
        if len == 0 {
            return Some(0..0);
        }
        let place = self.free.iter().position(|run| run.len() >= len)?;
        let run = &mut self.free[place];
        let taken = run.start..run.start + len;
        run.start = taken.end;
        if run.start == run.end {
            self.free.remove(place);
        }
        Some(taken)
    }

    /// Gives rows back.
    pub fn give_back(&mut self, rows: Range<usize>) {
        if rows.is_empty() {
            return;
        }
        let place = self.free.partition_point(|run| run.start < rows.start);
        self.free.insert(place, rows);
        // With the run after it, then with the one before.
        for first in [Some(place), place.checked_sub(1)].into_iter().flatten() {
            let touches = self.free.get(first + 1).is_some_and(|next| next.start == self.free[first].end);
            if touches {
                self.free[first].end = self.free.remove(first + 1).end;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_and_come_together_again() {
        let mut regions = Regions::new(10);
        let [a, b, c] = [3, 4, 3].map(|len| regions.take(len).unwrap());
        assert_eq!([&a, &b, &c], [&(0..3), &(3..7), &(7..10)]);
        assert_eq!(regions.take(1), None);
        assert_eq!(regions.take(0), Some(0..0));
        regions.give_back(0..0);
        regions.give_back(a);
        regions.give_back(c);
        assert_eq!(regions.take(4), None, "no four lie side by side");
        assert_eq!(regions.take(2), Some(0..2));
        regions.give_back(b);
        assert_eq!((regions.free.len(), &regions.free[0]), (1, &(2..10)));
        regions.give_back(0..2);
        assert_eq!(regions.take(10), Some(0..10));
    }
}
