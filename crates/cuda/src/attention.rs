//! Launches of attention: which kernels, and the lists of tiles that they work on.

use crate::pointwise::narrow;
use crate::variants::{Attention, Tiled, WIDEST_HEAD, launch_of};
use crate::{Buf, Cuda, CudaReal, Driver, Grid, kernel};
use duel_backend::{Heads, Layout, Segment, Storage};
use duel_kernels::sys;
use std::cmp::Reverse;
use std::ffi::c_void;
use std::ops::Range;

/// Columns and rows of a tensor map's tile: 128 bytes, as wide as the swizzle.
const MAP_TILE: u32 = 64;
/// Threads of a block of `attention_bw_stats`.
const STATS_THREADS: u32 = 256;
/// Threads that sum a row of a head there.
const STATS_TEAM: usize = 8;
/// Teams of a block of `attention_cached`.
const CACHED_TEAMS: usize = 16;
/// Threads of a block of `attention_cached`.
const CACHED_THREADS: u32 = 128;

/// Tiles of `rows` rows of each segment, as row numbers of the batch.
fn tiles(segment: Segment, rows: usize) -> impl Iterator<Item = Range<usize>> {
    let end = segment.start + segment.len;
    (segment.start..end).step_by(rows).map(move |first| first..(first + rows).min(end))
}

/// Tiles of queries, those that see most keys first, so that the last blocks of a launch are short ones.
fn query_tiles(segments: &[Segment], rows: usize) -> Vec<sys::QueryTile> {
    let mut all = Vec::new();
    for &s in segments {
        all.extend(tiles(s, rows).map(|tile| sys::QueryTile {
            first: narrow(tile.start),
            end: narrow(tile.end),
            segment: narrow(s.start),
            prefix: narrow(s.prefix_start),
            prefix_end: narrow(s.prefix_start + s.prefix_len),
        }));
    }
    all.sort_by_key(|t| Reverse(t.prefix_end - t.prefix + t.end - t.segment));
    all
}

/// Tiles of keys, those that most queries see first.
fn key_tiles(segments: &[Segment], rows: usize) -> Vec<sys::KeyTile> {
    let mut all = Vec::new();
    for group in segments.chunk_by(|_, next| next.prefix_len > 0) {
        let end_of = |s: &Segment| s.start + s.len;
        let group_end = group.last().map_or(0, end_of);
        for s in group {
            let query_end = narrow(if s.prefix_len == 0 { group_end } else { end_of(s) });
            let of_rows =
                |t: Range<usize>| sys::KeyTile { first: narrow(t.start), end: narrow(t.end), query_end };
            all.extend(tiles(*s, rows).map(of_rows));
        }
    }
    all.sort_by_key(|t| Reverse(t.query_end - t.first));
    all
}

/// Where a list is in the buffer of lists.
#[derive(Clone, Copy, Default)]
struct List {
    /// In words.
    offset: usize,
    /// In tiles.
    count: usize,
}

/// The lists of tiles of the layout that attention last worked on. Every layer of a step asks for the same ones.
pub(crate) struct TileLists<D: Driver> {
    words: Option<Buf<D, u32>>,
    segments: Vec<Segment>,
    rows: [usize; 3],
    lists: [List; 3],
}

impl<D: Driver> Default for TileLists<D> {
    fn default() -> Self {
        TileLists { words: None, segments: Vec::new(), rows: [0; 3], lists: [List::default(); 3] }
    }
}

/// A list of tiles in device memory.
struct DeviceList {
    address: *const c_void,
    count: usize,
}

