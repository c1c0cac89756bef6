//! Packed rows in blocks of queries and tiles of keys.

use super::kernel::{BLOCK, KEYS, MOST_COLUMNS, MOST_ROWS, Mask};
use duel_backend::{Heads, Segment};

/// A segment's place among the packed keys, where each has room for whole tiles of every kernel behind it.
#[derive(Clone, Copy, Default)]
struct Run {
    /// First row in the batch.
    row: usize,
    /// First packed row.
    at: usize,
    /// Rows.
    len: usize,
    /// Number of its first tile of keys.
    tile: usize,
    /// Number of its first block of queries in its group.
    block: usize,
}

impl Run {
    /// Packed rows, room included.
    fn packed(self) -> usize {
        if self.len == 0 { 0 } else { (self.len + MOST_ROWS - 1).next_multiple_of(MOST_COLUMNS) }
    }
}

/// A tile of packed rows.
#[derive(Clone, Copy)]
pub struct Cut {
    /// First row in the batch.
    pub row: usize,
    /// First packed row.
    pub at: usize,
    /// Rows, at most [`KEYS`].
    pub len: usize,
    /// Packed rows up to the next tile.
    pub packed: usize,
}

/// Some query rows of a segment.
#[derive(Clone, Copy)]
pub struct Block {
    /// First row in the batch.
    pub row: usize,
    /// Rows, at most [`BLOCK`].
    pub rows: usize,
    /// Number of the group.
    pub group: usize,
    /// Number in the group.
    pub number: usize,
    prefix: Run,
    own: Run,
    from: usize,
}

/// Keys that a block of queries sees some of.
#[derive(Clone, Copy)]
pub struct Tile {
    /// First packed row.
    pub at: usize,
    /// Which of them which query sees.
    pub mask: Mask,
    /// Number of the tile in the batch.
    pub number: usize,
    /// Number in the group of the first block that sees some of it. All later blocks of the segment do too, and where
    /// it is a prompt, all later blocks of the group.
    pub first: usize,
}

impl Block {
    /// The tiles of its keys in their order: those of the prefix, then its segment's own, each run from its start.
    pub fn tiles(self) -> impl Iterator<Item = Tile> {
        let own = Run { len: self.from + self.rows, ..self.own };
        [(self.prefix, None), (own, Some(self.from))].into_iter().flat_map(|(run, queries)| {
            (0..run.len).step_by(KEYS).map(move |from| {
                let len = KEYS.min(run.len - from);
                let skew = queries.map_or(len as isize, |q| q as isize - from as isize + 1);
                Tile {
                    at: run.at + from,
                    mask: Mask { len, skew },
                    number: run.tile + from / KEYS,
                    first: run.block + from / BLOCK,
                }
            })
        })
    }
}

/// How a batch is cut.
pub struct Plan {
    /// Every tile of keys.
    pub cuts: Vec<Cut>,
    /// Every block of queries, group after group.
    pub blocks: Vec<Block>,
    /// Rows of the batch.
    pub rows: usize,
    /// Packed rows.
    pub packed: usize,
    /// Pairs of a query and a key that are seen.
    pub pairs: usize,
}

impl Plan {
    /// Cuts the segments.
    ///
    /// # Panics
    /// When they do not tile the rows in order, or a prefix is not the whole segment without a prefix before.
    pub fn new(segments: &[Segment]) -> Self {
        let mut plan = Plan { cuts: Vec::new(), blocks: Vec::new(), rows: 0, packed: 0, pairs: 0 };
        let (mut prompt, mut group, mut block) = (Run::default(), 0, 0);
        for s in segments {
            assert_eq!(s.start, plan.rows, "segments must tile the rows in order");
            if s.prefix_len == 0 {
                (group, block) = (group + 1, 0);
            }
            let own = Run { row: s.start, at: plan.packed, len: s.len, tile: plan.cuts.len(), block };
            let prefix = match s.prefix_len {
                0 => {
                    prompt = own;
                    Run::default()
                }
                len => {
                    assert_eq!((s.prefix_start, len), (prompt.row, prompt.len), "a prefix is a whole prompt");
                    prompt
                }
            };
            plan.blocks.extend((0..s.len).step_by(BLOCK).enumerate().map(|(i, from)| Block {
                row: s.start + from,
                rows: BLOCK.min(s.len - from),
                group,
                number: block + i,
                prefix,
                own,
                from,
            }));
            plan.cuts.extend((0..s.len).step_by(KEYS).map(|from| {
                let len = KEYS.min(s.len - from);
                let packed = if from + len < s.len { KEYS } else { own.packed() - from };
                Cut { row: own.row + from, at: own.at + from, len, packed }
            }));
            plan.rows += s.len;
            plan.packed += own.packed();
            plan.pairs += s.len * s.prefix_len + s.len * (s.len + 1) / 2;
            block += s.len.div_ceil(BLOCK);
        }
        plan
    }

    /// Whether a hand-over to other threads would take longer than it saves.
    pub fn is_small(&self, d: Heads) -> bool {
        self.pairs * d.q_width() < 1 << 16
    }

    /// Every block with every query head, by their numbers `(block, head)`, in the order in which `threads` of them
    /// best begin: the gradients of one head's keys are summed in it. Each thread has keys and values of its own to go
    /// through again and again, where there are enough.
    pub fn tasks(&self, d: Heads, threads: usize) -> Vec<[u32; 2]> {
        let heads = d.heads as u32;
        let mut tasks: Vec<[u32; 2]> =
            (0..self.blocks.len() as u32).flat_map(|b| (0..heads).map(move |h| [b, h])).collect();
        // No two are equal.
        tasks.sort_unstable_by_key(|&[b, h]| {
            let (b, h) = (self.blocks[b as usize], h as usize);
            let keys = b.group * d.kv_heads + h / d.ratio();
            (keys / threads, b.number, h % d.ratio(), keys % threads)
        });
        tasks
    }

    /// Block and head of one of [`Plan::tasks`].
    pub fn task(&self, [block, head]: [u32; 2]) -> (Block, usize) {
        (self.blocks[block as usize], head as usize)
    }
}
