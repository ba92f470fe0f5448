//! A queue with room for its first element in place: mostly there is no second, so mostly it allocates
//! nothing.

use std::collections::VecDeque;

#[derive(Debug)]
pub(crate) struct SmallDeque<T> {
    /// `None` only if there is nothing at all.
    first: Option<T>,
    #[expect(clippy::box_collection, reason = "most queues never have these, and there are many")]
    others: Option<Box<VecDeque<T>>>,
}

impl<T> Default for SmallDeque<T> {
    fn default() -> Self {
        Self { first: None, others: None }
    }
}

impl<T> SmallDeque<T> {
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.others.as_ref().map_or(0, |others| others.len())
    }

    pub(crate) fn clear(&mut self) {
        // A fresh queue also gives the allocation of the others back.
        *self = Self::default();
    }

    pub(crate) fn push_back(&mut self, element: T) {
        if self.first.is_none() {
            self.first = Some(element);
        } else {
            self.others.get_or_insert_default().push_back(element);
        }
    }

    pub(crate) fn push_front(&mut self, element: T) {
        if let Some(second) = self.first.replace(element) {
            self.others.get_or_insert_default().push_front(second);
        }
    }

    pub(crate) fn pop_front(&mut self) -> Option<T> {
        let next = self.others.as_mut().and_then(|others| others.pop_front());
        std::mem::replace(&mut self.first, next)
    }

    pub(crate) fn pop_back(&mut self) -> Option<T> {
        self.others.as_mut().and_then(|others| others.pop_back()).or_else(|| self.first.take())
    }

    pub(crate) fn front(&self) -> Option<&T> {
        self.first.as_ref()
    }

    pub(crate) fn front_mut(&mut self) -> Option<&mut T> {
        self.first.as_mut()
    }

    pub(crate) fn back(&self) -> Option<&T> {
        self.others.as_ref().and_then(|others| others.back()).or(self.first.as_ref())
    }

    pub(crate) fn back_mut(&mut self) -> Option<&mut T> {
        self.others.as_mut().and_then(|others| others.back_mut()).or(self.first.as_mut())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(self.others.iter().flat_map(|others| others.iter()))
    }

    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        if let Some(others) = &mut self.others {
            // Before the first element: `pop_front` moves one of the others into its place.
            others.retain(&mut keep);
        }
        if self.first.as_ref().is_some_and(|first| !keep(first)) {
            self.pop_front();
        }
    }

    /// Moves all elements of `other` to the end of this queue.
    pub(crate) fn append(&mut self, mut other: Self) {
        while let Some(element) = other.pop_front() {
            self.push_back(element);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept_at_both_ends() {
        let mut queue = SmallDeque::default();
        assert!(queue.is_empty() && queue.pop_front().is_none() && queue.pop_back().is_none());
        queue.push_back(2);
        queue.push_front(1);
        let mut more = SmallDeque::default();
        (3..6).for_each(|n| more.push_back(n));
        queue.append(more);
        assert_eq!(queue.iter().copied().collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        assert_eq!((queue.len(), queue.front(), queue.back()), (5, Some(&1), Some(&5)));
        assert_eq!((queue.pop_front(), queue.pop_back()), (Some(1), Some(5)));
        assert_eq!(queue.front_mut(), Some(&mut 2));
        assert_eq!(queue.back_mut(), Some(&mut 4));
        assert_eq!(
            (queue.pop_back(), queue.pop_back(), queue.pop_back()),
            (Some(4), Some(3), Some(2))
        );
        assert_eq!((queue.is_empty(), queue.len()), (true, 0));
        (1..6).for_each(|n| queue.push_back(n));
        queue.retain(|n| n % 2 == 0);
        assert_eq!(queue.iter().copied().collect::<Vec<_>>(), [2, 4]);
        queue.clear();
        assert!(queue.is_empty());
    }
}
