//! A dataset as bytes, so that rows that were tokenised once need not be again.
//!
//! Sections, each a count (eight bytes, little endian, as all numbers are) and so many items: the [`Report`] as the
//! bytes of its JSON; the tokens, of four bytes; the bounds of the parts, of eight; of each group its row and its first
//! part, of four; the ranges that are given, of two times eight; margins and scores, of eight; verdicts, of one; and
//! what unpaired groups were before they were cut. Nothing here tells that bytes are damaged: a checksum is the
//! caller's.

use crate::dataset::{Entry, Uncut};
use crate::labels::Known;
use crate::{Dataset, Options, Report};
use std::io::{Error, ErrorKind, Read, Result, Write};

/// Bytes that are converted at a time.
const BLOCK: usize = 1 << 16;

impl Dataset {
    /// Writes it, but for its options.
    ///
    /// # Errors
    /// Those of `to`.
    pub fn store(&self, to: &mut dyn Write) -> Result<()> {
        let Dataset { opt: _, tokens, bounds, given, groups, labels, uncut, report } = self;
        let Known { margins, scored, scores, desirable } = labels;
        put(to, serde_json::to_vec(report)?.into_iter().map(|byte| [byte]))?;
        put(to, tokens.iter().map(|token| token.to_le_bytes()))?;
        put(to, bounds.iter().map(|at| long(*at)))?;
        put(to, groups.iter().flat_map(|group| [group.row, group.prompt]).map(u32::to_le_bytes))?;
        put(to, given.iter().flat_map(|run| [run.start, run.end]).map(long))?;
        put(to, margins.iter().map(|(group, _)| long(*group)))?;
        put(to, margins.iter().map(|(_, margin)| margin.to_le_bytes()))?;
        put(to, scored.iter().flat_map(|(group, at)| [*group, *at]).map(long))?;
        put(to, scores.iter().map(|score| score.to_le_bytes()))?;
        put(to, desirable.iter().map(|good| [u8::from(*good)]))?;
        let cut = || uncut.iter().map(|(group, was)| (*group, &was.prompt, &was.response));
        put(to, cut().flat_map(|(group, prompt, response)| [group, prompt.len(), response.len()]).map(long))?;
        let tokens = cut().flat_map(|(_, prompt, response)| prompt.iter().chain(response));
        put(to, tokens.map(|token| token.to_le_bytes()))
    }

    /// Reads what [`store`](Self::store) wrote of a dataset with these options.
    ///
    /// # Errors
    /// Those of `from`, or it ends too early, or is of another form. Damage that leaves the form is not found.
    pub fn restore(from: &mut dyn Read, opt: &Options) -> Result<Self> {
        let report: Report = serde_json::from_slice(&take(from, |[byte]| byte)?)?;
        let tokens = take(from, u32::from_le_bytes)?;
        let bounds = take(from, usize_of)?;
        let groups = pairs(take(from, u32::from_le_bytes)?);
        let groups = groups.map(|[row, prompt]| Entry { row, prompt }).collect();
        let given = pairs(take(from, usize_of)?).map(|[start, end]| start..end).collect();
        let margins = take(from, usize_of)?.into_iter().zip(take(from, f64::from_le_bytes)?).collect();
        let scored = pairs(take(from, usize_of)?).map(|[group, at]| (group, at)).collect();
        let scores = take(from, f64::from_le_bytes)?;
        let desirable = take(from, |[good]| good == 1)?;
        let cut = take(from, usize_of)?;
        let mut cut_tokens = take(from, u32::from_le_bytes)?.into_iter();
        let mut next = |n: usize| cut_tokens.by_ref().take(n).collect();
        let uncut = cut.as_chunks().0.iter();
        let uncut = uncut.map(|&[group, prompt, response]| {
            (group, Uncut { prompt: next(prompt), response: next(response) })
        });
        Ok(Dataset {
            opt: *opt,
            tokens,
            bounds,
            given,
            groups,
            labels: Known { margins, scored, scores, desirable },
            uncut: uncut.collect(),
            report,
        })
    }
}

fn long(x: usize) -> [u8; 8] {
    (x as u64).to_le_bytes()
}

