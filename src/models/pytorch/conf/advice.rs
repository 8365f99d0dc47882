//! Settings that PyTorch accepts and that rarely do what was meant.

use crate::base::{Bytes, Release};

use super::{AllocConf, Backend};

impl AllocConf {
    /// Notes on settings that work against themselves, each with its reason. PyTorch prints none of
    /// them; what it does print is what [`parse`](Self::parse) gives back.
    pub fn advice(&self, release: Release) -> Vec<String> {
        let mut notes = Vec::new();
        let mut note = |applies: bool, text: &str| {
            if applies {
                notes.push(text.to_owned());
            }
        };
        let limited = self.max_split_size != Bytes::MAX;
        note(
            limited && self.max_split_size <= self.large_segment_size,
            "max_split_size is not above the large segment size: a segment for requests of 1 to 10 \
             MiB that has become free as a whole is never used for them again",
        );
        note(
            limited && self.expandable_segments,
            "max_split_size with expandable segments: a free range that has grown to max_split_size \
             serves no smaller request any more, so the segment goes on growing",
        );
        let collects = self.garbage_collection_threshold > 0.0;
        note(
            collects && self.expandable_segments,
            "garbage collection passes over expandable segments: the threshold does little with \
             expandable_segments:True",
        );
        note(
            (limited || collects) && self.expandable_segments && !release.at_least(5),
            "before 2.5 an allocation fails with an internal assertion when garbage collection or \
             max_split_size meets a free expandable block",
        );
        note(
            collects && release.at_least(10) && self.per_process_memory_fraction >= 1.0,
            "from 2.10 on garbage collection needs a memory limit: set per_process_memory_fraction \
             below 1",
        );
        note(
            !release.at_least(4) && self.roundup_power2_divisions.contains(&1),
            "before 2.4 the division 1 leaves sizes above 512 bytes as they are, not multiples of \
             512; leave the intervals out of the list instead",
        );
        note(
            self.expandable_segments && !self.large_segment_size.0.is_multiple_of(Bytes::mib(2).0),
            "the large segment size is no multiple of 2 MiB, which is what the device maps",
        );
        note(
            self.backend == Backend::CudaMallocAsync,
            "backend:cudaMallocAsync is not PyTorch's caching allocator; none of the other settings \
             apply to it",
        );
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes(minor: u8, text: &str) -> usize {
        let release = Release::new(minor).unwrap();
        AllocConf::from_string(release, text).unwrap().0.advice(release).len()
    }

    #[test]
    fn twenty_is_a_trap_and_twenty_one_is_not() {
        assert_eq!(notes(15, "max_split_size_mb:20"), 1);
        assert_eq!(notes(15, "max_split_size_mb:21"), 0);
    }

    #[test]
    fn a_threshold_without_a_limit_does_nothing_from_2_10() {
        assert_eq!(notes(9, "garbage_collection_threshold:0.8"), 0);
        assert_eq!(notes(10, "garbage_collection_threshold:0.8"), 1);
        assert_eq!(
            notes(10, "garbage_collection_threshold:0.8,per_process_memory_fraction:0.9"),
            0
        );
    }
}
