//! An agent of fifogate in a cluster of Ankaios: the server is one of the tests' own, which answers, refuses and
//! fails as the real one does.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod ankaios {
    mod faults;
    mod joined;
    mod joining;
    mod logs;
    mod of_the_server;
    mod requests;
    mod running;
    mod server;
    mod tls;
}
