//! Every number that bounds what a workload can make fifogate do or hold.
//!
//! Each has its default, its flag on `fifogate run`, and what it costs at worst. Over a limit the
//! workload that caused it is told or waits; no other notices.

/// What a name in a mask costs beside its text: the mask itself, and its place in the index.
pub const SEGMENT: usize = 256;

/// Most levels of mappings and sequences inside a value that anybody may bring in: a config, the YAML of a
/// `runtimeConfig`, a template, a manifest or a JSON document.
///
/// A scalar has no level, `[1]` and `{a: 1}` have one. One level of a config takes three levels of
/// protobuf, and the link, an event or a stored item wrap it in at most ten more; decoders give up at
/// 100. So a value that one door accepts can be forwarded, stored, rendered and read back everywhere.
pub const MAX_NESTING: usize = 20;

/// The error of every door for a value over [`MAX_NESTING`]; `value` says which one.
#[must_use]
pub fn too_deep(value: &str) -> String {
    format!("{value} is nested too deep: at most {MAX_NESTING} levels of mappings and sequences")
}

/// The limits of one fifogate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of one message. `--max-frame`, 4 MiB.
    ///
    /// A longer one ends the session before a byte is allocated for it. Worst case: twice this for
    /// a half-received message of each workload.
    pub max_frame: usize,
    /// Most fields of one message of a workload, those of all messages inside it together.
    /// `--max-fields`, 131,072.
    ///
    /// A field of two bytes can become a value of some hundred, and takes its time. Worst case: a message
    /// takes 16 times `max_frame` while it is handled, one message at a time.
    pub max_fields: usize,
    /// Most bytes queued for one workload, as far as it is up to us. `--outbox-bytes`, 1 MiB.
    ///
    /// Above it events are merged, and no further requests of that workload are read: so an answer
    /// to the message that is being handled may come on top. Worst case for each workload: this and
    /// the largest answer.
    pub outbox_bytes: usize,
    /// Most messages queued for one workload, as far as it is up to us. `--outbox-messages`, 512.
    ///
    /// The same as with bytes: small messages cost more than their bytes.
    pub outbox_messages: usize,
    /// Most bytes queued for all workloads together, as far as it is up to us. `--total-bytes`, 256 MiB.
    ///
    /// Above it, every workload that something waits for is over its budget. Worst case: this and one
    /// largest answer for each workload.
    pub total_bytes: usize,
    /// Most old versions of the state that are kept for what one workload missed. `--max-versions`, 16.
    ///
    /// Each of its subscriptions that is behind is told later what differs from the version that it
    /// knows. One version too many, and it is sent everything that it sees, as updated. Worst case for
    /// each workload: this many times `max_state_bytes`, if all of the state changes each time.
    pub max_versions: usize,
    /// Most masks in one request. `--max-masks`, 256.
    pub max_masks: usize,
    /// Most bytes in one mask. `--max-mask-length`, 1 KiB.
    ///
    /// What the masks of subscriptions cost together is bounded by `subscription_bytes`.
    pub max_mask_length: usize,
    /// Most bytes of a request's id. `--max-request-id`, 1 KiB.
    ///
    /// It is kept with a subscription, and repeated in every answer and event.
    pub max_request_id: usize,
    /// Most bytes that the subscriptions of one workload may take, counted as their ids and masks and
    /// [`SEGMENT`] for each name in a mask. `--subscription-bytes`, 8 MiB.
    pub subscription_bytes: usize,
    /// Most subscriptions of one workload. `--max-subscriptions`, 1024.
    pub max_subscriptions: usize,
    /// Most messages of one workload on their way to the worker. `--max-in-flight`, 64.
    ///
    /// More are left in its pipe.
    pub max_in_flight: usize,
    /// Most bytes of these messages, but for one message. `--in-flight-bytes`, 1 MiB.
    pub in_flight_bytes: usize,
    /// Most messages of a session that make no sense. `--max-malformed`, 100.
    ///
    /// One more ends the session.
    pub max_malformed: usize,
    /// Most times a second that a workload may wake us for nothing: it opened, closed or wrote, and
    /// neither a message nor 4 KiB came of it. `--max-wakeups`, 1000.
    ///
    /// Above it, nothing of that workload is noticed until the second is over. Worst case: this many
    /// turns of some microseconds each.
    pub max_wakeups: usize,
    /// Most bytes of the state that workloads may make: keys and values, as they are encoded.
    /// `--max-state-bytes`, 64 MiB.
    ///
    /// An update that makes the state larger, and larger than this, is refused. The manifest and the
    /// agent may make it any size.
    pub max_state_bytes: usize,
    /// Most requests of one workload that wait for the agent, log campaigns included.
    /// `--max-forwarded`, 64.
    ///
    /// Worst case for each workload: this many times `max_frame`, until the agent takes them; but
    /// never more than `link_bytes` for all workloads together.
    pub max_forwarded: usize,
    /// Most bytes of one message of the agent. `--max-link-frame`, 64 MiB: it sends whole states.
    pub max_link_frame: usize,
    /// Most bytes queued for the agent. `--link-bytes`, 16 MiB.
    ///
    /// Above it, what workloads want of the agent fails at once, and the agent is not read.
    pub link_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_frame: 4 << 20,
            max_fields: 128 << 10,
            outbox_bytes: 1 << 20,
            outbox_messages: 512,
            total_bytes: 256 << 20,
            max_versions: 16,
            max_masks: 256,
            max_mask_length: 1 << 10,
            max_request_id: 1 << 10,
            subscription_bytes: 8 << 20,
            max_subscriptions: 1 << 10,
            max_in_flight: 64,
            in_flight_bytes: 1 << 20,
            max_malformed: 100,
            max_wakeups: 1000,
            max_state_bytes: 64 << 20,
            max_forwarded: 64,
            max_link_frame: 64 << 20,
            link_bytes: 16 << 20,
        }
    }
}
