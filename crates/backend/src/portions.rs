/// How much work a device wants at a time. It decides the order of sums, so it depends on the kind of device and on
/// nothing that changes from run to run, such as free memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portions {
    /// Tokens of a micro-batch. More would hardly be faster, and activations take memory in proportion.
    pub tokens: usize,
    /// Bytes of logits that exist at a time: enough rows that the product with the head runs at full speed.
    pub logits_bytes: usize,
    /// Elements that rows of logits should be a multiple of, with room after the vocabulary where that is none: 1 where
    /// it does not matter.
    pub logits_multiple: usize,
}

impl Default for Portions {
    /// For a few cores.
    fn default() -> Self {
        Portions { tokens: 768, logits_bytes: 128 << 20, logits_multiple: 1 }
    }
}
