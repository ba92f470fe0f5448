//! Options of `fifogate run` for the limits of [`Limits`], each with its default.

use clap::{Args, builder::RangedU64ValueParser};

use crate::limits::Limits;

/// Bounds on fifogate's work and memory, most of them for one workload.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArgs {
    /// Most bytes in one message of a workload; a longer one ends its session
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().max_frame)]
    #[arg(value_parser = at_least_one())]
    max_frame: usize,
    /// Most fields of one message of a workload, of all messages inside it together
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().max_fields)]
    #[arg(value_parser = at_least_one())]
    max_fields: usize,
    /// Most queued bytes for one workload; above it events are merged
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().outbox_bytes)]
    #[arg(value_parser = at_least_one())]
    outbox_bytes: usize,
    /// Most queued messages for one workload; above it events are merged
    #[arg(long, value_name = "N", default_value_t = Limits::default().outbox_messages)]
    #[arg(value_parser = at_least_one())]
    outbox_messages: usize,
    /// Most queued bytes for all workloads together
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().total_bytes)]
    #[arg(value_parser = at_least_one())]
    total_bytes: usize,
    /// Most old versions of the state kept for a slowly reading workload
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_versions)]
    #[arg(value_parser = at_least_one())]
    max_versions: usize,
    /// Most masks in one request
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_masks)]
    #[arg(value_parser = at_least_one())]
    max_masks: usize,
    /// Most masks in one update of a commander
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_commander_masks)]
    #[arg(value_parser = at_least_one())]
    max_commander_masks: usize,
    /// Most bytes in one mask
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().max_mask_length)]
    #[arg(value_parser = at_least_one())]
    max_mask_length: usize,
    /// Most bytes in the id of a request
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().max_request_id)]
    #[arg(value_parser = at_least_one())]
    max_request_id: usize,
    /// Most subscriptions of one workload
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_subscriptions)]
    #[arg(value_parser = at_least_one())]
    max_subscriptions: usize,
    /// Most bytes for the subscriptions of one workload
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().subscription_bytes)]
    #[arg(value_parser = at_least_one())]
    subscription_bytes: usize,
    /// Most messages of one workload waiting to be handled; more stay in its pipe
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_in_flight)]
    #[arg(value_parser = at_least_one())]
    max_in_flight: usize,
    /// Most bytes of the messages of one workload waiting to be handled
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().in_flight_bytes)]
    #[arg(value_parser = at_least_one())]
    in_flight_bytes: usize,
    /// Most malformed messages in a session; one more ends it
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_malformed)]
    #[arg(value_parser = at_least_one())]
    max_malformed: usize,
    /// Most useless wake-ups a second by one workload; above it the workload is paused
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_wakeups)]
    #[arg(value_parser = at_least_one())]
    max_wakeups: usize,
    /// Most bytes of the state after an update by a workload
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().max_state_bytes)]
    #[arg(value_parser = at_least_one())]
    max_state_bytes: usize,
    /// Most requests of one workload waiting for the agent
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_forwarded)]
    #[arg(value_parser = at_least_one())]
    max_forwarded: usize,
    /// Most bytes in one message of the agent; a longer one ends fifogate
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().max_link_frame)]
    #[arg(value_parser = at_least_one())]
    max_link_frame: usize,
    /// Most queued bytes for the agent; above it requests to the agent fail
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().link_bytes)]
    #[arg(value_parser = at_least_one())]
    link_bytes: usize,
}

impl From<&LimitArgs> for Limits {
    fn from(args: &LimitArgs) -> Self {
        Self {
            max_frame: args.max_frame,
            max_fields: args.max_fields,
            outbox_bytes: args.outbox_bytes,
            outbox_messages: args.outbox_messages,
            total_bytes: args.total_bytes,
            max_versions: args.max_versions,
            max_masks: args.max_masks,
            max_commander_masks: args.max_commander_masks,
            max_mask_length: args.max_mask_length,
            max_request_id: args.max_request_id,
            max_subscriptions: args.max_subscriptions,
            subscription_bytes: args.subscription_bytes,
            max_in_flight: args.max_in_flight,
            in_flight_bytes: args.in_flight_bytes,
            max_malformed: args.max_malformed,
            max_wakeups: args.max_wakeups,
            max_state_bytes: args.max_state_bytes,
            max_forwarded: args.max_forwarded,
            max_link_frame: args.max_link_frame,
            link_bytes: args.link_bytes,
        }
    }
}

pub(super) fn at_least_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}
