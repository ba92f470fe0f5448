//! Connections to etcd: connecting, checking the layout, seeding, and reading all keys.
//!
//! Options go in; a client and a consistent [`View`] come out. Each request has a time limit. Only one
//! agent seeds an empty cluster; the next agent discards an unfinished seeding.

use std::{fmt, fs, time::Duration};

use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, DeleteOptions, Error, GetOptions,
    Identity, KeyValue, PutOptions, SortOrder, SortTarget, TlsOptions, Txn, TxnOp,
};
use fifogate::state::{
    Tree,
    convert::{self, Fill},
};
use tokio::time::{Instant, sleep, timeout};

use super::{
    MOST_OPERATIONS, Options, Shared,
    channel::channel,
    holder::Holder,
    keys::{self, Keys, Write},
    lease,
    replica::{Entry, View},
};
use crate::{
    apart,
    model::{StateModel, Update},
    store::{Change, OpenError, Refused},
};

/// Time limit of one request to etcd.
pub(super) const ANSWER: Duration = Duration::from_secs(3);
/// Time limit for another agent to finish seeding.
const SEEDING: Duration = Duration::from_secs(30);
/// Most keys per page of a read.
const PAGE: i64 = 500;
/// Most bytes per page, unless one value is larger.
const PAGE_BYTES: usize = 16 << 20;
/// Most bytes of a response that cannot be divided: one value, or a watch's revisions.
pub(super) const MOST_RESPONSE: usize = 1 << 30;
/// Most bytes of one transaction of the seeding, unless one item is larger. etcd's `--max-request-bytes`
/// is 1.5 MiB by default.
const SEED_BYTES: usize = 1 << 20;

/// The reason for etcd being of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// A retry may succeed.
    #[error("{0}")]
    Away(String),
    /// An operator has to act first.
    #[error("{0}")]
    Lasting(String),
    /// Another process owns the name of this agent.
    #[error("{0}")]
    Taken(String),
    /// The cluster is empty, and has nothing to begin with.
    #[error("it has no state yet")]
    NoSeed,
}

/// No endpoint of etcd is of use: each with its trouble.
#[derive(Debug)]
pub struct EtcdError(Vec<(String, Trouble)>);

impl fmt::Display for EtcdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (endpoint, trouble)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}etcd at {endpoint}: {trouble}")?;
        }
        Ok(())
    }
}

impl std::error::Error for EtcdError {}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match error {
            // Code and metadata would make the message too long.
            Error::GRpcStatus(status) => {
                Self::Away(with_causes(status.message().to_owned(), &status))
            }
            error => Self::Away(with_causes(error.to_string(), &error)),
        }
    }
}

/// The text of an error, with the texts of its causes as far as they add something.
pub(super) fn with_causes(mut text: String, error: &dyn std::error::Error) -> String {
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// The rejection of a transaction, if etcd is certain not to have applied it.
pub(super) fn refusal(error: &Error) -> Option<Refused> {
    const INVALID_ARGUMENT: i32 = 3;
    const PERMISSION_DENIED: i32 = 7;
    const RESOURCE_EXHAUSTED: i32 = 8;
    const UNAUTHENTICATED: i32 = 16;
    let Error::GRpcStatus(status) = error else { return None };
    let text = status.message();
    match status.code() as i32 {
        // `larger than max` comes from etcd's gRPC layer, with a limit slightly above etcd's own.
        INVALID_ARGUMENT | RESOURCE_EXHAUSTED
            if text.contains("too large") || text.contains("larger than max") =>
        {
            Some(Refused::Invalid(format!(
                "The update is too large for etcd, which takes `--max-request-bytes`: {text}"
            )))
        }
        INVALID_ARGUMENT => Some(Refused::Invalid(format!("etcd refuses the update: {text}"))),
        PERMISSION_DENIED | UNAUTHENTICATED => Some(Refused::Unavailable(format!(
            "The update was not done: etcd does not let this agent write there: {text}"
        ))),
        RESOURCE_EXHAUSTED => Some(Refused::Unavailable(format!(
            "The update was not done: etcd is full, or has too much to do: {text}"
        ))),
        _ => None,
    }
}

/// Whether a request failed because the users or roles of etcd have changed since our token was made. The
/// client itself only renews tokens that have ended.
pub(super) fn has_outdated_token(error: &Error) -> bool {
    let Error::GRpcStatus(status) = error else { return false };
    status.message().contains("revision of auth store is old")
}

/// Waits for an answer of etcd within the time limit.
pub(super) async fn answer<T>(
    question: impl Future<Output = Result<T, Error>>,
) -> Result<T, Trouble> {
    match timeout(ANSWER, question).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Trouble::Away("it does not answer".to_owned())),
    }
}