impl<D: Driver, R: CudaReal> Cuda<D, R> {
    /// The tiles of the forward, of the gradients of queries and of those of keys; none where the device has no room
    /// for them, which is kept as a failure.
    fn tile_lists(&self, segments: &[Segment], family: &Attention) -> Option<[DeviceList; 3]> {
        self.check_outside_of_repetition(); // the next layout has other tiles in the same place
        let mut known = self.tile_lists.borrow_mut();
        let rows = [family.forward.rows, family.queries.rows, family.keys.rows];
        if known.words.is_none() || known.rows != rows || known.segments != segments {
            let mut words: Vec<u32> = Vec::new();
            let mut lists = [List::default(); 3];
            for (list, rows) in lists.iter_mut().zip(&rows[..2]) {
                let tiles = query_tiles(segments, *rows);
                *list = List { offset: words.len(), count: tiles.len() };
                words.extend(tiles.iter().flat_map(|t| [t.first, t.end, t.segment, t.prefix, t.prefix_end]));
            }
            let tiles = key_tiles(segments, rows[2]);
            lists[2] = List { offset: words.len(), count: tiles.len() };
            words.extend(tiles.iter().flat_map(|t| [t.first, t.end, t.query_end]));
            if known.words.as_ref().is_none_or(|w| w.len() < words.len()) {
                known.words = None; // before more is asked for
                match self.alloc_buffer(words.len().next_power_of_two()) {
                    Ok(buffer) => known.words = Some(buffer),
                    Err(error) => {
                        self.keep_failure(error);
                        return None;
                    }
                }
            }
            self.upload_buffer(known.words.as_mut()?, 0, &words);
            known.segments = segments.to_vec();
            known.rows = rows;
            known.lists = lists;
        }
        let buffer = known.words.as_ref()?;
        Some(known.lists.map(|list| DeviceList {
            address: self.read(buffer, buffer.len()).wrapping_byte_add(list.offset * size_of::<u32>()),
            count: list.count,
        }))
    }

    /// A block for each tile and head.
    fn tile_grid(kernel: Tiled, tiles: usize, heads: usize) -> Grid {
        let (threads, shared) = launch_of(kernel.kernel);
        Grid::linear(tiles * heads, threads).with_shared(shared)
    }

    /// A tensor map of `rows` rows of `width` elements.
    fn rows_map(&self, address: *const c_void, rows: usize, width: usize) -> sys::TensorMap {
        self.driver.tensor_map(&sys::TensorMapSpec {
            base: address as u64,
            extents: [width as u64, rows as u64, 1],
            strides: [(width * size_of::<R>()) as u64, 0],
            tile: [MAP_TILE, MAP_TILE, 1],
            rank: 2,
            element_bytes: size_of::<R>() as u32,
            swizzle_bytes: 128,
        })
    }

    pub(crate) fn launch_attention(
        &self,
        o: &mut Buf<D, R>,
        lse: &mut Buf<D, f32>,
        qkv: &Buf<D, R>,
        layout: &Layout<Self>,
        dims: Heads,
    ) {
        let rows = layout.segments.last().map_or(0, |s| s.start + s.len);
        if rows == 0 {
            return;
        }
        let family = self.variants.attention(dims.head_dim);
        let Some([tiles, ..]) = self.tile_lists(&layout.segments, family) else { return };
        let params = sys::AttentionParams {
            o: self.write(o, rows * dims.q_width()),
            lse: self.write(lse, rows * dims.heads).cast(),
            qkv: self.read(qkv, rows * dims.qkv_width()),
            tiles: tiles.address.cast(),
            heads: narrow(dims.heads),
            kv_heads: narrow(dims.kv_heads),
            head_dim: narrow(dims.head_dim),
            scale: dims.scale() as f32,
        };
        let grid = Self::tile_grid(family.forward, tiles.count, dims.heads);
        if family.tensor_maps {
            let map = self.rows_map(params.qkv, rows, dims.qkv_width());
            // SAFETY: the kernel takes a map of qkv and AttentionParams; `write` and `read` checked the buffers, and
            // the tiles name rows of the layout.
            unsafe { self.launch_with_maps(family.forward.kernel, grid, &[&map], &params) };
        } else {
            // SAFETY: as above, without maps.
            unsafe { self.launch(family.forward.kernel, grid, &params) };
        }
    }

