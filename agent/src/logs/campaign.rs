//! Log campaigns: one task for each log request of a workload (docs/protocol.md#logs).
//!
//! A request and the logs of its instances go in; log entries, and the end of each log, come out
//! through fifogate. Lines for a slow collector wait on disk, not in memory.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use fifogate::{
    link::{AsyncLink, CallError, RejectCode},
    pb::ank_base::{self as pb, response::ResponseContent},
    state::Instance,
};
use jiff::Timestamp;
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};

use super::{
    Logs, OtherAgents, Source,
    elsewhere::{Fetched, Piece},
    kept,
    segmented_log::{Found, Line, Reader},
};
use crate::model;

/// Bound on the bytes of lines in one message, far below the largest message: lines for a slow
/// collector wait on disk.
pub(super) const BATCH: usize = 128 << 10;
/// First and longest pause before a message is sent again to a slow collector.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// All running campaigns, by requesting instance and request id.
#[derive(Debug)]
pub struct Campaigns {
    logs: Logs,
    others: OtherAgents,
    running: BTreeMap<(Instance, String), AbortHandle>,
}

/// The instances of a log request, by where their logs are.
#[derive(Clone, Debug, Default)]
pub struct Requested {
    /// Those of this agent.
    pub own: Vec<Instance>,
    /// Those of others, by the names of their agents.
    pub elsewhere: BTreeMap<String, BTreeSet<Instance>>,
}

/// The lines selected by a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Range {
    follow: bool,
    tail: Option<usize>,
    since: Option<i64>,
    until: Option<i64>,
}

impl Campaigns {
    /// Creates campaigns about these logs.
    #[must_use]
    pub fn new(logs: Logs, others: OtherAgents) -> Self {
        Self { logs, others, running: BTreeMap::new() }
    }

    /// Answers a request for logs, and starts to send them.
    pub fn begin(
        &mut self,
        gate: &AsyncLink,
        by: &Instance,
        request_id: &str,
        request: &pb::LogsRequest,
        requested: Requested,
    ) {
        // A reused request id replaces the earlier campaign.
        self.cancel(by, request_id);
        let to = Collector::of_workload(gate, by, request_id);
        let campaign = Campaign {
            to,
            logs: self.logs.clone(),
            others: self.others.clone(),
            request: request.clone(),
        };
        let task = tokio::spawn(campaign.run(requested));
        // Campaigns with a natural end are removed only here.
        self.running.retain(|_, task| !task.is_finished());
        self.running.insert((by.clone(), request_id.to_owned()), task.abort_handle());
    }

    /// Cancels a campaign, if it runs.
    pub fn cancel(&mut self, by: &Instance, request_id: &str) {
        if let Some(task) = self.running.remove(&(by.clone(), request_id.to_owned())) {
            task.abort();
        }
    }

    /// Cancels all campaigns of an instance after the end of its session.
    pub fn cancel_all_of(&mut self, by: &Instance) {
        self.running.retain(|(own, _), task| {
            if own == by {
                task.abort();
            }
            own != by
        });
    }

    /// Cancels all campaigns, as fifogate is gone.
    pub fn clear(&mut self) {
        std::mem::take(&mut self.running).into_values().for_each(|task| task.abort());
    }
}

/// One campaign.
struct Campaign {
    to: Collector,
    logs: Logs,
    others: OtherAgents,
    request: pb::LogsRequest,
}

impl Campaign {
    async fn run(self, requested: Requested) {
        let (range, fetched) = match self.prepare(&requested).await {
            Ok(prepared) => prepared,
            Err(message) => {
                let _ = self.to.send(ResponseContent::Error(pb::Error { message })).await;
                return;
            }
        };
        // Before any line of the logs (docs/protocol.md#log-requests).
        let elsewhere = fetched.iter().flat_map(Fetched::accepted);
        let names = requested.own.iter().chain(elsewhere).map(model::instance_name).collect();
        let answer = pb::LogsRequestAccepted { workload_names: names };
        if self.to.send(ResponseContent::LogsRequestAccepted(answer)).await.is_err() {
            return;
        }
        let mut all = JoinSet::new();
        for instance in requested.own {
            let source = self.logs.get(&instance);
            all.spawn(send_log(self.to.clone(), instance, source, range, self.request.clone()));
        }
        for own in fetched {
            all.spawn(send_fetched(self.to.clone(), own));
        }
        while all.join_next().await.is_some() {}
    }

