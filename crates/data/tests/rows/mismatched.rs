//! Prompts with the responses of others.

use crate::common::UNPAIRED;
use duel_data::{Builder, Dataset, Labels, Options, Truncation};
use proptest::prelude::*;

/// Groups of one-token prompts, each with its index (and 100) as its response.
fn unpaired(prompts: &[u32]) -> Dataset {
    let mut builder = Builder::new(&UNPAIRED);
    for (i, prompt) in prompts.iter().enumerate() {
        let labels = Labels::Unpaired { desirable: i % 3 == 0 };
        builder.push_labelled(i + 1, &[*prompt], &[&[i as u32 + 100]], labels).unwrap();
    }
    builder.finish().unwrap()
}

/// Whose response each group has.
fn donors(prompts: &[u32], block: usize) -> Vec<usize> {
    let data = unpaired(prompts);
    let other = data.mismatched(block).unwrap();
    assert_eq!(other.len(), data.len());
    for (a, b) in data.groups().zip(other.groups()) {
        assert_eq!((a.row, a.prompt, a.labels()), (b.row, b.prompt, b.labels()));
    }
    other.groups().map(|g| g.best()[0] as usize - 100).collect()
}

#[test]
fn responses_move_by_one_in_each_block() {
    let prompts: Vec<u32> = (0..7).collect();
    assert_eq!(donors(&prompts, 7), [6, 0, 1, 2, 3, 4, 5]);
    assert_eq!(donors(&prompts, 100), [6, 0, 1, 2, 3, 4, 5]);
    assert_eq!(donors(&prompts, 3), [2, 0, 1, 5, 3, 4, 5]); // the last is alone, and looks beyond its block
    assert_eq!(donors(&prompts, 5), [4, 0, 1, 2, 3, 6, 5]);
    assert_eq!(donors(&prompts, 1), [6, 0, 1, 2, 3, 4, 5]);
}

#[test]
fn the_same_prompt_gives_nothing() {
    assert_eq!(donors(&[7, 7, 8, 9], 4), [3, 3, 1, 2]);
    assert_eq!(donors(&[7, 8, 7, 7], 4), [1, 0, 1, 1]);
    // A block of one prompt, and the whole data set behind it.
    assert_eq!(donors(&[8, 9, 7, 7, 9, 8], 2), [1, 0, 1, 1, 5, 4]);
    assert_eq!(donors(&[7, 7, 9, 7], 2), [2, 2, 3, 2]);
    let e = unpaired(&[7, 7, 7]).mismatched(2).unwrap_err().to_string();
    assert!(e.contains("KTO's KL needs two"), "{e}");
}

proptest! {
    /// The donor is what a search backwards finds.
    #[test]
    fn donors_are_the_nearest_before(prompts in prop::collection::vec(0_u32..3, 2..40), block in 1_usize..50) {
        prop_assume!(prompts.iter().any(|p| *p != prompts[0]));
        let len = prompts.len();
        let search = |i: usize, start: usize, end: usize| {
            let size = end - start;
            (1..=size).map(|back| start + (i - start + size - back) % size).find(|&j| prompts[j] != prompts[i])
        };
        for (i, donor) in donors(&prompts, block).into_iter().enumerate() {
            let start = i / block * block;
            let want = search(i, start, len.min(start + block)).or_else(|| search(i, 0, len));
            prop_assert_eq!(Some(donor), want);
        }
    }
}

/// What is cut is the mismatched pair: a response that lost its end behind a long prompt has it behind a short one.
#[test]
fn cut_together() {
    let rows: [(&[u32], &[u32]); 2] = [(&[1, 2, 3, 4], &[11, 12, 13, 14]), (&[5], &[21, 22, 23, 24, 25, 26])];
    let at = |max, truncation| {
        let mut builder = Builder::new(&Options { max_length: Some(max), truncation, ..UNPAIRED });
        for (i, (prompt, response)) in rows.iter().enumerate() {
            builder.push_labelled(i + 1, prompt, &[response], Labels::Unpaired { desirable: true }).unwrap();
        }
        builder.finish().unwrap()
    };
    let parts =
        |data: &Dataset| data.groups().map(|g| (g.prompt.to_vec(), g.best().to_vec())).collect::<Vec<_>>();
    let start = at(6, Truncation::KeepStart);
    assert_eq!(parts(&start), [(vec![1, 2, 3, 4], vec![11, 12]), (vec![5], vec![21, 22, 23, 24, 25])]);
    assert_eq!(start.max_token(), 26);
    let other = start.mismatched(2).unwrap();
    assert_eq!(parts(&other), [(vec![1, 2, 3, 4], vec![21, 22]), (vec![5], vec![11, 12, 13, 14])]);
    assert_eq!((other.report().truncated, other.report().longest), (1, 6));
    let end = at(6, Truncation::KeepEnd);
    assert_eq!(parts(&end), [(vec![3, 4], vec![11, 12, 13, 14]), (vec![5], vec![21, 22, 23, 24, 25])]);
    let other = end.mismatched(2).unwrap();
    assert_eq!(parts(&other), [(vec![4], vec![21, 22, 23, 24, 25]), (vec![5], vec![11, 12, 13, 14])]);
    let none = at(10, Truncation::KeepStart).mismatched(2).unwrap();
    assert_eq!(none.report().truncated, 0);
}
