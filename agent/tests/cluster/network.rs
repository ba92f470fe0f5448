//! Network namespaces that have no names, so nothing is left of them: one where etcd is, and one for
//! each node, with a cable to the first.

use std::{fs::File, panic::resume_unwind, process::Command, thread};

use nix::sched::{CloneFlags, setns, unshare};

/// A network that is not the machine's.
pub(crate) struct Namespace(File);

impl Namespace {
    fn new() -> Self {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
            ip("link set lo up");
            Self(File::open("/proc/thread-self/ns/net").unwrap())
        });
        made.join().unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Does something in there; processes that it starts stay there.
    pub(crate) fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
            f()
        };
        thread::scope(|scope| scope.spawn(inside).join())
            .unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// The same one, for a thread that outlives its maker.
    pub(crate) fn share(&self) -> Self {
        Self(self.0.try_clone().unwrap())
    }
}

/// The namespaces around a hub.
pub(crate) struct Network {
    pub(crate) hub: Namespace,
    pub(crate) nodes: Vec<Namespace>,
}

impl Network {
    pub(crate) fn new(nodes: usize) -> Self {
        let hub = Namespace::new();
        let nodes: Vec<_> = (0..nodes).map(|_| Namespace::new()).collect();
        for (number, node) in nodes.iter().enumerate() {
            hub.enter(|| {
                // The name in the folder of descriptors is how `ip` is given a namespace without one.
                let fd = std::os::fd::AsRawFd::as_raw_fd(&node.0);
                let path = format!("/proc/{}/fd/{fd}", std::process::id());
                ip(&format!("link add n{number} type veth peer name eth0 netns {path}"));
                ip(&format!("addr add {}/24 dev n{number}", Self::hub_of(number)));
                ip(&format!("link set n{number} up"));
            });
            node.enter(|| {
                ip(&format!("addr add 10.77.{number}.2/24 dev eth0"));
                ip("link set eth0 up");
            });
        }
        Self { hub, nodes }
    }

    /// Where a node finds the hub.
    pub(crate) fn hub_of(node: usize) -> String {
        format!("10.77.{node}.1")
    }

    /// Pulls a node's cable, or puts it in again.
    pub(crate) fn cable(&self, node: usize, is_in: bool) {
        let state = if is_in { "up" } else { "down" };
        self.hub.enter(|| ip(&format!("link set n{node} {state}")));
    }
}

fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split(' ')).output().expect("ip of iproute2");
    assert!(done.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Whether this test ran already, in a network of a user namespace.
pub(crate) fn is_done_elsewhere() -> bool {
    testkit::is_done_elsewhere(&["--net"])
}
