//! A small but true server: its handle for tests, operators and scripted agents.

use std::{
    sync::{Arc, Condvar, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use fifogate::{internal::state::AGENTS, pb::ank_base as pb, state::Tree};
use testkit::Authority;

use super::{
    PATIENCE,
    core::{Core, instance},
    messages::{ToServer, state_text},
    peers::{Operator, ScriptedAgent},
    port::Port,
    record::Record,
    sink::{BreakBy, Fuse, Sink},
    stream::{Incoming, Stream},
    tls::server_config,
};

/// The server.
pub(crate) struct Ankaios {
    port: Port,
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    core: Mutex<Core>,
    changed: Condvar,
    fuse: Mutex<Option<Fuse>>,
}

impl Shared {
    /// Does something to the model, and wakes up those who wait for it.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Core) -> T) -> T {
        let done = act(&mut self.core.lock().unwrap());
        self.changed.notify_all();
        done
    }

    fn wait<T>(&self, patience: Duration, found: impl Fn(&Core) -> Option<T>) -> Option<T> {
        let end = Instant::now() + patience;
        let mut core = self.core.lock().unwrap();
        loop {
            if let Some(found) = found(&core) {
                return Some(found);
            }
            let left = end.checked_duration_since(Instant::now())?;
            core = self.changed.wait_timeout(core, left).unwrap().0;
        }
    }
}

impl Ankaios {
    /// Starts a server without TLS and without any workload.
    pub(crate) fn start() -> Self {
        Self::start_with(&pb::CompleteState::default())
    }

    /// Starts a server with the desired state of this manifest.
    pub(crate) fn start_with(manifest: &pb::CompleteState) -> Self {
        Self::at(Port::open(), manifest)
    }

    /// Starts a server with mutual TLS.
    pub(crate) fn start_with_tls(authority: &Authority, manifest: &pb::CompleteState) -> Self {
        Self::at(Port::open_with_tls(server_config(authority)), manifest)
    }

    fn at(port: Port, manifest: &pb::CompleteState) -> Self {
        let core = Mutex::new(Core::new(manifest, 0));
        let shared = Shared { core, changed: Condvar::new(), fuse: Mutex::new(None) };
        let (streams, shared) = (port.take_streams(), Arc::new(shared));
        let of_streams = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in streams {
                let shared = Arc::clone(&of_streams);
                thread::spawn(move || serve(&shared, stream));
            }
        });
        Self { port, shared }
    }

    pub(crate) fn url(&self) -> String {
        self.port.url()
    }

    pub(crate) fn port(&self) -> &Port {
        &self.port
    }

    /// All messages of agents, but for those of scripted ones.
    pub(crate) fn record(&self) -> &Record {
        self.port.record()
    }

    /// Ends the server as a kill does: connections are reset, and new ones are refused.
    pub(crate) fn stop(&self) {
        self.port.close();
    }

    /// Starts the server again with this manifest. Of all else it knows nothing any more; operators and
    /// scripted agents of before are gone.
    pub(crate) fn start_again(&self, manifest: &pb::CompleteState) {
        self.shared.with(|core| *core = Core::new(manifest, core.last()));
        self.port.reopen();
    }

    /// Cuts the network for a while: [`Ankaios::connect`] ends that. The server knows what it knew.
    pub(crate) fn disconnect(&self) {
        self.port.close();
    }

    pub(crate) fn connect(&self) {
        self.port.reopen();
    }

    /// Resets all connections, once.
    pub(crate) fn reset_connections(&self) {
        self.port.reset_all();
    }

    /// Breaks the next stream in place of one of its messages, which is lost: messages of both sides count, the
    /// hello is number 0.
    pub(crate) fn break_next_stream(&self, message: usize, how: BreakBy) {
        *self.shared.fuse.lock().unwrap() = Some(Fuse::at(message, how));
    }

    /// The state as it is now.
    pub(crate) fn state(&self) -> Tree {
        self.shared.core.lock().unwrap().state.clone()
    }

    /// The agents that are connected now.
    pub(crate) fn agents(&self) -> Vec<String> {
        self.shared.core.lock().unwrap().names()
    }

    /// The full ids of all subscriptions.
    pub(crate) fn subscriptions(&self) -> Vec<String> {
        self.shared.core.lock().unwrap().subscriptions.keys().cloned().collect()
    }

    /// The full ids of all campaigns.
    pub(crate) fn campaigns(&self) -> Vec<String> {
        self.shared.core.lock().unwrap().campaigns.keys().cloned().collect()
    }

    /// Waits until the state makes `found` return something.
    pub(crate) fn wait<T>(&self, what: &str, found: impl Fn(&Tree) -> Option<T>) -> T {
        self.shared
            .wait(PATIENCE, |core| found(&core.state))
            .unwrap_or_else(|| panic!("no {what} in {PATIENCE:?}: {:#?}", self.state()))
    }

    /// Waits for the hello of an agent.
    pub(crate) fn wait_for_agent(&self, name: &str) {
        self.wait(&format!("agent {name}"), |tree| tree.get(&[AGENTS, name]).map(drop));
    }

    /// Waits until an agent counts as gone.
    pub(crate) fn wait_for_no_agent(&self, name: &str) {
        let is_gone = |tree: &Tree| tree.get(&[AGENTS, name]).is_none().then_some(());
        self.wait(&format!("end of agent {name}"), is_gone);
    }

    /// Waits until an instance of this workload is in a state as `Pending(Starting) Triggered at runtime.`.
    /// Returns `workload.id.agent`.
    pub(crate) fn wait_for_state(&self, workload: &str, text: &str) -> String {
        let found = self.shared.wait(PATIENCE, |core| {
            let states = states_of(core, workload);
            states.into_iter().find_map(|(instance, own)| (own == text).then_some(instance))
        });
        found.unwrap_or_else(|| {
            let states = self.states_of(workload);
            panic!("{workload} is not '{text}' in {PATIENCE:?}, but {states:?}")
        })
    }

    /// Waits until the server knows no state of this workload any more.
    pub(crate) fn wait_for_removal(&self, workload: &str) {
        let found =
            self.shared.wait(PATIENCE, |core| states_of(core, workload).is_empty().then_some(()));
        found.unwrap_or_else(|| panic!("{workload} stays: {:?}", self.states_of(workload)));
    }

    /// The instances of a workload as `workload.id.agent`, and their states.
    pub(crate) fn states_of(&self, workload: &str) -> Vec<(String, String)> {
        states_of(&self.shared.core.lock().unwrap(), workload)
    }

    /// An update, as by an operator.
    pub(crate) fn update(
        &self,
        new_state: pb::CompleteState,
        masks: &[&str],
    ) -> Result<pb::UpdateStateSuccess, String> {
        self.operator().update(new_state, masks)
    }

    /// Adds or replaces a workload. Returns its instances as `workload.id.agent`.
    pub(crate) fn apply(&self, name: &str, workload: pb::Workload) -> Vec<String> {
        let mask = format!("desiredState.workloads.{name}");
        let new_state = with_workloads([(name, workload)]);
        self.update(new_state, &[&mask]).unwrap().added_workloads
    }

    pub(crate) fn delete(&self, workload: &str) {
        let mask = format!("desiredState.workloads.{workload}");
        self.update(pb::CompleteState::default(), &[&mask]).unwrap();
    }

    /// A read, as by an operator.
    pub(crate) fn read(&self, masks: &[&str]) -> pb::CompleteState {
        self.operator().read(masks)
    }

    /// A connection of a tool, that gets responses alone.
    pub(crate) fn operator(&self) -> Operator {
        self.operator_of("commander-conn")
    }

    /// A connection as of `ank`, that is told states, too.
    pub(crate) fn ank(&self) -> Operator {
        self.operator_of("cli-conn")
    }

    fn operator_of(&self, kind: &str) -> Operator {
        let (sender, messages) = mpsc::channel();
        let name = self.shared.with(|core| core.operator(kind, sender));
        Operator::new(Arc::clone(&self.shared), name, messages)
    }

    /// Another agent of this name, in the hands of the test.
    pub(crate) fn agent(&self, name: &str) -> ScriptedAgent {
        let (sender, messages) = mpsc::channel();
        let hello = Some(ToServer::hello(name, "1.1.0-pre"));
        let own = self.shared.with(|core| core.hello(hello, None, Sink::Inside(sender)));
        ScriptedAgent::new(Arc::clone(&self.shared), own.unwrap(), messages)
    }
}

