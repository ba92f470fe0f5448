//! Log lines about peers: what the broker reports of them, and each message at the level trace.

use std::fmt;

use log::Level;

use super::Worker;
use crate::{
    broker::{Delivery, PeerId},
    message::ResponseBody,
    server::log_limiter::Kind,
    state::Instance,
};

impl Worker {
    pub(super) fn log_slow(&mut self, instance: &Instance, bytes: usize) {
        let name = name_of(instance);
        let text = format_args!("{name} reads too slowly: {bytes} bytes are queued for it");
        self.log_limiter.log(Level::Warn, Kind::Slow, &name, text);
    }

    pub(super) fn log_caught_up(&mut self, instance: &Instance, after: u64) {
        let name = name_of(instance);
        let text = format_args!("{name} has caught up after {after} ms");
        self.log_limiter.log(Level::Info, Kind::CaughtUp, &name, text);
    }

    /// Logs a denial; with `-v` every one.
    pub(super) fn log_denial(&mut self, instance: &Instance, denial: &str) {
        let name = name_of(instance);
        if log::log_enabled!(Level::Debug) {
            log::warn!("{name}: denied {denial}");
        } else {
            let text = format_args!("{name}: denied {denial}");
            self.log_limiter.log(Level::Warn, Kind::Denial, &name, text);
        }
    }

    pub(super) fn trace_received(&self, from: PeerId, message: &impl fmt::Display) {
        // Most servers never log at this level: nothing may be looked up for it.
        if log::log_enabled!(Level::Trace) {
            log::trace!("{} sent {message}", self.name_of_peer(from));
        }
    }

    pub(super) fn trace_sent(&self, to: PeerId, message: &impl fmt::Display) {
        if log::log_enabled!(Level::Trace) {
            log::trace!("{} is sent {message}", self.name_of_peer(to));
        }
    }

    pub(super) fn trace_multicast(&self, body: &ResponseBody, deliveries: &[Delivery]) {
        // Before the loop: there may be thousands.
        if log::log_enabled!(Level::Trace) {
            deliveries.iter().for_each(|own| self.trace_sent(own.peer, &own.message(body)));
        }
    }

    fn name_of_peer(&self, peer: PeerId) -> String {
        // Messages of a removed workload may still be queued.
        self.broker.instance(peer).map_or_else(|| "a removed workload".to_owned(), name_of)
    }
}

/// The name of a peer for log lines; the agent has no instance.
fn name_of(instance: &Instance) -> String {
    if instance.workload.is_empty() { "the agent".to_owned() } else { instance.to_string() }
}
