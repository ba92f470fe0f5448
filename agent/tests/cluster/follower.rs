//! A subscriber that keeps the view that it was told, through sessions that end.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use fifogate::pb::ank_base::response::ResponseContent;

use testkit::Session;

use super::{
    history::Past,
    view::{MASKS, View},
};

/// The messages so far, as a view.
#[derive(Default)]
pub(crate) struct Received {
    pub(crate) view: View,
    /// The digests of its view after each message.
    digests: Vec<u64>,
    pub(crate) events: usize,
    pub(crate) sessions: usize,
    /// Wrong messages.
    faults: Vec<String>,
}

pub(crate) struct Follower {
    name: String,
    pub(crate) told: Arc<Mutex<Received>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    pub(crate) fn start(run_dir: PathBuf, workload: &str) -> Self {
        let (told, stop) = (Arc::<Mutex<Received>>::default(), Arc::<AtomicBool>::default());
        let (name, own, stopped) = (workload.to_owned(), told.clone(), stop.clone());
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if follow(&run_dir, &name, &own, &stopped).is_err() {
                    thread::sleep(Duration::from_millis(20));
                }
            }
        });
        Self { name: workload.to_owned(), told, stop, thread: Some(thread) }
    }

    /// Whether its view is the one of now.
    pub(crate) fn is_at(&self, now: &View) -> bool {
        self.told.lock().unwrap().view == *now
    }

    pub(crate) fn difference(&self, now: &View) -> Vec<String> {
        self.told.lock().unwrap().view.difference(now)
    }

    /// Every view that it had was true once, and they came in the order in which they were.
    pub(crate) fn verify(&self, past: &Past) {
        let told = self.told.lock().unwrap();
        assert!(told.faults.is_empty(), "{}: {:#?}", self.name, told.faults);
        assert!(told.sessions > 0 && told.events > 20, "{} was told next to nothing", self.name);
        let mut rest = past.digests.iter();
        for (at, digest) in told.digests.iter().enumerate() {
            let is_next = rest.any(|own| own == digest);
            // A new session begins with what was true when the last one ended, perhaps.
            assert!(is_next, "{}: view {at} of {} never was", self.name, told.digests.len());
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking(), "a follower panicked");
    }
}

fn follow(
    run_dir: &Path,
    workload: &str,
    told: &Mutex<Received>,
    stop: &AtomicBool,
) -> std::io::Result<()> {
    let mut session = Session::try_connect(run_dir, workload)?;
    let id = session.try_subscribe(&MASKS)?;
    while !stop.load(Ordering::Relaxed) {
        let soon = Instant::now() + Duration::from_millis(100);
        let Some(response) = session.try_response(soon)? else { continue };
        let mut told = told.lock().unwrap();
        match response.response_content {
            Some(ResponseContent::CompleteStateResponse(own)) if response.request_id == id => {
                let is_event = own.altered_fields.is_some();
                told.view.take(&own);
                let digest = told.view.digest();
                let same = told.digests.last() == Some(&digest);
                match (is_event, same) {
                    (true, true) => {
                        let text = format!("an event of nothing: {:?}", own.altered_fields);
                        told.faults.push(text);
                    }
                    (true, false) => told.events += 1,
                    (false, _) => told.sessions += 1,
                }
                if !same {
                    told.digests.push(digest);
                }
            }
            other => told.faults.push(format!("{other:?}")),
        }
    }
    Ok(())
}
