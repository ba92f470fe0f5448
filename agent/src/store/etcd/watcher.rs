//! Watch of etcd: applies each revision to the view and sends it as one event.
//!
//! It starts at the known revision, and again after each lost connection. If etcd no longer has the
//! revisions in between, it reads all keys again. The view and the queue of events always move in the
//! order of revisions.

use std::{sync::Arc, time::Duration};

use etcd_client::{Client, EventType, WatchOptions, WatchResponse, WatchStream};
use tokio::{
    sync::mpsc::Sender,
    time::{sleep, timeout},
};

use super::{
    Connection, MOST_OPERATIONS, Shared,
    connect::{self, ANSWER, MOST_RESPONSE, Trouble, answer},
    lease,
    replica::Entry,
};
use crate::{apart, store::Event};

/// Delay between attempts to connect.
const DELAY: Duration = Duration::from_millis(200);

/// Runs until the receiver of events is gone or the agent leaves.
pub(super) async fn run(shared: Arc<Shared>, events: Sender<Event>) {
    let mut closing = shared.closing.subscribe();
    tokio::select! {
        _ = closing.wait_for(|closing| *closing) => {}
        () = events.closed() => {}
        () = follow(&shared, &events) => {}
    }
    shared.set_connection(None);
}

async fn follow(shared: &Arc<Shared>, events: &Sender<Event>) {
    let Ok(mut connection) = shared.connection() else { return };
    // One event for each loss and each return, however many attempts lie between.
    let mut away = false;
    let mut reason = String::new();
    for turn in 0_usize.. {
        if turn > 0 {
            let endpoints = &shared.options.endpoints;
            // The next endpoint each time: the last one may be the only one away.
            let endpoint = &endpoints[turn % endpoints.len()];
            match again(shared, events, endpoint, connection.lease).await {
                Ok(new) => connection = new,
                Err(Trouble::Taken(text)) => {
                    // No further attempt: the agent has to end, as its name belongs to another one.
                    shared.lost.send_replace(Some(text));
                    return;
                }
                Err(trouble) => {
                    let text = format!("etcd at {endpoint}: {trouble}");
                    // Each reason once: an outage takes an attempt every 200 ms.
                    if text != reason {
                        log::error!("{text}");
                        reason = text;
                    }
                    sleep(DELAY).await;
                    continue;
                }
            }
        }
        let trouble = tokio::select! {
            trouble = lease::keep(connection.clone(), shared) => trouble,
            trouble = stay(shared, events, &connection, &mut away) => trouble,
        };
        log::warn!("the connection to etcd is lost: {trouble}");
        shared.set_connection(None);
        if !away {
            away = true;
            let _ = events.send(Event::Reachable(false)).await;
        }
        reason.clear();
    }
}

/// Connects again and takes the name again.
async fn again(
    shared: &Shared,
    events: &Sender<Event>,
    endpoint: &str,
    lease: i64,
) -> Result<Connection, Trouble> {
    let mut client = connect::connect(&shared.options, endpoint).await?;
    let found = answer(client.get(shared.keys.layout(), None)).await?;
    let revision = found.header().map_or(0, |own| own.revision());
    let known = shared.view().revision;
    let lease = lease::rejoin(&mut client, shared, lease).await?;
    // An etcd restored from a backup continues from there, possibly past the known revision.
    if revision < known || !connect::was_so(&mut client, shared).await? {
        read_again(shared, events, &mut client).await?;
        log::warn!("etcd has another history than before: everything was read again");
    }
    Ok(Connection { client, lease })
}

async fn read_again(
    shared: &Shared,
    events: &Sender<Event>,
    client: &mut Client,
) -> Result<(), Trouble> {
    let _turn = shared.turn.lock().await;
    let mut view = connect::read(client, &shared.keys).await?;
    // Tags of absent agents are in no key: they come back with their agents from here.
    view.remember(&shared.view());
    let (tree, revision) = (view.current.tree().clone(), view.revision);
    let agent = &shared.options.agent;
    let lost = view.lost_states(&shared.view(), agent);
    for some in lost.chunks(MOST_OPERATIONS / 2) {
        // Seen by the watch as any other report. It fails if the name is lost, and the agent ends then.
        let puts = some.iter().map(|own| shared.operation(own)).collect();
        connect::put(client, shared.is_ours(), puts).await?;
    }
    let before = std::mem::replace(&mut *shared.view(), view);
    if tree != *before.current.tree() {
        let _ = events.send(Event::State { tree, changes: None }).await;
    }
    shared.told.send_replace(revision);
    Ok(())
}

