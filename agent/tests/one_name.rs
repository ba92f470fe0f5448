//! Two agents of one name: whatever becomes of them, no workload runs at both.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{collections::BTreeMap, fs, path::Path};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use testkit::{Agent, Etcd, processes_with, wait_for, workload};

/// An etcd, and where a workload leaves when it ran: each of its processes in a file of its own.
struct Cluster {
    etcd: Etcd,
    beats: TempDir,
}

impl Cluster {
    fn new() -> Self {
        Self { etcd: Etcd::start(), beats: tempfile::tempdir().unwrap() }
    }

    fn agent(&self, options: &[&str]) -> Agent {
        let script = format!(
            "f=$(mktemp {}/XXXXXX); while :; do date +%s%N >> $f; sleep 0.02; done",
            self.beats.path().display()
        );
        let endpoint = self.etcd.endpoint();
        let options = [&["--etcd", endpoint.as_str()][..], options].concat();
        Agent::start(&workload("beats", &script, ""), &options)
    }

    /// When each process ran for the first and the last time, in order.
    fn runs(&self) -> Vec<(u128, u128)> {
        let mut runs = BTreeMap::new();
        for entry in fs::read_dir(self.beats.path()).unwrap() {
            let text = fs::read_to_string(entry.unwrap().path()).unwrap();
            // The last line may be half written.
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let mut times = whole.lines().map(|line| line.parse().unwrap());
            if let Some(first) = times.next() {
                runs.insert(first, times.next_back().unwrap_or(first));
            }
        }
        runs.into_iter().collect()
    }

    /// Calls `f` with a client of etcd.
    fn with_etcd<T>(&self, f: impl AsyncFnOnce(etcd_client::Client) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            f(etcd_client::Client::connect([self.etcd.endpoint()], None).await.unwrap()).await
        })
    }

    fn value(&self, key: &str) -> Option<Vec<u8>> {
        self.with_etcd(async |mut client| {
            let found = client.get(format!("fifogate/{key}"), None).await.unwrap();
            found.kvs().first().map(|kv| kv.value().to_vec())
        })
    }

    fn until_runs(&self, count: usize) -> Vec<(u128, u128)> {
        wait_for(&format!("process {count}"), || {
            let runs = self.runs();
            (runs.len() == count).then_some(runs)
        })
    }
}

fn assert_one_after_the_other(runs: &[(u128, u128)]) {
    for pair in runs.windows(2) {
        assert!(pair[0].1 < pair[1].0, "two at once: {runs:?}");
    }
}

fn is_there(path: &Path) -> bool {
    path.join("lock").exists()
}

#[test]
fn workloads_of_a_stopped_agent_have_ended_before_another_of_its_name_starts_them() {
    let cluster = Cluster::new();
    let options = ["--takeover-after", "3"];
    let mut first = cluster.agent(&options);
    cluster.until_runs(1);
    first.signal(Signal::SIGSTOP);
    let second = cluster.agent(&options);
    cluster.until_runs(2);
    first.signal(Signal::SIGCONT);
    assert_ne!(first.status(), Some(0));
    let said = first.log();
    assert!(said.contains("agent_A could not keep its name in etcd for 3 s"), "{said}");
    assert!(second.log().contains("another agent of the name agent_A ran elsewhere"));
    let begun = cluster.runs()[1].1;
    // The second one goes on.
    wait_for("more of it", || (cluster.runs()[1].1 > begun).then_some(()));
    assert_eq!(cluster.runs().len(), 2);
    assert_one_after_the_other(&cluster.runs());
}

#[test]
fn agent_that_goes_on_in_time_has_its_name_again_and_the_other_ends() {
    let cluster = Cluster::new();
    let options = ["--takeover-after", "60"];
    let first = cluster.agent(&options);
    cluster.until_runs(1);
    first.signal(Signal::SIGSTOP);
    let mut second = cluster.agent(&options);
    wait_for("that the lease has ended", || {
        second.log().contains("this one waits 60s").then_some(())
    });
    first.signal(Signal::SIGCONT);
    assert_eq!(second.status(), Some(1));
    let said = second.log();
    assert!(said.contains("there is another agent of the name agent_A: stop it"), "{said}");
    let begun = cluster.until_runs(1)[0].1;
    wait_for("more of the first one", || (cluster.runs()[0].1 > begun).then_some(()));
}

#[test]
fn workloads_end_in_order_when_etcd_is_away_for_longer_than_another_agent_waits() {
    let mut cluster = Cluster::new();
    let mut agent = cluster.agent(&["--takeover-after", "6", "--grace", "1"]);
    cluster.until_runs(1);
    cluster.etcd.kill();
    assert_eq!(agent.status(), Some(1));
    let said = agent.log();
    assert!(
        said.contains("error: etcd could not be reached") && said.contains("beats stopped"),
        "{said}"
    );
    let ended = cluster.runs();
    // It misses nothing when both are there again.
    cluster.etcd.restart();
    agent.restart();
    let runs = cluster.until_runs(2);
    assert_eq!(runs[0], ended[0]);
    assert_one_after_the_other(&runs);
}

