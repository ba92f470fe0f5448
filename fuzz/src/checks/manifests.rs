//! Bytes as a manifest.

use fifogate::{
    internal::parts,
    manifest,
    state::convert::{self, Fill},
};

/// Reads `data` as a manifest: it is refused with places that are in it, or becomes a state that every
/// message and store takes.
///
/// # Panics
/// When a promise is broken.
pub(crate) fn fuzz_manifest(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match manifest::parse("m.yaml", text) {
        Ok(manifest) => {
            let message = convert::to_pb(&manifest.updated.tree, Fill::Full);
            assert_eq!(parts::check_nesting(&message), Ok(()));
            let back = convert::from_pb(&message).expect("the state converts");
            let desired = |tree: &fifogate::state::Tree| tree.get(&["desiredState"]).cloned();
            assert_eq!(desired(&back), desired(&manifest.updated.tree));
        }
        Err(error) => {
            assert!(!error.faults.is_empty());
            // A carriage return alone ends a line, too, and so does the end of the text.
            let lines = text.matches(['\n', '\r']).count() + 2;
            assert!(error.faults.iter().all(|fault| fault.line <= lines), "{error}");
        }
    }
}
