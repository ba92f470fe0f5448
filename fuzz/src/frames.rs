//! A stream of bytes, cut anywhere, gives the same frames.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fifogate::internal::fuzz_frames(data));
