//! Manifests of workloads that nobody runs: fifogate serves their pairs.

/// A rule for every mask.
pub const ALL_RIGHTS: &str = "{type: StateRule, operation: ReadWrite, filterMasks: [\"*\"]}";

/// Workloads of agent `a`, each with this allow rule. `head` stands before them.
pub fn manifest_with(head: &str, names: &[&str], rule: &str) -> String {
    let workloads = names.iter().map(|name| {
        format!(
            "  {name}:\n    runtime: r\n    agent: a\n    runtimeConfig: {name}\n    \
             controlInterfaceAccess: {{allowRules: [{rule}]}}\n"
        )
    });
    format!("apiVersion: v1\n{head}workloads:\n{}", workloads.collect::<String>())
}

/// Workloads of agent `a` that may read and write everything.
pub fn manifest(names: &[&str]) -> String {
    manifest_with("", names, ALL_RIGHTS)
}