/// Converts the desired state of a manifest to items.
fn seeded(seed: &Tree) -> Result<Vec<Change>, OpenError> {
    let update = Update { new_state: convert::to_pb(seed, Fill::Full), ..Update::default() };
    let planned = StateModel::default()
        .update(&update)
        .map_err(|refused| OpenError::Seed(refused.to_string()))?;
    Ok(planned.changes)
}

/// An opened cluster.
pub(super) struct Opened {
    pub(super) client: Client,
    /// The lease of the agent's name, and its time to live.
    pub(super) lease: (i64, Duration),
    pub(super) view: View,
    /// This agent wrote the first state.
    pub(super) is_new: bool,
}

/// Opens the cluster: connects, seeds it if it is new, takes the agent's name, and reads all keys.
pub(super) async fn open(
    options: &Options,
    keys: &Keys,
    own: &Holder,
    seed: Option<&Tree>,
) -> Result<Opened, OpenError> {
    let seed = match seed {
        _ if options.needs_state => Err(OpenError::NoState),
        Some(seed) => seeded(seed),
        None => Ok(Vec::new()),
    };
    let mut failed = Vec::new();
    for endpoint in &options.endpoints {
        let mut client = match connect(options, endpoint).await {
            Ok(client) => client,
            Err(trouble) => {
                failed.push((endpoint.clone(), trouble));
                continue;
            }
        };
        let named = |trouble| EtcdError(vec![(endpoint.clone(), trouble)]);
        let first = seed.as_deref().ok();
        let is_new = match (begin(&mut client, keys, options.lease, &own.id, first).await, seed) {
            (Err(Trouble::NoSeed), Err(fault)) => return Err(fault),
            (begun, _) => begun.map_err(named)?,
        };
        let lease = lease::join(&mut client, options, keys, own).await.map_err(named)?;
        let view = read(&mut client, keys).await.map_err(named)?;
        return Ok(Opened { client, lease, view, is_new });
    }
    Err(EtcdError(failed).into())
}

/// Connects to one etcd server.
pub(super) async fn connect(options: &Options, endpoint: &str) -> Result<Client, Trouble> {
    let lasting =
        |path: &std::path::Path, error| Trouble::Lasting(format!("{}: {error}", path.display()));
    let mut tls = None;
    if let Some(path) = &options.ca {
        let pem = fs::read(path).map_err(|error| lasting(path, error))?;
        tls = Some(TlsOptions::new().ca_certificate(Certificate::from_pem(pem)));
    }
    if let Some((certificate, key)) = &options.identity {
        let pem = fs::read(certificate).map_err(|error| lasting(certificate, error))?;
        let secret = fs::read(key).map_err(|error| lasting(key, error))?;
        tls = Some(tls.unwrap_or_default().identity(Identity::from_pem(pem, secret)));
    }
    // A member cut off from the others then ends its streams, instead of staying silent.
    let mut all = ConnectOptions::new().with_require_leader(true);
    if let Some((name, password)) = &options.user {
        all = all.with_user(name, password).with_auto_token_refresh(true);
    }
    let mut client = answer(Client::from_channel(channel(endpoint, tls)?, Some(all))).await?;
    // The client connects only at its first request.
    answer(client.get("\0", Some(GetOptions::new().with_count_only()))).await.map(|_| ()).or_else(
        |trouble| match trouble {
            // A user with access to our prefix alone may not read this key.
            Trouble::Away(text) if text.contains("permission denied") => Ok(()),
            trouble => Err(trouble),
        },
    )?;
    Ok(client)
}

/// Grants a lease, and returns its id.
pub(super) async fn grant(client: &mut Client, ttl: Duration) -> Result<i64, Trouble> {
    Ok(answer(client.lease_grant(seconds(ttl), None)).await?.id())
}

