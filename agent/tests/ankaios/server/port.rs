//! A TCP port that speaks gRPC, and can be closed and opened again.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc as blocking,
    },
    task::{Context, Poll},
    thread,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpSocket, TcpStream},
    sync::{mpsc, oneshot, watch},
};
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codegen::{BoxFuture, Service, http},
    server::{Grpc, NamedService, StreamingService},
    transport::{
        Server, ServerTlsConfig,
        server::{Connected, TlsConnectInfo},
    },
};
use tonic_prost::ProstCodec;

use super::{
    PATIENCE,
    messages::{FromServer, ToServer},
    record::Record,
    stream::{Incoming, Stream},
};

const METHOD: &str = "/grpc_api.AgentConnection/ConnectAgent";

/// The port. Dropped, it is closed, and all of its connections are reset.
#[derive(Debug)]
pub(crate) struct Port {
    address: SocketAddr,
    scheme: &'static str,
    commands: mpsc::UnboundedSender<Command>,
    streams: Mutex<Option<blocking::Receiver<Stream>>>,
    record: Record,
    counts: Arc<Counts>,
    peers: Peers,
}

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicUsize,
    streams: AtomicUsize,
}

#[derive(Debug)]
enum Command {
    Open(blocking::Sender<()>),
    Close(blocking::Sender<()>),
}

impl Port {
    /// Opens a port without TLS.
    pub(crate) fn open() -> Self {
        Self::with(None)
    }

    /// Opens a port with mutual TLS.
    pub(crate) fn open_with_tls(config: ServerTlsConfig) -> Self {
        Self::with(Some(config))
    }

    fn with(tls: Option<ServerTlsConfig>) -> Self {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let (commands, received) = mpsc::unbounded_channel();
        let (opened, streams) = blocking::channel();
        let (bound, address) = blocking::channel();
        let (record, counts, peers) = (Record::default(), Arc::default(), Peers::default());
        let service =
            Ankaios { streams: opened, record: record.clone(), counts: Arc::clone(&counts) };
        let (own_counts, own_peers) = (Arc::clone(&counts), peers.clone());
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async move {
                let reserved = bind("127.0.0.1:0".parse().unwrap());
                let address = reserved.local_addr().unwrap();
                bound.send(address).unwrap();
                let (to, connections) = mpsc::channel(64);
                let mut builder = Server::builder();
                if let Some(tls) = tls {
                    builder = builder.tls_config(tls).unwrap();
                }
                let server = builder.add_service(service);
                tokio::spawn(server.serve_with_incoming(ReceiverStream::new(connections)));
                obey(received, address, &to, &own_counts, &own_peers).await;
            });
        });
        let address = address.recv().unwrap();
        let streams = Mutex::new(Some(streams));
        let port = Self { address, scheme, commands, streams, record, counts, peers };
        port.reopen();
        port
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens again.
    pub(crate) fn reopen(&self) {
        self.command(Command::Open);
    }

    /// Refuses connections from now on, and resets those that are there.
    pub(crate) fn close(&self) {
        self.command(Command::Close);
        self.reset_all();
    }

    /// Resets all connections. The port goes on to listen.
    pub(crate) fn reset_all(&self) {
        for peer in self.peers.0.lock().unwrap().values() {
            peer.reset();
        }
    }

    fn command(&self, command: impl FnOnce(blocking::Sender<()>) -> Command) {
        let (done, is_done) = blocking::channel();
        self.commands.send(command(done)).unwrap();
        is_done.recv().unwrap();
    }

    /// The next stream of an agent.
    pub(crate) fn accept(&self) -> Stream {
        self.accept_within(PATIENCE).expect("no agent came")
    }

    /// The next stream of an agent, if one is opened in this time.
    pub(crate) fn accept_within(&self, patience: Duration) -> Option<Stream> {
        let streams = self.streams.lock().unwrap();
        streams.as_ref().expect("a model accepts the streams").recv_timeout(patience).ok()
    }

    /// All streams from now on. The receiver ends with the port.
    pub(super) fn take_streams(&self) -> blocking::Receiver<Stream> {
        self.streams.lock().unwrap().take().expect("the streams are taken once")
    }

    /// All messages of agents.
    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// TCP connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.counts.connections.load(Ordering::Relaxed)
    }

    /// Streams so far, those of refused agents too.
    pub(crate) fn streams(&self) -> usize {
        self.counts.streams.load(Ordering::Relaxed)
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.reset_all();
    }
}

