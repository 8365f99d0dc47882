//! Bytes to raw.
