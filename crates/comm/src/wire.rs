//! What carries messages from rank to rank, and knows nothing of what they mean.

use crate::Result;
#[cfg(any(feature = "mpi", feature = "nccl"))]
use std::{thread, time::Duration};

/// What a rank tells all others besides what they wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Notice {
    /// It ends because of what went wrong on a rank, itself or another, to which these did not come.
    Failed { rank: usize, why: String, missing: Vec<usize> },
    /// It ended, and nothing went wrong.
    Ended,
}

/// Bytes of a notice at most: short enough that it is kept on its way where nobody reads it.
#[cfg(any(feature = "mpi", feature = "nccl"))]
const NOTICE_BYTES: usize = 2048;

#[cfg(any(feature = "mpi", feature = "nccl"))]
impl Notice {
    /// In bytes: the rank, how many did not come and which, then the text. [`Notice::Ended`] has none.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let Notice::Failed { rank, why, missing } = self else { return Vec::new() };
        let mut bytes = Vec::new();
        let missing = &missing[..missing.len().min(NOTICE_BYTES / 8)];
        for number in [*rank, missing.len()].iter().chain(missing) {
            bytes.extend((*number as u32).to_le_bytes());
        }
        bytes.extend(why.bytes().take(NOTICE_BYTES - bytes.len()));
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Self {
        let number = |i: usize| {
            bytes.get(4 * i..4 * i + 4)?.try_into().ok().map(|four| u32::from_le_bytes(four) as usize)
        };
        let (Some(rank), Some(count)) = (number(0), number(1)) else { return Notice::Ended };
        let missing = (2..2 + count).filter_map(number).collect();
        let why = String::from_utf8_lossy(bytes.get(8 + 4 * count..).unwrap_or_default()).into_owned();
        Notice::Failed { rank, why, missing }
    }
}

/// Moments in which a core does nothing else, before it sleeps between looks.
#[cfg(any(feature = "mpi", feature = "nccl"))]
const EAGER: u32 = 1000;
/// How long it sleeps at least and at most.
#[cfg(any(feature = "mpi", feature = "nccl"))]
const SLEEP: [Duration; 2] = [Duration::from_micros(50), Duration::from_millis(1)];

/// Waits a moment where nothing tells that something has happened: cores may be fewer than ranks.
#[cfg(any(feature = "mpi", feature = "nccl"))]
pub(crate) fn pause(moments: u32) {
    match moments.checked_sub(EAGER) {
        None => thread::yield_now(),
        Some(times) => thread::sleep((SLEEP[0] * (1 + times / 64)).min(SLEEP[1])),
    }
}

/// Messages of two ranks arrive in the order in which they were sent. No call waits.
pub(crate) trait Wire: Send + 'static {
    fn rank(&self) -> usize;

    fn size(&self) -> usize;

    /// A buffer for a message, empty.
    fn buffer(&mut self) -> Vec<u8>;

    /// Whether there is room for one more message to this rank now.
    fn has_room(&mut self, to: usize) -> Result<bool>;

    /// Starts to send a message, to a rank for which there is room.
    fn send(&mut self, to: usize, message: Vec<u8>) -> Result<()>;

    /// The next message of this rank, if it is here.
    fn take(&mut self, from: usize) -> Result<Option<Vec<u8>>>;

    /// Takes back a buffer, when what was in it is read.
    fn give_back(&mut self, message: Vec<u8>);

    /// Whether everything that was sent is on its way without this process.
    fn is_gone(&mut self) -> Result<bool>;

    /// Tells all others, without waiting for those that do not listen.
    fn notify(&mut self, notice: &Notice);

    /// A notice that was not read yet, and whose it is.
    fn notice(&mut self) -> Option<(usize, Notice)>;

    /// Whether it is known that nothing comes from this rank any more, whether or not it has told why.
    fn is_lost(&self, _rank: usize) -> bool {
        false
    }

    /// Waits a moment for anything to happen, longer the more moments there were before in which nothing did.
    fn rest(&mut self, moments: u32);
}