    /// Checks the request, and asks the other agents. The error is the text for the collector.
    async fn prepare(&self, requested: &Requested) -> Result<(Range, Vec<Fetched>), String> {
        let range = Range::of(&self.request).map_err(|error| error.to_string())?;
        let ask = |(agent, instances): (String, BTreeSet<Instance>)| {
            let (others, request, to) =
                (self.others.clone(), self.request.clone(), self.to.clone());
            async move { (others.ask(&agent, &instances, &request, to.requester()).await, agent) }
        };
        // At once, as each of them may be waited for.
        let groups = self.others.groups(&requested.elsewhere);
        let asked: JoinSet<_> = groups.into_iter().map(ask).collect();
        let mut answers = asked.join_all().await;
        // The same refusal counts each time, whoever answers first.
        answers.sort_by(|(_, one), (_, other)| one.cmp(other));
        let fetched = answers.into_iter().map(|(answer, _)| answer).collect::<Result<_, _>>()?;
        Ok((range, fetched))
    }
}

/// A field of a log request is no time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{field}' is no time as in RFC 3339, such as 2030-01-31T12:00:00Z: '{text}'")]
struct InvalidTime {
    field: &'static str,
    text: String,
}

/// The last timestamp, for a later time of the year 9999. RFC 3339 has all of this year, and jiff
/// keeps the last 26 hours for offsets.
fn end_of_time(text: &str) -> Option<Timestamp> {
    let pieces = jiff::fmt::temporal::DateTimeParser::new().parse_pieces(text).ok()?;
    let is_time = pieces.time().is_some() && pieces.to_numeric_offset().is_some();
    (is_time && pieces.date().year() == 9999).then_some(Timestamp::MAX)
}

impl Range {
    fn of(request: &pb::LogsRequest) -> Result<Self, InvalidTime> {
        let time = |field: &'static str, text: &Option<String>| {
            let Some(text) = text.as_deref().filter(|text| !text.is_empty()) else {
                return Ok(None);
            };
            let invalid = |_: jiff::Error| InvalidTime { field, text: text.to_owned() };
            let time = text.parse().or_else(|error| end_of_time(text).ok_or(error));
            Ok(Some(time.map_err(invalid)?.as_microsecond()))
        };
        Ok(Self {
            follow: request.follow(),
            // Any number below zero means all lines, not only -1.
            tail: request.tail.and_then(|tail| usize::try_from(tail).ok()),
            since: time("since", &request.since)?,
            until: time("until", &request.until)?,
        })
    }

    fn holds(&self, line: &Line) -> bool {
        self.since.is_none_or(|since| line.micros >= since)
            && self.until.is_none_or(|until| line.micros <= until)
    }

    /// Time left until no further line can match.
    fn left(&self) -> Duration {
        const LONG: Duration = Duration::from_secs(86_400 * 365);
        let Some(until) = self.until else { return LONG };
        let left = until.saturating_sub(Timestamp::now().as_microsecond());
        Duration::from_micros(u64::try_from(left).unwrap_or(0)).min(LONG)
    }
}

/// The requester of a campaign.
#[derive(Clone, Debug)]
pub(crate) struct Collector {
    request_id: String,
    to: Destination,
}

/// The way to a collector.
#[derive(Clone, Debug)]
enum Destination {
    /// A workload or a commander, by fifogate.
    Workload(AsyncLink, Instance),
    /// A queue of responses by their request ids.
    Queue(mpsc::Sender<(String, ResponseContent)>),
}

/// The collector is gone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gone;

impl Collector {
    fn of_workload(gate: &AsyncLink, by: &Instance, request_id: &str) -> Self {
        let to = Destination::Workload(gate.clone(), by.clone());
        Self { request_id: request_id.to_owned(), to }
    }

    /// The name of the workload that asks, and the id of its request.
    fn requester(&self) -> (&str, &str) {
        let by = match &self.to {
            Destination::Workload(_, by) => by.workload.as_str(),
            Destination::Queue(_) => "",
        };
        (by, &self.request_id)
    }

    /// One that reads from a queue.
    pub(crate) fn of_queue(
        queue: mpsc::Sender<(String, ResponseContent)>,
        request_id: &str,
    ) -> Self {
        Self { request_id: request_id.to_owned(), to: Destination::Queue(queue) }
    }

