//! Every number that bounds what a workload can make fifogate do or hold.
//!
//! Each has its default, its flag on `fifogate run`, and what it costs at worst. Over a limit the
//! workload that caused it is told or waits; no other notices.

/// The limits of one fifogate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of one message. `--max-frame`, 4 MiB.
    ///
    /// A longer one ends the session before a byte is allocated for it. Worst case: twice this for
    /// a half-received message of each workload.
    pub max_frame: usize,
    /// Most bytes queued for one workload, as far as it is up to us. `--outbox-bytes`, 1 MiB.
    ///
    /// Above it events are merged, and no further requests of that workload are read: so an answer
    /// to what was read already may come on top. Worst case for each workload: this and the largest
    /// answer.
    pub outbox_bytes: usize,
    /// Most masks in one request. `--max-masks`, 256.
    pub max_masks: usize,
    /// Most bytes in one mask. `--max-mask-length`, 1 KiB.
    ///
    /// Worst case for the masks of one workload: `max_subscriptions * max_masks * max_mask_length`.
    pub max_mask_length: usize,
    /// Most subscriptions of one workload. `--max-subscriptions`, 1024.
    pub max_subscriptions: usize,
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
            outbox_bytes: 1 << 20,
            max_masks: 256,
            max_mask_length: 1 << 10,
            max_subscriptions: 1 << 10,
            max_forwarded: 64,
            max_link_frame: 64 << 20,
            link_bytes: 16 << 20,
        }
    }
}
