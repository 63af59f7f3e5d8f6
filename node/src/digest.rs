//! Checksums of an output whose parts come in any order.

use std::collections::BTreeMap;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use xora_shared::sign::hex;

/// Up to this many bytes the checksum is that of the object itself.
pub const WHOLE: u64 = 64 << 20;

/// See the module.
pub struct Digest {
    /// Over the parts from 1 to before `next`; none once it is not wanted.
    whole: Option<Sha256>,
    next: u32,
    /// Parts that came before an earlier one: the head of an MP4 comes last.
    waiting: BTreeMap<u32, Bytes>,
    parts: BTreeMap<u32, [u8; 32]>,
    bytes: u64,
}

/// A checksum of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sum {
    /// Of the object, in hexadecimal.
    Object(String),
    /// Of the digests of its parts, in hexadecimal.
    Parts(String),
    /// Must be of the object, which has to be read back for it.
    ReadBack,
}

impl Default for Digest {
    fn default() -> Self {
        Self { whole: Some(Sha256::new()), next: 1, waiting: BTreeMap::new(), parts: BTreeMap::new(), bytes: 0 }
    }
}

impl Digest {
    /// For an output of about this many bytes. Of one that is much too long for a checksum of the whole, no part waits
    /// for another.
    pub fn expecting(bytes: u64) -> Self {
        let mut digest = Self::default();
        if bytes > 2 * WHOLE {
            digest.whole = None;
        }
        digest
    }

    /// Takes a part.
    pub fn take(&mut self, number: u32, bytes: Bytes) {
        self.parts.insert(number, Sha256::digest(&bytes).into());
        self.bytes += bytes.len() as u64;
        self.waiting.insert(number, bytes);
        if let Some(whole) = &mut self.whole {
            while let Some(bytes) = self.waiting.remove(&self.next) {
                whole.update(&bytes);
                self.next += 1;
            }
        }
        if self.whole.is_none() || self.bytes > WHOLE {
            self.whole = None;
            self.waiting.clear();
        }
    }

    /// The checksum, when all parts were taken.
    pub fn finish(self) -> Sum {
        if self.bytes > WHOLE {
            let digests: Vec<u8> = self.parts.into_values().flatten().collect();
            return Sum::Parts(hex(&Sha256::digest(&digests)));
        }
        self.whole.map_or(Sum::ReadBack, |whole| Sum::Object(hex(&whole.finalize())))
    }
}

/// The checksum of an object that is read from its beginning.
#[derive(Default)]
pub struct Running(Sha256);

impl Running {
    /// Takes the next bytes.
    pub fn take(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum in hexadecimal.
    pub fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(order: &[u8], part: usize) -> Sum {
        let mut digest = Digest::default();
        for number in order {
            digest.take((*number).into(), vec![*number; part].into());
        }
        digest.finish()
    }

    #[test]
    fn the_order_in_which_parts_come_does_not_matter() {
        let plain: Vec<u8> = [1_u8, 2, 3].into_iter().flat_map(|number| [number; 5]).collect();
        let mut running = Running::default();
        running.take(&plain);
        let expected = Sum::Object(running.finish());
        assert_eq!(sum(&[1, 2, 3], 5), expected);
        assert_eq!(sum(&[2, 3, 1], 5), expected);
    }

    #[test]
    fn large_objects_are_summed_over_the_digests_of_their_parts() {
        let digests: Vec<u8> = (1..=9_u8).flat_map(|number| Sha256::digest(vec![number; 8 << 20])).collect();
        let expected = Sum::Parts(hex(&Sha256::digest(digests)));
        assert_eq!(sum(&[2, 3, 4, 5, 6, 7, 8, 9, 1], 8 << 20), expected);
    }

    #[test]
    fn the_head_may_come_last_and_is_not_waited_for_where_much_is_expected() {
        assert!(matches!(sum(&[2, 3, 4, 5, 6, 7, 8, 1], 8 << 20), Sum::Object(_)));
        let mut long = Digest::expecting(3 * WHOLE);
        long.take(1, vec![1].into());
        assert_eq!(long.finish(), Sum::ReadBack, "it became short after all");
    }
}