    /// Sends a response; waits while the collector does not keep up.
    async fn send(&self, content: ResponseContent) -> Result<(), Gone> {
        let request_id = self.request_id.clone();
        let (gate, by) = match &self.to {
            Destination::Workload(gate, by) => (gate, by),
            Destination::Queue(queue) => {
                return queue.send((request_id, content)).await.map_err(|_| Gone);
            }
        };
        let response = pb::Response { request_id, response_content: Some(content) };
        let mut pause = FIRST_PAUSE;
        loop {
            match gate.respond(model::instance_name(by), response.clone()).await {
                // The collector's queue is full.
                Err(CallError::Rejected(own)) if own.code == RejectCode::RetryLater => {}
                done => return done.map_err(|_| Gone),
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Starts to send the logs of these instances of this agent, for as long as the handle is kept from aborting.
///
/// # Errors
/// A field of the request is no time; the text is for the collector.
pub(crate) fn serve(
    logs: &Logs,
    to: &Collector,
    request: &pb::LogsRequest,
    instances: Vec<Instance>,
) -> Result<AbortHandle, String> {
    let range = Range::of(request).map_err(|error| error.to_string())?;
    let mut all = JoinSet::new();
    for instance in instances {
        let source = logs.get(&instance);
        all.spawn(send_log(to.clone(), instance, source, range, request.clone()));
    }
    let task = tokio::spawn(async move { while all.join_next().await.is_some() {} });
    Ok(task.abort_handle())
}

/// Sends one log and its end. The end is not sent to a collector already gone.
async fn send_log(
    to: Collector,
    instance: Instance,
    source: Option<Source>,
    range: Range,
    request: pb::LogsRequest,
) {
    let sent = match source {
        Some(Source::Own(log)) => send_lines(&to, &instance, log.reader(), range).await,
        Some(Source::Kept(log)) => kept::send(&to, &instance, log.command(&request)).await,
        // Nothing was ever written, or the runtime keeps nothing.
        None => Ok(()),
    };
    if sent.is_err() {
        return;
    }
    let stop = pb::LogsStopResponse { workload_name: Some(model::instance_name(&instance)) };
    // An error: the collector is gone, and needs no end.
    let _ = to.send(ResponseContent::LogsStopResponse(stop)).await;
}

/// Passes on the logs that another agent sends.
async fn send_fetched(to: Collector, mut fetched: Fetched) {
    while let Some(piece) = fetched.next().await {
        let (entries, ended) = match piece {
            Piece::Entries(entries) => (entries, None),
            Piece::End(instance) => (Vec::new(), Some(instance)),
            Piece::Lost(instance, message) => {
                let workload_name = Some(model::instance_name(&instance));
                (vec![pb::LogEntry { workload_name, message }], Some(instance))
            }
        };
        if !entries.is_empty() {
            let entries = pb::LogEntriesResponse { log_entries: entries };
            if to.send(ResponseContent::LogEntriesResponse(entries)).await.is_err() {
                return;
            }
        }
        if let Some(instance) = ended {
            let stop =
                pb::LogsStopResponse { workload_name: Some(model::instance_name(&instance)) };
            if to.send(ResponseContent::LogsStopResponse(stop)).await.is_err() {
                return;
            }
        }
    }
}

async fn send_lines(
    to: &Collector,
    instance: &Instance,
    mut reader: Reader,
    range: Range,
) -> Result<(), Gone> {
    if let Some(tail) = range.tail {
        reader = go_to_tail(reader, range, tail).await;
    }
    loop {
        let found;
        (reader, found) = read(reader).await;
        match found {
            Found::Lines(lines, missed) => {
                if missed > 0 {
                    let text =
                        format!("[{missed} bytes of log were dropped before they were read]");
                    send_batch(to, instance, vec![text]).await?;
                }
                let meant = lines.into_iter().filter(|line| range.holds(line));
                let mut batch = (Vec::new(), 0);
                for line in meant {
                    batch.1 += line.text.len();
                    batch.0.push(String::from_utf8_lossy(&line.text).into_owned());
                    if batch.1 > BATCH {
                        send_batch(to, instance, std::mem::take(&mut batch).0).await?;
                    }
                }
                send_batch(to, instance, batch.0).await?;
            }
            Found::Nothing if !range.follow => return Ok(()),
            Found::Nothing => {
                // A campaign with `until` ends by the clock, even if no line comes.
                if !timeout(range.left(), reader.more()).await.unwrap_or(false) {
                    return Ok(());
                }
            }
        }
    }
}

pub(super) async fn send_batch(
    to: &Collector,
    instance: &Instance,
    texts: Vec<String>,
) -> Result<(), Gone> {
    if texts.is_empty() {
        return Ok(());
    }
    let name = model::instance_name(instance);
    let entry = |message| pb::LogEntry { workload_name: Some(name.clone()), message };
    let log_entries = texts.into_iter().map(entry).collect();
    to.send(ResponseContent::LogEntriesResponse(pb::LogEntriesResponse { log_entries })).await
}

/// Moves to the first of the last `tail` matching lines.
async fn go_to_tail(mut reader: Reader, range: Range, tail: usize) -> Reader {
    let mut last = VecDeque::new();
    loop {
        let found;
        (reader, found) = read(reader).await;
        let Found::Lines(lines, _) = found else { break };
        last.extend(lines.iter().filter(|line| range.holds(line)).map(|line| line.at));
        last.drain(..last.len().saturating_sub(tail));
    }
    // Without a matching line the reader goes to the end: only later lines follow.
    let end = reader.position();
    reader.go_to(last.front().copied().unwrap_or(end));
    reader
}

/// Reads on a blocking thread, as all tasks share one thread.
async fn read(mut reader: Reader) -> (Reader, Found) {
    let log = reader.log();
    let read = tokio::task::spawn_blocking(move || {
        let found = reader.read();
        (reader, found)
    });
    match read.await {
        Ok((reader, Ok(found))) => (reader, found),
        Ok((reader, Err(error))) => {
            log::warn!("a log cannot be read: {error}");
            (reader, Found::Nothing)
        }
        Err(error) => {
            log::error!("a log cannot be read: {error}");
            (log.reader(), Found::Nothing)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_is_read_from_the_request_and_nonsense_is_told() {
        let request = pb::LogsRequest {
            follow: Some(true),
            tail: Some(-1),
            since: Some("1970-01-01T00:00:01Z".to_owned()),
            until: Some("1970-01-01T01:00:02+01:00".to_owned()),
            ..Default::default()
        };
        let range = Range::of(&request).unwrap();
        let (since, until) = (Some(1_000_000), Some(2_000_000));
        assert_eq!(range, Range { follow: true, tail: None, since, until });
        let line = |micros| Line { at: 0, micros, text: Vec::new() };
        let held = [999_999, 1_000_000, 2_000_000, 2_000_001].map(|at| range.holds(&line(at)));
        assert_eq!(held, [false, true, true, false]);
        for text in ["yesterday", "10000-01-01T00:00:00Z", "2030-01-31T12:00:00", "9999-12-31"] {
            let request = pb::LogsRequest { until: Some(text.to_owned()), ..Default::default() };
            assert!(Range::of(&request).is_err(), "{text}");
        }
        let bad = pb::LogsRequest { since: Some("yesterday".to_owned()), ..Default::default() };
        assert!(
            Range::of(&bad).unwrap_err().to_string().contains("'since' is no time as in RFC 3339")
        );
    }
    #[test]
    fn times_at_the_ends_of_rfc_3339_are_taken() {
        let now = Timestamp::now().as_microsecond();
        for text in [
            "9999-12-31T23:59:59Z",
            "9999-12-31T23:59:59.999999999Z",
            "9999-12-31T23:59:59-12:00",
            "9999-12-31T23:59:59+14:00",
            "9999-12-31t23:59:60z",
            "9999-12-30T22:00:00Z",
        ] {
            let until = Some(text.to_owned());
            let request = pb::LogsRequest { until, follow: Some(true), ..Default::default() };
            let range = Range::of(&request).unwrap_or_else(|error| panic!("{error}"));
            assert!(range.until.unwrap() > now, "{text}");
            assert!(range.left() > Duration::from_secs(86_400), "{text}");
        }
        for text in
            ["0000-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "0000-01-01T00:00:00+23:59"]
        {
            let request = pb::LogsRequest { since: Some(text.to_owned()), ..Default::default() };
            assert!(Range::of(&request).unwrap().since.unwrap() < 0, "{text}");
        }
    }
}
