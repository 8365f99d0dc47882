//! The rules, one by one.

use super::*;
