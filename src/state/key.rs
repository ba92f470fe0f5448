//! Names in a path. They are shared: a field name is in memory once per map, not once per use.

use std::{borrow::Borrow, fmt, sync::Arc};

/// One name in a path: a field, or the key of a mapping. May be empty.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a path can name it: a path is cut at `.`, and `*` stands for any name.
    #[must_use]
    pub fn is_addressable(&self) -> bool {
        is_addressable(self.as_str())
    }
}

/// As [`Key::is_addressable`].
#[must_use]
pub fn is_addressable(name: &str) -> bool {
    !name.contains('.') && name != "*"
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<Arc<str>> for Key {
    fn from(text: Arc<str>) -> Self {
        Self(text)
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}
