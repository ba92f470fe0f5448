//! The sockets of the command interface, and the servers behind them.
//!
//! A Unix socket in the run directory, for the user of the agent alone, is always there. All connections
//! of a socket together have a bound; one more is closed at once.

use std::{
    fs,
    future::pending,
    io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use fifogate::link::AsyncLink;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{Semaphore, mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::transport::{Server, server::Router};

use super::{
    commanders::Commanders,
    connection::Connection,
    generated::{
        cli_connection_server::CliConnectionServer,
        command_connection_server::CommandConnectionServer,
    },
    options::{Listen, Security},
    service::Service,
    tls::Certificates,
};

/// Name of the socket in the run directory.
pub(crate) const SOCKET: &str = "command.sock";
/// Most bytes of a message of a client: as those of a workload, and as in gRPC.
const MOST_MESSAGE: usize = 4 << 20;
/// Most streams of one connection.
const MOST_STREAMS: u32 = 256;
/// A silent client is asked after this time whether it is there, and has this time to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Pause after a failed accept, as when descriptors have run out.
const PAUSE: Duration = Duration::from_millis(100);
/// Time between two lines about refused connections.
const TOLD: Duration = Duration::from_secs(10);
/// Time for the last words to clients that do not close their connection.
const LAST_PATIENCE: Duration = Duration::from_millis(300);

/// Parts of the command interface.
#[derive(Debug)]
pub(crate) struct Settings<'a> {
    /// Options.
    pub(crate) listen: &'a Listen,
    /// The private folder of the agent.
    pub(crate) run_dir: &'a Path,
    /// Shared with the main loop.
    pub(crate) commanders: Commanders,
    /// The current fifogate.
    pub(crate) gate: watch::Receiver<Option<AsyncLink>>,
}

/// The served command interface.
#[derive(Debug)]
pub(crate) struct Interface {
    socket: PathBuf,
    commanders: Commanders,
    stop: watch::Sender<bool>,
    servers: Vec<JoinHandle<()>>,
}

impl Interface {
    /// Opens the sockets, and serves them. Returns the certificates of the TCP socket, too.
    ///
    /// # Errors
    /// A socket cannot be opened, or a file for TLS cannot be used.
    pub(crate) async fn serve(settings: Settings<'_>) -> io::Result<(Self, Certificates)> {
        let Settings { listen, run_dir, commanders, gate } = settings;
        let service = Service {
            commanders: commanders.clone(),
            gate,
            places: Arc::new(Semaphore::new(listen.most)),
            most: listen.most,
        };
        let (stop, stopped) = watch::channel(false);
        // Each socket has its own: whoever floods the network's leaves the local one to the operator.
        let places = || Arc::new(Semaphore::new(listen.most));
        let socket = run_dir.join(SOCKET);
        let unix = bind(&socket)?;
        let mut servers = vec![tokio::spawn(serve(
            router(Server::builder(), &service),
            accept(places(), unix),
            stopped.clone(),
        ))];
        let mut certificates = Certificates::default();
        if let Some((address, security)) = &listen.tcp {
            let named = |what: &dyn std::fmt::Display| {
                io::Error::other(format!("--listen {address}: {what}"))
            };
            let (server, later) = match security {
                Security::Tls(files) => {
                    let (own, server, later) =
                        Certificates::open(files).map_err(|error| named(&error))?;
                    certificates = own;
                    (server, Some(later))
                }
                Security::Insecure => (Server::builder(), None),
            };
            let listener = TcpListener::bind(address).await.map_err(|error| named(&error))?;
            let scheme = if later.is_some() { "https" } else { "http" };
            log::info!("commands are taken at {scheme}://{}", listener.local_addr()?);
            let incoming = accept(places(), listener);
            servers.push(tokio::spawn(serve_in_turn(server, later, service, incoming, stopped)));
        }
        Ok((Self { socket, commanders, stop, servers }, certificates))
    }

    /// Ends all streams, and removes the socket.
    pub(crate) async fn finish(self) {
        let _ = fs::remove_file(&self.socket);
        self.stop.send_replace(true);
        self.commanders.end_all("the agent ends");
        for server in self.servers {
            let abort = server.abort_handle();
            if timeout(LAST_PATIENCE, server).await.is_err() {
                abort.abort();
            }
        }
    }
}

/// Binds the socket, in place of one left over by an earlier agent.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        // Ours: the lock of the run directory is held.
        fs::remove_file(path).map_err(named)?;
    }
    let listener = UnixListener::bind(path).map_err(named)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(named)?;
    Ok(listener)
}

