//! The two services: the handshake of a stream, and its place among all.

use std::{sync::Arc, time::Duration};

use fifogate::{internal::check_version, link::AsyncLink};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::timeout,
};
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{
    commanders::{Commanders, Ends},
    connection::Greeted,
    generated::{
        cli_connection_server::CliConnection, command_connection_server::CommandConnection,
    },
    outgoing::{Outgoing, Reads},
    session::{Changes, Commander, Session},
    wire::FromCommander,
};

/// Time of a client for its hello.
const HELLO: Duration = Duration::from_secs(10);

/// The services. Clones share everything.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) commanders: Commanders,
    pub(super) gate: watch::Receiver<Option<AsyncLink>>,
    /// Places for commanders.
    pub(super) places: Arc<Semaphore>,
    pub(super) most: usize,
}

/// What a client wants to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Responses alone.
    Tool,
    /// Changed states, too; and it takes no error for a read.
    Ank,
}

#[async_trait]
impl CommandConnection for Service {
    type ConnectCommandStream = Outgoing;

    async fn connect_command(
        &self,
        request: Request<Streaming<FromCommander>>,
    ) -> Result<Response<Outgoing>, Status> {
        self.connect(Kind::Tool, request).await
    }
}

#[async_trait]
impl CliConnection for Service {
    type ConnectCliStream = Outgoing;

    async fn connect_cli(
        &self,
        request: Request<Streaming<FromCommander>>,
    ) -> Result<Response<Outgoing>, Status> {
        self.connect(Kind::Ank, request).await
    }
}

impl Service {
    /// Begins a stream. The headers of the response are sent when this returns: clients wait for them
    /// before their first request.
    async fn connect(
        &self,
        kind: Kind,
        request: Request<Streaming<FromCommander>>,
    ) -> Result<Response<Outgoing>, Status> {
        let full = |_| {
            let text = format!("{} commanders are connected, and no more are allowed", self.most);
            Status::resource_exhausted(text)
        };
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(full)?;
        let late = |_| Status::deadline_exceeded("No CommanderHello received.");
        let greeted = request.extensions().get::<Greeted>().cloned().unwrap_or_default();
        let mut incoming = request.into_inner();
        timeout(HELLO, hello(&mut incoming)).await.map_err(late)??;
        greeted.set();
        let gate = self.gate.borrow().clone();
        let gate = gate.ok_or_else(|| Status::unavailable("fifogate is not there: try again"))?;
        let name = if kind == Kind::Ank { "cli-conn" } else { "commander-conn" };
        let Ends { name, messages, reading, end: ended } = self.commanders.open(name);
        let commander = Commander::open(&self.commanders, gate, &name).await?;
        let (changes, states) = match kind {
            Kind::Ank => {
                let (changes, states) = Changes::of(&self.commanders);
                (Some(changes), Some(states))
            }
            Kind::Tool => (None, None),
        };
        let (took, taken) = mpsc::unbounded_channel();
        let (end, ends) = mpsc::channel(1);
        let reads = Reads::default();
        let noted = (kind == Kind::Ank).then(|| reads.clone());
        let session = Session {
            commander,
            incoming,
            reading,
            ended,
            took: taken,
            end,
            changes,
            reads: noted,
        };
        tokio::spawn(session.run());
        Ok(Response::new(Outgoing {
            messages,
            states,
            took,
            end: ends,
            reads,
            held: None,
            quiet: None,
            _place: place,
        }))
    }
}

/// Reads and checks the first message.
async fn hello(incoming: &mut Streaming<FromCommander>) -> Result<(), Status> {
    let first = incoming.message().await?.unwrap_or_default();
    if let Some(hello) = first.hello {
        let checked = check_version(&hello.protocol_version);
        return checked.map_err(|refusal| Status::failed_precondition(refusal.to_string()));
    }
    let is_empty = first == FromCommander::default();
    Err(Status::invalid_argument(if is_empty { "Empty" } else { "No CommanderHello received." }))
}
