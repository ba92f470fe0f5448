//! Fencing: workloads end before another agent can run them under the same name.
//!
//! Input is the [`Lease`] of the agent's name; output is the order to end ([`Ending`]). The agent alone
//! cannot guarantee this, since it may be stopped or hang. It therefore starts its own program as a
//! watchdog process and writes a line to it for each renewal of the lease. The watchdog kills the agent
//! when no renewal arrives within the takeover time; the workloads end with the agent, however it ended.
//! The clock includes the time of a suspended machine.

use std::{
    io::{self, Read},
    os::fd::AsFd,
    path::Path,
    process::{ExitCode, Stdio},
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal, kill},
        time::TimeSpec,
        timerfd::{ClockId as TimerClock, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
    },
    time::{ClockId, clock_gettime},
    unistd::getppid,
};
use tokio::{
    io::AsyncWriteExt,
    process::{Child, ChildStdin, Command},
    sync::watch,
    time::sleep,
};

/// The time since the machine was started, including suspends.
#[must_use]
pub fn now() -> Duration {
    // Every Linux has this clock. Without it no time would ever pass, and the watchdog ends.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// The state of a name held for a limited time.
#[derive(Clone, Debug)]
pub struct Lease {
    /// Time of the last confirmed renewal.
    pub kept: watch::Receiver<Duration>,
    /// The reason for the loss of the name, once it is lost.
    pub lost: watch::Receiver<Option<String>>,
    /// Time without renewal after which another agent may take the name. `None`: never.
    pub ends_after: Option<Duration>,
}

/// The reason for the agent to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// There is time to end the workloads in order.
    InOrder(String),
    /// Another agent may run the workloads already.
    AtOnce(String),
}

/// Starts the watchdog and reports to it; the receiver yields the reason for the agent to end.
///
/// # Errors
/// The watchdog cannot be started.
pub fn start(
    lease: Lease,
    program: &Path,
    name: &str,
    grace: Duration,
) -> io::Result<watch::Receiver<Option<Ending>>> {
    let (ending, told) = watch::channel(None);
    let dog = lease.ends_after.map(|time| Dog::start(program, name, time)).transpose()?;
    tokio::spawn(guard(lease, dog, grace, ending));
    Ok(told)
}

/// The agent's side of the watchdog.
#[derive(Debug)]
struct Dog {
    child: Child,
    orders: ChildStdin,
}

impl Dog {
    fn start(program: &Path, name: &str, ends_after: Duration) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.arg("watchdog").arg(ends_after.as_secs_f64().to_string()).arg(name);
        // In a process group of its own: a signal from the terminal to the agent must not reach the
        // watchdog.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn()?;
        let orders =
            child.stdin.take().ok_or_else(|| io::Error::other("no pipe to the watchdog"))?;
        Ok(Self { child, orders })
    }

    async fn kept(&mut self, at: Duration) -> io::Result<()> {
        self.orders.write_all(format!("{}\n", at.as_millis()).as_bytes()).await
    }
}

async fn guard(
    mut lease: Lease,
    mut dog: Option<Dog>,
    grace: Duration,
    ending: watch::Sender<Option<Ending>>,
) {
    let at_once = |text: String| {
        ending.send_replace(Some(Ending::AtOnce(text)));
    };
    loop {
        let kept = *lease.kept.borrow_and_update();
        let watched = match &mut dog {
            Some(dog) => dog.kept(kept).await,
            None => Ok(()),
        };
        if watched.is_err() {
            return at_once("the agent's watchdog has ended".to_owned());
        }
        tokio::select! {
            // The store is closed: the dropped pipe to the watchdog ends it in order.
            changed = lease.kept.changed() => if changed.is_err() { return },
            lost = lost(&mut lease.lost) => {
                let Some(text) = lost else { return };
                return at_once(text);
            }
            () = ended(&mut dog) => return at_once("the agent's watchdog has ended".to_owned()),
            () = late(kept, lease.ends_after, grace) => {
                let time = lease.ends_after.unwrap_or_default().as_secs_f64();
                ending.send_replace(Some(Ending::InOrder(format!(
                    "etcd could not be reached: {time} s after that another agent may take the name \
                     (--takeover-after), so all workloads were ended"
                ))));
                // The watchdog kills the agent if ending the workloads takes longer than the remaining
                // time.
                return ended(&mut dog).await;
            }
        }
    }
}

