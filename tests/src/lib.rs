//! Gradient checks, golden files and training invariants of duel
