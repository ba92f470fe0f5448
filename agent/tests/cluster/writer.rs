//! A workload that changes configs, one update after the other, and remembers what was acknowledged.

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

use testkit::{Session, update, wait_for};

use super::history::Past;

/// Longer than an update may take.
const ANSWER: Duration = Duration::from_secs(20);

#[derive(Clone, Default)]
pub(crate) struct Log {
    pub(crate) acknowledged: Vec<u32>,
    /// Updates that were surely not done, with what was said.
    pub(crate) refused: Vec<(u32, String)>,
    /// Of these the session ended first, or nobody knows.
    unknown: usize,
}

pub(crate) struct Writer {
    pub(crate) name: String,
    log: Arc<Mutex<Log>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(crate) fn start(run_dir: PathBuf, workload: &str) -> Self {
        let (log, stop) = (Arc::<Mutex<Log>>::default(), Arc::<AtomicBool>::default());
        let (name, own, stopped) = (workload.to_owned(), log.clone(), stop.clone());
        let thread = thread::spawn(move || {
            let mut number = 0;
            while !stopped.load(Ordering::Relaxed) {
                if write(&run_dir, &name, &own, &stopped, &mut number).is_err() {
                    thread::sleep(Duration::from_millis(20));
                }
            }
        });
        Self { name: workload.to_owned(), log, stop, thread: Some(thread) }
    }

    pub(crate) fn log(&self) -> Log {
        self.log.lock().unwrap().clone()
    }

    /// Waits for so many further acknowledgements.
    pub(crate) fn progress(&self, more: usize) {
        let wanted = self.log().acknowledged.len() + more;
        wait_for(&format!("{more} acknowledgements of {}", self.name), || {
            (self.log().acknowledged.len() >= wanted).then_some(())
        });
    }

    /// Waits until an update is refused, and gives the reason.
    pub(crate) fn refusal(&self) -> String {
        let before = self.log().refused.len();
        wait_for(&format!("a refusal of {}", self.name), || {
            self.log().refused.get(before).map(|(_, reason)| reason.clone())
        })
    }

    pub(crate) fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "{} panicked", self.name);
        }
    }

    /// All that was acknowledged came to be, once and in its order; what was refused did not.
    pub(crate) fn verify(&self, past: &Past) {
        let log = self.log();
        let number = |text: &String| text.parse::<u32>().unwrap();
        let was: Vec<u32> =
            past.configs.get(&self.name).into_iter().flatten().map(number).collect();
        assert!(was.is_sorted_by(|a, b| a < b), "{}: {was:?}", self.name);
        for own in &log.acknowledged {
            assert!(was.binary_search(own).is_ok(), "{}: {own} is lost", self.name);
        }
        for (own, reason) in &log.refused {
            assert!(was.binary_search(own).is_err(), "{}: {own} was done: {reason}", self.name);
        }
        let done = log.acknowledged.len() + log.unknown;
        assert!(was.len() <= done, "{}: {} of {done}", self.name, was.len());
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn write(
    run_dir: &Path,
    workload: &str,
    log: &Mutex<Log>,
    stop: &AtomicBool,
    number: &mut u32,
) -> std::io::Result<()> {
    let mut session = Session::try_connect(run_dir, workload)?;
    while !stop.load(Ordering::Relaxed) {
        *number += 1;
        log.lock().unwrap().unknown += 1;
        let own = format!("desiredState.configs.{workload}");
        let (text, masks) = if number.is_multiple_of(4) {
            // Others write it too: one of those who do so at a time is asked to look again.
            let text =
                format!("configs: {{{workload}: '{number}', shared: '{workload} {number}'}}");
            (text, vec![own.as_str(), "desiredState.configs.shared"])
        } else {
            (format!("configs: {{{workload}: '{number}'}}"), vec![own.as_str()])
        };
        let id = session.try_ask(update(&text, &masks))?;
        let content = session.try_answer(&id, Instant::now() + ANSWER)?;
        let mut log = log.lock().unwrap();
        match content {
            ResponseContent::UpdateStateSuccess(_) => log.acknowledged.push(*number),
            ResponseContent::Error(error) if error.message.contains("not known whether") => {
                continue;
            }
            ResponseContent::Error(error) => log.refused.push((*number, error.message)),
            other => panic!("{other:?}"),
        }
        log.unknown -= 1;
        drop(log);
        // Changes come, but they are not a flood.
        thread::sleep(Duration::from_millis(15));
    }
    Ok(())
}
