//! [`Names`]: which allocation a name of a file means, and whether it is live.

use std::{fmt::Display, hash::Hash};

use rustc_hash::FxHashMap;

use crate::base::AllocId;

/// What became of the latest allocation of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameState {
    /// Allocated.
    Live,
    /// Pending in the start layout.
    PendingAtStart,
    /// Freed.
    Freed,
    /// Freed, and the events that it waited for are done.
    Completed,
}

#[derive(Clone, Copy, Debug)]
struct Named {
    id: AllocId,
    state: NameState,
    /// The line that brought it into this state.
    line: usize,
}

/// The names of a file. A name may be used again after its allocation was freed.
///
/// Errors are sentences for people; the caller knows the place.
#[derive(Clone, Debug)]
pub(crate) struct Names<K> {
    named: FxHashMap<K, Named>,
}

impl<K: Copy + Eq + Hash + Display> Names<K> {
    pub(crate) fn new() -> Self {
        Self { named: FxHashMap::default() }
    }

    /// Whether a new allocation may have this name.
    pub(crate) fn check_unused(&self, name: K) -> Result<(), String> {
        match self.named.get(&name) {
            Some(Named { state: NameState::Live, line, .. }) => Err(format!(
                "'{name}' is live since line {line}; free it first, or take another name"
            )),
            Some(Named { state: NameState::PendingAtStart, line, .. }) => Err(format!(
                "'{name}' is pending since the start, see line {line}; take another name"
            )),
            _ => Ok(()),
        }
    }

    /// `name` is this allocation from now on.
    pub(crate) fn set(&mut self, name: K, id: AllocId, state: NameState, line: usize) {
        self.named.insert(name, Named { id, state, line });
    }

    /// The live allocation of that name.
    pub(crate) fn live(&self, name: K) -> Result<AllocId, String> {
        match self.named.get(&name) {
            Some(named) if named.state == NameState::Live => Ok(named.id),
            other => Err(format!("'{name}' is not live: {}", what_became(other))),
        }
    }

    /// The live allocation of that name, which is freed now.
    pub(crate) fn free(&mut self, name: K, line: usize) -> Result<AllocId, String> {
        let id = self.live(name)?;
        self.set(name, id, NameState::Freed, line);
        Ok(id)
    }

    /// The freed allocation of that name, whose events are done now.
    pub(crate) fn complete(&mut self, name: K, line: usize) -> Result<AllocId, String> {
        match self.named.get(&name) {
            Some(Named { id, state: NameState::Freed | NameState::PendingAtStart, .. }) => {
                let id = *id;
                self.set(name, id, NameState::Completed, line);
                Ok(id)
            }
            other => Err(format!("'{name}' is not pending: {}", what_became(other))),
        }
    }
}

fn what_became(named: Option<&Named>) -> String {
    let Some(Named { state, line, .. }) = named else {
        return "it was never allocated".to_owned();
    };
    match state {
        NameState::Live => format!("it is live since line {line}; free it first"),
        NameState::PendingAtStart => format!("it was freed before the start, see line {line}"),
        NameState::Freed => format!("it was freed in line {line}"),
        NameState::Completed => format!("its free was completed in line {line}"),
    }
}
