/// Work that repeats, which a device may record.
pub trait Repetition {
    /// What a device keeps of it; see [`Repetition::repeat`]. Empty at first.
    type Recording: Default + 'static;
    /// Does `work`, which may be calls of verbs alone, and not of attention over a layout: no allocation, upload,
    /// download or wait. With a recording that is not empty any more, a device may do the same work as before without
    /// asking `work`. Every use of a recording must therefore bring the same verbs on the same buffers with the same
    /// dims; what is in the buffers may change. `work` is asked twice where it could not be recorded.
    fn repeat(&self, _recording: &mut Self::Recording, mut work: impl FnMut()) {
        work();
    }
}
