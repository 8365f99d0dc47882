//! Finding and reading, on short texts.

use super::*;
