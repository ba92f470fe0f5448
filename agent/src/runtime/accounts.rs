//! Accounts: the user and group of a workload.
//!
//! The `user` of a `runtimeConfig` goes in, as `USER` or `USER:GROUP`, each a name or a number; numbers and
//! a home folder come out. As in containers, a number needs no account on the node.

use std::{fmt, path::PathBuf};

use nix::unistd::{Gid, Group, Uid, User};

use super::StartError;

/// The user and group of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// `/` without an account.
    pub(crate) home: PathBuf,
}

/// Looks up the account of a workload. Without an account and a group, the group of a number is the same
/// number: no group of the node, such as root's, is given by default.
///
/// # Errors
/// There is no such user or group, or the lookup failed.
pub(crate) fn account(text: &str) -> Result<Account, StartError> {
    let Named { user, group } = named(text).map_err(StartError::Wrong)?;
    let found = match user {
        Id::Number(uid) => User::from_uid(Uid::from_raw(uid)).map(|found| match found {
            Some(user) => Some(user.into()),
            None => Some(Account { uid, gid: uid, home: "/".into() }),
        }),
        Id::Name(user) => User::from_name(user).map(|found| found.map(Account::from)),
    };
    let found = found.map_err(|error| failed(&format!("user '{user}': {error}")))?;
    let account = found.ok_or_else(|| wrong(&format!("there is no user '{user}' on this node")))?;
    let group = match group {
        None => return Ok(account),
        Some(Id::Number(gid)) => return Ok(Account { gid, ..account }),
        Some(Id::Name(group)) => group,
    };
    let found =
        Group::from_name(group).map_err(|error| failed(&format!("group '{group}': {error}")))?;
    let gid = found.map(|group: Group| group.gid);
    let gid = gid.ok_or_else(|| wrong(&format!("there is no group '{group}' on this node")))?;
    Ok(Account { gid: Gid::as_raw(gid), ..account })
}

impl From<User> for Account {
    fn from(user: User) -> Self {
        Self { uid: user.uid.as_raw(), gid: user.gid.as_raw(), home: user.dir }
    }
}

/// A user and a group, as they are written.
struct Named<'t> {
    user: Id<'t>,
    group: Option<Id<'t>>,
}

#[derive(Clone, Copy)]
enum Id<'t> {
    Name(&'t str),
    Number(u32),
}

impl fmt::Display for Id<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Number(number) => number.fmt(f),
        }
    }
}

/// Checks the form of a `user`. Whether there is such an account, the node of the workload knows.
///
/// # Errors
/// The fault.
pub(super) fn check(text: &str) -> Result<(), String> {
    named(text).map(drop)
}

fn named(text: &str) -> Result<Named<'_>, String> {
    let (user, group) = match text.split_once(':') {
        Some(("", _)) => return Err("a user is missing before the colon".to_owned()),
        Some((_, "")) => return Err("a group is missing behind the colon".to_owned()),
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let group = group.map(|group| id(group, "group")).transpose()?;
    Ok(Named { user: id(user, "user")?, group })
}

fn id<'t>(text: &'t str, of: &str) -> Result<Id<'t>, String> {
    if text.is_empty() {
        return Err(format!("a {of} is missing"));
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Id::Name(text));
    }
    match text.parse() {
        // The largest one means "no change" to the kernel.
        Ok(u32::MAX) | Err(_) => Err(format!("{text} is no number of a {of}")),
        Ok(number) => Ok(Id::Number(number)),
    }
}

fn wrong(text: &str) -> StartError {
    StartError::Wrong(text.to_owned())
}

fn failed(text: &str) -> StartError {
    StartError::Failed(text.to_owned())
}
