//! Lifts the allocator's settings and the annotations.

use super::{
    heap::{DictSlot, Value},
    keys::Key,
    lift::{FormatError, Lift, Place, View},
    raw::{Annotation, Settings, Stage},
    rows::Problem,
};
use crate::base::DeviceIndex;

const ANNOTATION: &[Key] = &[Key::Name, Key::Stage, Key::Device, Key::TimeUs];

const SETTINGS: &[Key] = &[
    Key::Conf,
    Key::MaxSplitSize,
    Key::GarbageCollectionThreshold,
    Key::ExpandableSegments,
    Key::PinnedNumRegisterThreads,
    Key::ReleaseLockOnCudamalloc,
    Key::PinnedUseCudaHostRegister,
    Key::RoundupPower2Divisions,
    Key::GraphCaptureRecordStreamReuse,
    Key::MaxRoundThreshold,
    Key::MaxCachedSize,
];

impl Lift {
    pub(super) fn annotations(
        &mut self,
        place: &Place<'_>,
        value: Value,
    ) -> Result<Vec<Annotation>, FormatError> {
        let items = self.take_list(place, value)?;
        let mut annotations = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            let place = Place::Index(place, index);
            let view = self.view(&place, item, "annotation", "an annotation", ANNOTATION)?;
            let text = |key| match view.get(key) {
                Some(Value::Text(id)) => Some(id),
                _ => None,
            };
            let stage = text(Key::Stage).and_then(|id| match self.heap.strings.get(id) {
                "START" => Some(Stage::Start),
                "END" => Some(Stage::End),
                _ => None,
            });
            let whole = |key| match view.get(key) {
                Some(Value::Int(n)) => Some(n),
                _ => None,
            };
            annotations.push(Annotation {
                name: text(Key::Name),
                stage,
                device: whole(Key::Device).and_then(|n| u8::try_from(n).ok()).map(DeviceIndex),
                time_us: whole(Key::TimeUs),
            });
        }
        Ok(annotations)
    }

    pub(super) fn settings(
        &mut self,
        place: &Place<'_>,
        value: Value,
    ) -> Result<Settings, FormatError> {
        let view = self.view(place, value, "setting", "a dict of settings", SETTINGS)?;
        self.seen.settings = view.seen;
        let whole = |key: Key| match view.get(key) {
            None => Ok(None),
            Some(Value::Int(n)) => Ok(Some(n)),
            // 2^64 - 1 is -1 without its sign.
            Some(Value::Big(n)) => Ok(Some(n.cast_signed())),
            Some(value) => {
                self.problem(&Place::Key(place, key), Problem::Kind("a whole number", value))
            }
        };
        let flag = |key: Key| match view.get(key) {
            None => Ok(None),
            Some(value) => self.boolean(&Place::Key(place, key), value).map(Some),
        };
        let conf = match view.get(Key::Conf) {
            None => None,
            Some(Value::Text(id)) => Some(self.heap.strings.get(id).to_owned()),
            Some(value) => {
                return self.problem(&Place::Key(place, Key::Conf), Problem::Kind("text", value));
            }
        };
        let threshold = Key::GarbageCollectionThreshold;
        let garbage_collection_threshold = match view.get(threshold) {
            None => None,
            Some(Value::Float(x)) => Some(x),
            Some(Value::Int(n)) if (0..=1).contains(&n) => Some(if n == 0 { 0.0 } else { 1.0 }),
            Some(value) => {
                let expected = Problem::Kind("a float", value);
                return self.problem(&Place::Key(place, threshold), expected);
            }
        };
        Ok(Settings {
            conf,
            max_split_size: whole(Key::MaxSplitSize)?,
            garbage_collection_threshold,
            expandable_segments: flag(Key::ExpandableSegments)?,
            roundup_power2_divisions: self.divisions(place, &view)?,
            release_lock_on_cudamalloc: flag(Key::ReleaseLockOnCudamalloc)?,
            pinned_num_register_threads: whole(Key::PinnedNumRegisterThreads)?,
            pinned_use_cuda_host_register: flag(Key::PinnedUseCudaHostRegister)?,
            graph_capture_record_stream_reuse: flag(Key::GraphCaptureRecordStreamReuse)?,
            max_round_threshold: whole(Key::MaxRoundThreshold)?,
            max_cached_size: whole(Key::MaxCachedSize)?,
        })
    }

    /// The divisions by the MiB boundary that is their key; boundaries that are absent have none.
    fn divisions(&self, place: &Place<'_>, view: &View) -> Result<Option<[u64; 16]>, FormatError> {
        let Some(value) = view.get(Key::RoundupPower2Divisions) else { return Ok(None) };
        let place = Place::Key(place, Key::RoundupPower2Divisions);
        let pairs = match value {
            Value::Dict(index) => match self.heap.dicts[index as usize] {
                DictSlot::Open(open) => &self.heap.open_dicts[open as usize][..],
                _ => &[],
            },
            _ => return self.problem(&place, Problem::Kind("a dict", value)),
        };
        let mut divisions = [0; 16];
        for &(key, value) in pairs {
            let boundary: Option<u32> = match key {
                Value::Text(id) => self.heap.strings.get(id).parse().ok(),
                _ => None,
            };
            let index = boundary.filter(|n| n.is_power_of_two() && *n <= 1 << 15);
            match (index, value.unsigned()) {
                (Some(boundary), Some(count)) => {
                    divisions[boundary.trailing_zeros() as usize] = count;
                }
                _ => return place.fail("expected divisions by \"1\", \"2\", \"4\" to \"32768\""),
            }
        }
        Ok(Some(divisions))
    }
}
