//! Logs of containers, which podman keeps.

use fifogate::pb::ank_base::{self as pb, request::RequestContent, response::ResponseContent};
use testkit::{Agent, Podman, Session, container};

pub(super) fn ask(
    ctl: &mut Session,
    workload: &str,
    id: &str,
    edit: impl FnOnce(&mut pb::LogsRequest),
) -> String {
    let mut request = pb::LogsRequest {
        workload_names: vec![pb::WorkloadInstanceName {
            workload_name: workload.to_owned(),
            agent_name: "agent_A".to_owned(),
            id: id.to_owned(),
        }],
        ..Default::default()
    };
    edit(&mut request);
    ctl.ask(RequestContent::LogsRequest(request))
}

/// The lines until the end of the log, or until `most` of them.
pub(super) fn lines(ctl: &mut Session, id: &str, most: usize) -> Vec<String> {
    let mut lines = Vec::new();
    while lines.len() < most {
        match ctl.answer(id) {
            ResponseContent::LogsRequestAccepted(_) => {}
            ResponseContent::LogEntriesResponse(entries) => {
                lines.extend(entries.log_entries.into_iter().map(|entry| entry.message));
            }
            ResponseContent::LogsStopResponse(_) => break,
            other => panic!("{other:?}"),
        }
    }
    lines
}

#[test]
fn lines_of_both_streams_are_sent_as_asked_for() {
    let Some(podman) = Podman::new() else { return };
    let script = "for n in 1 2 3 4 5; do echo out$n; echo err$n >&2; done; exec sleep 100000";
    let text = container("w", script, "[]", "") + &container("short", "echo one; exit 0", "[]", "");
    let agent = Agent::start_with(podman.env(), &text, &[]);
    let mut ctl = agent.connect();
    let id = ctl.until_state("w", "Running(Ok)");
    let container = podman.id_of("w").unwrap();
    testkit::wait_for("all lines", || {
        let output = podman.output(&["logs", &container]);
        let lines = [&output.stdout, &output.stderr].map(|own| own.split(|b| *b == b'\n').count());
        (lines == [6, 6]).then_some(())
    });
    let all: Vec<_> = (1..=5).flat_map(|n| [format!("out{n}"), format!("err{n}")]).collect();
    let asked = ask(&mut ctl, "w", &id, |_| {});
    let mut got = lines(&mut ctl, &asked, usize::MAX);
    let is_from = |stream: &str| {
        got.iter().filter(|line| line.starts_with(stream)).cloned().collect::<Vec<_>>()
    };
    assert!(is_from("out").is_sorted() && is_from("err").is_sorted());
    got.sort();
    let mut sorted = all.clone();
    sorted.sort();
    assert_eq!(got, sorted);
    let asked = ask(&mut ctl, "w", &id, |own| own.tail = Some(2));
    assert_eq!(lines(&mut ctl, &asked, usize::MAX).len(), 2);
    let asked = ask(&mut ctl, "w", &id, |own| own.since = Some("2100-01-01T00:00:00Z".to_owned()));
    assert_eq!(lines(&mut ctl, &asked, usize::MAX), Vec::<String>::new());
    let asked = ask(&mut ctl, "w", &id, |own| own.until = Some("2001-01-01T00:00:00Z".to_owned()));
    assert_eq!(lines(&mut ctl, &asked, usize::MAX), Vec::<String>::new());
    let short = ctl.until_state("short", "Succeeded(Ok)");
    let asked = ask(&mut ctl, "short", &short, |own| own.follow = Some(true));
    assert_eq!(lines(&mut ctl, &asked, usize::MAX), ["one"], "it ends with its container");
}

#[test]
fn follower_hears_a_line_when_it_comes_and_can_cancel() {
    let Some(podman) = Podman::new() else { return };
    let seen = testkit::Seen::new();
    let volume = format!(r#"["--volume={}:/seen"]"#, seen.path().display());
    let script = "echo first; until ls /seen/go > /dev/null 2>&1; do sleep 0.1; done; echo second; exec sleep 100000";
    let agent = Agent::start_with(podman.env(), &container("w", script, &volume, ""), &[]);
    let mut ctl = agent.connect();
    let id = ctl.until_state("w", "Running(Ok)");
    let asked = ask(&mut ctl, "w", &id, |own| own.follow = Some(true));
    assert_eq!(lines(&mut ctl, &asked, 1), ["first"]);
    std::fs::write(seen.path().join("go"), "").unwrap();
    assert_eq!(lines(&mut ctl, &asked, 1), ["second"]);
    let container = podman.id_of("w").unwrap();
    let readers = || testkit::processes_with(&format!("logs\0--follow\0{container}")).len();
    assert_eq!(readers(), 1);
    ctl.request(&asked, RequestContent::LogsCancelRequest(pb::LogsCancelRequest {}));
    testkit::wait_for("the end of the reader", || (readers() == 0).then_some(()));
}
