//! Follows etcd: one watch for everything, from the revision that is known; again after each loss of
//! the connection, and from a new reading if what happened meanwhile cannot be had any more.

use std::{sync::Arc, time::Duration};

use etcd_client::{Client, EventType, WatchOptions, WatchResponse, WatchStream};
use tokio::{
    sync::mpsc::Sender,
    time::{sleep, timeout},
};

use super::{
    Connection, Shared,
    connect::{self, ANSWER, Trouble, answer},
    lease,
    replica::Entry,
};
use crate::{apart, store::Event};

/// What is waited between attempts to connect.
const DELAY: Duration = Duration::from_millis(200);
/// What many revisions at once may take.
const MOST_RESPONSE: usize = 1 << 30;

/// Follows until nobody listens or the agent leaves.
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
    let mut away = false;
    let mut reason = String::new();
    for turn in 0_usize.. {
        if turn > 0 {
            let endpoints = &shared.options.endpoints;
            let endpoint = &endpoints[turn % endpoints.len()];
            match again(shared, events, endpoint, connection.lease).await {
                Ok(new) => connection = new,
                Err(Trouble::Taken(text)) => {
                    shared.lost.send_replace(Some(text));
                    return;
                }
                Err(trouble) => {
                    let text = format!("etcd at {endpoint}: {trouble}");
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

/// A new connection, and the name again.
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
    // One that was restored from a backup goes on from there, maybe past what is known already.
    if revision < known || !connect::was_so(&mut client, shared).await? {
        log::warn!("etcd knows another past than it did; everything is read again");
        read_again(shared, events, &mut client).await?;
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
    view.remember(&shared.view());
    let (tree, revision) = (view.current.tree().clone(), view.revision);
    let before = std::mem::replace(&mut *shared.view(), view);
    if tree != *before.current.tree() {
        let _ = events.send(Event::State { tree, changes: None }).await;
    }
    shared.told.send_replace(revision);
    Ok(())
}

/// Passes on what a connection tells, until it ends.
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
                log::warn!("etcd was compacted past what is known; everything is read again");
                read_again(shared, events, &mut client).await?;
                break;
            }
            if response.canceled() {
                return Err(Trouble::Away(response.cancel_reason().to_owned()));
            }
            if !begun {
                begun = true;
                shared.set_connection(Some(connection.clone()));
                if std::mem::take(away) {
                    let _ = events.send(Event::Reachable(true)).await;
                }
            }
            // A task of its own: a view that began to go on goes on, also if the connection is lost.
            let told = tell(shared.clone(), events.clone(), revisions(&response));
            if tokio::spawn(told).await.is_err() {
                return Err(Trouble::Away("its changes cannot be told".to_owned()));
            }
        }
    }
}

async fn watch(shared: &Shared, client: &mut Client) -> Result<WatchStream, Trouble> {
    let from = shared.view().revision + 1;
    let options = WatchOptions::new().with_prefix().with_start_revision(from);
    // Without fragments a response holds whole revisions; so it may be large.
    let mut watches = client.watch_client().max_decoding_message_size(MOST_RESPONSE);
    match timeout(ANSWER, watches.watch(shared.keys.prefix(), Some(options))).await {
        Ok(stream) => Ok(stream?),
        Err(_) => Err(Trouble::Away("it does not answer".to_owned())),
    }
}

/// Tells the changes of each revision as one event.
async fn tell(shared: Arc<Shared>, events: Sender<Event>, revisions: Vec<(i64, Vec<Entry>)>) {
    let _turn = shared.turn.lock().await;
    for (revision, entries) in revisions {
        let (changes, bytes, current) = {
            let mut view = shared.view();
            if revision <= view.revision {
                continue;
            }
            let changes = view.begin(revision, entries);
            // Where some did not fit before, there may be many attempts.
            let is_small = !view.has_left_out();
            let bytes =
                if is_small { view.current.bytes_of_changes(&changes) } else { apart::LARGE };
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
