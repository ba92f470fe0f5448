//! The program `podman`: its arguments go in, its output or its complaint comes out.

use std::{
    collections::BTreeMap,
    env, fmt, fs, io,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::{Output, Stdio},
    time::Duration,
};

use serde::Deserialize;
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use crate::runtime::StartError;

/// The program. It is looked for in `PATH` at each use, so it may be installed later.
const PROGRAM: &str = "podman";

/// The state of a container of which podman has nothing but a folder in its storage.
const UNFINISHED: &str = "storage";

/// A failed call of podman, in its own words or ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct PodmanError(String);

impl From<io::Error> for PodmanError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self(missing()),
            _ => Self(format!("cannot run {PROGRAM}: {error}")),
        }
    }
}

impl PodmanError {
    /// A pipe that was asked for is not there.
    pub(super) fn no_pipe() -> Self {
        Self(format!("cannot run {PROGRAM}: no pipe"))
    }

    pub(super) fn because(what: impl fmt::Display) -> Self {
        Self(what.to_string())
    }
}

impl From<PodmanError> for StartError {
    fn from(error: PodmanError) -> Self {
        Self::Failed(error.0)
    }
}

/// A container in a list of podman.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Listed {
    pub(super) id: String,
    /// In small letters, as the versions of podman differ.
    #[serde(deserialize_with = "in_small_letters")]
    pub(super) state: String,
    #[serde(default)]
    pub(super) exit_code: i64,
    /// The id of its pod; empty without one.
    #[serde(default)]
    pub(super) pod: String,
    /// Whether it only holds the namespaces of its pod.
    #[serde(default)]
    pub(super) is_infra: bool,
    #[serde(default)]
    pub(super) names: Option<Vec<String>>,
    /// podman writes `null` for no labels.
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

impl Listed {
    pub(super) fn label(&self, name: &str) -> Option<&str> {
        self.labels.as_ref()?.get(name).map(String::as_str)
    }
}

fn in_small_letters<'de, D: serde::Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    String::deserialize(from).map(|text| text.to_lowercase())
}

/// Whether a program of this name is in `PATH`.
pub(super) fn is_installed() -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| {
        let found = fs::metadata(folder.join(PROGRAM));
        found.is_ok_and(|own| own.is_file() && own.permissions().mode() & 0o111 != 0)
    })
}

/// A command that ends with its caller.
pub(super) fn command<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(PROGRAM);
    // In a process group of its own, a Ctrl-C in the terminal of the agent does not reach it. podman
    // would report readiness to the service manager in the agent's place.
    command.args(args).process_group(0).kill_on_drop(true).env_remove("NOTIFY_SOCKET");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs podman to its end, and returns its standard output.
pub(super) async fn run<S: AsRef<std::ffi::OsStr>>(
    args: impl IntoIterator<Item = S>,
) -> Result<String, PodmanError> {
    said(command(args).output().await)
}

/// Runs podman with this standard input to its end, and returns its standard output.
pub(super) async fn run_with<S: AsRef<std::ffi::OsStr>>(
    args: impl IntoIterator<Item = S>,
    input: &str,
) -> Result<String, PodmanError> {
    let mut command = command(args);
    command.stdin(Stdio::piped());
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().ok_or_else(PodmanError::no_pipe)?;
    let write = async move {
        // podman may end without reading it, and then says why.
        let _ = stdin.write_all(input.as_bytes()).await;
    };
    let ((), output) = tokio::join!(write, child.wait_with_output());
    said(output)
}

fn said(output: io::Result<Output>) -> Result<String, PodmanError> {
    let output = output?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let complaint = complaint_in(&complaint);
    Err(PodmanError(match complaint.is_empty() {
        true => format!("{PROGRAM} ended with {} and without a word", output.status),
        false => complaint.to_owned(),
    }))
}

/// The last error, without the progress and the warnings before it.
fn complaint_in(stderr: &str) -> &str {
    let stderr = stderr.trim();
    let last = stderr.rfind("\nError: ").map_or(0, |at| at + 1);
    stderr[last..].trim()
}

pub(super) fn missing() -> String {
    format!("there is no program '{PROGRAM}' in PATH: install it, or use another runtime")
}

/// Starts podman, which outlives its caller, unless there is nothing to do for it.
pub(super) fn run_detached<'a>(args: &[&str], ids: impl Iterator<Item = &'a str>) {
    let mut ids = ids.peekable();
    if ids.peek().is_none() {
        return;
    }
    let mut command = std::process::Command::new(PROGRAM);
    command.args(args).args(ids).process_group(0).env_remove("NOTIFY_SOCKET");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Err(error) = command.spawn() {
        log::error!("containers go on: cannot run {PROGRAM}: {error}");
    }
}

/// Time for podman to answer a question. One that hangs, as on a lost network file system, counts as failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks podman for what it has, and returns its standard output.
pub(super) async fn ask<S: AsRef<std::ffi::OsStr>>(
    args: impl IntoIterator<Item = S>,
) -> Result<String, PodmanError> {
    let late = |_| Err(PodmanError(format!("{PROGRAM} has not answered within {PATIENCE:?}")));
    timeout(PATIENCE, run(args)).await.unwrap_or_else(late)
}

/// The containers with a label, as `name=value`, or all of them.
pub(super) async fn list(label: Option<String>) -> Result<Vec<Listed>, PodmanError> {
    let label = label.map(|own| format!("--filter=label={own}"));
    list_with(label.as_deref()).await
}

/// Removes what is left of containers whose creation was killed half way. podman keeps their names, and lists
/// them only if asked for; they have no labels yet.
pub(super) async fn remove_unfinished(is_own: impl Fn(&str) -> bool) -> Result<(), PodmanError> {
    for one in list_with(Some("--external")).await? {
        if one.state == UNFINISHED && one.names.iter().flatten().any(|name| is_own(name)) {
            // Not by force: one that was finished meanwhile has to stay.
            run(["rm", "--ignore", &one.id]).await?;
        }
    }
    Ok(())
}

async fn list_with(option: Option<&str>) -> Result<Vec<Listed>, PodmanError> {
    let args = ["ps", "--all"].into_iter().chain(option).chain(["--format=json"]);
    let text = ask(args).await?;
    // Without a container, some versions print nothing.
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let read: Result<Option<Vec<Listed>>, _> = serde_json::from_str(&text);
    match read {
        Ok(all) => Ok(all.unwrap_or_default()),
        Err(error) => Err(PodmanError(format!("the list of {PROGRAM} cannot be read: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaint_is_the_last_error_with_all_that_follows() {
        for (stderr, expected) in [
            ("Error: a\n", "Error: a"),
            (
                "Trying to pull x...\ntime=1 level=warning msg=\"Error: b\"\nError: c\nSee d\n",
                "Error: c\nSee d",
            ),
            ("  something else\n", "something else"),
            ("", ""),
        ] {
            assert_eq!(complaint_in(stderr), expected);
        }
    }
}
