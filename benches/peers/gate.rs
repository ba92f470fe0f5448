//! fifogate: workloads that subscribe to a config, and one that sets it.

use crate::{
    client::{Client, Wire},
    messages::{self, SPEED_MASK},
    peer::Peer,
    world::World,
};

/// A fifogate with as many workloads as there are clients.
pub(crate) struct Gate(World);

impl Gate {
    pub(crate) fn start(subscribers: usize) -> Self {
        Self(World::start(0, subscribers + 1, &["--subscribe-grace-ms", "0"]))
    }
}

impl Peer for Gate {
    fn subscriber(&mut self, index: usize) -> Client {
        let mut workload = self.0.workload(index + 1);
        workload.read("s", &[SPEED_MASK], true);
        workload.response();
        Client::of(workload.reader.input, workload.output)
    }

    fn publisher(&mut self) -> Client {
        let workload = self.0.workload(0);
        Client::of(workload.reader.input, workload.output)
    }

    fn event(&mut self, payload: &str) -> Vec<u8> {
        messages::set_speed(payload)
    }

    fn wire(&self) -> &'static dyn Wire {
        &Frames
    }

    fn pid(&self) -> u32 {
        self.0.pid()
    }
}

struct Frames;

impl Wire for Frames {
    fn frame_len(&self, bytes: &[u8]) -> Option<usize> {
        messages::frame_len(bytes)
    }
}
