//! What the SDK shows nowhere but in its log: the state of its connection, and events which it
//! drops because nobody here asked for them.
//!
//! A reconnect happens behind the program's back, and its type for the state of the connection
//! is public but no method returns it. The log is written by the task that reads the pipe, so its
//! lines come in the order of the frames.

use log::{LevelFilter, Log, Metadata, Record};
use serde_json::json;

use crate::say;

/// Tells the driver what matters of the SDK's log; the rest goes to standard error.
pub fn install() {
    log::set_max_level(LevelFilter::Debug);
    log::set_logger(&LogWatcher).unwrap_or_else(|_| unreachable!("nothing else logs here"));
}

struct LogWatcher;

impl Log for LogWatcher {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("ankaios_sdk")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let message = record.args().to_string();
        eprintln!("{} {message}", record.level());
        if let Some(state) = message.strip_prefix("State changed: ") {
            say(json!({ "step": "connection", "state": state }));
        } else if message.ends_with("but no event campaign found.") {
            say(json!({ "step": "stray", "message": message }));
        }
    }

    fn flush(&self) {}
}
