//! Every number that bounds the work and the memory of fifogate for one workload.
//!
//! Each field has its default, its flag on `fifogate run`, and its worst case where it is not obvious;
//! constants have no flag. Over a limit, the workload that caused it gets an error or waits; others notice
//! nothing.

pub use values::{MAX_NESTING, MAX_VALUE_BYTES};

pub(crate) use values::{too_deep, too_large};

/// Most bytes of a state, counted as by [`Limits::max_state_bytes`], whose default it is. A manifest has no
/// more, whatever the flag is: its state has to reach a restarted fifogate in one piece.
pub const MAX_STATE_BYTES: usize = 64 << 20;

/// Cost of a name in a mask beside its text: the mask itself, and its place in the index.
pub(crate) const SEGMENT: usize = 256;

/// The bounds of a foreign value, and the words of every door that keeps to them.
pub(crate) mod values {
    /// Most levels of mappings and sequences inside a foreign value: a config, the YAML of a
    /// `runtimeConfig`, a template, a manifest or a JSON document.
    ///
    /// A scalar has no level, `[1]` and `{a: 1}` have one. One level of a config takes three levels of
    /// protobuf, and the link, an event or a stored item wrap it in at most ten more; decoders give up at
    /// 100. So a value accepted by one door can be forwarded, stored, rendered and read back everywhere.
    pub const MAX_NESTING: usize = 20;

    /// Most bytes of a config or a workload in the encoding of a message.
    ///
    /// With it, an update of this value alone fits into a message of a workload ([`Limits::max_frame`]):
    /// names, masks and ids around it take less than the rest. So what one door accepts, a workload can
    /// read and write again.
    ///
    /// [`Limits::max_frame`]: super::Limits::max_frame
    pub const MAX_VALUE_BYTES: usize = (4 << 20) - (4 << 10);

    /// The error of every door for a value over [`MAX_VALUE_BYTES`]; `value` names it.
    #[must_use]
    pub(crate) fn too_large(value: &str, bytes: usize) -> String {
        format!("{value} takes {bytes} bytes: a config or a workload has at most {MAX_VALUE_BYTES}")
    }

    /// The error of every door for a value over [`MAX_NESTING`]; `value` names it.
    #[must_use]
    pub fn too_deep(value: &str) -> String {
        format!(
            "{value} is nested too deep: at most {MAX_NESTING} levels of mappings and sequences"
        )
    }
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
    /// `--max-fields`, 65,536.
    ///
    /// A field of two bytes can become a value of some hundred, and takes its time. Worst case: a message
    /// takes 16 times `max_frame` while it is handled, one message at a time.
    pub max_fields: usize,
    /// Most bytes queued for one workload, as far as it is up to us. `--outbox-bytes`, 1 MiB.
    ///
    /// Above it the broker merges events and reads no further requests of this workload: so an answer
    /// to the current message may come on top. Worst case for each workload: this and the largest
    /// answer.
    pub outbox_bytes: usize,
    /// Most messages queued for one workload, as far as it is up to us. `--outbox-messages`, 512.
    ///
    /// The same as with bytes: small messages cost more than their bytes.
    pub outbox_messages: usize,
    /// Most bytes queued for all workloads together, as far as it is up to us. `--total-bytes`, 256
    /// MiB.
    ///
    /// Above it, every workload with waiting messages is over its budget. Worst case: this and one
    /// largest answer for each workload.
    pub total_bytes: usize,
    /// Most snapshots of the state kept for the lagging subscriptions of one workload.
    /// `--max-versions`, 16.
    ///
    /// A lagging subscription later gets the difference from its snapshot. Over the limit, it gets a
    /// full resync: everything it can see, as updated. Worst case for each workload: this many times
    /// `max_state_bytes`, if all of the state changes each time.
    pub max_versions: usize,
    /// Most masks in one request, but for an update of a commander. `--max-masks`, 256.
    pub max_masks: usize,
    /// Most masks in one update of a commander. `--max-commander-masks`, 65,536.
    ///
    /// A manifest is one update, with a mask for each workload: an operator applies thousands of them.
    /// `max_frame` and `max_fields` bound it, too.
    pub max_commander_masks: usize,
    /// Most bytes in one mask. `--max-mask-length`, 1 KiB.
    ///
    /// `subscription_bytes` bounds the masks of all subscriptions together.
    pub max_mask_length: usize,
    /// Most bytes of a request's id. `--max-request-id`, 1 KiB.
    ///
    /// It is kept with a subscription, and repeated in every answer and event.
    pub max_request_id: usize,
    /// Most bytes for the subscriptions of one workload, counted as their ids and masks and 256
    /// for each name in a mask. `--subscription-bytes`, 8 MiB.
    ///
    /// The names in its log requests under way have as many bytes again.
    pub subscription_bytes: usize,
    /// Most subscriptions of one workload. `--max-subscriptions`, 1024.
    pub max_subscriptions: usize,
    /// Most messages of one workload on their way to the worker. `--max-in-flight`, 64.
    ///
    /// More are left in its pipe.
    pub max_in_flight: usize,
    /// Most bytes of these messages, but for one message. `--in-flight-bytes`, 1 MiB.
    pub in_flight_bytes: usize,
    /// Most malformed messages of a session. `--max-malformed`, 100.
    ///
    /// One more ends the session.
    pub max_malformed: usize,
    /// Most times a second that a workload may wake fifogate for nothing: it opened, closed or wrote,
    /// without a message or 4 KiB as the result. `--max-wakeups`, 1000.
    ///
    /// Above it, fifogate ignores this workload for a second; one that reads in small pieces is only
    /// not watched for reads. Worst case: this many turns of some microseconds each.
    pub max_wakeups: usize,
    /// Most bytes of the state as made by workloads: keys and values, as they are encoded.
    /// `--max-state-bytes`, 64 MiB.
    ///
    /// An update is rejected if it makes the state larger, and larger than this. The manifest and the
    /// agent may make it any size.
    pub max_state_bytes: usize,
    /// Most requests of one workload waiting for the agent, log campaigns included. `--max-forwarded`,
    /// 64.
    ///
    /// Worst case for each workload: this many times `max_frame`, until the agent takes them; but never
    /// more than `link_bytes` for all workloads together.
    pub max_forwarded: usize,
    /// Most bytes of one message of the agent. `--max-link-frame`, 64 MiB: it sends whole states.
    pub max_link_frame: usize,
    /// Most bytes queued for the agent. `--link-bytes`, 16 MiB.
    ///
    /// Above it, requests for the agent fail at once, and fifogate does not read the agent.
    pub link_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_frame: 4 << 20,
            max_fields: 64 << 10,
            outbox_bytes: 1 << 20,
            outbox_messages: 512,
            total_bytes: 256 << 20,
            max_versions: 16,
            max_masks: 256,
            max_commander_masks: 64 << 10,
            max_mask_length: 1 << 10,
            max_request_id: 1 << 10,
            subscription_bytes: 8 << 20,
            max_subscriptions: 1 << 10,
            max_in_flight: 64,
            in_flight_bytes: 1 << 20,
            max_malformed: 100,
            max_wakeups: 1000,
            max_state_bytes: MAX_STATE_BYTES,
            max_forwarded: 64,
            max_link_frame: 64 << 20,
            link_bytes: 16 << 20,
        }
    }
}
