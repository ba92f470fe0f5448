//! Bounds of a manifest: names, hints, aliases, and the sizes of values and of the whole state.

use super::*;
use crate::limits::MAX_VALUE_BYTES;

/// Manifests with a fault about a name of this length, in each place for one.
fn with_name(name: &str) -> Vec<String> {
    let rule = |rule: &str| {
        workload(&format!("    controlInterfaceAccess: {{ allowRules: [{{{rule}}}] }}\n"))
    };
    vec![
        format!("apiVersion: {name}\n"),
        format!("apiVersion: v1\n{name}: {{}}\n"),
        format!("desiredState: {{apiVersion: v1}}\n{name}: {{}}\n"),
        format!("apiVersion: v1\nworkloads: {{ {name}: {{}} }}\n"),
        format!("apiVersion: v1\nworkloads: {{ {name}: x }}\n"),
        format!("apiVersion: v1\nconfigs: {{ \"{name}.\": x }}\n"),
        format!("apiVersion: v1\nconfigs: {{ {name}: x, {name}: y }}\n"),
        format!("apiVersion: v1\nconfigs: {{ a: 1{} }}\n", "0".repeat(name.len())),
        format!("apiVersion: v1\nconfigs: {{ a: *{name} }}\n"),
        format!("apiVersion: v1\nconfigs: {{ a: !{name}!x y }}\n"),
        format!("%YAML {name}\n---\napiVersion: v1\n"),
        workload(&format!("    restartPolicy: {name}\n")),
        workload(&format!("    {name}: x\n")),
        workload(&format!("    configs: {{ a: {name} }}\n")),
        workload(&format!("    configs: {{ a: {name} }}\nconfigs: {{ {name}1: x }}\n")),
        workload(&format!("    configs: {{ {name}: x }}\n")),
        workload(&format!("    dependencies: {{ {name}: {name} }}\n")),
        workload("").replace("agent: a", &format!("agent: \"{name} \"")),
        workload("").replace("  w:", &format!("  {name}:"))
            + &format!("    dependencies: {{ {name}: ADD_COND_RUNNING }}\n"),
        workload(&format!("    files: [{{ {name}: x }}]\n")),
        workload("    tags: []\n").replace("  w:", &format!("  {name}:")),
        rule(&format!("type: {name}")),
        rule(&format!("type: LogRule, workloadNames: [\"{name} \"]")),
        rule(&format!("type: LogRule, workloadNames: [\"{name}*\"]")),
        rule(&format!("type: StateRule, operation: Read, filterMasks: [\"{name} \"]")),
        rule(&format!("type: StateRule, operation: Read, filterMasks: [], {name}: x")),
        format!("apiVersion: v0.1\nworkloads: {{ w: {{ tags: [{{ {name}: x }}] }} }}\n"),
    ]
}

#[test]
fn long_names_are_neither_compared_nor_quoted_as_a_whole() {
    // As a scalar at most the look-ahead for a key; behind it, there is no key.
    let name = "restartPolic".repeat(5_000);
    for text in with_name(&name) {
        let begun = std::time::Instant::now();
        for fault in faults(&text) {
            assert!(fault.len() < 1_200, "{} bytes: {}", fault.len(), &fault[..200]);
            assert!(!fault.contains(&"restartPolic".repeat(20)), "{fault}");
        }
        assert!(begun.elapsed().as_secs() < 2, "{}", &text[..60]);
    }
    let warned = workload(&format!(
        "    controlInterfaceAccess: {{ allowRules: [{{ type: StateRule, operation: Read, \
         filterMasks: [{name}, desiredState.{name}] }}] }}\n"
    ));
    for warning in parse("m.yaml", &warned).unwrap().warnings {
        assert!(warning.message.len() < 1_200, "{} bytes", warning.message.len());
    }
}

#[test]
fn thousands_of_mistyped_names_are_told_soon() {
    let names = |count: usize, own: fn(usize) -> String| (0..count).map(own).collect::<String>();
    let configs = names(5_000, |n| format!("  {}{n:05}: x\n", "k".repeat(50)));
    let references = names(5_000, |n| format!("      a{n}: {}{n:05}\n", "k".repeat(49)));
    let text = workload(&format!("    configs:\n{references}configs:\n{configs}"));
    let begun = std::time::Instant::now();
    let told = faults(&text);
    assert_eq!(told.len(), 5_000);
    assert!(told[0].contains("did you mean"), "{}", told[0]);
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
}

