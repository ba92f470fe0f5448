//! The ways to tell an event that are compared.

use clap::ValueEnum;

use crate::{
    client::{Client, Wire},
    dbus::Bus,
    etcd::Etcd,
    gate::Gate,
    mqtt::Mosquitto,
    nats::Nats,
    server::{is_installed, version},
};

/// A running server, and how to speak with it.
pub(crate) trait Peer {
    /// A client that has subscribed: what it gets next is an event.
    fn subscriber(&mut self, index: usize) -> Client;

    /// A client that will say events.
    fn publisher(&mut self) -> Client;

    /// The bytes by which the publisher says an event.
    fn event(&mut self, payload: &str) -> Vec<u8>;

    fn wire(&self) -> &'static dyn Wire;

    /// The server's process.
    fn pid(&self) -> u32;
}

/// All of them; the first one is what the others are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Fifogate,
    MosquittoQos0,
    MosquittoQos1,
    DbusDaemon,
    DbusBroker,
    Nats,
    Etcd,
}

impl Kind {
    /// Starts its server, with room for so many subscribers.
    pub(crate) fn start(self, subscribers: usize) -> Box<dyn Peer> {
        match self {
            Self::Fifogate => Box::new(Gate::start(subscribers)),
            Self::MosquittoQos0 => Box::new(Mosquitto::start(0)),
            Self::MosquittoQos1 => Box::new(Mosquitto::start(1)),
            Self::DbusDaemon => Box::new(Bus::daemon()),
            Self::DbusBroker => Box::new(Bus::broker()),
            Self::Nats => Box::new(Nats::start()),
            Self::Etcd => Box::new(Etcd::start()),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fifogate => "fifogate",
            Self::MosquittoQos0 => "mosquitto, QoS 0",
            Self::MosquittoQos1 => "mosquitto, QoS 1",
            Self::DbusDaemon => "dbus-daemon",
            Self::DbusBroker => "dbus-broker",
            Self::Nats => "NATS (TCP)",
            Self::Etcd => "etcd watch",
        }
    }

    /// The program of its server, unless it is our own; and how it is asked for its version.
    fn program(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Fifogate => None,
            Self::MosquittoQos0 | Self::MosquittoQos1 => Some(("mosquitto", "-h")),
            Self::DbusDaemon => Some(("dbus-daemon", "--version")),
            Self::DbusBroker => Some(("dbus-broker", "--version")),
            Self::Nats => Some(("nats-server", "--version")),
            Self::Etcd => Some(("etcd", "--version")),
        }
    }

    /// Its program, if that is missing.
    pub(crate) fn missing(self) -> Option<&'static str> {
        self.program().map(|(program, _)| program).filter(|program| !is_installed(program))
    }

    /// Its program with the version.
    pub(crate) fn version(self) -> Option<String> {
        self.program().map(|(program, flag)| format!("{program} {}", version(program, flag)))
    }
}
