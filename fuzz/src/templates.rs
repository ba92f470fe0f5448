//! Rendering a template stays within its bounds.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fifogate_agent::render::fuzz_template(data));
