use super::*;
use proptest::prelude::*;

fn score(logp: f64, reference: f64, tokens: usize) -> Score {
    Score { logp, reference, tokens }
}

/// Every loss with its own settings, and every divergence where it matters.
fn objectives(beta: f64) -> Vec<(String, Objective)> {
    let mut all = Vec::new();
    for word in WORDS {
        let uses = |name: &str| word.uses.contains(&name);
        let smoothings = if uses("label_smoothing") { vec![0.01, 0.2] } else { vec![0.0] };
        let divergences = if uses("f_divergence_type") {
            vec![Divergence::ReverseKl, Divergence::ForwardKl, Divergence::Js, Divergence::Alpha(0.5)]
        } else {
            vec![Divergence::ReverseKl]
        };
        for &label_smoothing in &smoothings {
            for &divergence in &divergences {
                for ipo_per_token in [true, false] {
                    let s =
                        Settings { beta, label_smoothing, divergence, ipo_per_token, ..Settings::default() };
                    all.push((format!("{} {s:?}", word.name), Objective::new(vec![(1.0, word)], s)));
                }
            }
        }
    }
    all
}

fn totals(groups: &[&[Score]]) -> Totals {
    let mut totals = Totals::default();
    groups.iter().for_each(|group| totals.add(group.len(), group[0].tokens));
    totals
}

fn whole(objective: &Objective, groups: &[&[Score]]) -> (f64, Vec<f64>) {
    let mut slopes = vec![0.0; groups.iter().map(|g| g.len()).sum()];
    let loss = objective.slopes(groups, totals(groups), &mut slopes);
    (loss, slopes)
}

#[test]
fn words_are_told_apart() {
    for (i, a) in WORDS.iter().enumerate() {
        assert!(WORDS[..i].iter().all(|b| a.name != b.name), "{}", a.name);
        assert_eq!(word(a.name).unwrap().name, a.name);
        assert!(!a.formula.is_empty() && !a.source.is_empty());
    }
    assert!(word("nothing").is_none());
}

#[test]
fn at_the_reference() {
    let s = score(-7.0, -7.0, 3);
    let ln2 = std::f64::consts::LN_2;
    for (name, want) in [
        ("sigmoid", ln2),
        ("sigmoid_norm", ln2),
        ("plackett_luce", ln2),
        ("robust", ln2),
        ("aot", ln2),
        ("ipo", 25.0),
        ("hinge", 1.0),
        ("nca_pair", 2.0 * ln2),
        ("bco_pair", 2.0 * ln2),
        ("sppo_hard", 50.0),
        ("apo_zero", 1.0),
        ("apo_down", 1.0),
        ("discopop", 0.5 * ln2 + 0.5),
        ("sft", 7.0 / 3.0),
    ] {
        let objective = Objective::new(vec![(1.0, word(name).unwrap())], Settings::default());
        let got = whole(&objective, &[&[s, s]]).0;
        assert!((got - want).abs() <= 4.0 * f64::EPSILON * want, "{name}: {got} {want}");
    }
}

/// A ranking of two is a pair, to the rounding of a sum of two.
#[test]
fn a_ranking_of_two_is_a_pair() {
    let of = |name: &str| Objective::new(vec![(1.0, word(name).unwrap())], Settings::default());
    for h in [-300.0, -3.0, 0.0, 1e-3, 7.0, 300.0] {
        let pair: &[Score] = &[score(h, 0.0, 3), score(0.0, 0.0, 2)];
        let ((a, da), (b, db)) = (whole(&of("plackett_luce"), &[pair]), whole(&of("sigmoid"), &[pair]));
        assert!((a - b).abs() <= 4.0 * f64::EPSILON * (0.1 * h).abs().max(1.0), "{h}: {a} {b}");
        assert!(
            da.iter().zip(&db).all(|(a, b)| (a - b).abs() <= 4.0 * f64::EPSILON * (0.1 * h).abs().max(1.0))
        );
    }
}

#[test]
fn needs() {
    let needs = |name: &str| Objective::new(vec![(1.0, word(name).unwrap())], Settings::default()).needs();
    assert_eq!(needs("sigmoid"), Needs { reference: true, batch: false });
    assert_eq!(needs("aot"), Needs { reference: true, batch: true });
    assert_eq!(needs("simpo"), Needs::default());
    assert_eq!(Objective::cross_entropy().needs(), Needs::default());
    let cpo = Objective::new(vec![(1.0, word("sigmoid").unwrap())], Settings::default()).without_reference();
    assert_eq!(cpo.needs(), Needs::default());
}

