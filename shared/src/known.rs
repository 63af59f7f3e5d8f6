//! What one isolate remembers of API keys. Valid and invalid ones stand apart, so that a flood of made-up keys cannot push
//! out the keys of callers.

use std::collections::HashMap;

use crate::time::UnixMs;

/// How long a verdict is fresh, in milliseconds: a revoked key is refused everywhere within 30 s.
const FRESH_MS: i64 = 25_000;

/// Most keys that each of the two memories holds.
const MOST: usize = 1_000;

/// Verdicts by the hash that a key is kept under. `C` is what is known of a key's holder.
#[derive(Debug)]
pub struct Known<C> {
    valid: HashMap<String, (UnixMs, C)>,
    invalid: HashMap<String, UnixMs>,
}

/// What is remembered of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recalled<C> {
    /// It was valid less than 25 s ago.
    Valid(C),
    /// It was valid before that: ask again, and count it against nobody.
    Stale,
    /// It was invalid less than 25 s ago.
    Invalid,
    /// Nothing.
    Unknown,
}

impl<C> Default for Known<C> {
    fn default() -> Self {
        Self { valid: HashMap::new(), invalid: HashMap::new() }
    }
}

impl<C: Clone> Known<C> {
    /// What is remembered of the key with this hash.
    pub fn recall(&self, hash: &str, now: UnixMs) -> Recalled<C> {
        let is_fresh = |at: &UnixMs| now.since(*at) < FRESH_MS;
        match (self.valid.get(hash), self.invalid.get(hash)) {
            (Some((at, caller)), _) if is_fresh(at) => Recalled::Valid(caller.clone()),
            (Some(_), _) => Recalled::Stale,
            (None, Some(at)) if is_fresh(at) => Recalled::Invalid,
            (None, Some(_) | None) => Recalled::Unknown,
        }
    }

    /// Notes a verdict: the holder of a valid key, or none. The memory of invalid keys starts anew when it is full; of
    /// valid ones, the one that was looked up longest ago goes.
    pub fn note(&mut self, hash: String, verdict: Option<C>, now: UnixMs) {
        let Some(caller) = verdict else {
            self.valid.remove(&hash);
            if self.invalid.len() >= MOST {
                self.invalid.clear();
            }
            self.invalid.insert(hash, now);
            return;
        };
        self.invalid.remove(&hash);
        if self.valid.len() >= MOST && !self.valid.contains_key(&hash) {
            let oldest = self.valid.iter().min_by_key(|(_, (at, _))| at.0).map(|(hash, _)| hash.clone());
            oldest.and_then(|hash| self.valid.remove(&hash));
        }
        self.valid.insert(hash, (now, caller));
    }

    /// Forgets the valid keys whose holder is not to be kept.
    pub fn retain(&mut self, keep: impl Fn(&C) -> bool) {
        self.valid.retain(|_, (_, caller)| keep(caller));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs(1_000_000);

    #[test]
    fn a_verdict_is_fresh_for_25_seconds_and_a_valid_key_stays_known_after_that() {
        let mut known = Known::default();
        known.note("good".into(), Some("ada"), NOW);
        known.note("bad".into(), None, NOW);
        assert_eq!(known.recall("good", NOW.plus(24_999)), Recalled::Valid("ada"));
        assert_eq!(known.recall("bad", NOW.plus(24_999)), Recalled::Invalid);
        assert_eq!(known.recall("good", NOW.plus(25_000)), Recalled::Stale);
        assert_eq!(known.recall("bad", NOW.plus(25_000)), Recalled::Unknown);
        assert_eq!(known.recall("other", NOW), Recalled::Unknown);
    }

    #[test]
    fn a_flood_of_made_up_keys_pushes_out_no_valid_one() {
        let mut known = Known::default();
        known.note("good".into(), Some("ada"), NOW);
        for n in 0..5_000 {
            known.note(format!("made up {n}"), None, NOW.plus(n));
        }
        assert_eq!(known.recall("good", NOW.plus(5_000)), Recalled::Valid("ada"));
        assert!(known.invalid.len() <= MOST);
    }

    #[test]
    fn the_valid_key_that_was_looked_up_longest_ago_makes_room() {
        let mut known = Known::default();
        for n in 0..=1_000 {
            known.note(format!("{n}"), Some(n), NOW.plus(n));
        }
        assert_eq!(known.recall("0", NOW.plus(1_000)), Recalled::Unknown);
        assert_eq!(known.recall("1", NOW.plus(1_000)), Recalled::Valid(1));
        assert_eq!(known.valid.len(), MOST);
    }

    #[test]
    fn a_key_that_was_revoked_is_invalid_and_one_that_was_forgotten_is_unknown() {
        let mut known = Known::default();
        for hash in ["revoked", "forgotten"] {
            known.note(hash.into(), Some(hash), NOW);
        }
        known.note("revoked".into(), None, NOW);
        known.retain(|caller| *caller != "forgotten");
        assert_eq!(known.recall("revoked", NOW), Recalled::Invalid);
        assert_eq!(known.recall("forgotten", NOW), Recalled::Unknown);
    }
}
