//! Fuzz entry of the stores: bytes become items as another program, a damaged disk or another version
//! could leave them.

use fifogate::{
    pb::ank_base as pb,
    state::{
        Tree,
        convert::{self, Fill},
    },
};
use prost::Message;

use super::{disk, etcd, local};

/// A key below the prefix with its value; without a value it was deleted.
pub(super) type Record = (String, Option<Vec<u8>>);

/// Reads items from `data` as they are kept on disk and in etcd. Each is a byte for its kind, a byte for
/// the length of its name, the name, two bytes for the length of its value, and the value; the
/// highest bit of the kind deletes it. Used by the fuzz target `stored` and by a test over its seeds.
///
/// # Panics
/// A store panics, or gives a state that a workload cannot decode.
#[doc(hidden)]
pub fn fuzz_stored(mut data: &[u8]) {
    let mut records = Vec::new();
    while let Some(record) = take_record(&mut data) {
        records.push(record);
    }
    if let Some(changes) = disk::changes_of(&records)
        && let Ok(tree) = local::restored(changes)
    {
        assert_is_readable(&tree);
    }
    etcd::fuzz::follow(&records).iter().for_each(assert_is_readable);
}

fn take_record(data: &mut &[u8]) -> Option<Record> {
    let kind = *data.split_off_first()?;
    let len = usize::from(*data.split_off_first()?);
    let name = String::from_utf8_lossy(data.split_off(..len)?);
    let len = data.split_off(..2)?;
    let len = usize::from(u16::from_le_bytes([len[0], len[1]]));
    let value = data.split_off(..len)?.to_vec();
    let folder = ["desired/", "desired/workloads/", "desired/configs/", "states/", "agents/", ""];
    let key = format!("{}{name}", folder[usize::from(kind & 0x7f) % folder.len()]);
    Some((key, (kind & 0x80 == 0).then_some(value)))
}

fn assert_is_readable(tree: &Tree) {
    let state = convert::to_pb(tree, Fill::Full);
    let decoded = pb::CompleteState::decode(&*state.encode_to_vec());
    assert!(decoded.is_ok_and(|decoded| decoded == state), "{state:?}");
}
