//! Watch of etcd: applies each revision to the view and sends it as one event.
//!
//! It starts at the known revision, and again after each lost connection. If etcd no longer has the
//! revisions in between, it reads all keys again. The view and the queue of events always move in the
//! order of revisions.

use std::{sync::Arc, time::Duration};

use etcd_client::{
    Client, Compare, CompareOp, EventType, GetOptions, KeyValue, WatchOptions, WatchResponse,
    WatchStream,
};
use tokio::{
    sync::mpsc::Sender,
    time::{sleep, timeout},
};

use super::{
    Connection, MOST_OPERATIONS, Shared,
    connect::{self, ANSWER, MOST_RESPONSE, Trouble, answer},
    keys::Write,
    lease,
    replica::Entry,
};
use crate::{apart, store::Event};

/// Delay between attempts to connect.
const DELAY: Duration = Duration::from_millis(200);

/// Most reasons logged for one outage.
const MOST_REASONS: usize = 20;

/// Runs until the receiver of events is gone or the agent leaves.
pub(super) async fn run(shared: Arc<Shared>, events: Sender<Event>) {
    let mut closing = shared.closing.subscribe();
    tokio::select! {
        _ = closing.wait_for(|closing| *closing) => {}
        () = events.closed() => {}
        () = follow(&shared, &events) => {}
    }
    shared.set_connection(Err(None));
}

/// What was said last about the store: each change of it is one event, however many attempts lie between.
#[derive(Debug, PartialEq)]
enum Standing {
    Usable,
    Away,
    /// etcd answers, but an operator has to act, for this reason.
    Unusable(String),
}

impl Standing {
    async fn become_and_tell(&mut self, new: Self, events: &Sender<Event>) {
        if *self == new {
            return;
        }
        let event = match &new {
            Self::Usable => Event::Reachable(true),
            Self::Away => Event::Reachable(false),
            Self::Unusable(reason) => Event::Unusable(reason.clone()),
        };
        let _ = events.send(event).await;
        *self = new;
    }
}

async fn follow(shared: &Arc<Shared>, events: &Sender<Event>) {
    let Ok(mut connection) = shared.connection() else { return };
    let mut standing = Standing::Usable;
    let mut reasons = Vec::new();
    for turn in 0_usize.. {
        if turn > 0 {
            let endpoints = &shared.options.endpoints;
            // The next endpoint each time: the last one may be the only one away.
            let endpoint = &endpoints[turn % endpoints.len()];
            match again(shared, endpoint, connection.lease).await {
                Ok(new) => connection = new,
                Err(Trouble::Taken(text)) => {
                    // No further attempt: the agent has to end, as its name belongs to another one.
                    shared.lost.send_replace(Some(text));
                    return;
                }
                Err(trouble) => {
                    let text = format!("etcd at {endpoint}: {trouble}");
                    // Each reason once: an outage takes an attempt every 200 ms, and fails in a few ways.
                    if reasons.len() < MOST_REASONS && !reasons.contains(&text) {
                        log::error!("{text}");
                        reasons.push(text);
                    }
                    sleep(DELAY).await;
                    continue;
                }
            }
        }
        let trouble = tokio::select! {
            trouble = lease::keep(connection.clone(), shared) => trouble,
            trouble = stay(shared, events, &connection, &mut standing) => trouble,
            never = shared.finish_large_updates() => never,
        };
        let was_of_use = matches!(standing, Standing::Usable);
        shared.set_connection(Err(None));
        standing.become_and_tell(Standing::Away, events).await;
        if was_of_use {
            log::warn!("the connection to etcd is lost: {trouble}");
            reasons.clear();
        } else {
            // It was lost before it was of any use, as the next one may be.
            let text = format!("the connection to etcd is lost: {trouble}");
            if reasons.len() < MOST_REASONS && !reasons.contains(&text) {
                log::warn!("{text}");
                reasons.push(text);
            }
            sleep(DELAY).await;
        }
    }
}

/// Connects again and takes the name again.
async fn again(shared: &Shared, endpoint: &str, lease: i64) -> Result<Connection, Trouble> {
    let mut client = connect::connect(&shared.options, endpoint).await?;
    let lease = lease::rejoin(&mut client, shared, lease).await?;
    Ok(Connection { client, lease })
}

/// Reads everything again if etcd was restored from a backup. It continues from there, possibly past the
/// known revision.
async fn check_history(
    shared: &Shared,
    events: &Sender<Event>,
    client: &mut Client,
) -> Result<(), Trouble> {
    let found = answer(client.get(shared.keys.layout(), None)).await?;
    let layout = found.kvs().first().map(KeyValue::value);
    connect::check_layout(&shared.keys, layout)?;
    let revision = found.header().map_or(0, |own| own.revision());
    let known = shared.view().revision;
    if revision < known || !connect::was_so(client, shared).await? {
        read_again(shared, events, client).await?;
        log::warn!("etcd has another history than before: everything was read again");
    }
    say_again(shared, client).await
}

