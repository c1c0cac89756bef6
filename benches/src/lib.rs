//! Criterion benchmarks of duel
