//! Log records for the journal of systemd: a priority in front of each line, and no time, as the journal
//! has its own.
//!
//! See `sd-daemon(3)` for the prefixes, and `systemd.exec(5)` for `JOURNAL_STREAM`.

use std::{env, fs::File, io, os::fd::AsFd, os::unix::fs::MetadataExt, sync::OnceLock};

use log::Level;

/// The prefix of a line of this level if standard error is the journal of systemd, else nothing.
pub fn priority(level: Level) -> Option<&'static str> {
    static IS_JOURNAL: OnceLock<bool> = OnceLock::new();
    let is_journal = IS_JOURNAL.get_or_init(|| {
        let stream = env::var("JOURNAL_STREAM").unwrap_or_default();
        // The variable stays when standard error is redirected, so the file decides.
        stderr().is_some_and(|(device, inode)| stream == format!("{device}:{inode}"))
    });
    is_journal.then_some(prefix(level))
}

/// Device and inode of standard error.
fn stderr() -> Option<(u64, u64)> {
    let file = File::from(io::stderr().as_fd().try_clone_to_owned().ok()?);
    file.metadata().ok().map(|own| (own.dev(), own.ino()))
}

fn prefix(level: Level) -> &'static str {
    match level {
        Level::Error => "<3>",
        Level::Warn => "<4>",
        Level::Info => "<6>",
        Level::Debug | Level::Trace => "<7>",
    }
}
