//! Who reaches whom.

/// Whether each of `n` reaches every other along the edges: nobody stands apart, in front of the others or behind them.
pub fn connected(n: usize, edge: impl Fn(usize, usize) -> bool) -> bool {
    let reached = |follow: &dyn Fn(usize, usize) -> bool| {
        let (mut seen, mut open) = (vec![false; n], vec![0]);
        while let Some(i) = open.pop() {
            if !std::mem::replace(&mut seen[i], true) {
                open.extend((0..n).filter(|&j| j != i && follow(i, j)));
            }
        }
        seen.into_iter().all(|seen| seen)
    };
    n > 0 && reached(&edge) && reached(&|i, j| edge(j, i))
}
