//! What carries messages from rank to rank, and knows nothing of what they mean.

use crate::Result;

/// What a rank tells all others besides what they wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Notice {
    /// It ends because of what went wrong on a rank, itself or another, to which these did not come.
    Failed { rank: usize, why: String, missing: Vec<usize> },
    /// It ended, and nothing went wrong.
    Ended,
}

/// Messages of two ranks arrive in the order in which they were sent. No call waits.
pub(crate) trait Wire {
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

    /// Waits a moment for anything to happen, longer the more moments there were before in which nothing did.
    fn rest(&mut self, moments: u32);
}
