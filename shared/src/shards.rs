//! How new rows are spread over shards: a map that the operator keeps, with every epoch that there ever was.
//!
//! ```json
//! {"epochs": [{"shards": 1}, {"shards": 4, "since": 1795600000}]}
//! ```
//!
//! An epoch is never edited and never removed: ids carry its number and their shard, so that no data moves and old ids
//! still find their rows. `since` (seconds since 1970) lets all Workers change at the same moment, however long the map
//! takes to reach them.

use serde::Deserialize;

use crate::{id::Place, time::UnixMs};

/// How long after a change an idempotency key is looked for where it went before, in milliseconds.
const REMEMBERED_MS: i64 = 24 * 3600 * 1000;

/// How long every Worker may take to hear of a map, in seconds: KV is cached for a minute, and then read every ten seconds.
const SPREAD_SECONDS: i64 = 120;

/// Every epoch, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardMap {
    epochs: Vec<Epoch>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Epoch {
    shards: u16,
    /// Seconds since 1970.
    #[serde(default)]
    since: i64,
}

/// The map cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shard map is not valid: {0}")]
pub struct BadMap(String);

impl Default for ShardMap {
    /// One shard.
    fn default() -> Self {
        Self { epochs: vec![Epoch { shards: 1, since: 0 }] }
    }
}

impl ShardMap {
    /// Reads a map.
    pub fn parse(text: &str) -> Result<Self, BadMap> {
        let map: Self = crate::json::from_str(text).map_err(|error| BadMap(error.to_string()))?;
        let bad = |problem: &str| Err(BadMap(problem.to_owned()));
        if map.epochs.is_empty() || map.epochs.len() > Place::EPOCHS.into() {
            return bad("it must have 1 to 32 epochs");
        }
        if map.epochs.iter().any(|epoch| epoch.shards == 0 || epoch.shards > Place::SHARDS) {
            return bad("an epoch has 1 to 1024 shards");
        }
        if !map.epochs.is_sorted_by(|a, b| a.since < b.since) {
            return bad("every epoch must begin later than the one before");
        }
        Ok(map)
    }

    /// Checks that this map may take the place of `before` at a time: every epoch of that is still there as it was, and those
    /// that are new begin late enough for every Worker to have heard of them.
    pub fn follows(&self, before: &Self, now: UnixMs) -> Result<(), BadMap> {
        let bad = |problem: String| Err(BadMap(problem));
        for (number, epoch) in before.epochs.iter().enumerate() {
            match self.epochs.get(number) {
                Some(kept) if kept == epoch => {}
                Some(_) => {
                    return bad(format!("epoch {number} is not what it was; add an epoch instead of changing one"));
                }
                None => return bad(format!("epoch {number} is gone; keep every epoch that there ever was")),
            }
        }
        let earliest = now.0 / 1000 + SPREAD_SECONDS;
        match self.epochs[before.epochs.len()..].iter().find(|epoch| epoch.since < earliest) {
            Some(epoch) => bad(format!("`since` {} is too early; Workers hear of it by {earliest}", epoch.since)),
            None => Ok(()),
        }
    }

    /// Where a new row goes. `spread` is any number; the same number goes to the same place within an epoch.
    pub fn place(&self, spread: u16, now: UnixMs) -> Place {
        self.place_in(self.current(now), spread)
    }

    /// Where the same `spread` went before each change of the last day, newest first.
    pub fn places_before(&self, spread: u16, now: UnixMs) -> Vec<Place> {
        let ended = |epoch: &usize| UnixMs(self.epochs[epoch + 1].since.saturating_mul(1000));
        let earlier = (0..self.current(now)).rev().take_while(|epoch| now.since(ended(epoch)) < REMEMBERED_MS);
        earlier.map(|epoch| self.place_in(epoch, spread)).collect()
    }

    /// How many shards there may be rows in, or soon be.
    pub fn reach(&self) -> u16 {
        self.epochs.iter().map(|epoch| epoch.shards).max().unwrap_or(1)
    }

    fn current(&self, now: UnixMs) -> usize {
        self.epochs.iter().rposition(|epoch| epoch.since.saturating_mul(1000) <= now.0).unwrap_or(0)
    }

