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
    /// Where its part of [`Plan::turns`] begins.
    pub turns: usize,
    prefix: Run,
    own: Run,
    from: usize,
    /// So many of the first positions are before the window of its first query; without a window far below 0.
    passed: isize,
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
}

impl Block {
    /// The tiles of its keys in their order: those of the prefix, then its segment's own, each run from its start but
    /// for tiles that no query of the block sees any more.
    pub fn tiles(self) -> impl Iterator<Item = Tile> {
        let own = Run { len: self.from + self.rows, ..self.own };
        let runs = [(self.prefix, 0, None), (own, self.prefix.len, Some(self.from))];
        runs.into_iter().flat_map(move |(run, position, queries)| {
            let passed = self.passed - position as isize;
            let hidden = passed.clamp(0, run.len as isize) as usize;
            let first = if hidden < run.len { hidden - hidden % KEYS } else { run.len };
            (first..run.len).step_by(KEYS).map(move |from| {
                let len = KEYS.min(run.len - from);
                let skew = queries.map_or(len as isize, |q| q as isize - from as isize + 1);
                Tile {
                    at: run.at + from,
                    mask: Mask { len, skew, lag: passed - from as isize },
                    number: run.tile + from / KEYS,
                }
            })
        })
    }
}

/// How a batch is cut.
#[derive(Default)]
pub struct Plan {
    /// Every tile of keys.
    pub cuts: Vec<Cut>,
    /// Every block of queries, group after group.
    pub blocks: Vec<Block>,
    /// Of every block and each of its tiles: how many blocks before see some of the tile too.
    pub turns: Vec<u32>,
    /// Rows of the batch.
    pub rows: usize,
    /// Packed rows.
    pub packed: usize,
    /// Pairs of a query and a key that are seen.
    pub pairs: usize,
}

impl Plan {
    /// Cuts the segments for windows of so many positions.
    ///
    /// # Panics
    /// When they do not tile the rows in order, or a prefix is not the whole segment without a prefix before.
    pub fn new(segments: &[Segment], window: Option<usize>) -> Self {
        assert_ne!(window, Some(0), "a query sees its own key at least");
        let mut plan = Plan::default();
        let reach = window.unwrap_or(usize::MAX).min(usize::MAX / 4);
        let (mut prompt, mut group, mut block) = (Run::default(), 0, 0);
        for s in segments {
            assert_eq!(s.start, plan.rows, "segments must tile the rows in order");
            if s.prefix_len == 0 {
                (group, block) = (group + 1, 0);
            }
            let own = Run { row: s.start, at: plan.packed, len: s.len, tile: plan.cuts.len() };
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
                turns: 0,
                prefix,
                own,
                from,
                passed: (s.prefix_len + from + 1) as isize - reach as isize,
            }));
            plan.cuts.extend((0..s.len).step_by(KEYS).map(|from| {
                let len = KEYS.min(s.len - from);
                let packed = if from + len < s.len { KEYS } else { own.packed() - from };
                Cut { row: own.row + from, at: own.at + from, len, packed }
            }));
            plan.rows += s.len;
            plan.packed += own.packed();
            plan.pairs += (1..=s.len).map(|n| (s.prefix_len + n).min(reach)).sum::<usize>();
            block += s.len.div_ceil(BLOCK);
        }
        let mut seen = vec![0; plan.cuts.len()];
        for block in &mut plan.blocks {
            block.turns = plan.turns.len();
            plan.turns.extend(block.tiles().map(|tile| {
                let before = &mut seen[tile.number];
                *before += 1;
                *before - 1
            }));
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
