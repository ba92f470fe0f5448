//! A line of JSON is refused, or becomes a message that is the same after any way.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fifogate::internal::fuzz_encode(data));
