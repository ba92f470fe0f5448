//! The packages for Debian: installed, started, upgraded under a running workload, removed and purged, by the
//! real `dpkg` in a root of its own. What is installed from the source and from the archive. And what systemd is
//! told, by both programs.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod packages {
    mod debian;
    mod installed;
    mod notified;
}
