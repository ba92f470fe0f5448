//! The last part of each long help: examples, exit status, environment.
//!
//! A line at the margin with a colon at its end is a heading; the man page formats it as one. Lines
//! stay below 98 columns, so no terminal of 100 columns wraps a command.

pub(super) const FIFOGATE: &str = "\
Exit status:
  0  done, also when nobody reads the output any more
  1  failed
  2  wrong usage, or a file that cannot be used

Environment:
  RUST_LOG         what is logged to standard error, unless -v or -q says it: error, warn, info
                   (which is the default: starts, stops and faults), debug or trace, also for one
                   module (fifogate::server=trace)
  XDG_RUNTIME_DIR  where `fifogate run` keeps its pipes, if not root and without --run-dir

Examples:
  # Serve the workloads of a manifest, and look at the state as the workload `watcher` sees it
  fifogate run --manifest state.yaml --run-dir /tmp/gate &
  fifogate get -d /tmp/gate/watcher.*/control_interface workloadStates

  # All about one command
  fifogate watch --help";

pub(super) const RUN: &str = "\
Examples:
  # Serve every workload of the manifest that has allow rules
  fifogate run --manifest state.yaml

  # Serve those of one agent, elsewhere, and let a supervisor know when it is ready
  fifogate run --manifest state.yaml --agent-name agent_A --run-dir /run/gate --notification-fd 3

  # Let an agent that started this process say what is served, and decide updates
  fifogate run --agent-link stdio --updates forward

  # Take small messages only, and let 64 KiB wait for each workload
  fifogate run --manifest state.yaml --max-frame 65536 --outbox-bytes 65536";

pub(super) const GET: &str = "\
Examples:
  # Everything, from inside a workload
  fifogate get

  # The tags of all workloads, from outside
  fifogate get -d /run/fifogate/watcher.*/control_interface 'desiredState.workloads.*.tags'

  # The execution states as JSON
  fifogate get --output json workloadStates | jq .workloadStates

  # One value in a script
  speed=$(fifogate get --output value desiredState.configs.speed)";

pub(super) const WATCH: &str = "\
Examples:
  # How all workloads are doing, as it changes
  fifogate watch 'workloadStates.*.*.*.state'

  # Wait for the next change of a config, and print its new value
  fifogate watch --count 1 --output json desiredState.configs.mode |
      jq -r 'select(.alteredFields).completeState.desiredState.configs.mode'

  # Events with the time of their arrival, by `ts` of moreutils: they carry none
  fifogate watch --no-state --output json workloadStates | ts %FT%T";

pub(super) const SET: &str = "\
Examples:
  # A tag, a restart policy and a config
  fifogate set desiredState.workloads.db.tags.owner=team_a \\
      desiredState.workloads.db.restartPolicy=ON_FAILURE desiredState.configs.mode=fast

  # An empty text; the removal of a tag
  fifogate set desiredState.configs.mode= desiredState.workloads.db.tags.owner-

  # A config that is a mapping
  fifogate set --yaml 'desiredState.configs.node={name: agent_A, hosts: [h1, h2]}'

  # Two workloads as a file has them
  fifogate set -f state.yaml --mask desiredState.workloads.db desiredState.workloads.web

  # What the file would change
  fifogate set --dry-run -f state.yaml --mask desiredState

  # Edit everything that is desired
  fifogate get desiredState > s.yaml && vi s.yaml && fifogate set -f s.yaml --mask desiredState";

pub(super) const ENCODE: &str = "\
Examples:
  # The bytes of a Hello
  echo '{\"hello\":{\"protocolVersion\":\"1.0.0\"}}' | fifogate encode | xxd

  # A workload in two lines of shell: what comes is printed, what goes is read from requests.json
  fifogate decode < input &
  fifogate encode < requests.json > output";

pub(super) const DECODE: &str = "\
Examples:
  # What fifogate tells a workload, as it comes
  fifogate decode < /run/ankaios/control_interface/input

  # What a workload said, from a recording
  fifogate decode --type ToAnkaios < recording.bin | jq .request";

pub(super) const CHECK: &str = "\
Examples:
  # Before fifogate is started with it
  fifogate check state.yaml

  # All of a folder, also without warnings
  fifogate check --strict manifests/*.yaml

  # May the workload `watcher` subscribe to the configs, and why not?
  fifogate check state.yaml --may watcher read desiredState.configs";

pub(super) const SCHEMA: &str = "\
Examples:
  # Where editors find it
  fifogate schema > manifest.schema.json

  # The first line of a manifest beside it, for editors with the YAML language server
  # yaml-language-server: $schema=manifest.schema.json";

pub(super) const COMPLETIONS: &str = "\
Examples:
  # In this shell
  source <(fifogate completions bash)

  # For good
  fifogate completions zsh > ~/.zfunc/_fifogate
  fifogate completions fish > ~/.config/fish/completions/fifogate.fish";

pub(super) const MAN: &str = "\
Examples:
  # Read it
  fifogate man | man -l -

  # Install it
  fifogate man > /usr/local/share/man/man1/fifogate.1";

pub(super) const STATUS: &str = "\
Examples:
  # At a glance, again every second
  fifogate status --watch

  # What waits for slow readers, largest first
  fifogate status --output json | jq '.workloads | sort_by(-.queued_bytes)[] | {name, queued_bytes}'

  # For node_exporter's textfile collector
  fifogate status --output prometheus > /var/lib/node_exporter/fifogate.prom";
