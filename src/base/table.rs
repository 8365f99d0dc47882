//! [`Table`]: a `Vec` that only its own index type opens.

use std::{
    marker::PhantomData,
    ops::{Index, IndexMut},
};

/// A typed index into a [`Table`].
pub trait Id: Copy {
    /// The position in the table.
    fn index(self) -> usize;
}

/// A vector indexed by `I`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table<I, T> {
    rows: Vec<T>,
    id: PhantomData<fn(I)>,
}

impl<I: Id, T> Table<I, T> {
    /// The rows given, in order of their ids.
    pub const fn from_rows(rows: Vec<T>) -> Self {
        Self { rows, id: PhantomData }
    }

    /// Number of rows.
    pub const fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows.
    pub const fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Adds a row at the end.
    pub fn push(&mut self, row: T) {
        self.rows.push(row);
    }

    /// The row of `id`, if there is one.
    pub fn get(&self, id: I) -> Option<&T> {
        self.rows.get(id.index())
    }

    /// The row of `id`, if there is one, to change.
    #[inline]
    pub fn get_mut(&mut self, id: I) -> Option<&mut T> {
        self.rows.get_mut(id.index())
    }

    /// Has the row of `id`, if there is one, brought into the caches; does not wait for it.
    #[inline(always)]
    pub fn prefetch(&self, id: I) {
        prefetch_index::prefetch_index(self.rows.as_slice(), id.index());
    }

    /// All rows in order.
    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.rows.iter()
    }

    /// All rows in order, to change.
    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, T> {
        self.rows.iter_mut()
    }

    /// The rows as a slice.
    pub fn as_slice(&self) -> &[T] {
        &self.rows
    }

    /// The rows as a slice, to change.
    #[inline]
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        &mut self.rows
    }

    /// Grows or shrinks to `len` rows.
    pub fn resize(&mut self, len: usize, row: T)
    where
        T: Clone,
    {
        self.rows.resize(len, row);
    }

    /// Only the first `len` rows; the memory is kept.
    pub fn truncate(&mut self, len: usize) {
        self.rows.truncate(len);
    }

    /// No rows any more; the memory is kept.
    pub fn clear(&mut self) {
        self.rows.clear();
    }
}

impl<I, T> Default for Table<I, T> {
    fn default() -> Self {
        Self { rows: Vec::new(), id: PhantomData }
    }
}

impl<I: Id, T> Index<I> for Table<I, T> {
    type Output = T;
    #[inline]
    fn index(&self, id: I) -> &T {
        &self.rows[id.index()]
    }
}

impl<I: Id, T> IndexMut<I> for Table<I, T> {
    #[inline]
    fn index_mut(&mut self, id: I) -> &mut T {
        &mut self.rows[id.index()]
    }
}

impl<'a, I: Id, T> IntoIterator for &'a Table<I, T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.rows.iter()
    }
}
