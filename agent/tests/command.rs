//! The command interface of the agent: a client of the tests' own that sends what `ank` and the SDKs send,
//! message for message; and clients that mean harm.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

mod command {
    mod attacks;
    mod backup;
    mod client;
    mod completion;
    mod elsewhere;
    mod handshake;
    mod hostile;
    mod large;
    mod many;
    mod neighbour;
    mod operator;
    mod sdk;
    mod sequences;
    mod tls;
}