    pub(crate) fn launch_attention_bw(
        &self,
        dqkv: &mut Buf<D, R>,
        dout: &Buf<D, R>,
        o: &Buf<D, R>,
        lse: &Buf<D, f32>,
        qkv: &Buf<D, R>,
        layout: &Layout<Self>,
        dims: Heads,
    ) {
        let rows = layout.segments.last().map_or(0, |s| s.start + s.len);
        if rows == 0 {
            return;
        }
        let family = self.variants.attention(dims.head_dim);
        let Some([_, query_tiles, key_tiles]) = self.tile_lists(&layout.segments, family) else { return };
        let teams = rows * dims.heads;
        self.with_scratch(2 * teams * size_of::<f32>(), |stats| {
            let params = sys::AttentionBwParams {
                dqkv: self.write(dqkv, rows * dims.qkv_width()),
                stats: stats.cast(),
                dout: self.read(dout, rows * dims.q_width()),
                o: self.read(o, rows * dims.q_width()),
                lse: self.read(lse, teams).cast(),
                qkv: self.read(qkv, rows * dims.qkv_width()),
                query_tiles: query_tiles.address.cast(),
                key_tiles: key_tiles.address.cast(),
                rows: narrow(rows),
                heads: narrow(dims.heads),
                kv_heads: narrow(dims.kv_heads),
                head_dim: narrow(dims.head_dim),
                scale: dims.scale() as f32,
            };
            let grid = Grid::linear((teams * STATS_TEAM).div_ceil(STATS_THREADS as usize), STATS_THREADS);
            // SAFETY: the kernel takes AttentionBwParams; `write` and `read` checked the buffers, and stats is as
            // large as it says.
            unsafe { self.launch(kernel!(R, "attention_bw_stats"), grid, &params) };
            let keys = Self::tile_grid(family.keys, key_tiles.count, dims.kv_heads);
            let queries = Self::tile_grid(family.queries, query_tiles.count, dims.heads);
            if family.tensor_maps {
                let qkv_map = self.rows_map(params.qkv, rows, dims.qkv_width());
                let dout_map = self.rows_map(params.dout, rows, dims.q_width());
                let maps = [&qkv_map, &dout_map];
                // SAFETY: the kernels take maps of qkv and dout and AttentionBwParams; the buffers were checked above,
                // and the tiles name rows of the layout.
                unsafe {
                    self.launch_with_maps(family.keys.kernel, keys, &maps, &params);
                    self.launch_with_maps(family.queries.kernel, queries, &maps, &params);
                }
            } else {
                // SAFETY: as above, without maps.
                unsafe {
                    self.launch(family.keys.kernel, keys, &params);
                    self.launch(family.queries.kernel, queries, &params);
                }
            }
        });
    }

    pub(crate) fn launch_attention_cached(
        &self,
        o: &mut Buf<D, R>,
        qkv: &Buf<D, R>,
        keys: &Buf<D, R>,
        values: &Buf<D, R>,
        bases: &Buf<D, u32>,
        lens: &Buf<D, u32>,
        rows: usize,
        dims: Heads,
    ) {
        if rows == 0 {
            return;
        }
        assert!(dims.head_dim <= WIDEST_HEAD, "attention with heads of width {}, over 256", dims.head_dim);
        let cache_rows = self.len(keys).min(self.len(values)) / dims.kv_width();
        let params = sys::AttentionCachedParams {
            o: self.write(o, rows * dims.q_width()),
            qkv: self.read(qkv, rows * dims.qkv_width()),
            keys: self.read(keys, cache_rows * dims.kv_width()),
            values: self.read(values, cache_rows * dims.kv_width()),
            bases: self.read(bases, rows).cast(),
            lens: self.read(lens, rows).cast(),
            heads: narrow(dims.heads),
            kv_heads: narrow(dims.kv_heads),
            head_dim: narrow(dims.head_dim),
            cache_rows: narrow(cache_rows),
            scale: dims.scale() as f32,
        };
        let shared = CACHED_TEAMS * (2 + dims.head_dim) * size_of::<f32>();
        let grid = Grid::linear(rows * dims.heads, CACHED_THREADS).with_shared(shared);
        // SAFETY: the kernel takes AttentionCachedParams; `write` and `read` checked the buffers, the kernel checks that
        // bases and lens name rows of the caches.
        unsafe { self.launch(kernel!(R, "attention_cached"), grid, &params) };
    }

    pub(crate) fn launch_kv_store(
        &self,
        keys: &mut Buf<D, R>,
        values: &mut Buf<D, R>,
        qkv: &Buf<D, R>,
        slots: &Buf<D, u32>,
        rows: usize,
        dims: Heads,
    ) {
        if rows == 0 {
            return;
        }
        let cache_rows = self.len(keys).min(self.len(values)) / dims.kv_width();
        let params = sys::KvStoreParams {
            keys: self.write(keys, cache_rows * dims.kv_width()),
            values: self.write(values, cache_rows * dims.kv_width()),
            qkv: self.read(qkv, rows * dims.qkv_width()),
            slots: self.read(slots, rows).cast(),
            rows: narrow(rows),
            q_width: narrow(dims.q_width()),
            kv_width: narrow(dims.kv_width()),
            cache_rows: narrow(cache_rows),
        };
        // SAFETY: the kernel takes KvStoreParams; `write` and `read` checked the buffers, the kernel checks the slots.
        unsafe { self.launch(kernel!(R, "kv_store"), self.rows_grid(rows, 2 * dims.kv_width()), &params) };
    }
}