fn router(server: Server, service: &Service) -> Router {
    server
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .max_concurrent_streams(MOST_STREAMS)
        .add_service(
            CommandConnectionServer::new(service.clone()).max_decoding_message_size(MOST_MESSAGE),
        )
        .add_service(
            CliConnectionServer::new(service.clone()).max_decoding_message_size(MOST_MESSAGE),
        )
}

async fn serve<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    router: Router,
    incoming: ReceiverStream<io::Result<Connection<S>>>,
    mut stopped: watch::Receiver<bool>,
) {
    let stop = async move {
        // An error: the agent is gone.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    // Faults of single connections are theirs, and accepting is not this server's.
    let _ = router.serve_with_incoming_shutdown(incoming, stop).await;
}

/// Serves by one server after the other: each new one takes the connections from its arrival on. The one before it
/// serves those that it has, until their streams end, and asks their clients to connect again for more.
async fn serve_in_turn(
    mut server: Server,
    mut later: Option<mpsc::Receiver<Server>>,
    service: Service,
    mut incoming: ReceiverStream<io::Result<Connection<TcpStream>>>,
    stopped: watch::Receiver<bool>,
) {
    let mut servers = JoinSet::new();
    let next = async |later: &mut Option<mpsc::Receiver<Server>>| match later {
        Some(later) => later.recv().await,
        None => pending().await,
    };
    loop {
        let (feed, connections) = mpsc::channel(1);
        let connections = ReceiverStream::new(connections);
        servers.spawn(serve(router(server, &service), connections, stopped.clone()));
        server = loop {
            tokio::select! {
                Some(server) = next(&mut later) => break server,
                Some(connection) = incoming.next() => {
                    // An error: the server has stopped, as the agent ends.
                    let _ = feed.send(connection).await;
                }
                () = feed.closed() => {
                    servers.join_all().await;
                    return;
                }
                // Of an earlier server.
                Some(_) = servers.join_next() => {}
            }
        };
    }
}

/// A listening socket.
trait Listener: Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// Waits for the next connection.
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        let (stream, _) = self.accept().await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// Accepts connections, as far as there are places.
fn accept<L: Listener>(
    places: Arc<Semaphore>,
    listener: L,
) -> ReceiverStream<io::Result<Connection<L::Stream>>> {
    let (sender, incoming) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut refused = Refused::default();
        loop {
            let stream = tokio::select! {
                () = sender.closed() => return,
                stream = listener.next() => stream,
            };
            match (stream, Arc::clone(&places).try_acquire_owned()) {
                (Ok(stream), Ok(place)) => {
                    if sender.send(Ok(Connection::new(stream, place))).await.is_err() {
                        return;
                    }
                }
                // Dropped: the client sees the end of its connection.
                (Ok(_), Err(_)) => refused.note("as many as allowed are open"),
                (Err(error), _) => {
                    refused.note(&error.to_string());
                    sleep(PAUSE).await;
                }
            }
        }
    });
    ReceiverStream::new(incoming)
}

/// Connections not accepted, for the log.
#[derive(Debug, Default)]
struct Refused {
    count: u64,
    told: Option<Instant>,
}

impl Refused {
    fn note(&mut self, why: &str) {
        self.count += 1;
        if self.told.is_none_or(|told| told.elapsed() > TOLD) {
            let count = std::mem::take(&mut self.count);
            log::warn!("{count} connections for commands were not accepted: {why}");
            self.told = Some(Instant::now());
        }
    }
}