/// Ensures our layout: exactly one agent seeds a cluster without one. Returns true if it was this one.
/// Without a seed an empty cluster stays as it is, with [`Trouble::NoSeed`].
async fn begin(
    client: &mut Client,
    keys: &Keys,
    ttl: Duration,
    id: &str,
    seed: Option<&[Change]>,
) -> Result<bool, Trouble> {
    // The id in it shows each write of the seeding to be ours.
    let claim = format!("seeding by {id}");
    let end = Instant::now() + SEEDING;
    while Instant::now() < end {
        let found = answer(client.get(keys.layout(), None)).await?;
        match found.kvs().first().map(|kv| String::from_utf8_lossy(kv.value()).into_owned()) {
            Some(version) if version == keys::VERSION => return Ok(false),
            // Under a lease: after a crash of the seeding agent this claim goes away by itself.
            Some(other) if other.starts_with("seeding by ") => {
                sleep(Duration::from_millis(50)).await;
            }
            Some(other) => return Err(other_layout(keys, &other)),
            None => {
                let seed = seed.ok_or(Trouble::NoSeed)?;
                let lease = grant(client, ttl).await?;
                if claim_layout(client, keys, &claim, lease).await? {
                    let done = write_seed(client, keys, &claim, seed).await;
                    // Frees an unfinished claim for the next agent at once.
                    let _ = answer(client.lease_revoke(lease)).await;
                    return done.map(|()| true);
                }
                let _ = answer(client.lease_revoke(lease)).await;
            }
        }
    }
    Err(Trouble::Away("another agent does not come to an end with seeding".to_owned()))
}

/// Whether there is a state of our layout, given the value of the marker.
pub(super) fn check_layout(keys: &Keys, value: Option<&[u8]>) -> Result<(), Trouble> {
    match value.map(String::from_utf8_lossy) {
        Some(version) if version == keys::VERSION => Ok(()),
        Some(other) => Err(other_layout(keys, &other)),
        // Somebody deleted our keys: an empty state would end all workloads.
        None => Err(Trouble::Lasting(format!("{} is not there any more", keys.layout()))),
    }
}

fn other_layout(keys: &Keys, other: &str) -> Trouble {
    let text = format!("the keys below {} have layout '{other}'", keys.prefix());
    Trouble::Lasting(format!("{text}; this agent knows '{}' only", keys::VERSION))
}

async fn claim_layout(
    client: &mut Client,
    keys: &Keys,
    claim: &str,
    lease: i64,
) -> Result<bool, Trouble> {
    // All existing keys have to stem from an unfinished seeding.
    let all = GetOptions::new().with_prefix().with_keys_only();
    let mut reads = client.kv_client().max_decoding_message_size(MOST_RESPONSE);
    let found = answer(reads.get(keys.prefix(), Some(all))).await?;
    let known = ["desired/", "states/", "owners/", "holders/", "listeners/", "agents/", "layout"];
    let foreign = found.kvs().iter().find_map(|kv| {
        let key = String::from_utf8_lossy(kv.key()).into_owned();
        let path = key.strip_prefix(keys.prefix()).unwrap_or_default();
        (!known.iter().any(|own| path.starts_with(own))).then_some(key)
    });
    if let Some(key) = foreign {
        let text = format!("{key} is there, but no layout: this is not the state of a cluster");
        return Err(Trouble::Lasting(format!("{text}; give another --prefix")));
    }
    let prefix = || Some(DeleteOptions::new().with_prefix());
    let txn =
        Txn::new().when([Compare::create_revision(keys.layout(), CompareOp::Equal, 0)]).and_then([
            TxnOp::put(keys.layout(), claim, Some(PutOptions::new().with_lease(lease))),
            TxnOp::delete(format!("{}desired/", keys.prefix()), prefix()),
            TxnOp::delete(format!("{}states/", keys.prefix()), prefix()),
        ]);
    Ok(answer(client.txn(txn)).await?.succeeded())
}

async fn write_seed(
    client: &mut Client,
    keys: &Keys,
    claim: &str,
    seed: &[Change],
) -> Result<(), Trouble> {
    let lost = || Trouble::Away("seeding took too long".to_owned());
    let ours = || Compare::value(keys.layout(), CompareOp::Equal, claim);
    let writes: Vec<_> = seed.iter().map(|change| keys.write(change)).collect();
    for some in batches(&writes, |own| own) {
        let puts = some.iter().filter_map(|Write { key, value }| {
            value.as_ref().map(|value| TxnOp::put(key.as_str(), value.clone(), None))
        });
        let txn = Txn::new().when([ours()]).and_then(puts.collect::<Vec<_>>());
        // The claim is gone with its lease, so another agent may be seeding by now.
        if !answer(client.txn(txn)).await?.succeeded() {
            return Err(lost());
        }
    }
    // Last: only now other agents take the keys for a state.
    let done = TxnOp::put(keys.layout(), keys::VERSION, None);
    let answer = answer(client.txn(Txn::new().when([ours()]).and_then([done]))).await?;
    if answer.succeeded() { Ok(()) } else { Err(lost()) }
}

/// Divides writes into those of one transaction each.
pub(super) fn batches<T>(
    mut all: &[T],
    write: impl Fn(&T) -> &Write,
) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |own: &&T| {
            let Write { key, value } = write(own);
            bytes += key.len() + value.as_ref().map_or(0, Vec::len);
            bytes <= SEED_BYTES
        };
        let most = all.len().min(MOST_OPERATIONS - 1);
        let count = all.iter().take(most).take_while(fits).count();
        let (first, rest) = all.split_at_checked(count.max(1))?;
        all = rest;
        Some(first)
    })
}

