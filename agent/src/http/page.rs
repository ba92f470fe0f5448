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
    let page = Page::new(sources);
    tokio::spawn(page.clone().follow_status());
    page.router()
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
    fn new(sources: Sources) -> Self {
        Self {
            sources,
            places: Arc::new(Semaphore::new(MOST_VIEWERS)),
            subscriptions: watch::channel(Arc::new(Value::Null)).0,
            came: Arc::default(),
        }
    }

    fn router(self) -> Router {
        Router::new().route("/", get(html)).route("/events", get(events)).with_state(self)
    }

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

#[cfg(test)]
mod tests {
    use fifogate::{
        internal::state::WORKLOAD_STATES,
        state::{Node, Tree},
    };
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        task::JoinHandle,
        time::Instant,
    };

    use super::*;
    use crate::{command_interface::Commanders, figures::Figures, http::connection};

    /// A browser at the page, with the few bytes that its connection holds.
    struct Browser {
        figures: Figures,
        page: Page,
        stream: DuplexStream,
        served: JoinHandle<()>,
    }

    impl Browser {
        async fn open() -> Self {
            let figures = Figures::default();
            let sources = Sources {
                agent: "agent_A".to_owned(),
                run_dir: "/does/not/exist".into(),
                figures: figures.clone(),
                commanders: Commanders::default(),
                gate: watch::channel(None).1,
            };
            let page = Page::new(sources);
            let (mut stream, own) = duplex(1 << 10);
            let served = tokio::spawn(connection(own, page.clone().router()));
            stream.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
            let mut browser = Self { figures, page, stream, served };
            browser.read_until("\"first\":true").await;
            browser
        }

        /// Reads until this has come, and returns all.
        async fn read_until(&mut self, text: &str) -> String {
            let mut all = Vec::new();
            loop {
                let count = self.stream.read_buf(&mut all).await.unwrap();
                let seen = String::from_utf8_lossy(&all);
                if seen.contains(text) {
                    return seen.into_owned();
                }
                assert!(count > 0, "{seen}");
            }
        }

        fn places(&self) -> usize {
            self.page.places.available_permits()
        }
    }

    /// A state in which each of 50 workloads has an execution state with this number.
    fn numbered(number: usize) -> Tree {
        let state = Node::map([("state", Node::text(&format!("State-{number}-")))]);
        let names = (0..50).map(|name| format!("a-workload-with-a-long-name-{name}"));
        let all = names.map(|name| (name, Node::map([("id", state.clone())])));
        model::empty().with(WORKLOAD_STATES, Some(Node::map([("agent_A", Node::map(all))])))
    }

    #[tokio::test(start_paused = true)]
    async fn browser_that_reads_nothing_for_30_seconds_is_dropped_and_its_place_is_free() {
        let mut browser = Browser::open().await;
        assert_eq!(browser.places(), MOST_VIEWERS - 1);
        let begun = Instant::now();
        let changes = tokio::spawn({
            let figures = browser.figures.clone();
            async move {
                for number in 0.. {
                    figures.follow(&numbered(number));
                    sleep(PAUSE).await;
                }
            }
        });
        timeout(PATIENCE * 4, &mut browser.served).await.expect("it is served for ever").unwrap();
        changes.abort();
        let seconds = begun.elapsed().as_secs();
        assert!((30..32).contains(&seconds), "{seconds}");
        assert_eq!(browser.places(), MOST_VIEWERS);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_browser_gets_few_changes_and_at_their_end_the_last_state() {
        let mut browser = Browser::open().await;
        for number in 0..400 {
            browser.figures.follow(&numbered(number));
            sleep(PAUSE).await;
        }
        let all = timeout(PATIENCE * 4, browser.read_until("State-399-")).await;
        let all = all.expect("the last state does not come");
        let count = all.matches("event: change").count();
        assert!((2..20).contains(&count), "{count}");
        assert!(!all.contains("State-300-"), "it waited here");
    }
}
