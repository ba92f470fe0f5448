//! The rooms of `src/`, and what each may name.

/// A file or folder of `src/`, and all that it may name beyond itself: other rooms or single items
/// of them, crates, and what of `std` reaches outside the process. The longest name that fits counts.
pub(crate) struct Room {
    pub(crate) name: &'static str,
    pub(crate) rooms: &'static [&'static str],
    pub(crate) crates: &'static [&'static str],
    pub(crate) std: &'static [&'static str],
}

const fn room(
    name: &'static str,
    rooms: &'static [&'static str],
    crates: &'static [&'static str],
    std: &'static [&'static str],
) -> Room {
    Room { name, rooms, crates, std }
}

pub(crate) const ROOMS: &[Room] = &[
    room("main", &["cli"], &[], &["env", "process"]),
    room("lib", &[], &[], &[]),
    room("pb", &[], &[], &[]),
    // Bytes and numbers alone.
    room("frame", &[], &["bytes"], &[]),
    room("limits", &[], &[], &[]),
    room("id_map", &[], &[], &[]),
    room("small_deque", &[], &[], &[]),
    room("foreign", &[], &[], &[]),
    room("status", &["broker"], &["serde_json"], &[]),
    // What is true: no subscriber, no permission, no I/O, and protobuf in one place only.
    room("state", &["limits"], &["sha2"], &[]),
    room("state/convert", &["limits", "pb"], &["prost"], &[]),
    // Protobuf ends here.
    room("message", &["frame", "limits", "pb", "state"], &["bytes", "prost"], &[]),
    // The core: no frames, no protobuf, no files, no threads, and no time but what it is told.
    room(
        "broker",
        &["foreign", "limits", "message", "id_map", "small_deque", "state"],
        &["bytes", "semver"],
        &[],
    ),
    room("manifest", &["limits", "state"], &["saphyr", "saphyr_parser", "strsim"], &["fs", "io"]),
    // The server knows no mask and no value. Of the state it names what an instance is called, which is
    // the name of a folder, and the state to begin with, which it hands to the broker unopened.
    room(
        "server",
        &["broker", "limits", "id_map", "state::Instance", "state::update::Updated"],
        &["bytes", "crossbeam_channel", "log", "mio", "nix"],
        &["fs", "io", "os", "thread", "time"],
    ),
    room(
        "server/agent_transport",
        &["broker::AckMode", "frame", "message::Frame"],
        &["bytes", "log", "nix"],
        &["fs", "io", "os"],
    ),
    room("server/fifo", &["message::Owner", "state::Instance"], &["nix"], &["io", "os"]),
    // The two that touch FIFOs see frames, never what is in them.
    room(
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
    room(
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
    room(
        "server/worker",
        &["broker", "frame", "limits", "message", "id_map", "state::Instance", "status"],
        &["bytes", "crossbeam_channel", "log", "mio::Waker", "rustix::param"],
        &["fs", "time"],
    ),
    room("agent", &["frame", "pb"], &["log", "prost"], &["io", "process"]),
    room(
        "cli",
        &["broker", "server", "foreign", "frame", "limits", "manifest", "pb", "state"],
        CLI_CRATES,
        &["env", "fs", "io", "os", "process", "thread", "time"],
    ),
    // With the manifest, the only ones that read or write YAML.
    room("cli/input", &["limits", "manifest::yaml", "pb", "state"], &["saphyr"], &[]),
    room("cli/output", &["pb", "state"], &["saphyr", "serde_json"], &[]),
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
    "serde_json",
    "signal_hook",
];

/// What of `std` reaches outside the process, or waits.
pub(crate) const WORLD: &[&str] =
    &["env", "fs", "io", "net", "os", "process", "sync::mpsc", "thread", "time"];
