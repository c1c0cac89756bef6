#![doc = include_str!("../README.md")]

mod attention;
mod blocks;
mod decode;
mod element;
mod error;
mod feed_forward;
mod gather;
mod layout;
mod logprob;
mod low_rank;
mod measure;
mod norm;
mod portions;
mod preference;
mod product;
mod repetition;
mod sample;
mod storage;
mod update;
mod weight;

pub use attention::{Attention, Heads, Scores};
pub use blocks::{Bits, Blocks};
pub use decode::Decode;
pub use element::{Dtype, Element, Float};
pub use error::{Error, Result};
pub use feed_forward::{Activation, FeedForward};
pub use gather::Gather;
pub use layout::{Layout, Segment};
pub use logprob::{LogProbs, Logits, Prediction, RowStats};
pub use low_rank::{Dropout, LowRank};
pub use measure::Measure;
pub use norm::{Norm, Norms, QkNorm};
pub use portions::Portions;
pub use preference::{
    Grouped, PairFunction, PairObjective, Preference, PreferenceOut, ResponseGroups, ResponseSums, Rule, Side,
};
pub use product::{Gemm, Products};
pub use repetition::Repetition;
pub use sample::{Draw, Sample};
pub use storage::{Acc, Index, Memory, Real, Storage};
pub use update::{AdamW, Rmsprop, Update};
pub use weight::{Map, MapGradients, Weight};

/// A device that computes: buffers and a closed list of fused verbs, a trait a subject.
///
/// Code that is generic in `B: Backend` calls every verb without more imports; code for one device imports the traits
/// of the verbs that it calls.
///
/// Conventions, the same for every verb:
/// * Outputs come first, dims last. Matrices are row-major and dense; a buffer may be longer than the dims
///   say (buffers are sized once, for the largest batch), never shorter.
/// * A shape mistake is a programmer's error and panics. User input never reaches a verb unchecked.
/// * Verbs that say `+=` accumulate; all others overwrite.
/// * Results are bitwise reproducible: no verb depends on the number of threads or on timing, and a row's
///   result in a forward verb does not depend on which other rows are in the batch.
/// * Verbs may run asynchronously; their errors surface at [`Storage::finish`] or at the next download.
pub trait Backend:
    Storage
    + Repetition
    + Products
    + LowRank
    + Gather
    + Norms
    + Attention
    + Decode
    + FeedForward
    + LogProbs
    + Sample
    + Preference
    + Update
{
    /// Makes `pass`, one of the largest of a run, before the first step, if the first one of a size has more to do than
    /// the later ones (compile kernels, get scratch memory): what fails then fails early. A device without such work
    /// makes none.
    ///
    /// # Errors
    /// Those of `pass`.
    fn rehearse<E>(&self, _pass: impl FnOnce() -> std::result::Result<(), E>) -> std::result::Result<(), E> {
        Ok(())
    }

    /// One line for people: what computes, with how many threads.
    fn describe(&self) -> String;
    /// All that the bits of a result depend on besides its inputs: backends that say the same here compute the same.
    fn identity(&self) -> String;
    /// How much work a pass should be given to run at full speed.
    fn portions(&self) -> Portions {
        Portions::default()
    }
}