/// A socket at this address that does not listen yet.
fn bind(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

/// Opens and closes the port. Ends, and with it the runtime, when the handle is dropped.
async fn obey(
    mut commands: mpsc::UnboundedReceiver<Command>,
    address: SocketAddr,
    to: &mpsc::Sender<io::Result<Connection>>,
    counts: &Arc<Counts>,
    peers: &Peers,
) {
    let mut listening: Option<tokio::task::JoinHandle<()>> = None;
    while let Some(command) = commands.recv().await {
        let done = match command {
            Command::Open(done) => {
                if listening.is_none() {
                    let listener = bind(address).listen(64).unwrap();
                    let (to, counts, peers) = (to.clone(), Arc::clone(counts), peers.clone());
                    listening = Some(tokio::spawn(async move {
                        while let Ok((stream, _)) = listener.accept().await {
                            let number = counts.connections.fetch_add(1, Ordering::Relaxed);
                            let connection = Connection::new(stream, number, &peers);
                            if to.send(Ok(connection)).await.is_err() {
                                return;
                            }
                        }
                    }));
                }
                done
            }
            Command::Close(done) => {
                if let Some(task) = listening.take() {
                    task.abort();
                    // Afterwards the listener is dropped.
                    let _ = task.await;
                }
                done
            }
        };
        let _ = done.send(());
    }
}

/// Connections by their numbers.
#[derive(Clone, Debug, Default)]
struct Peers(Arc<Mutex<BTreeMap<usize, Peer>>>);

/// The other end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    cut: watch::Sender<bool>,
    /// Its certificates, in DER; none without TLS.
    pub(super) certificates: Option<Vec<Vec<u8>>>,
}

impl Peer {
    pub(super) fn reset(&self) {
        self.cut.send_replace(true);
    }
}

/// A connection that can be cut.
struct Connection {
    stream: TcpStream,
    number: usize,
    peers: Peers,
    peer: Peer,
    cut: Pin<Box<dyn Future<Output = ()> + Send>>,
    is_cut: bool,
}

impl Connection {
    fn new(stream: TcpStream, number: usize, peers: &Peers) -> Self {
        let (cut, mut is_cut) = watch::channel(false);
        let peer = Peer { cut, certificates: None };
        peers.0.lock().unwrap().insert(number, peer.clone());
        let cut = Box::pin(async move {
            let _ = is_cut.wait_for(|cut| *cut).await;
        });
        Self { stream, number, peers: peers.clone(), peer, cut, is_cut: false }
    }

    /// Fails once the connection is cut. Dropped after that, it sends a reset in place of an end.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if !self.is_cut {
            if self.cut.as_mut().poll(context).is_pending() {
                return Ok(());
            }
            self.is_cut = true;
            self.stream.set_zero_linger()?;
        }
        Err(io::ErrorKind::ConnectionReset.into())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.peers.0.lock().unwrap().remove(&self.number);
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

/// The service: each call becomes a [`Stream`] for whoever accepts it.
#[derive(Clone, Debug)]
struct Ankaios {
    streams: blocking::Sender<Stream>,
    record: Record,
    counts: Arc<Counts>,
}

impl NamedService for Ankaios {
    const NAME: &'static str = "grpc_api.AgentConnection";
}

impl Service<http::Request<Body>> for Ankaios {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let own = self.clone();
        Box::pin(async move {
            if request.uri().path() != METHOD {
                return Ok(Status::unimplemented("").into_http());
            }
            let mut grpc = Grpc::new(ProstCodec::<FromServer, ToServer>::default());
            Ok(grpc.streaming(own, request).await)
        })
    }
}

impl StreamingService<ToServer> for Ankaios {
    type Response = FromServer;
    type ResponseStream = UnboundedReceiverStream<Result<FromServer, Status>>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<Streaming<ToServer>>) -> Self::Future {
        let number = self.counts.streams.fetch_add(1, Ordering::Relaxed);
        let peer = peer(&request);
        let (headers, sent) = oneshot::channel();
        let (outgoing, messages) = mpsc::unbounded_channel();
        let (to, incoming) = blocking::channel();
        tokio::spawn(read(request.into_inner(), number, self.record.clone(), to));
        let (headers, outgoing) = (Some(headers), Some(outgoing));
        let opened = Instant::now();
        let _ = self.streams.send(Stream { number, opened, peer, incoming, headers, outgoing });
        Box::pin(async move {
            // A stream that nobody accepts ends with OK.
            sent.await.unwrap_or(Ok(()))?;
            Ok(Response::new(UnboundedReceiverStream::new(messages)))
        })
    }
}

fn peer(request: &Request<Streaming<ToServer>>) -> Peer {
    let extensions = request.extensions();
    // With TLS there are both.
    if let Some(tls) = extensions.get::<TlsConnectInfo<Peer>>() {
        let certificates = tls.peer_certs().unwrap_or_default();
        let certificates = certificates.iter().map(|own| own.as_ref().to_vec()).collect();
        return Peer { certificates: Some(certificates), ..tls.get_ref().clone() };
    }
    extensions.get::<Peer>().expect("a connection").clone()
}

/// Passes on what comes from an agent, until its end.
async fn read(
    mut from: Streaming<ToServer>,
    number: usize,
    record: Record,
    to: blocking::Sender<Incoming>,
) {
    loop {
        let incoming = match from.message().await {
            Ok(Some(message)) => {
                record.push(number, message.clone());
                Incoming::Message(message)
            }
            Ok(None) => Incoming::HalfClosed,
            Err(status) => Incoming::Broken(status),
        };
        let is_end = !matches!(incoming, Incoming::Message(_));
        let _ = to.send(incoming);
        if is_end {
            return;
        }
    }
}
