//! Which places of an input are worth requests of their own: a request takes its time, and so does what lies between two
//! places that are fetched as one.

use std::{iter::successors, ops::Range, time::Duration};

/// Bytes a second of the line that is reckoned with, 200 Mbit/s: what it does is known only when all is fetched.
const LINE: u64 = 25_000_000;
/// What a request costs its origin, however near that is.
const LEAST: Duration = Duration::from_millis(10);
/// The least number of bytes between two places that may be left out.
const NEAR: u64 = 16 << 10;
/// How many widths of what lies between are tried, each half as wide again: up to 180 MB.
const WIDTHS: usize = 24;

/// Places, in order, such that all of them have come soonest: those that lie near each other are one. `request` is how
/// long one takes to be answered, and `at_once` how many are under way at once.
pub fn joined(places: &[Range<u64>], request: Duration, at_once: usize) -> Vec<Range<u64>> {
    let request = request.max(LEAST).as_secs_f64();
    // What waits for answers goes on beside what comes, until the line is full.
    let seconds = |places: &Vec<Range<u64>>| {
        let bytes: u64 = places.iter().fold(0, |sum, place| sum.saturating_add(place.end.saturating_sub(place.start)));
        let line = bytes as f64 / LINE as f64;
        ((places.len() as f64 * request + line) / at_once as f64).max(line)
    };
    let widths = successors(Some(NEAR), |width| Some(width + width / 2)).take(WIDTHS);
    let ways = widths.map(|width| joined_within(places, width));
    ways.min_by(|a, b| seconds(a).total_cmp(&seconds(b))).unwrap_or_default()
}

fn joined_within(places: &[Range<u64>], width: u64) -> Vec<Range<u64>> {
    let mut all: Vec<Range<u64>> = Vec::new();
    for place in places {
        match all.last_mut() {
            Some(last) if last.start <= place.start && place.start < last.end.saturating_add(width) => {
                last.end = last.end.max(place.end);
            }
            _ => all.push(place.clone()),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAR: Duration = Duration::from_millis(20);

    /// So many places of 8 kB, each this many bytes behind the one before.
    fn places(count: u64, apart: u64) -> Vec<Range<u64>> {
        (0..count).map(|number| number * (8_000 + apart)..number * (8_000 + apart) + 8_000).collect()
    }

    #[test]
    fn what_lies_between_is_left_out_where_requests_are_sooner() {
        // As a camera records: half a second of pictures.
        let camera = places(480, 500_000);
        assert_eq!(joined(&camera, FAR, 6), camera);
        // One request for all brings in 0.8 s what a hundred bring in 0.3 s, and in 1.7 s from the end of the world.
        let film = places(100, 200_000);
        assert_eq!(joined(&film, FAR, 6), film);
        assert_eq!(joined(&film, Duration::from_millis(100), 6).len(), 1);
    }

    #[test]
    fn places_near_each_other_are_one() {
        let near = places(1_000, 15_000);
        assert_eq!(joined(&near, Duration::ZERO, 6), std::iter::once(0..999 * 23_000 + 8_000).collect::<Vec<_>>());
        assert!(joined(&[], FAR, 6).is_empty());
    }

    #[test]
    fn only_the_wider_gaps_of_an_uneven_film_are_left_out() {
        // Quiet scenes, and lively ones.
        let mut film = places(500, 20_000);
        let begins = film[499].end;
        film.extend(places(100, 300_000).iter().map(|place| begins + place.start..begins + place.end));
        let joined = joined(&film, FAR, 6);
        assert_eq!((joined.len(), joined[0].clone()), (100, 0..begins + 8_000));
    }

    #[test]
    fn what_makes_no_sense_is_kept_as_it_is() {
        let odd = [(900_000, 100), (u64::MAX, u64::MAX), (7, 3)].map(|(start, end)| start..end);
        assert_eq!(joined(&odd, FAR, 6), odd);
    }
}