/// Runs a transaction; false if a compared key is not as expected.
pub(super) async fn put(
    client: &mut Client,
    when: impl Into<Vec<Compare>>,
    then: Vec<TxnOp>,
) -> Result<bool, Trouble> {
    Ok(answer(client.txn(Txn::new().when(when).and_then(then))).await?.succeeded())
}

/// The time of a lease in whole seconds, at least etcd's minimum.
pub(super) fn seconds(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_secs().max(2)).unwrap_or(i64::MAX)
}

/// Compares the last writes at the known revision with the view; false if etcd has another history. True
/// also if etcd has compacted this revision: then the watch reports it.
pub(super) async fn was_so(client: &mut Client, shared: &Shared) -> Result<bool, Trouble> {
    const LAST: i64 = 16;
    const OUT_OF_RANGE: i32 = 11;
    let known = shared.view().revision;
    let last = GetOptions::new()
        .with_prefix()
        .with_keys_only()
        .with_sort(SortTarget::Mod, SortOrder::Descend)
        .with_limit(LAST)
        .with_revision(known);
    let question = client.get(shared.keys.prefix(), Some(last));
    let found = answer(async {
        match question.await {
            Err(Error::GRpcStatus(status)) if status.code() as i32 == OUT_OF_RANGE => Ok(None),
            found => found.map(Some),
        }
    });
    let Some(found) = found.await? else { return Ok(true) };
    let of = |kv: &KeyValue| (String::from_utf8_lossy(kv.key()).into_owned(), kv.mod_revision());
    let more = found.more();
    let mut found: Vec<_> = found.kvs().iter().map(of).collect();
    // The page may have cut off other keys of the oldest revision.
    let floor = if more { found.last().map_or(0, |(_, written)| *written) } else { 0 };
    found.retain(|(_, written)| *written > floor);
    found.sort();
    Ok(found == shared.view().written_after(floor))
}

/// `None` if the answer is larger than the client takes.
async fn within_size<T>(
    answer: impl Future<Output = Result<T, Trouble>>,
) -> Result<Option<T>, Trouble> {
    match answer.await {
        Err(Trouble::Away(text)) if text.contains("message length too large") => Ok(None),
        answer => answer.map(Some),
    }
}

/// A key as etcd has it.
pub(super) fn entry(kv: KeyValue) -> Entry {
    let revision = kv.mod_revision();
    let (key, value) = kv.into_key_value();
    Entry { key: String::from_utf8_lossy(&key).into_owned(), value: Some(value), revision }
}

/// Reads all keys at one revision.
pub(super) async fn read(client: &mut Client, keys: &Keys) -> Result<View, Trouble> {
    let (mut entries, mut revision, mut layout) = (Vec::new(), 0, None);
    let mut from = keys.prefix().as_bytes().to_vec();
    // The end of the range: the prefix with its slash replaced by the next character.
    let end = format!("{}0", keys.prefix().trim_end_matches('/'));
    let mut most_keys = PAGE;
    loop {
        let page = GetOptions::new().with_range(end.as_str()).with_limit(most_keys);
        // All pages at the revision of the first one: the view is one moment of the cluster.
        let page = if revision > 0 { page.with_revision(revision) } else { page };
        let most = if most_keys > 1 { PAGE_BYTES } else { MOST_RESPONSE };
        let mut reads = client.kv_client().max_decoding_message_size(most);
        let Some(mut found) = within_size(answer(reads.get(from.clone(), Some(page)))).await?
        else {
            // etcd bounds a page only by keys, whatever their values take.
            most_keys = (most_keys / 8).max(1);
            continue;
        };
        if revision == 0 {
            revision = found.header().map_or(0, |own| own.revision());
        }
        let more = found.more();
        let kvs = found.take_kvs();
        // The smallest key behind the last one of this page.
        from = kvs.last().map(|kv| [kv.key(), b"\0"].concat()).unwrap_or_default();
        for own in kvs.into_iter().map(entry) {
            if own.key == keys.layout() {
                layout.clone_from(&own.value);
            }
            entries.push(own);
        }
        if !more {
            break;
        }
    }
    check_layout(keys, layout.as_deref())?;
    let own = keys.clone();
    let view = apart::plan(apart::LARGE, move || View::new(own, revision, entries)).await;
    view.map_err(|error| {
        Trouble::Lasting(format!("what is below {} makes no state: {error}", keys.prefix()))
    })
}
