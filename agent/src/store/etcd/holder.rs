//! The record of who had an agent's name last. It outlives the lease: a process that cannot reach etcd,
//! or was stopped, may still run workloads when the name is free, so another one has to know of it.
//! Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where a process runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The machine, as it calls itself; empty if it does not.
    pub machine: String,
    /// This start of its kernel.
    pub boot: String,
    /// The file that is locked as long as the process lives.
    pub lock: String,
}

impl Place {
    /// Whether no process can run any more that ran at `other`, given that one runs here now.
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
    /// After so many seconds without its lease it has ended its workloads; never by itself, if `None`.
    pub(super) ends_after: Option<f64>,
}

/// What another process has to wait for before it may take the name when that is free.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Wait {
    Nothing,
    For(Duration),
    /// Somebody has to make sure that the one before is gone.
    ForEver,
}

impl Wait {
    /// Whether enough was waited since the name was seen to be free.
    pub(super) fn is_over(self, waited: Option<Duration>) -> bool {
        match self {
            Self::Nothing => true,
            Self::For(time) => waited.is_some_and(|waited| waited > time),
            Self::ForEver => false,
        }
    }
}

impl Holder {
    /// What one at `place` has to wait for.
    pub(super) fn wait(&self, place: &Place) -> Wait {
        let seconds = self.ends_after.map(Duration::try_from_secs_f64);
        match seconds {
            _ if place.outlived(&self.place) => Wait::Nothing,
            Some(Ok(time)) => Wait::For(time),
            Some(Err(_)) | None => Wait::ForEver,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        // Texts and numbers can always be written.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// `None` if it makes no sense.
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
