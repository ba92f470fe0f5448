//! Record of the last process with an agent's name.
//!
//! The record and the place of a new process go in; the waiting time before taking the name comes out.
//! The record outlives the lease: a process that is stopped or cut off from etcd may still run workloads
//! after its name is free. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The place of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The machine's own name for itself; empty if it has none.
    pub machine: String,
    /// The id of this boot of its kernel.
    pub boot: String,
    /// The file locked by the process for its lifetime.
    pub lock: String,
}

impl Place {
    /// True if a process at `other` must have ended, given that one runs here now: the same lock is
    /// ours, or the machine was rebooted.
    fn outlived(&self, other: &Self) -> bool {
        let same_lock = !self.lock.is_empty() && self.boot == other.boot && self.lock == other.lock;
        let rebooted = !self.machine.is_empty() && self.boot != other.boot;
        self.machine == other.machine && (same_lock || rebooted)
    }
}

/// The record: one line of JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Holder {
    /// The process.
    pub(super) id: String,
    pub(super) place: Place,
    /// Seconds without its lease after which it has ended its workloads; `None`: never by itself.
    pub(super) ends_after: Option<f64>,
}

/// The wait of another process before it may take the free name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Wait {
    Nothing,
    For(Duration),
    /// An operator has to make sure that the previous process is gone.
    ForEver,
}

impl Wait {
    /// True if `waited`, the time since the name was found free, suffices.
    pub(super) fn is_over(self, waited: Option<Duration>) -> bool {
        match self {
            Self::Nothing => true,
            Self::For(time) => waited.is_some_and(|waited| waited > time),
            Self::ForEver => false,
        }
    }
}

impl Holder {
    /// The wait of a process at `place`.
    pub(super) fn wait(&self, place: &Place) -> Wait {
        let seconds = self.ends_after.map(Duration::try_from_secs_f64);
        match seconds {
            _ if place.outlived(&self.place) => Wait::Nothing,
            Some(Ok(time)) => Wait::For(time),
            // An unusable time proves nothing, like none at all.
            Some(Err(_)) | None => Wait::ForEver,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        // Texts and numbers always encode.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// `None` if the record is malformed.
    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(machine: &str, boot: &str, lock: &str) -> Place {
        Place { machine: machine.into(), boot: boot.into(), lock: lock.into() }
    }

    #[test]
    fn name_is_free_at_once_only_where_the_process_before_cannot_run_any_more() {
        let holder =
            |ends_after| Holder { id: "1".to_owned(), place: place("m", "b", "l"), ends_after };
        for (own, wait) in [
            (place("m", "b", "l"), Wait::Nothing),
            (place("m", "rebooted", "l"), Wait::Nothing),
            (place("m", "rebooted", "other"), Wait::Nothing),
            (place("m", "b", "other"), Wait::For(Duration::from_millis(1500))),
            (place("n", "b", "l"), Wait::For(Duration::from_millis(1500))),
            (place("n", "c", "l"), Wait::For(Duration::from_millis(1500))),
            (place("", "c", "l"), Wait::For(Duration::from_millis(1500))),
            (Place::default(), Wait::For(Duration::from_millis(1500))),
        ] {
            assert_eq!(holder(Some(1.5)).wait(&own), wait, "{own:?}");
            let never = if wait == Wait::Nothing { wait } else { Wait::ForEver };
            assert_eq!(holder(None).wait(&own), never, "{own:?}");
        }
        // Machines without a name are not taken for each other, nor is one that says nothing.
        let nameless = Holder { place: place("", "b", "l"), ..holder(None) };
        assert_eq!(nameless.wait(&place("", "c", "l")), Wait::ForEver);
        assert_eq!(nameless.wait(&place("", "b", "l")), Wait::Nothing);
        let unknown = Holder { place: Place::default(), ..holder(Some(-1.0)) };
        assert_eq!(unknown.wait(&Place::default()), Wait::ForEver);
        let holder = holder(Some(1.5));
        assert_eq!(Holder::decode(&holder.encode()), Some(holder));
        assert_eq!(Holder::decode(b"x"), None);
    }
}
