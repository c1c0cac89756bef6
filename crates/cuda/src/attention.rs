//! Attention over packed groups, and rotary positions.

use crate::grid::{narrow, team_grid};
use crate::maps::Rows;
use crate::variants::{Tiled, launch_of};
use crate::{Buf, Cuda, CudaReal, Driver, Grid, kernel};
use duel_backend::{Attention, Heads, Layout, Scores};
use duel_kernels::sys;

impl<D: Driver, R: CudaReal> Cuda<D, R> {
    /// A block for each tile and head.
    fn tile_grid(kernel: Tiled, tiles: usize, heads: usize) -> Grid {
        let (threads, shared) = launch_of(kernel.kernel);
        Grid::linear(tiles * heads, threads).with_shared(shared)
    }
}

/// # Panics
/// With a cap, or a window that is shorter than a sequence: no kernel knows them.
pub(crate) fn assert_known(scores: Scores) {
    assert!(scores.cap.is_none() && scores.window.is_none(), "attention on a GPU with {scores:?}");
}

impl<D: Driver, R: CudaReal> Attention for Cuda<D, R> {
    fn rope(
        &self,
        qkv: &mut Buf<D, R>,
        table: &Buf<D, f32>,
        positions: &Buf<D, u32>,
        rows: usize,
        inverse: bool,
        dims: Heads,
    ) {
        let (width, heads) = (dims.qkv_width(), dims.heads + dims.kv_heads);
        if rows * width == 0 {
            return;
        }
        assert!(dims.head_dim.is_multiple_of(2), "rotary positions need an even head_dim");
        let params = sys::RopeParams {
            qkv: self.write(qkv, rows * width),
            table: self.read(table, 0).cast(),
            positions: self.read(positions, rows).cast(),
            rows: narrow(rows),
            width: narrow(width),
            heads: narrow(heads),
            head_dim: narrow(dims.head_dim),
            table_rows: narrow(table.len() / dims.head_dim),
            sign: if inverse { -1.0 } else { 1.0 },
        };
        let grid = team_grid::<R>(rows, heads * dims.head_dim / 2);
        // SAFETY: the kernel takes RopeParams; `write` and `read` checked the buffers against its shapes, and it checks
        // each position against the rows of the table itself.
        unsafe { self.launch(kernel!(R, "rope"), grid, &params) };
    }

    fn attention(
        &self,
        o: &mut Buf<D, R>,
        lse: &mut Buf<D, f32>,
        qkv: &Buf<D, R>,
        layout: &Layout<Self>,
        dims: Heads,
        scores: Scores,
    ) {
        let rows = layout.segments.last().map_or(0, |s| s.start + s.len);
        if rows == 0 {
            return;
        }
        let longest = layout.segments.iter().map(|s| s.prefix_len + s.len).max();
        assert_known(scores.within(longest.unwrap_or_default()));
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
            scale: scores.scale as f32,
        };
        let grid = Self::tile_grid(family.forward, tiles.count, dims.heads);
        let of_qkv = Rows::dense(params.qkv, rows, dims.qkv_width());
        let maps = self.maps_of(family.tensor_maps, &[(of_qkv, sys::SM90_BOX)]);
        // SAFETY: the kernel takes AttentionParams and, if any, a map of qkv; `write` and `read` checked the buffers,
        // and the tiles name rows of the layout.
        unsafe { self.launch_with_maps(family.forward.kernel, grid, &maps, &params) };
    }

    fn attention_bw(
        &self,
        dqkv: &mut Buf<D, R>,
        dout: &Buf<D, R>,
        o: &Buf<D, R>,
        lse: &Buf<D, f32>,
        qkv: &Buf<D, R>,
        layout: &Layout<Self>,
        dims: Heads,
        scores: Scores,
    ) {
        let rows = layout.segments.last().map_or(0, |s| s.start + s.len);
        if rows == 0 {
            return;
        }
        let longest = layout.segments.iter().map(|s| s.prefix_len + s.len).max();
        assert_known(scores.within(longest.unwrap_or_default()));
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
                scale: scores.scale as f32,
            };
            let teams_a_block = sys::ATTENTION_STATS_THREADS / sys::ATTENTION_TEAM;
            let grid = Grid::linear(teams.div_ceil(teams_a_block as usize), sys::ATTENTION_STATS_THREADS);
            // SAFETY: the kernel takes AttentionBwParams; `write` and `read` checked the buffers, and stats is as
            // large as it says.
            unsafe { self.launch(kernel!(R, "attention_bw_stats"), grid, &params) };
            let keys = Self::tile_grid(family.keys, key_tiles.count, dims.kv_heads);
            let queries = Self::tile_grid(family.queries, query_tiles.count, dims.heads);
            let of_qkv = Rows::dense(params.qkv, rows, dims.qkv_width());
            let of_dout = Rows::dense(params.dout, rows, dims.q_width());
            let copied = [(of_qkv, sys::SM90_BOX), (of_dout, sys::SM90_BOX)];
            let maps = self.maps_of(family.tensor_maps, &copied);
            // SAFETY: the kernels take AttentionBwParams and, if any, maps of qkv and dout; the buffers were checked
            // above, and the tiles name rows of the layout.
            unsafe {
                self.launch_with_maps(family.keys.kernel, keys, &maps, &params);
                self.launch_with_maps(family.queries.kernel, queries, &maps, &params);
            }
        });
    }
}
