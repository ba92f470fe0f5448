//! A TCP forwarder on loopback: a network that a test cuts and joins again.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// How connections are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Everything passes.
    Joined,
    /// Nothing passes, and nobody is told. After joining, the held bytes go on.
    Silent,
    /// Connections are closed, and new ones too.
    Refused,
}

/// A port of its own in front of another port. Connections end with it.
pub struct Forwarder {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    to: u16,
    network: Mutex<Network>,
    changed: Condvar,
    connections: Mutex<Vec<TcpStream>>,
    ended: AtomicBool,
}

impl Forwarder {
    /// Forwards to a port.
    pub fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            to,
            network: Mutex::new(Network::Joined),
            changed: Condvar::new(),
            connections: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let own = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if own.ended.load(Ordering::Relaxed) {
                    return;
                }
                own.accept(stream);
            }
        });
        Self { port, shared }
    }

    /// Its address.
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Cuts or joins it.
    pub fn set(&self, network: Network) {
        *self.shared.network() = network;
        self.shared.changed.notify_all();
        if network == Network::Refused {
            self.shared.close_all();
        }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.set(Network::Refused);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    fn network(&self) -> MutexGuard<'_, Network> {
        self.network.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connections(&self) -> MutexGuard<'_, Vec<TcpStream>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close_all(&self) {
        for stream in self.connections().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn accept(self: &Arc<Self>, near: TcpStream) {
        let own = self.clone();
        // A thread, since a silent network holds even the connection to the other port.
        thread::spawn(move || {
            own.wait_passable();
            let Ok(far) = TcpStream::connect(("127.0.0.1", own.to)) else { return };
            let _ = (near.set_nodelay(true), far.set_nodelay(true));
            let both = [(&near, &far), (&far, &near)];
            for (from, to) in both {
                let (Ok(from), Ok(to), Ok(kept)) =
                    (from.try_clone(), to.try_clone(), from.try_clone())
                else {
                    return;
                };
                own.connections().push(kept);
                let own = own.clone();
                thread::spawn(move || own.pump(from, to));
            }
            if *own.network() == Network::Refused {
                own.close_all();
            }
        });
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut bytes = vec![0; 1 << 16];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            self.wait_passable();
            if to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        self.wait_passable();
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    }

    fn wait_passable(&self) {
        let network = self.network();
        let is_silent = |network: &mut Network| *network == Network::Silent;
        drop(self.changed.wait_while(network, is_silent).unwrap_or_else(PoisonError::into_inner));
    }
}
