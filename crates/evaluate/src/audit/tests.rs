//! Rows by hand, and what is found in them.

use super::{Place, Repeats, Rows};
use duel_data::{Builder, Label, Options, Task, Truncation, Whole};

/// Rows of a file: prompt, responses, label.
type Written<'a> = [(u32, &'a [u32], Label)];

fn options(task: Task) -> Options {
    Options { task, whole: Whole::default(), max_length: None, truncation: Truncation::KeepStart }
}

fn repeats(task: Task, files: &[&Written<'_>]) -> Repeats {
    let mut rows = Rows::default();
    for (file, written) in files.iter().enumerate() {
        let mut builder = Builder::new(&options(task));
        for (i, (prompt, responses, label)) in written.iter().enumerate() {
            let responses: Vec<&[u32]> = responses.iter().map(std::slice::from_ref).collect();
            builder.push_labelled(i + 1, &[*prompt], &responses, label.view()).unwrap();
        }
        let ds = builder.finish().unwrap();
        ds.groups().for_each(|g| rows.add(Place { file: file as u8, row: g.row as u32 }, g));
    }
    rows.conclude()
}

fn ranked(prompt: u32, responses: &[u32]) -> (u32, &[u32], Label) {
    (prompt, responses, Label::default())
}

fn at(file: u8, row: u32) -> Place {
    Place { file, row }
}

#[test]
fn copies_leaks_and_contradictions_are_told_by_row() {
    let train = [
        ranked(1, &[10, 11]),
        ranked(2, &[10, 11]),
        ranked(1, &[11, 10]), // against row 1
        ranked(2, &[10, 11]), // row 2 again
        ranked(2, &[10, 11]), // and again
        ranked(3, &[10, 11, 12]),
    ];
    let eval = [ranked(2, &[10, 11]), ranked(3, &[12, 11]), ranked(4, &[10, 11]), ranked(1, &[10, 12])];
    let found = repeats(Task::Preference, &[&train, &eval]);
    assert_eq!(found.copies.first, [(at(0, 2), at(0, 4)), (at(0, 4), at(0, 5))]);
    assert_eq!(found.leaked.first, [(at(0, 2), at(1, 1))]);
    assert_eq!(found.shared_prompts.first, [(at(0, 6), at(1, 2)), (at(0, 1), at(1, 4))]);
    assert_eq!(found.contradictions.first, [(at(0, 1), at(0, 3)), (at(0, 6), at(1, 2))]);
    // Second labels: row 3; 4, 5 and 1 of the evaluation; 2 of it.
    assert_eq!(found.labelled_again, 5);
    assert_eq!(found.disagreement.unwrap().value, 2.0 / 5.0);
    // 2 e (1 - e) = 2 / 5.
    let e = found.noise_by_pairs().unwrap().value;
    assert!((2.0 * e * (1.0 - e) - 0.4).abs() < 1e-15 && e < 0.5, "{e}");
    // One row has an order of its own, and no prompt has three rows that make a three.
    assert_eq!((found.threes, found.noise_by_circles()), (0, None));
}

#[test]
fn circles_are_of_three_rows() {
    let circle = [ranked(1, &[10, 11]), ranked(1, &[11, 12]), ranked(1, &[12, 10])];
    let found = repeats(Task::Preference, &[&circle]);
    assert_eq!((found.threes, found.circles.unwrap().value), (1, 1.0));
    assert_eq!(found.noise_by_circles().unwrap().value, 0.5, "no more than chance");
    let order = [
        ranked(1, &[10, 11]),
        ranked(1, &[11, 12]),
        ranked(1, &[10, 12]),
        ranked(2, &[10, 11]),
        ranked(2, &[11, 12]),
        ranked(2, &[12, 10]),
    ];
    let found = repeats(Task::Preference, &[&order]);
    assert_eq!((found.threes, found.circles.unwrap().value), (2, 0.5));
}

/// Labels that are wrong with a probability that is known: both ways tell it.
#[test]
fn noise_is_found_again() {
    const WRONG: f64 = 0.2;
    let mut random = duel_random::SplitMix::new(3);
    let mut is_wrong = || duel_random::fraction(random.number()) < WRONG;
    let mut rows = Vec::new();
    for prompt in 0..4000 {
        for pair in [[10, 11], [11, 12], [10, 12], [20, 21], [20, 21]] {
            let mut pair = pair.to_vec();
            if is_wrong() {
                pair.reverse();
            }
            rows.push((prompt, pair));
        }
    }
    let rows: Vec<_> = rows.iter().map(|(prompt, pair)| ranked(*prompt, pair)).collect();
    let found = repeats(Task::Preference, &[&rows]);
    assert_eq!((found.labelled_again, found.threes), (4000, 4000));
    for estimate in [found.noise_by_pairs().unwrap(), found.noise_by_circles().unwrap()] {
        let (low, high) = estimate.interval.unwrap();
        assert!(low < WRONG && WRONG < high, "{estimate:?}");
        assert!(high - low < 0.06, "{estimate:?}");
    }
}

#[test]
fn labels_of_single_responses_contradict_too() {
    let labelled = |response: &'static [u32], desirable| (1, response, Label::Unpaired { desirable });
    let rows =
        [labelled(&[10], true), labelled(&[11], false), labelled(&[10], false), labelled(&[10], false)];
    let found = repeats(Task::Unpaired, &[&rows]);
    assert_eq!(found.contradictions.first, [(at(0, 1), at(0, 3))]);
    assert_eq!(found.copies.first, [(at(0, 3), at(0, 4))]);
    assert_eq!((found.labelled_again, found.threes), (2, 0));
}
