//! The owner of a container's pair: the user that the first process of the container has on the node.

use std::path::Path;

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags},
    unistd::{Gid, Uid, fchownat},
};
use serde::Deserialize;

use crate::pairs::FIFOS;

use super::{
    Order, PAIR, StartError,
    command::{self, PodmanError},
};

/// The part of an OCI configuration about users.
#[derive(Debug, Deserialize)]
struct Oci {
    process: OciProcess,
    #[serde(default)]
    linux: OciLinux,
}

#[derive(Debug, Deserialize)]
struct OciProcess {
    user: OciUser,
}

#[derive(Debug, Deserialize)]
struct OciUser {
    uid: u32,
    gid: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OciLinux {
    #[serde(default)]
    uid_mappings: Option<Vec<Mapping>>,
    #[serde(default)]
    gid_mappings: Option<Vec<Mapping>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Mapping {
    #[serde(rename = "containerID")]
    inside: u32,
    #[serde(rename = "hostID")]
    outside: u32,
    size: u32,
}

/// Initialises a container that was made, and gives its pair to the user of its first process. Only an
/// initialised container tells this user, and no instruction of it has run then.
pub(super) async fn hand_over<'a>(
    order: &Order,
    general_options: impl Iterator<Item = &'a str>,
    id: &'a str,
    folder: &Path,
) -> Result<(), StartError> {
    command::run(general_options.chain(["init", id])).await?;
    let owner = user_of(id).await?;
    give(folder, owner)?;
    order.pairs.note_owner(&order.instance, owner);
    Ok(())
}

/// Opens the pair of a container that runs, or closes one that it has no more. False if the container
/// does not have the pair that it is to have.
pub(super) async fn open_again(order: &Order, id: &str) -> Result<bool, StartError> {
    if !order.has_pair() {
        order.open_pair(None).await?;
        return Ok(true);
    }
    if !is_mounted(id, &order.pairs.folder(&order.instance)).await? {
        return Ok(false);
    }
    // It belongs to its user already.
    order.open_pair(user_of(id).await.ok()).await?;
    Ok(true)
}

/// The user and group on the node of a container that was initialised.
async fn user_of(id: &str) -> Result<(u32, u32), PodmanError> {
    let path = command::ask(["inspect", "--format={{.OCIConfigPath}}", id]).await?;
    let path = path.trim();
    let text = tokio::fs::read_to_string(path).await;
    let text = text.map_err(|error| PodmanError::because(format_args!("{path}: {error}")))?;
    user_in(&text).map_err(|what| PodmanError::because(format_args!("{path}: {what}")))
}

fn user_in(oci: &str) -> Result<(u32, u32), String> {
    let Oci { process, linux } = serde_json::from_str(oci).map_err(|error| error.to_string())?;
    let OciUser { uid, gid } = process.user;
    let mapped = |id, mappings: &Option<Vec<Mapping>>| outside(id, mappings.as_deref());
    match (mapped(uid, &linux.uid_mappings), mapped(gid, &linux.gid_mappings)) {
        (Some(uid), Some(gid)) => Ok((uid, gid)),
        _ => Err(format!("user {uid}:{gid} of the container is no user of the node")),
    }
}

/// The number on the node. Without a user namespace it is the same.
fn outside(id: u32, mappings: Option<&[Mapping]>) -> Option<u32> {
    let Some(mappings) = mappings.filter(|all| !all.is_empty()) else { return Some(id) };
    mappings.iter().find_map(|own| {
        let at = id.checked_sub(own.inside).filter(|at| *at < own.size)?;
        own.outside.checked_add(at)
    })
}

/// A mount of a container, as podman shows it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Mount {
    source: String,
    destination: String,
}

/// Whether a container has this folder as its pair.
async fn is_mounted(id: &str, folder: &Path) -> Result<bool, PodmanError> {
    let text = command::ask(["inspect", "--format={{json .Mounts}}", id]).await?;
    let mounts: Option<Vec<Mount>> = serde_json::from_str(&text).map_err(PodmanError::because)?;
    let is_pair = |own: &Mount| {
        Path::new(&own.destination) == Path::new(PAIR) && Path::new(&own.source) == folder
    };
    Ok(mounts.unwrap_or_default().iter().any(is_pair))
}

/// Gives both FIFOs to a user. `Pairs::open` has just compared both names with the FIFOs of fifogate, no
/// container with this pair runs, and links are not followed.
fn give(folder: &Path, (uid, gid): (u32, u32)) -> Result<(), StartError> {
    for name in FIFOS {
        let path = folder.join(name);
        let (user, group) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        match fchownat(AT_FDCWD, &path, user, group, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::EPERM) => {
                return Err(StartError::Wrong(format!(
                    "its first process is user {uid} of the node, and this agent cannot give the pair to \
                     another user than its own: run the agent as root, or the container's process as root"
                )));
            }
            Err(errno) => {
                return Err(StartError::Failed(format!("{}: {errno}", path.display())));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_of_the_node_is_the_mapped_one_of_the_container() {
        let oci =
            |linux: &str| format!(r#"{{"process": {{"user": {{"uid": 1000, "gid": 5}}}}{linux}}}"#);
        assert_eq!(user_in(&oci("")), Ok((1000, 5)));
        assert_eq!(user_in(&oci(r#", "linux": {"uidMappings": null}"#)), Ok((1000, 5)));
        let map = |first: u32, of: &str| {
            format!(
                r#""{of}": [{{"containerID": 0, "hostID": 7, "size": 1}},
                   {{"containerID": 1, "hostID": {first}, "size": 65536}}]"#
            )
        };
        let both = format!(
            ", \"linux\": {{{}, {}}}",
            map(100_000, "uidMappings"),
            map(200_000, "gidMappings")
        );
        assert_eq!(user_in(&oci(&both)), Ok((100_999, 200_004)));
        let one = r#", "linux": {"uidMappings": [{"containerID": 0, "hostID": 7, "size": 1}]}"#;
        assert_eq!(
            user_in(&oci(one)),
            Err("user 1000:5 of the container is no user of the node".to_owned())
        );
        assert!(user_in("{}").is_err());
    }
}
