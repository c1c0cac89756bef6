//! The game that a win matrix is: what to play so that nobody beats it.

use duel_stats::Wins;
use duel_train::Error;
use microlp::{ComparisonOp, OptimizationDirection, Problem};

/// How far weights of two optimal mixtures may be apart and count as the same: the solver's feasibility tolerance is
/// 1e-7, and a weight moves by more than that only where the mixture is hardly determined.
const SAME: f64 = 1e-6;
/// How little the constraints of a mixture of maximal entropy may be missed.
const MISSED: f64 = 1e-12;
/// Rounds over all constraints after which that is given up.
const ROUNDS: usize = 100_000;

/// What secures most against every column.
#[derive(Clone, Debug, PartialEq)]
pub struct Secured {
    /// Probability of each row.
    pub mixture: Vec<f64>,
    /// The least that it earns of a column.
    pub value: f64,
}

/// The mixture of rows that earns most of the column that is worst for it: `max_p min_j sum_i p_i a_ij` (von Neumann,
/// 1928), as a linear program.
///
/// # Errors
/// The solver did not solve it.
///
/// # Panics
/// Without a row or a column.
pub fn maximin(payoffs: &[Vec<f64>]) -> Result<Secured, Error> {
    let columns = payoffs[0].len();
    assert!(columns > 0, "a game has columns");
    let mut problem = Problem::new(OptimizationDirection::Maximize);
    let value = problem.add_var(1.0, (f64::NEG_INFINITY, f64::INFINITY));
    let shares: Vec<_> = payoffs.iter().map(|_| problem.add_var(0.0, (0.0, f64::INFINITY))).collect();
    for j in 0..columns {
        let earned = shares.iter().zip(payoffs).map(|(share, row)| (*share, row[j]));
        problem.add_constraint(earned.chain([(value, -1.0)]).collect::<Vec<_>>(), ComparisonOp::Ge, 0.0);
    }
    problem.add_constraint(shares.iter().map(|s| (*s, 1.0)).collect::<Vec<_>>(), ComparisonOp::Eq, 1.0);
    let solution = solved(&problem)?;
    let mixture = distribution(shares.iter().map(|share| solution.var_value(*share)));
    let value = (0..columns).map(|j| earns(&mixture, payoffs, j)).fold(f64::INFINITY, f64::min);
    Ok(Secured { mixture, value })
}

fn solved(problem: &Problem) -> Result<microlp::Solution, Error> {
    let unsolved = |why: &dyn std::fmt::Display| {
        Error::new(format!(
            "the linear program of a game was not solved: {why}; please report the win matrix"
        ))
    };
    let outcome = problem.solve().map_err(|e| unsolved(&e))?;
    outcome.into_solution().map_err(|_| unsolved(&"it was interrupted"))
}

fn earns(mixture: &[f64], payoffs: &[Vec<f64>], j: usize) -> f64 {
    mixture.iter().zip(payoffs).map(|(p, row)| p * row[j]).sum()
}

/// Without what rounding left below 0 and beside a sum of 1.
fn distribution(shares: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut all: Vec<f64> = shares.map(|share| share.max(0.0)).collect();
    let sum: f64 = all.iter().sum();
    all.iter_mut().for_each(|share| *share /= sum);
    all
}

/// The von Neumann winner of a win matrix: the mixture that beats every entrant at least half of the time (Dudik et
/// al., 2015).
#[derive(Clone, Debug, PartialEq)]
pub struct Winner {
    /// Probability of each entrant.
    pub mixture: Vec<f64>,
    /// Whether there is no other; where there is, this is the one of maximal entropy.
    pub unique: bool,
}

/// The von Neumann winner of `wins`.
///
/// # Errors
/// The solver did not solve it.
pub fn winner(wins: &Wins) -> Result<Winner, Error> {
    let n = wins.entrants();
    let margins: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| margin(wins, i, j)).collect()).collect();
    let found = maximin(&margins)?.mixture;
    // Shares sum to 1: where none can grow, there is no other mixture.
    let most = (0..n).map(|i| most(&margins, i)).collect::<Result<Vec<_>, _>>()?;
    if most.iter().zip(&found).all(|(most, share)| most - share < SAME) {
        return Ok(Winner { mixture: found, unique: true });
    }
    let mixture = widest(&margins, &most)?;
    Ok(Winner { mixture, unique: false })
}

/// `2 P - 1`, to the bit the negative of the other way round.
fn margin(wins: &Wins, i: usize, j: usize) -> f64 {
    if i <= j { 2.0 * wins.rate(i, j) - 1.0 } else { 1.0 - 2.0 * wins.rate(j, i) }
}

