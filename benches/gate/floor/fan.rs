//! One client that asks, many that are told.

use std::{
    fs,
    io::{Read, Write},
    path::Path,
};

use super::{ends, to_client};

pub(super) fn serve(dir: &Path, request_len: usize, count: usize) {
    let [event, response] = ["event", "response"].map(|name| fs::read(dir.join(name)).unwrap());
    let (mut output, mut input) = ends(dir);
    let mut told: Vec<_> =
        (0..count).map(|index| to_client(&dir.join(format!("{index}")))).collect();
    let mut request = vec![0; request_len];
    while output.read_exact(&mut request).is_ok() {
        for one in &mut told {
            one.write_all(&event).unwrap();
        }
        input.write_all(&response).unwrap();
    }
}