#[test]
fn killed_agent_has_its_name_again_where_it_was_and_no_other_has_it_if_that_is_not_wanted() {
    let cluster = Cluster::new();
    let options = ["--takeover-after", "never"];
    let mut first = cluster.agent(&options);
    cluster.until_runs(1);
    first.kill();
    let mut second = cluster.agent(&options);
    assert_eq!(second.status(), Some(1));
    let said = second.log();
    assert!(said.contains("delete fifogate/holders/agent_A in etcd"), "{said}");
    first.restart();
    assert_one_after_the_other(&cluster.until_runs(2));
    // One that leaves in order is not waited for.
    first.signal(Signal::SIGTERM);
    assert_eq!(first.status(), Some(0));
    second.restart();
    assert_one_after_the_other(&cluster.until_runs(3));
    assert!(is_there(&second.path("run/agent")));
}

#[test]
fn agent_whose_name_was_taken_ends_at_once_and_says_so() {
    let cluster = Cluster::new();
    let mut first = cluster.agent(&["--takeover-after", "never"]);
    cluster.until_runs(1);
    first.signal(Signal::SIGSTOP);
    // Somebody says that it is gone, although it is not.
    let mut second = cluster.agent(&["--takeover-after", "never"]);
    assert_eq!(second.status(), Some(1));
    cluster.with_etcd(async |mut client| {
        client.delete("fifogate/holders/agent_A", None).await.unwrap();
    });
    second.restart();
    cluster.until_runs(2);
    first.signal(Signal::SIGCONT);
    assert_eq!(first.status(), Some(1));
    let said = first.log();
    assert!(said.contains("there is another agent of the name agent_A"), "{said}");
    let ended = cluster.runs()[0].1;
    let second_last = cluster.runs()[1].1;
    wait_for("more of the second one", || {
        (cluster.runs()[1].1 > second_last + 100_000_000).then_some(())
    });
    assert_eq!(cluster.runs()[0].1, ended, "the first one's workload has ended with it");
}

#[test]
fn name_that_somebody_deletes_or_writes_is_taken_again_by_the_agent_that_runs() {
    let cluster = Cluster::new();
    let agent = cluster.agent(&[]);
    cluster.until_runs(1);
    let names = || ["owners/agent_A", "holders/agent_A"].map(|key| cluster.value(key));
    let before = names();
    assert!(before.iter().all(Option::is_some));
    for key in ["owners", "holders"] {
        cluster.with_etcd(async |mut client| {
            client.delete(format!("fifogate/{key}/agent_A"), None).await.unwrap();
        });
        wait_for(key, || (names() == before).then_some(()));
    }
    // All at once, and the agent goes on with what it knows.
    cluster.etcd.delete_all("fifogate");
    wait_for("the name", || (names() == before).then_some(()));
    let mut second = cluster.agent(&[]);
    assert_eq!(second.status(), Some(1));
    assert!(
        second.log().contains("there is another agent of the name agent_A"),
        "{}",
        second.log()
    );
    assert_eq!(cluster.runs().len(), 1, "{}", agent.log());
}

#[test]
fn name_that_is_deleted_while_etcd_holds_no_state_is_taken_again() {
    let cluster = Cluster::new();
    let agent = cluster.agent(&[]);
    cluster.until_runs(1);
    let delete = |key: &str| {
        cluster.with_etcd(async |mut client| {
            client.delete(format!("fifogate/{key}"), None).await.unwrap();
        });
    };
    delete("layout");
    wait_for("word of the layout", || agent.log().contains("holds no state").then_some(()));
    // Nothing is watched now.
    for key in ["owners/agent_A", "holders/agent_A"] {
        delete(key);
        wait_for(key, || cluster.value(key).map(drop));
    }
    assert_eq!(cluster.runs().len(), 1, "{}", agent.log());
}

#[test]
fn watchdog_ends_with_its_agent_only_and_no_agent_goes_on_without_one() {
    let cluster = Cluster::new();
    let mut agent = cluster.agent(&["--takeover-after", "77.25"]);
    let watchdogs = || processes_with("watchdog\u{0}77.25");
    for (signal, count) in [(Signal::SIGTERM, 1), (Signal::SIGKILL, 2)] {
        cluster.until_runs(count);
        let [watchdog] = watchdogs()[..] else { panic!("{:?}", watchdogs()) };
        kill(Pid::from_raw(watchdog), signal).unwrap();
        if signal == Signal::SIGTERM {
            agent.signal(Signal::SIGTERM);
            assert_eq!(agent.status(), Some(0), "in order: {}", agent.log());
            agent.restart();
        }
    }
    assert_eq!(agent.status(), Some(1));
    assert!(agent.log().contains("error: the agent's watchdog has ended"), "{}", agent.log());
    wait_for("the end of all watchdogs", || watchdogs().is_empty().then_some(()));
}