/// The largest share of an entrant in a mixture that nobody beats.
fn most(margins: &[Vec<f64>], entrant: usize) -> Result<f64, Error> {
    let n = margins.len();
    let mut problem = Problem::new(OptimizationDirection::Maximize);
    let shares: Vec<_> =
        (0..n).map(|i| problem.add_var(f64::from(u8::from(i == entrant)), (0.0, f64::INFINITY))).collect();
    for j in 0..n {
        let earned: Vec<_> = shares.iter().zip(margins).map(|(share, row)| (*share, row[j])).collect();
        problem.add_constraint(earned, ComparisonOp::Ge, 0.0);
    }
    problem.add_constraint(shares.iter().map(|s| (*s, 1.0)).collect::<Vec<_>>(), ComparisonOp::Eq, 1.0);
    Ok(solved(&problem)?.var_value(shares[entrant]))
}

/// The mixture of maximal entropy among those that nobody beats. It is `p_i ∝ exp(sum_j l_j a_ij)` over the entrants
/// that any of them plays; of such an entrant each of them has exactly half, so that its `l_j` is free, and of others
/// `l_j >= 0`. One constraint at a time is met exactly, as Bregman (1967) projects, until all are.
fn widest(margins: &[Vec<f64>], most: &[f64]) -> Result<Vec<f64>, Error> {
    let n = margins.len();
    let played: Vec<usize> = (0..n).filter(|&i| most[i] > SAME).collect();
    let mut multipliers = vec![0.0; n];
    let of = |multipliers: &[f64]| {
        let exponent = |i: &usize| multipliers.iter().zip(&margins[*i]).map(|(l, a)| l * a).sum();
        let exponents: Vec<f64> = played.iter().map(exponent).collect();
        let top = exponents.iter().fold(f64::NEG_INFINITY, |top, x| top.max(*x));
        distribution(exponents.iter().map(|x| (x - top).exp()))
    };
    for _ in 0..ROUNDS {
        let mut missed = 0.0f64;
        for j in 0..n {
            let column: Vec<f64> = played.iter().map(|&i| margins[i][j]).collect();
            let mixture = of(&multipliers);
            let step = tilt(&mixture, &column);
            let bound = if most[j] > SAME { f64::NEG_INFINITY } else { 0.0 };
            let earned: f64 = mixture.iter().zip(&column).map(|(p, a)| p * a).sum();
            let next = (multipliers[j] + step).max(bound);
            // What lies on its bound and wants to go beyond is met.
            missed = missed.max(if next == multipliers[j] { 0.0 } else { earned.abs() });
            multipliers[j] = next;
        }
        if missed < MISSED {
            let mut whole = vec![0.0; n];
            played.iter().zip(of(&multipliers)).for_each(|(i, share)| whole[*i] = share);
            return Ok(whole);
        }
    }
    Err(Error::new("the mixture of maximal entropy was not found; please report the win matrix"))
}

/// The `t` of `sum_i p_i exp(t a_i) a_i = 0`, by Newton's steps of a bounded length on a sum that grows with `t`.
fn tilt(mixture: &[f64], column: &[f64]) -> f64 {
    let mut t = 0.0;
    for _ in 0..100 {
        let terms = || mixture.iter().zip(column).map(|(p, a)| (p * (t * a).exp(), a));
        let all: f64 = terms().map(|(p, _)| p).sum();
        let mean = terms().map(|(p, a)| p * a).sum::<f64>() / all;
        let square = terms().map(|(p, a)| p * a * a).sum::<f64>() / all;
        let step = -mean / (square - mean * mean).max(f64::MIN_POSITIVE);
        if mean.abs() < MISSED / 16.0 || !step.is_finite() {
            break;
        }
        t += step.clamp(-1.0, 1.0);
    }
    t
}

#[cfg(test)]
mod tests {
    use super::*;
    use duel_random::{SplitMix, fraction};

    fn close(got: &[f64], want: &[f64], within: f64) {
        let near = got.len() == want.len() && got.iter().zip(want).all(|(g, w)| (g - w).abs() < within);
        assert!(near, "{got:?} is not {want:?}");
    }

    /// Rock beats scissors by 1, scissors paper by 2, paper rock by 3: rock plays the margin of the pair that it is
    /// not in, and so everyone, over their sum.
    #[test]
    fn weighted_rock_paper_scissors() {
        // Rock, paper, scissors.
        let game = [vec![0.0, -3.0, 1.0], vec![3.0, 0.0, -2.0], vec![-1.0, 2.0, 0.0]];
        let Secured { mixture, value } = maximin(&game).unwrap();
        close(&mixture, &[2.0 / 6.0, 1.0 / 6.0, 3.0 / 6.0], 1e-12);
        assert!(value.abs() < 1e-12, "{value}");
        let wins = Wins::of(3, |i, j| 0.5 + game[i][j] / 8.0);
        let Winner { mixture, unique } = winner(&wins).unwrap();
        close(&mixture, &[2.0 / 6.0, 1.0 / 6.0, 3.0 / 6.0], 1e-12);
        assert!(unique);
        let cycle = Wins::of(3, |i, j| [[0.5, 0.9, 0.3], [0.1, 0.5, 0.6], [0.7, 0.4, 0.5]][i][j]);
        close(&winner(&cycle).unwrap().mixture, &[1.0 / 7.0, 2.0 / 7.0, 4.0 / 7.0], 1e-12);
    }

