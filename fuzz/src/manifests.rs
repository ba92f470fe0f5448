//! Any text is refused as a manifest, or becomes a state that can be sent and kept.
#![no_main]
#[path = "checks/manifests.rs"]
mod manifests;
libfuzzer_sys::fuzz_target!(|data: &[u8]| manifests::fuzz_manifest(data));