/// Waits for the loss of the name and returns the reason; `None` if the sender has gone.
async fn lost(told: &mut watch::Receiver<Option<String>>) -> Option<String> {
    told.wait_for(Option::is_some).await.ok().and_then(|text| text.clone())
}

async fn ended(dog: &mut Option<Dog>) {
    match dog {
        Some(dog) => drop(dog.child.wait().await),
        None => std::future::pending().await,
    }
}

/// Waits until the remaining time just suffices to end all workloads in order.
async fn late(kept: Duration, ends_after: Option<Duration>, grace: Duration) {
    let Some(ends_after) = ends_after else { return std::future::pending().await };
    // At most half of the time: the other half is left for etcd to come back.
    let needed = (grace + Duration::from_secs(2)).min(ends_after / 2);
    sleep((kept + ends_after - needed).saturating_sub(now())).await;
}

/// Runs the watchdog of the parent process: reads the times of renewals, one per line, and kills the
/// parent `seconds` after the latest of them. Ends with the parent.
#[must_use]
pub fn main(seconds: f64, name: &str) -> ExitCode {
    // Asked first: after the end of the agent it would be another process.
    let parent = getppid();
    // A service manager sends these signals to all processes of a service. The watchdog blocks them: it
    // has to guard the agent while that ends its workloads.
    let mut signals = SigSet::empty();
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().for_each(|own| signals.add(own));
    let _ = signals.thread_block();
    match watch(Duration::from_secs_f64(seconds)) {
        Ok(Seen::End) => return ExitCode::SUCCESS,
        Ok(Seen::Late) => eprintln!(
            "error: {name} could not keep its name in etcd for {seconds} s and did not end: another \
             agent may have the name, so this one and its workloads are killed"
        ),
        // The agent ends itself when its watchdog is gone.
        Err(error) => {
            eprintln!("error: the watchdog of {name} failed: {error}");
            return ExitCode::FAILURE;
        }
    }
    // A dead parent's id may belong to another process by now.
    if getppid() == parent {
        let _ = kill(parent, Signal::SIGKILL);
    }
    ExitCode::FAILURE
}

/// The event seen by the watchdog.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// The agent has ended.
    End,
    /// The agent did not renew its name in time.
    Late,
}

fn watch(ends_after: Duration) -> io::Result<Seen> {
    let timer = TimerFd::new(TimerClock::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC)?;
    let mut input = io::stdin();
    let mut line = Vec::new();
    let set = |kept: Duration| {
        let at = TimeSpec::from_duration(kept + ends_after);
        timer.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)
    };
    // Counted from here until the first renewal arrives.
    set(now())?;
    loop {
        let ready = {
            let mut all = [
                PollFd::new(timer.as_fd(), PollFlags::POLLIN),
                PollFd::new(input.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut all, PollTimeout::NONE) {
                Ok(_) => all.map(|own| own.revents().is_some_and(|events| !events.is_empty())),
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            }
        };
        // Input before the timer: a renewal may be waiting although the timer has expired.
        if ready[1] {
            let mut some = [0; 1024];
            let count = input.read(&mut some)?;
            // The agent alone holds the other end, so it has ended.
            if count == 0 {
                return Ok(Seen::End);
            }
            line.extend_from_slice(&some[..count]);
            if let Some(kept) = last_line(&mut line) {
                set(kept)?;
                continue;
            }
        }
        if ready[0] {
            return Ok(Seen::Late);
        }
    }
}

/// Removes all whole lines and returns the time in the last one; a partial line stays in `text`.
fn last_line(text: &mut Vec<u8>) -> Option<Duration> {
    let end = text.iter().rposition(|byte| *byte == b'\n')?;
    let rest = text.split_off(end + 1);
    let lines = std::mem::replace(text, rest);
    let last = lines[..end].rsplit(|byte| *byte == b'\n').next()?;
    str::from_utf8(last).ok()?.parse().ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_whole_line_counts_and_a_part_of_one_waits_for_its_end() {
        let mut text = b"1\n22\n3".to_vec();
        assert_eq!(last_line(&mut text), Some(Duration::from_millis(22)));
        assert_eq!((last_line(&mut text), text.as_slice()), (None, b"3".as_slice()));
        text.extend_from_slice(b"33\n");
        assert_eq!(last_line(&mut text), Some(Duration::from_millis(333)));
        assert!(text.is_empty() && last_line(&mut b"x\n".to_vec()).is_none());
    }
}