    /// The value of a 2 by 2 game without a saddle is (ad - bc)/(a + d - b - c).
    #[test]
    fn a_game_has_its_value() {
        let Secured { mixture, value } = maximin(&[vec![3.0, -1.0], vec![-2.0, 4.0]]).unwrap();
        close(&[mixture[0], mixture[1], value], &[0.6, 0.4, 1.0], 1e-12);
    }

    /// What a column player can hold the rows to is what they can secure.
    #[test]
    fn random_games_have_no_gap() {
        let mut random = SplitMix::new(5);
        let mut number = || 2.0 * fraction(random.number()) - 1.0;
        let mut worst = 0.0f64;
        for round in 0..150 {
            let (rows, columns) = (2 + round % 9, 2 + round % 7);
            let game: Vec<Vec<f64>> = (0..rows).map(|_| (0..columns).map(|_| number()).collect()).collect();
            let turned: Vec<Vec<f64>> =
                (0..columns).map(|j| (0..rows).map(|i| -game[i][j]).collect()).collect();
            let (rows, columns) = (maximin(&game).unwrap(), maximin(&turned).unwrap());
            worst = worst.max((rows.value + columns.value).abs());
        }
        assert!(worst < 1e-9, "a gap of {worst:e}");
    }

    #[test]
    fn nobody_beats_the_winner_of_random_contests() {
        let mut random = SplitMix::new(8);
        for round in 0..120 {
            let n = 2 + round % 8;
            let rates: Vec<f64> = (0..n * n).map(|_| fraction(random.number())).collect();
            let wins = Wins::of(n, |i, j| rates[i * n + j]);
            let Winner { mixture, unique } = winner(&wins).unwrap();
            assert!(wins.exploitability(&mixture) < 1e-9, "{wins:?}: {mixture:?}");
            // Of almost every matrix there is one, and it plays an odd number (Laffond et al., 1993).
            assert!(unique && mixture.iter().filter(|p| **p > 0.0).count() % 2 == 1, "{mixture:?}");
        }
    }

    /// Two copies of each of a cycle's three: any split between copies is optimal, an even one is widest. Two that tie
    /// and beat a third: the same. Of 0 against 1 and 2, who both beat 3 and tie with it, nothing is forced but 3's
    /// absence.
    #[test]
    fn where_many_win_it_is_the_widest() {
        let p = [[0.5, 0.9, 0.3], [0.1, 0.5, 0.6], [0.7, 0.4, 0.5]];
        let doubled = winner(&Wins::of(6, |i, j| p[i % 3][j % 3])).unwrap();
        close(&doubled.mixture, &[1.0, 2.0, 4.0, 1.0, 2.0, 4.0].map(|x| x / 14.0), 1e-9);
        assert!(!doubled.unique);
        let tied = winner(&Wins::of(3, |i, j| if (i, j) == (0, 1) { 0.5 } else { 0.8 })).unwrap();
        close(&tied.mixture, &[0.5, 0.5, 0.0], 1e-9);
        let all = winner(&Wins::of(4, |_, _| 0.5)).unwrap();
        close(&all.mixture, &[0.25; 4], 1e-12);
    }

    /// Matrices of wins, ties and losses, which have many winners: each that is found is one, and none is wider that a
    /// small step within the optimal mixtures leads to.
    #[test]
    fn tournaments_with_ties_are_solved() {
        let mut random = SplitMix::new(11);
        let mut shared = 0;
        for round in 0..80 {
            let n = 3 + round % 5;
            let rates: Vec<f64> = (0..n * n).map(|_| (random.number() % 3) as f64 / 2.0).collect();
            let wins = Wins::of(n, |i, j| rates[i * n + j]);
            let found = winner(&wins).unwrap();
            assert!(wins.exploitability(&found.mixture) < 1e-9, "{wins:?}: {found:?}");
            shared += usize::from(!found.unique);
            let margins: Vec<Vec<f64>> =
                (0..n).map(|i| (0..n).map(|j| margin(&wins, i, j)).collect()).collect();
            let vertex = maximin(&margins).unwrap().mixture;
            let entropy = |p: &[f64]| -p.iter().filter(|p| **p > 0.0).map(|p| p * p.ln()).sum::<f64>();
            for share in [0.01, 0.5, 1.0] {
                let other: Vec<f64> =
                    vertex.iter().zip(&found.mixture).map(|(v, p)| share * v + (1.0 - share) * p).collect();
                assert!(entropy(&other) <= entropy(&found.mixture) + 1e-9, "{wins:?}: {found:?}");
            }
        }
        assert!(shared > 10, "only {shared} had more than one winner");
    }
}
