//! Numbers by hand, of pairs that are made here.

use crate::{By, Comparison, Pair, Record, Summary, Versus, compare};
use duel_data::{Builder, Label, Options, Report, Task, Truncation, Whole};
use duel_stats::{Bootstrap, Share, wilson};
use std::path::Path;

/// A pair of row and prompt `row`.
fn pair(row: usize, gap: i64, chosen: f64, rejected: f64) -> Pair {
    Pair { place: (row, 0, 1), prompt: row, gap, scores: [Some((chosen, rejected)), None] }
}

/// Pairs with rewards of a scalar head, a prompt each.
fn comparison(pairs: Vec<Pair>) -> Comparison {
    let kendall = vec![Share::default(); pairs.len()];
    Comparison { prompts: pairs.len(), by: vec![By::Values], pairs, kendall, range: [0.0; 3], certainty: 1.0 }
}

fn summary(pairs: Vec<Pair>) -> Summary {
    Summary::of(Path::new("m"), Report::default(), comparison(pairs), &Bootstrap::new(1))
}

#[test]
fn lengths_ties_and_certainty() {
    let ln9 = 9.0_f64.ln();
    let s = summary(vec![
        pair(0, -50, 1.0, 0.0),
        pair(1, -49, 0.0, 1.0),
        pair(2, -1, 2.0, 2.0),
        pair(3, 0, ln9, 0.0),
        pair(4, 9, 3.0, 1.0),
        pair(5, 10, 0.0, ln9),
        pair(6, 700, 5.0, 1.0),
    ]);
    let figures = &s.figures[0];
    assert_eq!((figures.accuracy, figures.ties), (wilson(4.0, 7.0), 1));
    let margin = (1.0 - 1.0 + 0.0 + ln9 + 2.0 - ln9 + 4.0) / 7.0;
    assert!((figures.margin.unwrap().value - margin).abs() < 1e-15);
    assert!((figures.chosen.unwrap().value - (11.0 + ln9) / 7.0).abs() < 1e-15);
    let gaps: Vec<_> = s.gaps.iter().map(|gap| (gap.tokens, gap.pairs, gap.accuracy)).collect();
    let (right, wrong) = (wilson(1.0, 1.0), wilson(0.0, 1.0));
    let want = [
        ((None, Some(-50)), 1, right),
        ((Some(-49), Some(-10)), 1, wrong),
        ((Some(-9), Some(-1)), 1, wrong),
        ((Some(0), Some(0)), 1, right),
        ((Some(1), Some(9)), 1, right),
        ((Some(10), Some(49)), 1, wrong),
        ((Some(50), None), 1, right),
    ];
    assert_eq!(gaps, want);
    // Of six pairs of unlike lengths the longer one is preferred in rows 1, 4 and 6, and the chosen one in 4, 5 and 6.
    assert_eq!((s.prefers_longer, s.chosen_longer), (wilson(3.0, 6.0), wilson(3.0, 6.0)));
    // The tie is no more than a guess, and wrong.
    let bins: Vec<_> =
        s.reliability.as_ref().unwrap().bins().map(|(_, bin)| (bin.count, bin.right)).collect();
    assert_eq!((bins[0], bins.iter().map(|bin| bin.0).sum::<f64>()), ((1.0, 0.0), 7.0));
    assert!(s.independent && s.kendall.is_none());
}

#[test]
fn two_models_are_compared_pair_by_pair() {
    // Both right, the first alone, the second alone, neither; rows 4 and 5 have one model each.
    let a = comparison(vec![
        pair(0, 0, 1.0, 0.0),
        pair(1, 0, 3.0, 0.0),
        pair(2, 0, 0.0, 1.0),
        pair(3, 0, 0.0, 1.0),
        pair(4, 0, 9.0, 0.0),
    ]);
    let mut b = comparison(vec![
        pair(0, 0, 1.0, 0.0),
        pair(1, 0, 0.0, 1.0),
        pair(2, 0, 1.0, 0.0),
        pair(3, 0, 0.0, 2.0),
        pair(5, 0, 9.0, 0.0),
    ]);
    let versus = Versus::of(&a, &b, &Bootstrap::new(1));
    assert_eq!((versus.pairs, versus.apart, versus.right), (4, 2, [1, 1, 1, 1]));
    assert_eq!(
        (versus.accuracy.unwrap().value, versus.margin.unwrap().value),
        (0.0, (4.0 - 2.0 + 1.0) / 4.0)
    );
    // Rewards of other units have no difference.
    b.by = vec![By::Rewards];
    assert_eq!(Versus::of(&a, &b, &Bootstrap::new(1)).margin, None);
}

/// Two rows of one prompt and a ranking with a tie, as a reward model and as a policy alone has them.
#[test]
fn pairs_come_from_rows() {
    let opt = Options {
        task: Task::Preference,
        whole: Whole::default(),
        max_length: None,
        truncation: Truncation::KeepStart,
    };
    let mut builder = Builder::new(&opt);
    builder.push(1, &[7, 8], &[&[1, 2, 3], &[4]]).unwrap();
    builder.push(2, &[7, 8], &[&[1], &[4, 4]]).unwrap();
    let scores = Label::Scored(vec![2.0, 2.0, -1.0]);
    builder.push_labelled(3, &[9], &[&[1], &[2, 2], &[3]], scores.view()).unwrap();
    let ds = builder.finish().unwrap();
    let lines = [
        r#"{"row":1,"of":"model","tokens":[3,1],"logps":[-6.0,-3.0],"difference":-3.0}"#,
        r#"{"row":2,"of":"model","tokens":[1,2],"logps":[-1.0,-4.0],"difference":3.0}"#,
        r#"{"row":3,"of":"model","tokens":[1,2,1],"logps":[-1.0,-3.0,-2.0],"difference":1.0}"#,
    ];
    let records: Vec<Record> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let c = compare(&ds, &records, 1.0);
    assert_eq!((c.prompts, &c.by[..]), (2, &[By::Logps, By::LogpsPerToken][..]));
    let pairs: Vec<_> = c.pairs.iter().map(|p| (p.place, p.prompt, p.gap, p.difference())).collect();
    let want =
        [((1, 0, 1), 0, 2, -3.0), ((2, 0, 1), 0, -1, 3.0), ((3, 0, 2), 1, 0, 1.0), ((3, 1, 2), 1, 1, -1.0)];
    assert_eq!(pairs, want);
    assert_eq!(c.pairs[0].scores[1], Some((-2.0, -3.0)), "means over tokens");
    // Of two ordered pairs one agrees and one does not.
    assert_eq!(c.kendall, [Share::default(), Share { sum: 0.0, n: 1.0 }]);
    assert_eq!(c.range, [-6.0, -20.0 / 7.0, -1.0]);
}