/// Writes the states of this agent's workloads again where etcd lost them. It may have lost them also where
/// the history up to the known revision is the same.
async fn say_again(shared: &Shared, client: &mut Client) -> Result<(), Trouble> {
    let own = shared.keys.states(&shared.options.agent);
    let mut reads = client.kv_client().max_decoding_message_size(MOST_RESPONSE);
    let mut found = answer(reads.get(own, Some(GetOptions::new().with_prefix()))).await?;
    let found: Vec<_> = found.take_kvs().into_iter().map(connect::entry).collect();
    let lost = shared.view().lost_states(&found);
    for some in lost.chunks(MOST_OPERATIONS / 2) {
        // Seen by the watch as any other report. A report that is under way is noted already.
        let as_read = |(own, revision): &(Write, i64)| {
            Compare::mod_revision(own.key.as_str(), CompareOp::Equal, *revision)
        };
        let when: Vec<_> = some.iter().map(as_read).chain([shared.is_ours()]).collect();
        let puts = some.iter().map(|(own, _)| shared.operation(own)).collect();
        if !connect::put(client, when, puts).await? {
            // The next connection takes the name again, or finds that another agent has it.
            return Err(Trouble::Away("own states cannot be written again".to_owned()));
        }
    }
    Ok(())
}

async fn read_again(
    shared: &Shared,
    events: &Sender<Event>,
    client: &mut Client,
) -> Result<(), Trouble> {
    let _turn = shared.turn.lock().await;
    // Somebody may have deleted the name in a revision that is left out here.
    shared.doubt.notify_one();
    let mut view = connect::read(client, &shared.keys).await?;
    let (tree, revision) = (view.current.tree().clone(), view.revision);
    // From here on without a wait: if the lease is lost meanwhile, a wait would be the end of this, and
    // nobody would ever be sent the state that the view has.
    let ended = |_| Trouble::Away("nobody takes its changes".to_owned());
    let permit = events.reserve().await.map_err(ended)?;
    let before = {
        let mut own = shared.view();
        view.remember(&own);
        std::mem::replace(&mut *own, view)
    };
    if tree != *before.current.tree() {
        permit.send(Event::State { tree, changes: None });
    }
    shared.told.send_replace(revision);
    Ok(())
}

/// Applies the responses of a connection until it ends. The lease is renewed meanwhile, so the agent goes on
/// while etcd holds no state.
async fn stay(
    shared: &Arc<Shared>,
    events: &Sender<Event>,
    connection: &Connection,
    standing: &mut Standing,
) -> Trouble {
    loop {
        match pass_on(shared, events, connection, standing).await {
            Ok(never) => match never {},
            Err(Trouble::Lasting(reason)) => {
                shared.set_connection(Err(Some(reason.clone())));
                standing.become_and_tell(Standing::Unusable(reason), events).await;
                sleep(DELAY).await;
                // The name may have gone with the state, and nothing is watched meanwhile.
                shared.doubt.notify_one();
            }
            Err(trouble) => return trouble,
        }
    }
}

async fn pass_on(
    shared: &Arc<Shared>,
    events: &Sender<Event>,
    connection: &Connection,
    standing: &mut Standing,
) -> Result<std::convert::Infallible, Trouble> {
    let mut client = connection.client.clone();
    let ended = || Trouble::Away("its watch ended".to_owned());
    check_history(shared, events, &mut client).await?;
    lease::advertise(&mut client, shared, connection.lease).await?;
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
            let revisions = revisions(&response);
            if touches_name(shared, &revisions) {
                shared.doubt.notify_one();
            }
            // The keys of a deleted state are no state: without them all workloads would end.
            if changes_layout(shared, &revisions) {
                read_again(shared, events, &mut client).await?;
                say_again(shared, &mut client).await?;
                log::warn!("the state in etcd was begun anew: everything was read again");
                break;
            }
            if !begun {
                begun = true;
                // Usable only once the watch answers: every update waits for its own event.
                shared.set_connection(Ok(connection.clone()));
                standing.become_and_tell(Standing::Usable, events).await;
            }
            // A task of its own: once the view begins to move to a revision it completes, even if the
            // connection is lost.
            let told = tell(shared.clone(), events.clone(), revisions);
            if tokio::spawn(told).await.is_err() {
                return Err(Trouble::Away("its changes cannot be told".to_owned()));
            }
        }
    }
}

/// Whether the marker of the layout was deleted or has another value.
fn changes_layout(shared: &Shared, revisions: &[(i64, Vec<Entry>)]) -> bool {
    let (layout, known) = (shared.keys.layout(), shared.view().revision);
    let new = revisions.iter().filter(|(revision, _)| *revision > known);
    new.flat_map(|(_, entries)| entries).any(|own| {
        own.key == layout && connect::check_layout(&shared.keys, own.value.as_deref()).is_err()
    })
}

/// Whether somebody has deleted or written what says that the name is this agent's: until it is written
/// again, another agent could take it.
fn touches_name(shared: &Shared, revisions: &[(i64, Vec<Entry>)]) -> bool {
    let (agent, known) = (&shared.options.agent, shared.view().revision);
    let ours = [
        (shared.keys.owner(agent), shared.holder.id.clone().into_bytes()),
        (shared.keys.holder(agent), shared.holder.encode()),
    ];
    let new = revisions.iter().filter(|(revision, _)| *revision > known);
    new.flat_map(|(_, entries)| entries).any(|own| {
        ours.iter().any(|(key, value)| own.key == *key && own.value.as_ref() != Some(value))
    })
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
        let step = {
            let mut view = shared.view();
            // A task of the connection before may have applied it already.
            if revision <= view.revision {
                continue;
            }
            view.begin(revision, entries)
        };
        if !step.is_empty() {
            let fitted = apart::plan(step.work(), move || step.fit()).await;
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