#[test]
fn aliases_may_stand_for_values_and_a_few_lines_of_them_cannot_fill_the_memory() {
    let shared = "apiVersion: v1\nconfigs:\n  a: &a [x, y]\n  b: *a\n";
    let state = desired(shared);
    assert_eq!(at(&state, "configs.a"), at(&state, "configs.b"));
    let tens = |name: &str| [name; 10].join(",");
    let lines = |line: fn(usize, &str) -> String| -> String {
        let all = (1..9).map(|n| line(n, &tens(&format!("*a{}", n - 1))));
        format!("apiVersion: v1\nconfigs:\n  a0: &a0 [{}]\n{}", tens("x"), all.collect::<String>())
    };
    let in_values = lines(|n, ten| format!("  a{n}: &a{n} [{ten}]\n"));
    assert!(faults(&in_values)[0].contains("alias expansion"), "{:?}", faults(&in_values));
    let in_keys = lines(|n, ten| format!("  a{n}: &a{n} {{? [{ten}] : y}}\n"));
    assert!(faults(&in_keys)[0].starts_with("m.yaml:4:14: a key has to be a text"));
    let deep = lines_of(30, |n| format!("  a{n}: &a{n} [*a{}]\n", n - 1));
    assert!(faults(&deep)[0].contains("nested too deep"), "{:?}", faults(&deep));
    let long = format!("\\x41{}", "x".repeat(1 << 20));
    let long =
        format!("apiVersion: v1\nconfigs: {{a: &a \"{long}\", b: [{}]}}\n", ["*a"; 17].join(","));
    assert!(faults(&long)[0].contains("aliases repeat more than 16777216 bytes"));
}

/// Configs of which each refers to the one before it.
fn lines_of(count: usize, line: impl Fn(usize) -> String) -> String {
    let lines: String = (1..count).map(line).collect();
    format!("apiVersion: v1\nconfigs:\n  a0: &a0 [x]\n{lines}")
}

#[test]
fn value_over_the_bound_is_told_at_its_place() {
    let text = |bytes: usize| "x".repeat(bytes - 5);
    let config = |bytes| format!("apiVersion: v1\nconfigs:\n  a: b\n  c: {}\n", text(bytes));
    assert!(parse("m.yaml", &config(MAX_VALUE_BYTES)).is_ok());
    let bound = format!("a config or a workload has at most {MAX_VALUE_BYTES}");
    let over = MAX_VALUE_BYTES + 1;
    let expected = format!("m.yaml:4:6: config `c` takes {over} bytes: {bound}");
    assert_eq!(faults(&config(over)), [expected]);
    let told = faults(&workload(&format!("    tags: {{t: {}}}\n", text(over))));
    assert!(told[0].starts_with("m.yaml:4:5: workload `w` takes "), "{}", told[0]);
}

#[test]
fn state_over_the_bound_is_told_with_its_size() {
    // 16 values of nearly 4 MiB, and one of what is left.
    let most: String = (0..16).map(|n| format!("  c{n}: {}\n", "x".repeat(4_190_000))).collect();
    let manifest =
        |rest: usize| format!("apiVersion: v1\nconfigs:\n{most}  rest: {}\n", "x".repeat(rest));
    let told = faults(&manifest(1_000_000));
    let taken = told[0].strip_prefix("m.yaml: its state takes ").unwrap();
    let taken: usize = taken.split(' ').next().unwrap().parse().unwrap();
    let fits = 1_000_000 - (taken - MAX_STATE_BYTES);
    assert!(parse("m.yaml", &manifest(fits)).is_ok());
    let expected = format!(
        "m.yaml: its state takes {} bytes: a manifest has at most {MAX_STATE_BYTES}",
        MAX_STATE_BYTES + 1
    );
    assert_eq!(faults(&manifest(fits + 1)), [expected]);
}
