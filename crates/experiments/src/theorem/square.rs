//! Symmetric matrices of a prompt's responses.

/// A symmetric matrix, row after row.
#[derive(Clone, Debug)]
pub struct Square {
    n: usize,
    at: Vec<f64>,
}

/// The triangle `L` of `L Lᵀ`.
#[derive(Clone, Debug)]
pub struct Factor {
    n: usize,
    at: Vec<f64>,
}

impl Square {
    /// Of zeros, `n` by `n`.
    pub fn zero(n: usize) -> Self {
        Square { n, at: vec![0.0; n * n] }
    }

    /// Adds `x` at a place, and at the place across the diagonal if that is another.
    pub fn add(&mut self, i: usize, j: usize, x: f64) {
        self.at[i * self.n + j] += x;
        if i != j {
            self.at[j * self.n + i] += x;
        }
    }

    /// The factor of a matrix that says nothing of the direction of all ones, which becomes one of size `stiffness`.
    /// `None` where another direction has no positive size either.
    pub fn factor(&self, stiffness: f64) -> Option<Factor> {
        let n = self.n;
        let mut l = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..=i {
                let done: f64 = (0..j).map(|k| l[i * n + k] * l[j * n + k]).sum();
                let left = self.at[i * n + j] + stiffness / n as f64 - done;
                l[i * n + j] = match i == j {
                    true if left > 0.0 => left.sqrt(),
                    true => return None,
                    false => left / l[j * n + j],
                };
            }
        }
        Some(Factor { n, at: l })
    }

    /// Traces of `self x` and of its square, where `x` is the inverse of what has the factor `of`.
    pub fn traces(&self, of: &Factor) -> (f64, f64) {
        let n = self.n;
        // Column j of `inverse self` is row j of its transpose; traces are those of `self inverse`.
        let rows: Vec<Vec<f64>> = self.at.chunks(n).map(|row| of.solve(row)).collect();
        let first = (0..n).map(|i| rows[i][i]).sum();
        let second = (0..n).flat_map(|i| (0..n).map(move |j| (i, j))).map(|(i, j)| rows[i][j] * rows[j][i]);
        (first, second.sum())
    }
}

impl Factor {
    /// `x` such that `L Lᵀ x = y`.
    pub fn solve(&self, y: &[f64]) -> Vec<f64> {
        let n = self.n;
        let mut x = y.to_vec();
        for i in 0..n {
            let done: f64 = (0..i).map(|k| self.at[i * n + k] * x[k]).sum();
            x[i] = (x[i] - done) / self.at[i * n + i];
        }
        self.spread(&x)
    }

    /// `x` such that `Lᵀ x = y`: of independent standard normal `y`, a draw with the covariance `(L Lᵀ)⁻¹`.
    pub fn spread(&self, y: &[f64]) -> Vec<f64> {
        let n = self.n;
        let mut x = y.to_vec();
        for i in (0..n).rev() {
            let done: f64 = (i + 1..n).map(|k| self.at[k * n + i] * x[k]).sum();
            x[i] = (x[i] - done) / self.at[i * n + i];
        }
        x
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn solving_undoes_multiplying() {
        // The Laplacian of a path of three: it says nothing of all ones.
        let mut path = Square::zero(3);
        for (i, j, x) in [(0, 0, 1.0), (1, 1, 2.0), (2, 2, 1.0), (0, 1, -1.0), (1, 2, -1.0)] {
            path.add(i, j, x);
        }
        assert!(path.factor(0.0).is_none());
        let factor = path.factor(1.0).unwrap();
        let x = factor.solve(&[1.0, 0.0, -1.0]);
        for (x, want) in x.iter().zip([1.0, 0.0, -1.0]) {
            assert!((x - want).abs() < 1e-14, "{x}");
        }
        // The product with its own inverse is 1 but for all ones, where it is 0.
        let (first, second) = path.traces(&factor);
        assert!((first - 2.0).abs() < 1e-14 && (second - 2.0).abs() < 1e-14, "{first} {second}");
    }
}
