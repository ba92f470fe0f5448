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
        let made = made("c".to_owned());
        Containers::change(&made, &all)
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
    let lost = Ended::Lost { how: "its container is gone".to_owned(), counts_as_failure: false };
    assert_eq!(Containers::change(&Made::default(), &AllContainers::new()), Change::Ended(lost));
}

#[test]
fn instance_is_read_from_a_name_and_only_of_this_agent() {
    let of = |name: &str| instance_in(name, "agent_A");
    let instance = Instance {
        workload: "w".to_owned(),
        id: "0123456789".to_owned(),
        agent: "agent_A".to_owned(),
    };
    assert_eq!(name_of(&instance), "w.0123456.agent_A");
    assert_eq!(of("w.0123456789.agent_A"), Some(instance));
    for other in
        ["w.0123456789.my_agent_A", "w.0123456789.agent_B", "w.agent_A", "a.b.c.agent_A", ""]
    {
        assert_eq!(of(other), None, "{other}");
    }
}

#[test]
fn paths_with_a_comma_are_refused_where_podman_would_cut_them() {
    let file =
        |mount_point: &str| pb::File { mount_point: mount_point.to_owned(), file_content: None };
    assert_eq!(faults("image: x", &[file("/a")]), []);
    let faults = faults("image: 5", &[file("/a"), file("/a,b")]);
    let told: Vec<_> = faults.iter().map(|(path, text)| (path.join("."), text.as_str())).collect();
    assert_eq!(
        told,
        [
            (
                "runtimeConfig".to_owned(),
                "runtimeConfig, line 1, column 8: expected a text: put 5 in quotes"
            ),
            ("files.1".to_owned(), "podman cannot mount '/a,b': it has a comma"),
        ]
    );
}
