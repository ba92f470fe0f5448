//! The stores read whatever is kept on disk or in etcd, and give states that workloads can decode.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fifogate_agent::store::fuzz_stored(data));
