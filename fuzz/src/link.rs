//! The agent can decode each message that the core sends to it, for any input of both sides.
#![no_main]
#[path = "checks/link.rs"]
mod link;
libfuzzer_sys::fuzz_target!(|data: &[u8]| link::fuzz_link(data));