/// A sum of losses is the sum of its terms, each with its own mean.
#[test]
fn sums_of_losses() {
    let groups: [&[Score]; 2] =
        [&[score(-3.0, -2.0, 4), score(-5.0, -6.0, 2)], &[score(-1.0, -1.5, 1), score(-2.0, -2.0, 3)]];
    let one =
        |name: &str| whole(&Objective::new(vec![(1.0, word(name).unwrap())], Settings::default()), &groups);
    let terms = [(0.8, "sigmoid"), (0.2, "bco_pair"), (1.5, "sft")];
    let sum = Objective::new(terms.map(|(w, name)| (w, word(name).unwrap())).into(), Settings::default());
    let (loss, slopes) = whole(&sum, &groups);
    let want: f64 = terms.iter().map(|(w, name)| w * one(name).0).sum();
    assert!((loss - want).abs() < 1e-14);
    for (i, slope) in slopes.iter().enumerate() {
        let want: f64 = terms.iter().map(|(w, name)| w * one(name).1[i]).sum();
        assert!((slope - want).abs() < 1e-14);
    }
}

/// Nothing overflows where the divergence itself does not.
#[test]
fn extreme_margins_stay_finite() {
    for word in WORDS {
        for divergence in [Divergence::ReverseKl, Divergence::Js] {
            let s = Settings { beta: 5.0, label_smoothing: 0.1, divergence, ..Settings::default() };
            let objective = Objective::new(vec![(1.0, word)], s);
            for far in [-1e4, 1e4] {
                for tokens in [1, 9] {
                    let group: &[Score] = &[score(far, 0.0, tokens), score(-far, 0.0, tokens)];
                    let (loss, slopes) = whole(&objective, &[group, group]);
                    assert!(loss.is_finite() && slopes.iter().all(|s| s.is_finite()), "{} {far}", word.name);
                }
            }
        }
    }
}

proptest! {
    /// Derivatives against central differences, of three rankings of two or three responses.
    #[test]
    fn derivatives_match_differences(
        logps in proptest::collection::vec(-40.0..0.0f64, 8),
        gaps in proptest::collection::vec(-4.0..4.0f64, 8),
        tokens in proptest::collection::vec(1usize..9, 8),
        beta in 0.05..2.0f64,
    ) {
        let reference: Vec<f64> = logps.iter().zip(&gaps).map(|(logp, gap)| logp + gap).collect();
        let of = |logps: &[f64]| -> Vec<Score> {
            (0..8).map(|i| score(logps[i], reference[i], tokens[i])).collect()
        };
        let cut = |all: &[Score]| -> [Vec<Score>; 3] { [all[..2].to_vec(), all[2..5].to_vec(), all[5..].to_vec()] };
        for (name, objective) in objectives(beta) {
            let at = |logps: &[f64]| {
                let groups = cut(&of(logps));
                whole(&objective, &[&groups[0], &groups[1], &groups[2]])
            };
            let (value, slopes) = at(&logps);
            let step = 1e-5;
            for i in 0..8 {
                let mut moved = [logps.clone(), logps.clone()];
                moved[0][i] += step;
                moved[1][i] -= step;
                let [(up, du), (down, dd)] = moved.map(|logps| at(&logps));
                let difference = (up - down) / (2.0 * step);
                // Where a step crosses the corner of a hinge or swaps two places of a sorted batch, there is no
                // derivative: the slopes on both sides differ by more than a smooth function's can.
                let (low, high) = (du[i].min(dd[i]), du[i].max(dd[i]));
                let smooth = high - low <= 1e-3 * (1.0 + high.abs() + low.abs());
                // A central difference lies between the slopes at its ends up to the third derivative's share, which
                // is below the slopes' own change; rounding of the loss, over the step, adds.
                let rounding = 64.0 * f64::EPSILON * (value.abs() + 1.0 + slopes[i].abs() * 100.0) / step;
                let bound = rounding + (high - low);
                prop_assert!(!smooth || (difference - slopes[i]).abs() <= bound + 1e-9 * slopes[i].abs(), "{name} {i}: {difference} {}", slopes[i]);
            }
        }
    }
}
