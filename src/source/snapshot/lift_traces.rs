//! Lifts the traces: rows become the entries of their device, or an error with its place.

use std::{collections::HashMap, ops::Range};

use super::{
    heap::Value,
    keys::Key,
    lift::{FormatError, Lift, Place},
    raw::Entry,
    rows::Problem,
};

/// Most devices that are read.
const DEVICES: usize = 256;

/// The rows of one trace.
enum Rows {
    /// One after the other, as in all real files.
    Run(Range<u32>),
    Each(Vec<u32>),
}

type Problems = HashMap<u32, (Key, Problem)>;

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
        self.heap.rows.entries.gather();
        let problems: Problems = std::mem::take(&mut self.heap.rows.problems)
            .into_iter()
            .rev()
            .map(|(row, key, problem)| (row, (key, problem)))
            .collect();
        let mut traces = Vec::with_capacity(devices.len());
        for (device, list) in devices.into_iter().enumerate() {
            let place = Place::Index(place, device);
            traces.push(match self.take_run(&place, list)? {
                Some(run) => {
                    for (index, row) in run.clone().enumerate() {
                        self.check_row(&Place::Index(&place, index), row, &problems)?;
                    }
                    Rows::Run(run)
                }
                None => Rows::Each(self.trace_rows(&place, list, &problems)?),
            });
        }
        self.seen.entry = self.heap.rows.seen;
        for (_, key) in std::mem::take(&mut self.heap.rows.unknown) {
            self.note("trace entry", key);
        }
        Ok(self.take_rows(&traces))
    }

    fn trace_rows(
        &mut self,
        place: &Place<'_>,
        list: Value,
        problems: &Problems,
    ) -> Result<Vec<u32>, FormatError> {
        let items = self.take_list(place, list)?;
        let mut rows = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            let place = Place::Index(place, index);
            let Ok(Some(row)) = self.heap.as_row(item) else {
                return place.fail(format!("is {}; expected a trace entry", item.kind()));
            };
            self.check_row(&place, row, problems)?;
            rows.push(row);
        }
        Ok(rows)
    }

    #[inline]
    fn check_row(
        &self,
        place: &Place<'_>,
        row: u32,
        problems: &Problems,
    ) -> Result<(), FormatError> {
        if !problems.is_empty()
            && let Some(&(key, problem)) = problems.get(&row)
        {
            return self.problem(&Place::Key(place, key), problem);
        }
        // A dict that became a row only now reports its problems now.
        if let Some(&(late, key, problem)) = self.heap.rows.problems.last()
            && late == row
        {
            return self.problem(&Place::Key(place, key), problem);
        }
        match self.heap.rows.missing(row) {
            Some(key) => place.fail(format!("has no key '{}'", key.name())),
            None => Ok(()),
        }
    }

    /// The entries of each trace. Where the traces are runs, one behind the other, nothing is copied
    /// but what lies behind the first.
    fn take_rows(&mut self, traces: &[Rows]) -> Vec<Vec<Entry>> {
        let mut end = 0;
        let is_in_order = traces.iter().all(|rows| match rows {
            Rows::Run(run) => run.start >= std::mem::replace(&mut end, run.end),
            Rows::Each(rows) => rows.is_empty(),
        });
        if !is_in_order {
            let entry = |row: u32| self.heap.entry(row);
            return traces
                .iter()
                .map(|rows| match rows {
                    Rows::Run(run) => run.clone().map(entry).collect(),
                    Rows::Each(rows) => rows.iter().copied().map(entry).collect(),
                })
                .collect();
        }
        let mut all = std::mem::take(self.heap.rows.entries.gather());
        let mut taken: Vec<Vec<Entry>> = Vec::with_capacity(traces.len());
        for rows in traces.iter().rev() {
            taken.push(match rows {
                Rows::Each(_) => Vec::new(),
                Rows::Run(run) => {
                    all.truncate(run.end as usize);
                    if run.start == 0 {
                        std::mem::take(&mut all)
                    } else {
                        let entries = all.split_off(run.start as usize);
                        all.shrink_to_fit();
                        entries
                    }
                }
            });
        }
        taken.reverse();
        taken
    }
}
