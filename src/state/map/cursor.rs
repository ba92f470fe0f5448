//! Walks through a map in the order of its keys.

use super::{Key, Link, Map};

/// The next item of a walk: an unopened node, or an entry.
pub(super) enum Top<'a, V> {
    Node(&'a Link<V>),
    Entry(&'a Key, &'a V),
}

/// A walk in key order with the option to skip whole nodes. Most maps are one leaf, so it takes no
/// memory beside itself.
pub(super) struct Cursor<'a, V> {
    at: Option<Rest<'a, V>>,
    above: Vec<Rest<'a, V>>,
}

/// Entries of a leaf.
type Entries<'a, V> = &'a [(Key, V)];

/// The rest of an opened node; never empty in a cursor.
enum Rest<'a, V> {
    Links(&'a [Link<V>]),
    Entries(Entries<'a, V>),
}

impl<'a, V> Cursor<'a, V> {
    pub(super) fn new(map: &'a Map<V>) -> Self {
        let at = map.root.as_ref().map(|root| Rest::Links(std::slice::from_ref(root)));
        Self { at, above: Vec::new() }
    }

    pub(super) fn top(&self) -> Option<Top<'a, V>> {
        match self.at.as_ref()? {
            Rest::Links(links) => links.first().map(Top::Node),
            Rest::Entries(entries) => entries.first().map(|(key, value)| Top::Entry(key, value)),
        }
    }

    /// Skips the item of [`Cursor::top`].
    pub(super) fn skip(&mut self) {
        match &mut self.at {
            None => return,
            Some(Rest::Links(links)) => *links = &links[1..],
            Some(Rest::Entries(entries)) => *entries = &entries[1..],
        }
        self.leave();
    }

    /// Goes on above an exhausted node.
    fn leave(&mut self) {
        let is_over = match &self.at {
            None => return,
            Some(Rest::Links(links)) => links.is_empty(),
            Some(Rest::Entries(entries)) => entries.is_empty(),
        };
        if is_over {
            // One level is enough: `open` puts no exhausted node on the stack.
            self.at = self.above.pop();
        }
    }

    /// Opens the node of [`Cursor::top`]; an entry cannot be opened.
    pub(super) fn open(&mut self) {
        let Some(Top::Node(link)) = self.top() else { return };
        // Before the parent goes on the stack: with its last node taken, it must not go there.
        self.skip();
        self.above.extend(self.at.take());
        self.at = Some(match link {
            Link::Leaf(entries) => Rest::Entries(entries),
            Link::Branch(branch) => Rest::Links(&branch.children),
        });
    }

    /// Implements [`Map::diff`]; `self` walks the old version.
    pub(super) fn diff(
        mut self,
        mut other: Self,
        mut each: impl FnMut(&'a Key, Option<&'a V>, Option<&'a V>),
    ) {
        loop {
            match (self.top(), other.top()) {
                (None, None) => return,
                (Some(Top::Node(x)), Some(Top::Node(y))) => {
                    // Shared, so equal: by this skip the cost follows the change, not the size.
                    if x.ptr_eq(y) {
                        self.skip();
                        other.skip();
                        continue;
                    }
                    // Only nodes of equal height can be shared, so the higher one is opened first.
                    let (high, low) = (x.height(), y.height());
                    if high >= low {
                        self.open();
                    }
                    if low >= high {
                        other.open();
                    }
                }
                // An entry that comes before all of a node is told without opening the node: the
                // node may yet turn out to be shared.
                (Some(Top::Node(node)), theirs) => match theirs {
                    Some(Top::Entry(key, value)) if key < node.first_key() => {
                        each(key, None, Some(value));
                        other.skip();
                    }
                    _ => self.open(),
                },
                (own, Some(Top::Node(node))) => match own {
                    Some(Top::Entry(key, value)) if key < node.first_key() => {
                        each(key, Some(value), None);
                        self.skip();
                    }
                    _ => other.open(),
                },
                (Some(Top::Entry(..)), Some(Top::Entry(..))) => {
                    self.diff_opened(&mut other, &mut each);
                }
                (Some(Top::Entry(x, old)), None) => {
                    each(x, Some(old), None);
                    self.skip();
                }
                (None, Some(Top::Entry(y, new))) => {
                    each(y, None, Some(new));
                    other.skip();
                }
            }
        }
    }

    /// [`Cursor::diff`] until one of the cursors has finished its leaf.
    fn diff_opened(
        &mut self,
        other: &mut Self,
        each: &mut impl FnMut(&'a Key, Option<&'a V>, Option<&'a V>),
    ) {
        if let (Some(Rest::Entries(olds)), Some(Rest::Entries(news))) =
            (&mut self.at, &mut other.at)
        {
            (*olds, *news) = diff_entries(olds, news, each);
        }
        self.leave();
        other.leave();
    }
}

/// [`Map::diff`] of two maps of one leaf each.
pub(super) fn diff_leaves<'a, V>(
    olds: Entries<'a, V>,
    news: Entries<'a, V>,
    mut each: impl FnMut(&'a Key, Option<&'a V>, Option<&'a V>),
) {
    let (olds, news) = diff_entries(olds, news, &mut each);
    olds.iter().for_each(|(x, old)| each(x, Some(old), None));
    news.iter().for_each(|(y, new)| each(y, None, Some(new)));
}

/// Reports the differences of two leaves until one of them is finished, and returns the rests of both.
fn diff_entries<'a, V>(
    mut olds: Entries<'a, V>,
    mut news: Entries<'a, V>,
    each: &mut impl FnMut(&'a Key, Option<&'a V>, Option<&'a V>),
) -> (Entries<'a, V>, Entries<'a, V>) {
    while let ([(x, old), olds_after @ ..], [(y, new), news_after @ ..]) = (olds, news) {
        if x == y {
            each(y, Some(old), Some(new));
            (olds, news) = (olds_after, news_after);
        } else if x < y {
            each(x, Some(old), None);
            olds = olds_after;
        } else {
            each(y, None, Some(new));
            news = news_after;
        }
    }
    (olds, news)
}

/// The entries of a [`Map`] in the order of their keys.
pub struct Iter<'a, V>(pub(super) Cursor<'a, V>);

impl<'a, V> Iterator for Iter<'a, V> {
    type Item = (&'a Key, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.0.top()? {
                Top::Node(_) => self.0.open(),
                Top::Entry(key, value) => {
                    self.0.skip();
                    return Some((key, value));
                }
            }
        }
    }
}
