use crate::{Heads, Index, Real, Storage};

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
    /// Attention of each row's queries to `lens[r]` consecutive cache rows from `bases[r]` on.
    fn attention_cached(
        &self,
        o: &mut Real<Self>,
        qkv: &Real<Self>,
        keys: &Real<Self>,
        values: &Real<Self>,
        bases: &Index<Self>,
        lens: &Index<Self>,
        rows: usize,
        dims: Heads,
    );
}
