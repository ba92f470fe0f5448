//! The layers of `src/`, and what each may name.

/// A file or folder of `src/`, and all that it may name beyond itself: other layers or single items
/// of them, crates, and what of `std` reaches outside the process. The longest name that fits counts.
pub(crate) struct Layer {
    pub(crate) name: &'static str,
    pub(crate) layers: &'static [&'static str],
    pub(crate) crates: &'static [&'static str],
    pub(crate) std: &'static [&'static str],
}

const fn layer(
    name: &'static str,
    layers: &'static [&'static str],
    crates: &'static [&'static str],
    std: &'static [&'static str],
) -> Layer {
    Layer { name, layers, crates, std }
}

pub(crate) const LAYERS: &[Layer] = &[
    layer("main", &["cli"], &[], &["env", "process"]),
    layer("lib", &["link"], &[], &[]),
    layer("pb", &[], &[], &[]),
    // Bytes and numbers alone.
    layer("frame", &[], &["bytes"], &[]),
    layer("limits", &[], &[], &[]),
    layer("id_map", &[], &[], &[]),
    layer("small_deque", &[], &[], &[]),
    layer("foreign", &[], &[], &[]),
    layer("nearest", &[], &[], &[]),
    layer("journal", &[], &["log"], &["env", "fs", "io", "os"]),
    layer("systemd", &[], &["log"], &["env", "io", "os", "process", "time"]),
    layer("man", &[], &["clap", "clap_mangen"], &["io"]),
    layer("owner", &[], &[], &[]),
    layer("source", &[], &[], &["fs", "io"]),
    // Re-exports alone.
    layer(
        "internal",
        &[
            "advice",
            "broker",
            "cli::frames",
            "frame",
            "journal",
            "limits",
            "man",
            "manifest",
            "message",
            "metrics",
            "printed",
            "state",
            "systemd",
        ],
        &[],
        &[],
    ),
    layer("status", &["broker"], &["serde_json"], &[]),
    layer("metrics", &[], &["serde_json"], &[]),
    // The state alone: no subscriber, no permission, no I/O, and protobuf in one place only.
    layer("state", &["limits", "nearest"], &["sha2"], &[]),
    layer("state/convert", &["limits", "pb"], &["prost"], &[]),
    // Protobuf ends here.
    layer(
        "message",
        &["foreign", "frame", "limits", "owner", "pb", "state"],
        &["bytes", "prost"],
        &[],
    ),
    // The core: no frames, no protobuf, no files, no threads, and no time but what it is told.
    layer(
        "broker",
        &["foreign", "limits", "message", "id_map", "small_deque", "state"],
        &["bytes", "semver"],
        &[],
    ),
    layer(
        "manifest",
        &["foreign", "limits", "nearest", "source", "state"],
        &["granit_parser", "serde", "serde_json"],
        &["fs", "io"],
    ),
    // What the rules of a manifest come to, by the broker's own judgement.
    layer(
        "advice",
        &["broker::Rules", "broker::access", "foreign", "manifest", "nearest", "state"],
        &[],
        &[],
    ),
    // The server knows no mask and no value. Of the state it names what an instance is called, which is
    // the name of a folder, and the state to begin with, which it hands to the broker unopened.
    layer(
        "server",
        &["broker", "limits", "id_map", "state::Instance", "state::update::Updated"],
        &["bytes", "crossbeam_channel", "log", "mio", "nix"],
        &["fs", "io", "os", "thread", "time"],
    ),
    layer(
        "server/agent_transport",
        &["broker::AckMode", "frame", "message::Frame"],
        &["bytes", "log", "nix"],
        &["fs", "io", "os"],
    ),
    layer("server/fifo", &["message::Owner", "state::Instance"], &["nix"], &["io", "os"]),
    // The two that touch FIFOs see frames, never what is in them.
    layer(
        "server/port",
        &[
            "broker::AckMode",
            "broker::Seq",
            "frame",
            "message::Frame",
            "message::resync",
            "small_deque",
        ],
        &["bytes", "log", "nix", "rustix"],
        &["io", "os"],
    ),
    layer(
        "server/event_loop",
        &[
            "broker::PeerId",
            "broker::Delivery",
            "broker::Seq",
            "limits",
            "message::ResponseBody",
            "message::Frame",
            "message::Owner",
            "id_map",
            "state::Instance",
        ],
        &["crossbeam_channel", "log", "mio", "signal_hook"],
        &["io", "os", "thread", "time"],
    ),
    // The one that looks into frames has nothing to touch a FIFO with.
    layer(
        "server/worker",
        &["broker", "frame", "limits", "message", "id_map", "state::Instance", "status"],
        &["bytes", "crossbeam_channel", "log", "mio::Waker", "rustix::param"],
        &["fs", "time"],
    ),
    // The client of the link. Only its clients do I/O.
    layer("link", &["owner", "pb"], &[], &[]),
    layer("link/error", &["frame::FrameError", "pb"], &[], &["io"]),
    layer("link/codec", &["frame", "pb"], &["log", "prost", "semver"], &[]),
    layer("link/blocking", &["pb"], &[], &["io", "process"]),
    layer("link/asynchronous", &["pb"], &["tokio"], &["io", "process"]),
    layer(
        "cli",
        &[
            "advice", "broker", "server", "foreign", "frame", "journal", "limits", "man",
            "manifest", "metrics", "pb", "source", "state", "systemd",
        ],
        CLI_CRATES,
        &["env", "fs", "io", "os", "process", "thread", "time"],
    ),
    // With the manifest, the only ones that read or write YAML.
    layer("cli/input", &["foreign", "limits", "manifest::yaml", "pb", "state"], &[], &[]),
    layer("cli/output", &["pb", "printed"], &["serde_json"], &[]),
    layer("printed", &["pb", "state"], &["saphyr", "serde_json"], &[]),
];

pub(crate) const CLI_CRATES: &[&str] = &[
    "bytes",
    "clap",
    "clap_complete",
    "clap_mangen",
    "env_logger",
    "log",
    "nix",
    "prost",
    "prost_reflect",
    "serde",
    "serde_json",
    "signal_hook",
];

/// The parts of `std` that reach outside the process, or wait.
pub(crate) const WORLD: &[&str] =
    &["env", "fs", "io", "net", "os", "process", "sync::mpsc", "thread", "time"];
