use super::*;
use crate::state::convert::{from_pb, to_pb};

/// The fault of a state in YAML, prefixed by its line.
fn fault_of(text: &str) -> String {
    let fault = NewState::from_yaml(text).err().unwrap();
    format!("{}: {}", fault.line, fault.what)
}

#[test]
fn whole_state_arrives_in_the_message() {
    let text = "\
desiredState:
  apiVersion: v1
  configs: { node: { name: agent_B, hosts: [h1, { a: b }] }, mode: \"\" }
  workloads:
    db:
      agent: '{{node.name}}'
      configs: { node: node }
      controlInterfaceAccess:
        allowRules:
          - { type: StateRule, operation: ReadWrite, filterMasks: [\"*\"] }
          - { type: LogRule, workloadNames: [\"db*\"] }
      dependencies: { ctl: ADD_COND_FAILED }
      files:
        - { mountPoint: /etc/db.conf, data: x }
        - { mountPoint: /etc/key, binaryData: QUJD }
      restartPolicy: ALWAYS
      runtime: podman
      runtimeConfig: |
        image: db:1
      tags: { owner: team_a, no: \"5\" }
agents: { agent_A: { tags: { zone: front } } }
";
    let state = NewState::from_yaml(text).unwrap();
    // No entry of the input is lost in the message.
    assert_eq!(from_pb(&state.to_pb()).unwrap().root(), &state.0);
}

#[test]
fn state_as_it_was_printed_can_be_given_back() {
    let text = "\
desiredState: { apiVersion: v1, workloads: {} }
workloadStates: { agent_A: { db: { abc: { state: Running, subState: Ok } } } }
effectiveState: { apiVersion: v1 }
agents: { agent_A: { status: { cpuUsage: 3 }, tags: { a: b } } }
";
    let state = NewState::from_yaml(text).unwrap().to_pb();
    assert!(state.workload_states.is_none() && state.effective_state.is_none());
    assert!(state.agents.unwrap().agents["agent_A"].status.is_none());
}

#[test]
fn fault_names_line_and_path_and_what_would_be_right() {
    assert_eq!(
        fault_of("desiredState:\n  workloads:\n    db:\n      restartPolicy: SOMETIMES\n"),
        "4: desiredState.workloads.db.restartPolicy is `SOMETIMES`; one of NEVER, ON_FAILURE, \
         ALWAYS belongs here"
    );
    assert_eq!(
        fault_of("desiredState:\n  workload: {}\n"),
        "2: desiredState has no field `workload`, only apiVersion, configs, workloads"
    );
    assert_eq!(
        fault_of("workload: {}\n"),
        "1: a state has no field `workload`, only agents, desiredState, effectiveState, \
         workloadStates"
    );
    assert_eq!(
        fault_of("desiredState:\n  configs:\n    port: 5432\n"),
        "3: desiredState.configs.port is a number, which is a text in quotes only; a text, a \
         sequence or a mapping belongs here"
    );
    assert_eq!(
        fault_of("desiredState:\n  configs:\n    on: true\n"),
        "3: desiredState.configs.on is true or false, which is a text in quotes only; a text, a \
         sequence or a mapping belongs here"
    );
    assert_eq!(
        fault_of("desiredState:\n  workloads:\n"),
        "2: desiredState.workloads is empty; a mapping belongs here"
    );
    assert_eq!(
        fault_of("desiredState: { configs: { 1: a } }"),
        "1: a name below desiredState.configs is no text; put it in quotes"
    );
    assert_eq!(
        fault_of("- a"),
        "1: this is a sequence; a mapping of agents, desiredState, effectiveState, \
         workloadStates belongs here"
    );
}

#[test]
fn rule_and_file_need_all_that_makes_them_one() {
    let rule = |rule: &str| {
        let text = format!(
            "desiredState: {{workloads: {{w: {{controlInterfaceAccess: \
             {{allowRules: [{rule}]}}}}}}}}"
        );
        NewState::from_yaml(&text).map(|_| ()).map_err(|fault| fault.what)
    };
    assert_eq!(rule("{type: LogRule, workloadNames: []}"), Ok(()));
    let at = "desiredState.workloads.w.controlInterfaceAccess.allowRules.0";
    let kinds = "{type: StateRule, operation, filterMasks} or {type: LogRule, workloadNames}";
    for wrong in ["{type: StateRule, filterMasks: []}", "{type: Other}", "text", "[]"] {
        assert_eq!(rule(wrong), Err(format!("{at} is something else; {kinds} belongs here")));
    }
    let misspelled = rule("{type: StateRule, operation: read, filterMasks: []}").unwrap_err();
    assert!(misspelled.contains("operation is `read`; one of Nothing, Read"), "{misspelled}");

    let both = "desiredState: {workloads: {w: {files: [{mountPoint: a, data: b, binaryData: c}]}}}";
    assert!(fault_of(both).contains("has no field `binaryData`"), "{}", fault_of(both));
}

#[test]
fn long_names_are_not_quoted_as_a_whole() {
    let long = "workload".repeat(5_000);
    for text in [
        format!("{long}: x"),
        format!("desiredState: {{{long}: x}}"),
        format!("desiredState: {{workloads: {{w: {{restartPolicy: {long}}}}}}}"),
        format!("desiredState: {{workloads: {{{long}: {{x: y}}}}}}"),
        format!("desiredState: {{workloads: {{{long}: {{agent: 5}}}}}}"),
        format!("desiredState: {{configs: {{{long}: {{5: x}}}}}}"),
        format!("desiredState: {{configs: {{{long}: {}x{}}}}}", "[".repeat(21), "]".repeat(21)),
        format!("desiredState: {{configs: {{{long}: x, {long}: x}}}}"),
        format!("desiredState: *{long}"),
    ] {
        let told = fault_of(&text);
        assert!(told.len() < 600, "{} bytes: {}", told.len(), &told[..300]);
    }
}

#[test]
fn what_is_no_single_document_is_refused() {
    assert!(fault_of("a: [").contains(": this is no YAML: "));
    assert!(fault_of("a: 1\na: 2").contains("this is no YAML: "), "{}", fault_of("a: 1\na: 2"));
    assert_eq!(fault_of(""), "1: there is nothing in it");
    assert_eq!(fault_of("{}\n---\n{}"), "3: a second document begins here; one is enough");
}

#[test]
fn spellings_of_the_table_are_those_of_the_messages() {
    // Tree and table spell them independently; a spelling unknown to the tree would come back
    // changed.
    let enums = [
        ["desiredState", "workloads", "w", "restartPolicy", ""],
        ["desiredState", "workloads", "w", "dependencies", "d"],
    ];
    for path in enums {
        let path: Vec<_> = path.into_iter().filter(|name| !name.is_empty()).collect();
        let Shape::OneOf(texts) = Shape::at(&path).unwrap() else { panic!("{path:?}") };
        for text in texts {
            let mut state = NewState::default();
            state.put(&path, Node::text(text));
            let tree = from_pb(&state.to_pb()).unwrap();
            assert_eq!(tree.get(&path), Some(&Node::text(text)), "{path:?}");
            assert_eq!(to_pb(&tree, convert::Fill::Sparse), state.to_pb());
        }
    }
    for operation in ["Nothing", "Read", "Write", "ReadWrite"] {
        let text = format!(
            "desiredState: {{workloads: {{w: {{controlInterfaceAccess: {{denyRules: \
             [{{type: StateRule, operation: {operation}, filterMasks: [a]}}]}}}}}}}}"
        );
        let state = NewState::from_yaml(&text).unwrap();
        let found = from_pb(&state.to_pb()).unwrap();
        let path = ["desiredState", "workloads", "w", "controlInterfaceAccess", "denyRules"];
        let rules = found.get(&path).and_then(Node::as_seq).unwrap();
        assert_eq!(rules[0].str_at("operation"), Some(operation));
    }
}
