//! Cache of encoded answers to reads of the current version of the state.
//!
//! In goes a mask set, out comes its encoded answer, if cached. The broker clears the cache at each
//! change, so an answer is never older than the state. A repeated read costs a look-up.

use std::collections::HashMap;

use crate::{message::ResponseBody, state::MaskSet};

use super::subscriptions::cost;

/// Most bytes in the cache. A larger answer is kept alone.
const MOST_BYTES: usize = 4 << 20;

#[derive(Debug, Default)]
pub(super) struct ReadCache {
    bodies: HashMap<MaskSet, ResponseBody>,
    bytes: usize,
}

impl ReadCache {
    /// The cached answer to `masks`.
    pub(super) fn get(&self, masks: &MaskSet) -> Option<ResponseBody> {
        self.bodies.get(masks).cloned()
    }

    /// Caches the answer to `masks`.
    pub(super) fn keep(&mut self, masks: &MaskSet, body: &ResponseBody) {
        // With the masks: those of answers without content take memory as well.
        let bytes = body.len() + cost("", masks);
        if self.bytes + bytes > MOST_BYTES {
            self.clear();
        }
        self.bytes += bytes;
        self.bodies.insert(masks.clone(), body.clone());
    }

    /// Drops all answers: the state has changed, or their memory is needed.
    pub(super) fn clear(&mut self) {
        if self.bytes > 0 {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_is_made_once_until_the_state_is_another_or_it_has_to_go() {
        let mut answers = ReadCache::default();
        let masks = ["a", "b"].map(|mask| MaskSet::parse([mask]));
        let mut made = 0;
        let mut ask = |answers: &mut ReadCache, masks: &MaskSet| {
            if answers.get(masks).is_none() {
                made += 1;
                answers.keep(masks, &ResponseBody::error("x".repeat(MOST_BYTES / 2)));
            }
            (made, answers.bodies.len())
        };
        assert_eq!(ask(&mut answers, &masks[0]), (1, 1));
        assert_eq!(ask(&mut answers, &masks[0]), (1, 1));
        answers.clear();
        assert_eq!(ask(&mut answers, &masks[0]), (2, 1), "another state");
        assert_eq!(ask(&mut answers, &masks[1]), (3, 1), "the first had to go");
        assert_eq!(ask(&mut answers, &masks[1]), (3, 1));
    }
}
