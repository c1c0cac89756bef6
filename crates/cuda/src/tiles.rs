//! The lists of tiles that attention works on.

use crate::grid::narrow;
use crate::variants::Attention;
use crate::{Buf, Cuda, CudaReal, Driver};
use duel_backend::{Segment, Storage};
use duel_kernels::sys;
use std::cmp::Reverse;
use std::ffi::c_void;
use std::ops::Range;

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
pub(crate) struct DeviceList {
    pub address: *const c_void,
    pub count: usize,
}

impl<D: Driver, R: CudaReal> Cuda<D, R> {
    /// The tiles of the forward, of the gradients of queries and of those of keys; none where the device has no room
    /// for them, which is kept as a failure.
    pub(crate) fn tile_lists(&self, segments: &[Segment], family: &Attention) -> Option<[DeviceList; 3]> {
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
                match self.alloc(words.len().next_power_of_two()) {
                    Ok(buffer) => known.words = Some(buffer),
                    Err(error) => {
                        self.keep_failure(error);
                        return None;
                    }
                }
            }
            self.upload(known.words.as_mut()?, 0, &words);
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
}
