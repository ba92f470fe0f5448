//! The server itself, as far as a scripted client sees it.

use std::{thread, time::Duration};

use super::server::{FromServer, Incoming, Port, ToServer};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

const METHOD: &str = "/grpc_api.AgentConnection/ConnectAgent";

async fn connect(url: &str) -> Result<Channel, tonic::transport::Error> {
    Endpoint::from_shared(url.to_owned()).unwrap().connect().await
}

type Client = (mpsc::UnboundedSender<ToServer>, Streaming<FromServer>);

async fn open(channel: Channel, first: Vec<ToServer>) -> Result<Client, Status> {
    let (to, messages) = mpsc::unbounded_channel();
    first.into_iter().for_each(|message| to.send(message).unwrap());
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.unwrap();
    let request = Request::new(UnboundedReceiverStream::new(messages));
    let codec = ProstCodec::<ToServer, FromServer>::default();
    let answer = grpc.streaming(request, PathAndQuery::from_static(METHOD), codec).await?;
    Ok((to, answer.into_inner()))
}

/// Runs clients on a runtime of this thread.
fn block_on<T>(clients: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(clients)
}

#[test]
fn script_answers_ends_and_breaks_streams_and_is_away_for_a_while() {
    let port = Port::open();
    let client = || async {
        let channel = connect(&port.url()).await.unwrap();
        open(channel, vec![ToServer::hello("agent_A", "1.1.0")]).await
    };
    let script = || {
        let mut stream = port.accept();
        assert_eq!(stream.greet(Vec::new()).agent_name, "agent_A");
        stream.end();
        port.accept().fail(Status::failed_precondition("no"));
        let mut stream = port.accept();
        stream.greet(Vec::new());
        stream.reset();
        // A cancelled call is no broken one.
        assert!(matches!(port.accept().until_end(), Incoming::HalfClosed));
    };
    let clients = async {
        let (_to, mut from) = client().await.unwrap();
        assert_eq!(from.message().await.unwrap(), Some(FromServer::hello(Vec::new())));
        assert_eq!(from.message().await.unwrap(), None);
        assert_eq!(client().await.unwrap_err().message(), "no");
        // The reset may be faster than the headers.
        if let Ok((_to, mut from)) = client().await {
            while let Ok(Some(_)) = from.message().await {}
        }
        let channel = connect(&port.url()).await.unwrap();
        let fourth = open(channel.clone(), vec![ToServer::hello("agent_A", "1.1.0")]);
        let fourth = tokio::time::timeout(Duration::from_millis(200), fourth);
        assert!(fourth.await.is_err(), "no headers");
        // Only now the call is cancelled, on a connection that stays.
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    thread::scope(|scope| {
        let script = scope.spawn(script);
        block_on(clients);
        script.join().unwrap();
    });
    port.close();
    assert!(block_on(connect(&port.url())).is_err());
    port.reopen();
    block_on(connect(&port.url())).unwrap();
    assert_eq!((port.connections(), port.streams()), (5, 4));
    assert_eq!(port.record().all().len(), 4);
}