fn states_of(core: &Core, workload: &str) -> Vec<(String, String)> {
    let states = core.states(|instance| instance.workload == workload);
    let text = |state: &pb::WorkloadState| {
        let instance = instance(state).to_string();
        (instance, state_text(&state.execution_state.clone().unwrap_or_default()))
    };
    states.iter().map(text).collect()
}

/// A desired state of these workloads.
pub(crate) fn with_workloads<'a>(
    workloads: impl IntoIterator<Item = (&'a str, pb::Workload)>,
) -> pb::CompleteState {
    let workloads = workloads.into_iter().map(|(name, own)| (name.to_owned(), own)).collect();
    let desired_state = Some(pb::State {
        api_version: "v1".to_owned(),
        workloads: Some(pb::WorkloadMap { workloads }),
        ..pb::State::default()
    });
    pb::CompleteState { desired_state, ..pb::CompleteState::default() }
}

/// A workload of an agent, without anything optional.
pub(crate) fn workload(agent: &str, runtime: &str, config: &str) -> pb::Workload {
    pb::Workload {
        agent: Some(agent.to_owned()),
        runtime: Some(runtime.to_owned()),
        runtime_config: Some(config.to_owned()),
        ..pb::Workload::default()
    }
}

/// Serves one stream, on a thread of its own.
fn serve(shared: &Shared, mut stream: Stream) {
    let fuse = shared.fuse.lock().unwrap().take();
    let first = match stream.incoming.recv() {
        Ok(Incoming::Message(message)) => Some(message),
        Ok(Incoming::Broken(_)) => return,
        Ok(Incoming::HalfClosed) | Err(_) => None,
    };
    let (Some(outgoing), Some(headers)) = (stream.outgoing.take(), stream.headers.take()) else {
        return;
    };
    let burns = fuse.clone().filter(Fuse::burns);
    let sink = Sink::Remote { outgoing, peer: stream.peer.clone(), fuse: fuse.clone() };
    if let Some(fuse) = burns {
        match fuse.how() {
            BreakBy::Reset => {
                stream.peer.reset();
                // The headers are kept until then.
                while let Ok(Incoming::Message(_)) = stream.incoming.recv() {}
            }
            BreakBy::Unavailable => {
                let _ = headers.send(Err(tonic::Status::unavailable("broken")));
            }
            BreakBy::End => {}
        }
        return;
    }
    let certificates = stream.peer.certificates.as_deref();
    let own = match shared.with(|core| core.hello(first, certificates, sink)) {
        Ok(own) => own,
        Err(status) => return drop(headers.send(Err(status))),
    };
    let _ = headers.send(Ok(()));
    loop {
        let message = match stream.incoming.recv() {
            Ok(Incoming::Message(message)) => message,
            Ok(Incoming::Broken(_)) => return shared.with(|core| core.gone(&own)),
            // The real server does not notice that such an agent is gone.
            Ok(Incoming::HalfClosed) | Err(_) => return,
        };
        if let Some(fuse) = &fuse
            && fuse.burns()
        {
            return shared.with(|core| core.break_by(&own, fuse.how()));
        }
        if !shared.with(|core| core.message(&own, message)) {
            return shared.with(|core| core.gone(&own));
        }
    }
}
