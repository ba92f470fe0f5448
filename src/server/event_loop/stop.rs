//! The end of the loop: requested by agent, handle or stop descriptor, or caused by a fault.
//!
//! Ports are no longer read, queued frames are written until a deadline, then everything is closed.

use std::{
    mem, thread,
    time::{Duration, Instant},
};

use crossbeam_channel::bounded;

use super::{
    super::{
        FLUSH,
        error::ServerError,
        handle::Control,
        worker::{StatusClient, ToWorker},
    },
    Loop,
    port_table::PortTable,
};

/// Time to close the FIFOs at the end. The close of a blocked pair takes longer.
const CLOSE: Duration = Duration::from_millis(100);

/// The stop has begun: ports are no longer read, queued frames are written.
pub(super) struct Stopping {
    pub(super) deadline: Instant,
    /// The worker has handed out its last message.
    pub(super) drained: bool,
}

impl Loop {
    /// Handles requests of the handle.
    pub(super) fn take_control(&mut self) {
        while let Ok(control) = self.control.try_recv() {
            match control {
                Control::Stop(deadline) => self.begin_stop(deadline),
                Control::Status(client) => {
                    let client = StatusClient::Handle(client);
                    self.worker.tell(ToWorker::Status(client, self.port_statuses()));
                }
            }
        }
    }

    /// Stops the loop. The handle gets the reason in the end.
    pub(super) fn fail(&mut self, why: ServerError) {
        self.failure.get_or_insert(why);
        self.begin_stop(Instant::now() + FLUSH);
    }

    /// Begins the stop. Queued frames are written until `deadline`.
    pub(super) fn begin_stop(&mut self, deadline: Instant) {
        if self.stopping.is_some() {
            return;
        }
        log::info!("stopping");
        self.ports.stop_reading();
        self.read_agent(Some(false));
        self.stopping = Some(Stopping { deadline, drained: false });
        self.worker.tell(ToWorker::Stop);
        // A failed worker has nothing more to hand out.
        let drained = !self.worker.flush();
        if let Some(stopping) = &mut self.stopping {
            stopping.drained = drained;
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.stopping.as_ref().is_some_and(|stopping| {
            let told = self.link.as_ref().is_none_or(|link| link.port.is_flushed());
            let flushed = stopping.drained && self.ports.all_flushed() && told;
            flushed || stopping.deadline <= Instant::now()
        })
    }

    /// Closes everything. The sockets go first: a process kept in the kernel by a workload would
    /// otherwise keep them open (docs/pipes.md#a-held-process-does-not-end).
    pub(super) fn close_all(&mut self) {
        self.status = None;
        if let Some(link) = self.link.take() {
            link.port.hang_up();
        }
        self.worker.hang_up();
        self.blocking_threads = None;
        let ports = mem::replace(&mut self.ports, PortTable::new(&self.settings.limits));
        let opening = mem::take(&mut self.opening);
        let (closed, all_closed) = bounded::<()>(0);
        let close = move || {
            drop((ports, opening));
            drop(closed);
        };
        let closer = thread::Builder::new().name("closer".to_owned()).spawn(close);
        // Nothing is ever sent: a closed channel is the ordered end, and a timeout a held pipe.
        let held = crossbeam_channel::RecvTimeoutError::Timeout;
        // If the system grants no thread, the closure was dropped here, and has closed the FIFOs.
        if closer.is_ok() && all_closed.recv_timeout(CLOSE) == Err(held) {
            log::warn!("a workload blocks its pipe: the process ends when the pipe is released");
        }
    }
}
