//! Accounts: the user and group of a workload.
//!
//! The `user` of a `runtimeConfig` goes in, as `USER` or `USER:GROUP`, each a name or a number; numbers and
//! a home folder come out. As in containers, a number needs no account on the node.

use std::path::PathBuf;

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
    let (user, group) = match text.split_once(':') {
        Some(("", _)) => return Err(wrong("a user is missing before the colon")),
        Some((_, "")) => return Err(wrong("a group is missing behind the colon")),
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let found = match number(user, "user")? {
        Some(uid) => User::from_uid(Uid::from_raw(uid)).map(|found| match found {
            Some(user) => Some(user.into()),
            None => Some(Account { uid, gid: uid, home: "/".into() }),
        }),
        None => User::from_name(user).map(|found| found.map(Account::from)),
    };
    let found = found.map_err(|error| failed(&format!("user '{user}': {error}")))?;
    let account = found.ok_or_else(|| wrong(&format!("there is no user '{user}' on this node")))?;
    let Some(group) = group else { return Ok(account) };
    if let Some(gid) = number(group, "group")? {
        return Ok(Account { gid, ..account });
    }
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

/// The number in `text`, if it is one.
fn number(text: &str, of: &str) -> Result<Option<u32>, StartError> {
    if text.is_empty() {
        return Err(wrong(&format!("a {of} is missing")));
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse() {
        // The largest one means "no change" to the kernel.
        Ok(u32::MAX) | Err(_) => Err(wrong(&format!("{text} is no number of a {of}"))),
        Ok(number) => Ok(Some(number)),
    }
}

fn wrong(text: &str) -> StartError {
    StartError::Wrong(text.to_owned())
}

fn failed(text: &str) -> StartError {
    StartError::Failed(text.to_owned())
}
