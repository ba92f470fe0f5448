//! Whatever workloads say and whenever they read, the core keeps its promises.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fifogate::internal::fuzz_requests(data));