    fn place_in(&self, epoch: usize, spread: u16) -> Place {
        let shard = spread % self.epochs[epoch].shards;
        let place = u8::try_from(epoch).ok().and_then(|epoch| Place::new(epoch, shard));
        place.unwrap_or_else(|| unreachable!("both numbers were checked when the map was read"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROWN: &str = r#"{"epochs":[{"shards":1},{"shards":4,"since":1000},{"shards":2,"since":200000}]}"#;

    fn numbers(place: Place) -> (u8, u16) {
        (place.epoch(), place.shard())
    }

    #[test]
    fn a_new_row_goes_where_the_epoch_in_force_sends_it() {
        let map = ShardMap::parse(GROWN).expect("valid");
        for (now, expected) in
            [(0, (0, 0)), (999_999, (0, 0)), (1_000_000, (1, 3)), (199_999_999, (1, 3)), (200_000_000, (2, 1))]
        {
            assert_eq!(numbers(map.place(7, UnixMs(now))), expected, "{now}");
        }
        assert_eq!(numbers(ShardMap::default().place(7, UnixMs(5))), (0, 0));
    }

    #[test]
    fn the_places_before_each_change_are_remembered_for_a_day() {
        const HOUR: i64 = 3600;
        let day = 24 * HOUR;
        let three = format!(
            r#"{{"epochs":[{{"shards":1}},{{"shards":4,"since":{day}}},{{"shards":2,"since":{}}}]}}"#,
            day + HOUR
        );
        let map = ShardMap::parse(&three).expect("valid");
        let (first, second) = ((0, 0), (1, 3));
        for (now, expected) in [
            (day - 1, vec![]),
            (day, vec![first]),
            (day + HOUR - 1, vec![first]),
            (day + HOUR, vec![second, first]),
            (2 * day - 1, vec![second, first]),
            (2 * day, vec![second]),
            (2 * day + HOUR - 1, vec![second]),
            (2 * day + HOUR, vec![]),
        ] {
            let places = map.places_before(7, UnixMs(now * 1000)).into_iter().map(numbers).collect::<Vec<_>>();
            assert_eq!(places, expected, "{now}");
        }
        assert_eq!(ShardMap::default().places_before(7, UnixMs(day)), []);
    }

    #[test]
    fn shards_of_every_epoch_are_reached_the_coming_one_included() {
        assert_eq!(ShardMap::parse(GROWN).expect("valid").reach(), 4);
        assert_eq!(ShardMap::default().reach(), 1);
    }

    #[test]
    fn a_map_is_followed_by_one_that_only_adds_and_in_good_time() {
        let map = |text: &str| ShardMap::parse(text).expect("valid");
        let before = map(r#"{"epochs":[{"shards":1},{"shards":4,"since":1000}]}"#);
        let now = UnixMs(5_000_000);
        let wrong = |text: &str| map(text).follows(&before, now).expect_err("wrong").to_string();
        assert_eq!(before.follows(&before, now), Ok(()));
        let added = r#"{"epochs":[{"shards":1},{"shards":4,"since":1000},{"shards":8,"since":5120}]}"#;
        assert_eq!(map(added).follows(&before, now), Ok(()));
        assert!(
            wrong(&added.replace("5120", "5119")).contains("`since` 5119 is too early; Workers hear of it by 5120")
        );
        assert!(wrong(&added.replace("\"shards\":4", "\"shards\":5")).contains("epoch 1 is not what it was"));
        assert!(wrong(r#"{"epochs":[{"shards":1}]}"#).contains("epoch 1 is gone"));
    }

    #[test]
    fn a_map_that_would_lose_rows_is_refused() {
        for bad in [
            "",
            "[]",
            r#"{"epochs":[]}"#,
            r#"{"epochs":[{"shards":0}]}"#,
            r#"{"epochs":[{"shards":1025}]}"#,
            r#"{"epochs":[{"shards":1},{"shards":4}]}"#,
            r#"{"epochs":[{"shards":1,"since":5},{"shards":4,"since":4}]}"#,
            r#"{"epochs":[{"shards":1,"from":5}]}"#,
        ] {
            assert!(ShardMap::parse(bad).is_err(), "{bad}");
        }
    }
}
