//! Whose task runs next: within one priority, keys take turns, so that a key with a thousand queued jobs does not starve a
//! key with one.

use std::collections::HashMap;

use crate::id::Id;

/// Most keys that are remembered.
const REMEMBERED: usize = 10_000;

/// Who was served when. May be lost at any time: then everyone counts as not served yet.
#[derive(Clone, Debug, Default)]
pub struct Turns {
    served: HashMap<String, u64>,
    count: u64,
}

impl Turns {
    /// The key whose turn it is among `waiting`, each with its oldest task: the one served least recently, and of several
    /// that were never served the one that has waited longest.
    pub fn next<'a>(&self, waiting: impl IntoIterator<Item = (&'a str, Id)>) -> Option<&'a str> {
        let last = |token: &str| self.served.get(token).copied().unwrap_or(0);
        waiting.into_iter().min_by_key(|(token, oldest)| (last(token), *oldest)).map(|(token, _)| token)
    }

    /// Notes that a key is served.
    pub fn serve(&mut self, token: &str) {
        if self.served.len() >= REMEMBERED {
            self.served.clear();
        }
        self.count += 1;
        self.served.insert(token.to_owned(), self.count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{id::Place, time::UnixMs};

    /// Serves queues of tokens and the times of their tasks until they are empty, and answers the order of tokens.
    fn order(mut queues: Vec<(&'static str, Vec<i64>)>) -> String {
        let mut turns = Turns::default();
        let mut order = String::new();
        loop {
            let waiting = queues.iter().filter_map(|(token, times)| Some((*token, id(*times.first()?))));
            let Some(next) = turns.next(waiting.collect::<Vec<_>>()) else { return order };
            turns.serve(next);
            order.push_str(next);
            queues.iter_mut().filter(|(token, _)| *token == next).for_each(|(_, times)| {
                times.remove(0);
            });
        }
    }

    fn id(ms: i64) -> Id {
        Id::new(UnixMs(ms), 0, Place::FIRST)
    }

    #[test]
    fn a_key_with_one_job_does_not_wait_for_a_thousand_of_another() {
        let order = order(vec![("a", (0..1000).collect()), ("b", vec![2000])]);
        assert_eq!(order.find('b'), Some(1));
        assert_eq!(order.len(), 1001);
    }

    #[test]
    fn keys_take_turns_and_the_longest_wait_comes_first() {
        assert_eq!(order(vec![("a", vec![3, 4, 5]), ("b", vec![1, 6]), ("c", vec![2])]), "bcabaa");
    }

    #[test]
    fn nobody_waits_when_there_is_nothing() {
        assert_eq!(Turns::default().next([]), None);
    }
}
