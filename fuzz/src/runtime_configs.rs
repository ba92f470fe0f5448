//! A `runtimeConfig` is read or refused, within its bounds.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fifogate_agent::runtime::config::fuzz_runtime_config(data));
