//! The fifogate that the SDKs meet.

use testkit::TestServer;

/// The receiver may read much, the sender may write; both are denied the rest.
const MANIFEST: &str = r#"
apiVersion: v1
workloads:
  receiver:
    runtime: podman
    agent: agent_A
    runtimeConfig: "image: receiver:1"
    controlInterfaceAccess:
      allowRules:
        - type: StateRule
          operation: Read
          filterMasks: ["desiredState.configs", "workloadStates"]
        - type: StateRule
          operation: Write
          filterMasks: ["desiredState.configs"]
      denyRules:
        - type: StateRule
          operation: Write
          filterMasks: ["desiredState.configs.locked"]
  sender:
    runtime: podman
    agent: agent_A
    runtimeConfig: "image: sender:1"
    controlInterfaceAccess:
      allowRules:
        - type: StateRule
          operation: Write
          filterMasks: ["desiredState.configs", "desiredState.workloads.extra"]
configs:
  greeting: hello
  hosts: ["h1", "h2"]
"#;

pub(crate) fn start() -> TestServer {
    // Its log tells when nobody has a pair open.
    TestServer::with(MANIFEST, &["-v"])
}
