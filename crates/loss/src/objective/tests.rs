use super::*;
use proptest::prelude::*;

fn score(logp: f64, reference: f64, tokens: usize) -> Score {
    Score { logp, reference, tokens, certainty: 0.0 }
}

/// Every loss with its own settings, and every divergence where it matters.
fn objectives(beta: f64) -> Vec<(String, Objective)> {
    let mut all = Vec::new();
    for word in WORDS {
        let smoothings = if word.uses("label_smoothing") { vec![0.01, 0.2] } else { vec![0.0] };
        let divergences = if word.uses("f_divergence_type") {
            vec![Divergence::ReverseKl, Divergence::ForwardKl, Divergence::Js, Divergence::Alpha(0.5)]
        } else {
            vec![Divergence::ReverseKl]
        };
        for &label_smoothing in &smoothings {
            for &divergence in &divergences {
                for ipo_per_token in [true, false] {
                    let s = Settings {
                        beta,
                        label_smoothing,
                        divergence,
                        ipo_per_token,
                        use_weighting: word.uses("use_weighting") && !ipo_per_token,
                        discopop_tau: 0.2,
                        simpo_gamma: 0.7,
                        alpha: 0.4,
                        unlikelihood_alpha: 0.6,
                        desirable_weight: 1.2,
                        undesirable_weight: 1.5,
                    };
                    all.push((format!("{} {s:?}", word.name), Objective::new(vec![(1.0, word)], s)));
                }
            }
        }
    }
    all
}

/// The scores as the groups that an objective takes: rankings with margins, or single responses with labels; the last
/// of a ranking is its prompt where that is asked for.
fn groups<'a>(objective: &Objective, rankings: &[&'a [Score]]) -> Vec<Group<'a>> {
    if objective.terms().iter().any(|(_, word)| word.is_unpaired()) {
        let one = |(i, score)| Group { desirable: i % 3 != 1, ..Group::ranked(std::slice::from_ref(score)) };
        return rankings.iter().copied().flatten().enumerate().map(one).collect();
    }
    let group = |(i, ranking): (usize, &&'a [Score])| {
        let n = ranking.len() - usize::from(objective.needs().prompt);
        Group { prompt: ranking.get(n).copied(), margin: 0.3 * i as f64, ..Group::ranked(&ranking[..n]) }
    };
    rankings.iter().enumerate().map(group).collect()
}

/// Of what would be known of the whole batch: not a function of the scores, as it has no gradient.
fn totals(groups: &[Group<'_>]) -> Totals {
    let mut totals = Totals { kl: 0.7, mean_reward: -0.2, ..Totals::default() };
    for group in groups {
        let prompt = group.prompt.map_or(0, |prompt| prompt.tokens);
        totals.add(group.responses.len(), group.responses[0].tokens, prompt);
    }
    totals
}

fn whole(objective: &Objective, rankings: &[&[Score]]) -> (f64, Vec<f64>) {
    let mut slopes = vec![0.0; rankings.iter().map(|g| g.len()).sum()];
    let groups = groups(objective, rankings);
    let loss = objective.slopes(&groups, totals(&groups), &mut slopes);
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
        ("lm", 7.0 / 3.0),
        ("orpo", 0.1 * ln2),
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
    let reference = Needs { reference: true, ..Needs::default() };
    assert_eq!(needs("sigmoid"), reference);
    assert_eq!(needs("aot"), Needs { batch: true, ..reference });
    assert_eq!(needs("kto"), Needs { kl: true, ..reference });
    assert_eq!(needs("bco"), Needs { batch: true, mean_reward: true, ..reference });
    assert_eq!(needs("lm"), Needs { prompt: true, ..Needs::default() });
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

/// KTO's and BCO's by hand: desirable, undesirable.
#[test]
fn losses_of_single_responses() {
    let scores = [score(-3.0, -5.0, 4), score(-3.0, -2.0, 2)];
    let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
    let settings =
        Settings { beta: 0.5, desirable_weight: 2.0, undesirable_weight: 1.5, ..Settings::default() };
    let of = |name: &str| whole(&Objective::new(vec![(1.0, word(name).unwrap())], settings), &[&scores]).0;
    // Rewards 1 and -0.5; `totals` has a KL of 0.7 and a mean reward of -0.2.
    let kto = 2.0 * (1.0 - logistic(1.0 - 0.35)) + 1.5 * (1.0 - logistic(0.35 + 0.5));
    let bco = -logistic(1.0 + 0.2).ln() - logistic(-0.2 + 0.5).ln();
    let apo = 2.0 * (1.0 - logistic(1.0)) + 1.5 * logistic(-0.5);
    for (name, want) in [("kto", kto / 2.0), ("bco", bco / 2.0), ("apo_zero_unpaired", apo / 2.0)] {
        assert!((of(name) - want).abs() < 1e-15, "{name}");
    }
}

/// A pair counts by how likely the policy would draw its responses, in the loss and in the derivatives.
#[test]
fn likely_pairs_count_more() {
    let pair = [(-3.0, 0.4, 4), (-5.0, -0.6, 2)]
        .map(|(logp, certainty, tokens)| Score { certainty, ..score(logp, -4.0, tokens) });
    let of = |use_weighting| {
        let settings = Settings { use_weighting, ..Settings::default() };
        whole(&Objective::new(vec![(1.0, word("sigmoid").unwrap())], settings), &[&pair])
    };
    let ((plain, slopes), (weighed, less)) = (of(false), of(true));
    let weight = (0.1f64 - 0.3).exp();
    assert!((weighed - weight * plain).abs() < 1e-15);
    assert!(slopes.iter().zip(&less).all(|(a, b)| (a * weight - b).abs() < 1e-15));
}

/// A margin moves the point from which a pair counts as learned.
#[test]
fn margins_move_the_loss() {
    let settings = Settings { beta: 0.5, ..Settings::default() };
    let at = |h: f64, margin: f64| {
        let pair = [score(h, 0.0, 1), score(0.0, 0.0, 1)];
        let group = Group { margin, ..Group::ranked(&pair) };
        let objective = Objective::new(vec![(1.0, word("sigmoid").unwrap())], settings);
        objective.slopes(&[group], totals(&[group]), &mut [0.0; 2])
    };
    assert_eq!(at(4.0, 1.5), at(1.0, 0.0));
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
                    // A log-probability is never above 0: without a reference the far one is certain.
                    let logp = |far: f64| if word.reference { far } else { far.min(0.0) };
                    let group: &[Score] = &[score(logp(far), 0.0, tokens), score(logp(-far), 0.0, tokens)];
                    let equal: &[Score] = &[score(-1.0, 0.0, tokens); 2];
                    for groups in [[group, group], [group, equal], [equal, equal]] {
                        let (loss, slopes) = whole(&objective, &groups);
                        assert!(loss.is_finite(), "{} {far}", word.name);
                        assert!(slopes.iter().all(|s| s.is_finite()), "{} {far}", word.name);
                    }
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
            // How certain the policy is has no gradient.
            (0..8).map(|i| Score { certainty: gaps[i], ..score(logps[i], reference[i], tokens[i]) }).collect()
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
