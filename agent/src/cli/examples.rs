//! The last part of each long help: examples, exit status.

pub(super) const AGENT: &str = "\
Exit status:
  0  done, also when told to stop by SIGTERM or SIGINT
  1  failed
  2  wrong usage, or a file that cannot be used

Examples:
  # Run the workloads of a manifest that are of agent_A, until Ctrl-C
  fifogate-agent run --manifest state.yaml

  # Validate it before, with what only its agent knows
  fifogate-agent check state.yaml

  # All about one command
  fifogate-agent run --help";

pub(super) const CHECK: &str = "\
Exit status:
  0  all manifests are good
  1  failed
  2  wrong usage, or a manifest with faults; each is a line with file, line and column

Examples:
  # Before it is run
  fifogate-agent check state.yaml

  # As another agent
  fifogate-agent check --name agent_B cluster.yaml

  # What runs, as it is now
  fifogate get | fifogate-agent check -";

pub(super) const RUN: &str = "\
Examples:
  # Run the workloads of a manifest that are of agent_A
  fifogate-agent run --manifest state.yaml

  # Keep what updates make of it over restarts; the manifest counts when nothing is kept yet
  fifogate-agent run --manifest state.yaml --state-dir /var/lib/fifogate-agent

  # Let a changed manifest count at the next start; while it runs, SIGHUP does the same
  fifogate-agent run --manifest state.yaml --state-dir /var/lib/fifogate-agent --apply

  # As one of many agents that share their state in etcd
  fifogate-agent run --etcd 10.0.0.1:2379,10.0.0.2:2379 --name agent_B

  # As an agent of an Ankaios server
  fifogate-agent run --server https://10.0.0.1:25551 --name agent_B --ca-pem ca.pem --crt-pem b.pem --key-pem b.key

  # As another agent, with options for fifogate itself behind `--`
  fifogate-agent run --manifest state.yaml --name agent_B --run-dir /tmp/b -- --subscribe-grace-ms 0";

pub(super) const COMPLETIONS: &str = "\
Examples:
  # For all users of bash; packages do the same
  fifogate-agent completions bash > /usr/share/bash-completion/completions/fifogate-agent

  # For one user of fish
  fifogate-agent completions fish > ~/.config/fish/completions/fifogate-agent.fish";

pub(super) const MAN: &str = "\
Examples:
  # Read it
  fifogate-agent man | man -l -";