fn usize_of(bytes: [u8; 8]) -> usize {
    u64::from_le_bytes(bytes) as usize
}

fn pairs<T: Copy>(items: Vec<T>) -> impl Iterator<Item = [T; 2]> {
    (0..items.len() / 2).map(move |i| [items[2 * i], items[2 * i + 1]])
}

/// Writes a section.
fn put<const N: usize>(to: &mut dyn Write, items: impl Iterator<Item = [u8; N]> + Clone) -> Result<()> {
    to.write_all(&long(items.clone().count()))?;
    let mut block = Vec::with_capacity(BLOCK);
    for item in items {
        block.extend_from_slice(&item);
        if block.len() + N > BLOCK {
            to.write_all(&block)?;
            block.clear();
        }
    }
    to.write_all(&block)
}

/// Reads a section. However large its count is, no more is held than `from` has.
fn take<const N: usize, T>(from: &mut dyn Read, item: impl Fn([u8; N]) -> T) -> Result<Vec<T>> {
    let mut count = [0; 8];
    from.read_exact(&mut count)?;
    let mut left = usize_of(count).checked_mul(N).ok_or(Error::from(ErrorKind::InvalidData))?;
    let mut block = vec![0; BLOCK / N * N];
    let mut items = Vec::new();
    while left > 0 {
        let block = &mut block[..left.min(BLOCK / N * N)];
        from.read_exact(block)?;
        left -= block.len();
        items.extend(block.as_chunks().0.iter().map(|bytes| item(*bytes)));
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Builder, Labels, Task, Truncation, Whole};

    fn options(task: Task, truncation: Truncation) -> Options {
        Options { task, whole: Whole::default(), max_length: Some(6), truncation }
    }

    fn bytes(ds: &Dataset) -> Vec<u8> {
        let mut bytes = Vec::new();
        ds.store(&mut bytes).unwrap();
        bytes
    }

    /// Groups with a margin, with scores, cut and whole; unpaired ones that were cut, with what they were.
    fn datasets() -> [Dataset; 2] {
        let mut pairs = Builder::new(&options(Task::Preference, Truncation::KeepStart));
        let margin = Labels::Ranked { margin: Some(0.25) };
        pairs.push_labelled(1, &[1, 7], &[&[20, 2], &[30, 31, 32, 33, 34, 2]], margin).unwrap();
        pairs.push_labelled(2, &[1], &[&[3], &[4], &[5]], Labels::Scored(&[2.5, 1.0, -1e300])).unwrap();
        pairs.push(5, &[1, 9], &[&[21, 2], &[21, 2]]).unwrap();
        let mut single = Builder::new(&options(Task::Unpaired, Truncation::KeepEnd));
        for (row, desirable) in [(1, true), (2, false)] {
            let label = Labels::Unpaired { desirable };
            single.push_labelled(row, &[1, 2, 3, 4, 5], &[&[6, 7, row as u32]], label).unwrap();
        }
        let mut single = single.finish().unwrap();
        single.given.push(3..4);
        single.report.unread.insert("name".into(), 3);
        single.report.unused.insert("source".into());
        [pairs.finish().unwrap(), single]
    }

    #[test]
    fn what_is_stored_is_restored() {
        for ds in datasets() {
            let stored = bytes(&ds);
            let again = Dataset::restore(&mut &stored[..], &ds.opt).unwrap();
            assert_eq!(format!("{again:?}"), format!("{ds:?}"));
            assert_eq!(bytes(&again), stored);
        }
        let [_, single] = datasets();
        assert_eq!(single.uncut.len(), 2);
    }

    #[test]
    fn what_ends_early_or_claims_too_much_is_an_error() {
        let [ds, _] = datasets();
        let stored = bytes(&ds);
        for end in 0..stored.len() {
            assert!(Dataset::restore(&mut &stored[..end], &ds.opt).is_err(), "{end} bytes");
        }
        let mut huge = stored.clone();
        let report = usize_of(huge[..8].try_into().unwrap());
        huge[8 + report + 5] = 0xFF; // the count of tokens, in the billions
        assert!(Dataset::restore(&mut &huge[..], &ds.opt).is_err());
    }
}
