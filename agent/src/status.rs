//! Node status: processor usage and free memory, for `agents.<name>.status`.
//!
//! It is read from `/proc`, and written to the store.

use std::{fs, time::Duration};

use fifogate::pb::ank_base as pb;

use crate::store::Store;

const EVERY: Duration = Duration::from_secs(2);

/// Reports the status to the store every two seconds, for ever.
pub(crate) async fn report(store: Store, name: String) {
    let mut interval = tokio::time::interval(EVERY);
    // No burst of reports after a stall.
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut before = Processor::now();
    loop {
        interval.tick().await;
        let now = Processor::now();
        let status = pb::AgentStatus {
            cpu_usage: Some(pb::CpuUsage { cpu_usage: now.percent_since(before) }),
            free_memory: free_memory().map(|free_memory| pb::FreeMemory { free_memory }),
        };
        before = now;
        if let Err(refused) = store.set_agent(&name, status).await {
            log::debug!("the status of this node was not kept: {refused}");
        }
    }
}

/// Time spent by all processors together, in ticks of the kernel.
#[derive(Clone, Copy, Debug, Default)]
struct Processor {
    all: u64,
    idle: u64,
}

impl Processor {
    fn now() -> Self {
        Self::parse(&fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    fn parse(stat: &str) -> Self {
        let line = stat.lines().next().unwrap_or_default();
        // user nice system idle iowait irq softirq steal; time of guests is part of user already.
        let ticks: Vec<u64> =
            line.split_whitespace().skip(1).take(8).filter_map(|tick| tick.parse().ok()).collect();
        let at = |place: usize| ticks.get(place).copied().unwrap_or(0);
        // A processor waiting for I/O is free for other work, so iowait counts as idle.
        Self { all: ticks.iter().sum(), idle: at(3) + at(4) }
    }

    fn percent_since(self, before: Self) -> u32 {
        let all = self.all.saturating_sub(before.all);
        let idle = self.idle.saturating_sub(before.idle).min(all);
        let percent = ((all - idle) * 100).checked_div(all).unwrap_or(0);
        u32::try_from(percent).unwrap_or(100)
    }
}

/// Bytes available without swapping.
fn free_memory() -> Option<u64> {
    parse_memory(&fs::read_to_string("/proc/meminfo").ok()?)
}

fn parse_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_what_was_not_idle_since_the_last_look() {
        let before = Processor::parse("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 1 1 1\n");
        let now = Processor::parse("cpu  150 0 125 760 140 10 10 5 0 0\n");
        assert_eq!(now.percent_since(before), 50);
        assert_eq!(now.percent_since(now), 0);
        assert_eq!(Processor::parse("nonsense").percent_since(now), 0);
    }

    #[test]
    fn memory_is_told_in_bytes() {
        assert_eq!(parse_memory("MemTotal: 9 kB\nMemAvailable:      12 kB\n"), Some(12_288));
        assert_eq!(parse_memory("MemTotal: 9 kB\n"), None);
    }
}
