//! Lifts the traces: rows become the entries of their device, or an error with its place.

use std::collections::HashMap;

use super::{
    heap::Value,
    keys::Key,
    lift::{FormatError, Lift, Place},
    raw::Entry,
    rows::Problem,
};

/// Most devices that are read.
const DEVICES: usize = 256;

impl Lift {
    pub(super) fn traces(
        &mut self,
        place: &Place<'_>,
        value: Value,
    ) -> Result<Vec<Vec<Entry>>, FormatError> {
        let devices = self.take_list(place, value)?;
        if devices.len() > DEVICES {
            return place.fail(format!("has {} devices; at most {DEVICES}", devices.len()));
        }
        let problems: HashMap<u32, (Key, Problem)> = std::mem::take(&mut self.heap.rows.problems)
            .into_iter()
            .rev()
            .map(|(row, key, problem)| (row, (key, problem)))
            .collect();
        let count = devices.len();
        let mut traces = Vec::with_capacity(count);
        let mut rows = Vec::new();
        for (device, list) in devices.into_iter().enumerate() {
            let place = Place::Index(place, device);
            rows.clear();
            self.trace_rows(&place, list, &problems, &mut rows)?;
            traces.push(self.take_rows(&rows, device + 1 == count));
        }
        self.seen.entry = self.heap.rows.seen;
        for (_, key) in std::mem::take(&mut self.heap.rows.unknown) {
            self.note("trace entry", key);
        }
        Ok(traces)
    }

    fn trace_rows(
        &mut self,
        place: &Place<'_>,
        list: Value,
        problems: &HashMap<u32, (Key, Problem)>,
        rows: &mut Vec<u32>,
    ) -> Result<(), FormatError> {
        for (index, item) in self.take_list(place, list)?.into_iter().enumerate() {
            let place = Place::Index(place, index);
            let Ok(Some(row)) = self.heap.as_row(item) else {
                return place.fail(format!("is {}; expected a trace entry", item.kind()));
            };
            if let Some(&(key, problem)) = problems.get(&row) {
                return self.problem(&Place::Key(&place, key), problem);
            }
            // A dict that became a row only now reports its problems now.
            if let Some(&(late, key, problem)) = self.heap.rows.problems.last()
                && late == row
            {
                return self.problem(&Place::Key(&place, key), problem);
            }
            if let Some(key) = self.heap.rows.missing(row) {
                return place.fail(format!("has no key '{}'", key.name()));
            }
            rows.push(row);
        }
        Ok(())
    }

    /// The entries of these rows. In real files they are all rows, or a run of them, in order.
    /// `last`: no other trace can ask for them.
    fn take_rows(&mut self, rows: &[u32], last: bool) -> Vec<Entry> {
        let in_order = rows.iter().zip(0u32..).all(|(&row, index)| row == index);
        if in_order && rows.len() == self.heap.rows.len() && last {
            return std::mem::take(&mut self.heap.rows.entries);
        }
        rows.iter().map(|&row| self.heap.entry(row)).collect()
    }
}
