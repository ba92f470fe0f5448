use super::*;

fn listed(id: &str, state: &str, exit_code: i64, name: &str) -> Listed {
    let text = serde_json::json!({
        "Id": id, "State": state, "ExitCode": exit_code, "Labels": {"name": name}, "Pod": "",
    });
    serde_json::from_value(text).unwrap()
}

#[test]
fn each_state_of_podman_is_a_state_of_the_workload() {
    let state = |word: &str, code| {
        let all = [("c".to_owned(), listed("c", word, code, "w.i.a"))].into();
        let seen = Seen { asked: Instant::now(), containers: Some(Arc::new(all)) };
        change("c", &seen)
    };
    for word in ["created", "configured", "initialized"] {
        assert_eq!(state(word, 0), Change::State(states::starting(word)));
    }
    for word in ["running", "Running"] {
        assert_eq!(state(word, 0), Change::State(states::running()));
    }
    for word in ["stopping", "stopped", "removing"] {
        assert_eq!(state(word, 0), Change::State(states::stopping(word)));
    }
    for word in ["unknown", "paused", "other"] {
        assert_eq!(state(word, 0), Change::State(states::failed_unknown(word)));
    }
    assert_eq!(state("exited", 0), Change::Ended(Ended::Succeeded));
    let failed = Ended::Failed("Exit code: '7'".to_owned());
    assert_eq!(state("Exited", 7), Change::Ended(failed));
    let seen = Seen { asked: Instant::now(), containers: Some(Arc::default()) };
    assert!(matches!(change("c", &seen), Change::Ended(Ended::Lost(_, false))));
    let seen = Seen { asked: Instant::now(), containers: None };
    let unknown = states::failed_unknown("Error getting state from Podman.");
    assert_eq!(change("c", &seen), Change::State(unknown));
}

#[test]
fn instance_is_read_from_the_labels_and_only_of_this_agent() {
    let of = |name: &str| instance_of(&listed("c", "running", 0, name), "agent_A");
    let instance = Instance {
        workload: "w".to_owned(),
        id: "0123456789".to_owned(),
        agent: "agent_A".to_owned(),
    };
    assert_eq!(name_of(&instance), "w.0123456.agent_A");
    assert_eq!(of("w.0123456789.agent_A"), Some((instance, true)));
    for other in
        ["w.0123456789.my_agent_A", "w.0123456789.agent_B", "w.agent_A", "a.b.c.agent_A", ""]
    {
        assert_eq!(of(other), None, "{other}");
    }
}

#[test]
fn pause_before_a_retry_doubles_up_to_its_bound_and_never_gives_up() {
    let podman =
        Podman { agent: String::new(), run_dir: String::new(), left: None, watch: OnceLock::new() };
    for retry in 1..100 {
        let longest = Duration::from_millis(500) * 2_u32.pow((retry - 1).min(16));
        let pause = podman.pause_before(retry).unwrap();
        assert!(pause <= longest.min(LONGEST_PAUSE), "{retry}: {pause:?}");
    }
}