/// Applies the responses of a connection until it ends.
async fn stay(
    shared: &Arc<Shared>,
    events: &Sender<Event>,
    connection: &Connection,
    away: &mut bool,
) -> Trouble {
    match pass_on(shared, events, connection, away).await {
        Ok(never) => match never {},
        Err(trouble) => trouble,
    }
}

async fn pass_on(
    shared: &Arc<Shared>,
    events: &Sender<Event>,
    connection: &Connection,
    away: &mut bool,
) -> Result<std::convert::Infallible, Trouble> {
    let mut client = connection.client.clone();
    let ended = || Trouble::Away("its watch ended".to_owned());
    loop {
        let mut stream = watch(shared, &mut client).await?;
        let mut begun = false;
        loop {
            let response =
                if begun { stream.message().await? } else { answer(stream.message()).await? };
            let response = response.ok_or_else(ended)?;
            if response.compact_revision() > 0 {
                read_again(shared, events, &mut client).await?;
                log::warn!("etcd has compacted revisions not read yet: everything was read again");
                break;
            }
            if response.canceled() {
                return Err(Trouble::Away(response.cancel_reason().to_owned()));
            }
            if !begun {
                begun = true;
                // Usable only once the watch answers: every update waits for its own event.
                shared.set_connection(Some(connection.clone()));
                if std::mem::take(away) {
                    let _ = events.send(Event::Reachable(true)).await;
                }
            }
            // A task of its own: once the view begins to move to a revision it completes, even if the
            // connection is lost.
            let told = tell(shared.clone(), events.clone(), revisions(&response));
            if tokio::spawn(told).await.is_err() {
                return Err(Trouble::Away("its changes cannot be told".to_owned()));
            }
        }
    }
}

async fn watch(shared: &Shared, client: &mut Client) -> Result<WatchStream, Trouble> {
    // From the known revision, which `tell` leaves out, and not the next one: after a compaction at the
    // next one, an etcd before 3.5.16 sends its other changes without the removals in it.
    let from = shared.view().revision;
    let options = WatchOptions::new().with_prefix().with_start_revision(from);
    // Unfragmented responses hold whole revisions, so they may be large.
    let mut watches = client.watch_client().max_decoding_message_size(MOST_RESPONSE);
    match timeout(ANSWER, watches.watch(shared.keys.prefix(), Some(options))).await {
        Ok(stream) => Ok(stream?),
        Err(_) => Err(Trouble::Away("it does not answer".to_owned())),
    }
}

/// Applies each revision and sends its changes as one event.
async fn tell(shared: Arc<Shared>, events: Sender<Event>, revisions: Vec<(i64, Vec<Entry>)>) {
    let _turn = shared.turn.lock().await;
    for (revision, entries) in revisions {
        let (changes, bytes, current) = {
            let mut view = shared.view();
            // A task of the connection before may have applied it already.
            if revision <= view.revision {
                continue;
            }
            let changes = view.begin(revision, entries);
            // With items left out before, applying may take many attempts.
            let is_small = !view.has_left_out();
            let bytes =
                if is_small { view.current.work_of_changes(&changes) } else { apart::LARGE };
            (changes, bytes, view.current.clone())
        };
        if !changes.is_empty() {
            let fitted = apart::plan(bytes, move || current.apply_what_fits(changes)).await;
            let finished = shared.view().finish(fitted);
            if let Some((tree, changes)) = finished {
                let _ = events.send(Event::State { tree, changes: Some(changes) }).await;
            }
        }
        shared.told.send_replace(revision);
    }
}

fn revisions(response: &WatchResponse) -> Vec<(i64, Vec<Entry>)> {
    let mut all: Vec<(i64, Vec<Entry>)> = Vec::new();
    for event in response.events() {
        let Some(kv) = event.kv() else { continue };
        let revision = kv.mod_revision();
        let key = String::from_utf8_lossy(kv.key()).into_owned();
        let value = (event.event_type() == EventType::Put).then(|| kv.value().to_vec());
        let entry = Entry { key, value, revision };
        match all.last_mut() {
            Some((last, entries)) if *last == revision => entries.push(entry),
            _ => all.push((revision, vec![entry])),
        }
    }
    all
}
