use crate::{Heads, Index, Real, Scores, Storage};

/// Attention over a cache of keys and values, a token of each sequence at a time.
pub trait Decode: Storage {
    /// Writes the keys and values of each row of `qkv` to row `slots[r]` of the caches
    /// (`[capacity, kv_heads·head_dim]`).
    fn kv_store(
        &self,
        keys: &mut Real<Self>,
        values: &mut Real<Self>,
        qkv: &Real<Self>,
        slots: &Index<Self>,
        rows: usize,
        dims: Heads,
    );
    /// Attention of each row's queries to two runs of cache rows, one softmax over both: its prompt's, which several
    /// rows may share, and its own. `runs[rows, 4]` holds first row and number of rows of the first, then of the
    /// second; one of the two may be empty. They are the sequence up to the
    /// query's own position: of a window it sees the end. Of neighbours that share a run a device may read it once.
    fn attention_cached(
        &self,
        o: &mut Real<Self>,
        qkv: &Real<Self>,
        keys: &Real<Self>,
        values: &Real<Self>,
        runs: &Index<Self>,
        rows: usize,
        dims: Heads,
        scores: Scores,
    );
}
