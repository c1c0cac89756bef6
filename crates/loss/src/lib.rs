//! Language-model head, log-softmax gather and preference objectives, fused in chunks
