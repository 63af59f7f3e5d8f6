//! Bytes of one input that have been read, as extents that never overlap. Of those that were read, what
//! was used longest ago goes first; what nobody has read yet is about to be.

use std::{collections::BTreeMap, ops::Range};

use bytes::Bytes;

/// See the module.
#[derive(Default)]
pub struct Cache {
    extents: BTreeMap<u64, Extent>,
    held: usize,
    clock: u64,
    limit: usize,
}

struct Extent {
    bytes: Bytes,
    used: u64,
    /// Whether any of it was read.
    read: bool,
}

impl Cache {
    /// Holds at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Keeps bytes; where there are some already, those stay.
    pub fn insert(&mut self, start: u64, bytes: &Bytes) {
        let end = start + bytes.len() as u64;
        let mut from = start;
        while let Some(gap) = self.gap(from..end) {
            from = gap.end;
            let new = bytes.slice(offset(gap.start - start)..offset(gap.end - start));
            self.held += new.len();
            self.clock += 1;
            self.extents.insert(gap.start, Extent { bytes: new, used: self.clock, read: false });
        }
        while self.held > self.limit && self.forget_oldest() {}
    }

    /// The first stretch of a range that is not held.
    pub fn gap(&self, range: Range<u64>) -> Option<Range<u64>> {
        let start = self.reach(range.start);
        if start >= range.end {
            return None;
        }
        let next = self.extents.range(start..range.end).next().map_or(range.end, |(next, _)| *next);
        Some(start..next)
    }

    /// How far the bytes from `from` on are held without a gap.
    pub fn reach(&self, from: u64) -> u64 {
        let mut end = from;
        if let Some((start, extent)) = self.extents.range(..=from).next_back() {
            end = end.max(start + extent.bytes.len() as u64);
        }
        for (start, extent) in self.extents.range(from.saturating_add(1)..) {
            if *start > end {
                break;
            }
            end = end.max(start + extent.bytes.len() as u64);
        }
        end
    }

    /// Bytes of a range without gaps.
    pub fn copy(&mut self, range: Range<u64>) -> Vec<u8> {
        let mut out = Vec::with_capacity(offset(range.end - range.start));
        self.clock += 1;
        let first = self.extents.range(..=range.start).next_back().map_or(range.start, |(start, _)| *start);
        for (start, extent) in self.extents.range_mut(first..range.end) {
            let from = offset(range.start.saturating_sub(*start)).min(extent.bytes.len());
            let to = offset(range.end - start).min(extent.bytes.len());
            out.extend_from_slice(&extent.bytes[from..to]);
            (extent.used, extent.read) = (self.clock, true);
        }
        out
    }

    fn forget_oldest(&mut self) -> bool {
        let oldest = self.extents.iter().min_by_key(|(_, extent)| (!extent.read, extent.used)).map(|(start, _)| *start);
        let gone = oldest.and_then(|start| self.extents.remove(&start));
        self.held -= gone.as_ref().map_or(0, |extent| extent.bytes.len());
        gone.is_some()
    }
}

/// A distance within what is held in memory.
fn offset(distance: u64) -> usize {
    usize::try_from(distance).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(range: Range<u64>) -> Bytes {
        range.map(|at| (at % 251).to_le_bytes()[0]).collect::<Vec<_>>().into()
    }

    #[test]
    fn whatever_is_inserted_in_whatever_order_reads_back_as_the_file() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut cache = Cache::new(usize::MAX);
        for _ in 0..2000 {
            let start = random.u64(0..5000);
            let end = start + random.u64(1..60);
            if random.bool() {
                cache.insert(start, &file(start..end));
            } else if let Some(gap) = cache.gap(start..end) {
                assert!(gap.start >= start && gap.end <= end && gap.start < gap.end);
                assert_eq!(cache.copy(start..gap.start), file(start..gap.start));
            } else {
                assert_eq!(cache.copy(start..end), file(start..end));
            }
        }
    }

    #[test]
    fn what_was_read_longest_ago_is_forgotten_first() {
        let mut cache = Cache::new(30);
        for start in [0, 10, 20] {
            cache.insert(start, &file(start..start + 10));
            cache.copy(start..start + 10);
        }
        cache.copy(0..10);
        cache.insert(50, &file(50..60));
        assert_eq!(cache.gap(0..10), None);
        assert_eq!(cache.gap(10..20), Some(10..20));
        assert_eq!(cache.held, 30);
    }

    #[test]
    fn what_was_read_just_now_is_forgotten_before_what_nobody_has_read_yet() {
        let mut cache = Cache::new(20);
        cache.insert(10, &file(10..20));
        cache.insert(0, &file(0..10));
        cache.copy(0..10);
        cache.insert(20, &file(20..30));
        assert_eq!((cache.gap(0..10), cache.gap(10..30)), (Some(0..10), None));
    }
}
