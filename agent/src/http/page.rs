//! The live page: one static page, and a stream of changes (docs/operations.md#live-page).
//!
//! A viewer gets the difference from its last state to the newest one. A slow one gets merged changes, so its
//! memory is bounded, and nobody waits for it.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::get,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::sync::atomic::Ordering::Relaxed;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;

use super::{Sources, Streaming, gate_status, view};
use crate::model;

const PAGE: &str = include_str!("page.html");
/// Most viewers at a time, less than connections: the page itself is there to tell of too many.
const MOST_VIEWERS: usize = 16;
/// Pause between two changes for a viewer: 20 a second.
const PAUSE: Duration = Duration::from_millis(50);
/// Interval of questions for the status while somebody looks.
const STATUS_PAUSE: Duration = Duration::from_secs(1);
/// Longest time without a read of a viewer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Shared by all viewers.
#[derive(Clone, Debug)]
struct Page {
    sources: Sources,
    places: Arc<Semaphore>,
    subscriptions: watch::Sender<Arc<Value>>,
    came: Arc<Notify>,
}

pub(super) fn router(sources: Sources) -> Router {
    let page = Page {
        sources,
        places: Arc::new(Semaphore::new(MOST_VIEWERS)),
        subscriptions: watch::channel(Arc::new(Value::Null)).0,
        came: Arc::default(),
    };
    tokio::spawn(page.clone().follow_status());
    Router::new().route("/", get(html)).route("/events", get(events)).with_state(page)
}

async fn html() -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, policy()),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, PAGE).into_response()
}

/// Only the page's own script runs, and it talks to us alone.
fn policy() -> HeaderValue {
    let hash = |tag: &str| {
        let (_, rest) = PAGE.split_once(&format!("<{tag}>")).unwrap_or_default();
        let (text, _) = rest.split_once(&format!("</{tag}>")).unwrap_or_default();
        BASE64_STANDARD.encode(Sha256::digest(text))
    };
    let text = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash("script"),
        hash("style"),
    );
    // It is ASCII.
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

async fn events(
    State(page): State<Page>,
    Extension(streaming): Extension<Arc<Streaming>>,
) -> Response {
    let Ok(place) = Arc::clone(&page.places).try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many look at this page\n").into_response();
    };
    streaming.is_begun.store(true, Relaxed);
    // One: what a viewer has not read yet is merged here, by the next difference.
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        if page.show(&sender, place).await == Shown::Stuck {
            streaming.given_up.notify_one();
        }
    });
    let headers = [(header::CACHE_CONTROL, "no-store")];
    let events = Sse::new(ReceiverStream::new(receiver)).keep_alive(KeepAlive::default());
    (headers, events).into_response()
}

/// How a stream ended.
#[derive(Debug, PartialEq, Eq)]
enum Shown {
    /// Its viewer is gone.
    Gone,
    /// Its viewer does not read.
    Stuck,
}

type Sender = mpsc::Sender<Result<Event, Infallible>>;

impl Page {
    /// Shows everything to one viewer until it is gone.
    async fn show(self, sender: &Sender, _place: OwnedSemaphorePermit) -> Shown {
        let mut trees = self.sources.figures.states();
        let mut subscriptions = self.subscriptions.subscribe();
        self.came.notify_one();
        let hello = serde_json::json!({
            "agent": self.sources.agent, "version": env!("CARGO_PKG_VERSION"),
        });
        if let Err(end) = send(sender, "hello", &hello).await {
            return end;
        }
        let (mut shown, mut first) = (model::empty(), true);
        loop {
            let tree = trees.borrow_and_update().clone();
            if let Some(change) = view::change(&shown, &tree, first) {
                if let Err(end) = send(sender, "change", &change).await {
                    return end;
                }
                sleep(PAUSE).await;
            }
            (shown, first) = (tree, false);
            tokio::select! {
                () = sender.closed() => return Shown::Gone,
                // The sender lives as long as the agent.
                _ = trees.changed() => {}
                _ = subscriptions.changed() => {
                    let now = subscriptions.borrow_and_update().clone();
                    if let Err(end) = send(sender, "subscriptions", &now).await {
                        return end;
                    }
                }
            }
        }
    }

    /// Asks fifogate while somebody looks.
    async fn follow_status(self) {
        loop {
            while self.subscriptions.receiver_count() == 0 {
                self.came.notified().await;
            }
            let status = gate_status::ask(&self.sources.run_dir).await;
            let now = view::subscriptions(status.as_ref());
            self.subscriptions.send_replace(Arc::new(now));
            sleep(STATUS_PAUSE).await;
        }
    }
}

async fn send(sender: &Sender, name: &str, data: &Value) -> Result<(), Shown> {
    let event = Event::default().event(name).data(data.to_string());
    match timeout(PATIENCE, sender.send(Ok(event))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Shown::Gone),
        Err(_) => Err(Shown::Stuck),
    }
}
