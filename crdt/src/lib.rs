//! Replicated state.
