//! Inputs start from files that are right, are damaged, and are the same in every run.

use duel_fuzz::{KINDS, Source};
use duel_tests::TempDir;

#[test]
fn every_seed_is_right() {
    let dir = TempDir::new().unwrap();
    let mut wrong = Vec::new();
    for kind in &KINDS {
        for (n, seed) in Source::new(kind).seeds().iter().enumerate() {
            duel_fuzz::write(dir.path(), seed).unwrap();
            wrong.extend((kind.load)(dir.path()).err().map(|e| format!("{} {n}: {e}", kind.name)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn an_input_is_known_by_its_seed_and_number() {
    for kind in &KINDS {
        let (one, other) = (Source::new(kind), Source::new(kind));
        let inputs: Vec<_> = (0..50).map(|number| one.input(7, number)).collect();
        assert!(inputs.iter().enumerate().all(|(number, input)| *input == other.input(7, number as u64)));
        let differ = |from: u64| (0..50).filter(|n| one.input(from, *n) != inputs[*n as usize]).count();
        assert!(differ(8) > 40, "{}: another seed, the same inputs", kind.name);
        let damaged = inputs.iter().filter(|input| !one.seeds().contains(input)).count();
        assert!(damaged > 40, "{}: {damaged} of 50 inputs are damaged", kind.name);
    }
}
