//! Opens the store, and settles what the node begins with: its manifest, or the state that was kept.
//!
//! Options and a manifest go in; a store comes out.

use std::{fs, path::Path};

use fifogate::{manifest::ManifestError, state::Tree};
use log::Level;
use nix::fcntl::Flock;

use super::{Options, own_folders::place};
use crate::{
    cli::CliError,
    manifest_file::ManifestFile,
    placement::FirstState,
    store::{Ankaios, Etcd, Events, Local, OpenError, Refused, Store, etcd},
};

/// The manifest of the start, or the fault of a file that may count for nothing.
pub(super) struct Manifest {
    file: ManifestFile,
    fault: Option<ManifestError>,
}

impl Manifest {
    /// Reads it.
    ///
    /// # Errors
    /// It has a fault, and counts in any case: no state can have been kept, or it is to be applied.
    pub(super) fn read(path: &Path, options: &Options) -> Result<Self, CliError> {
        let keeps = options.state_dir.is_some() || options.etcd.is_some();
        match ManifestFile::read(path) {
            Ok(file) => Ok(Self { file, fault: None }),
            // An edit that went wrong is to keep no node from its workloads at its next start.
            Err(fault) if keeps && !options.applies => {
                Ok(Self { file: ManifestFile::unread(path), fault: Some(fault) })
            }
            Err(fault) => Err(CliError::Unusable(fault.to_string())),
        }
    }

    /// The file, for later readings.
    pub(super) fn into_file(self) -> ManifestFile {
        self.file
    }

    fn seed(&self) -> Option<&Tree> {
        self.fault.is_none().then(|| self.file.tree())
    }
}

/// Opens the store of the options.
///
/// # Errors
/// It cannot be used, or its state is new and the manifest of no use.
pub(super) async fn open_store(
    options: &Options,
    alone: &Flock<fs::File>,
    manifest: Option<&Manifest>,
) -> Result<(Store, Events), CliError> {
    if let Some(server) = &options.server {
        let opened = Ankaios::open(server.clone()).await;
        return opened.map_err(|refused| CliError::Failed(refused.to_string()));
    }
    let seed = manifest.and_then(Manifest::seed);
    let fault = manifest.and_then(|manifest| manifest.fault.as_ref());
    let opened = match &options.etcd {
        Some(etcd) => {
            let etcd =
                etcd::Options { place: place(alone), needs_state: fault.is_some(), ..etcd.clone() };
            Etcd::open(etcd, seed).await
        }
        None => Local::open(seed, options.state_dir.as_deref()),
    };
    let (store, events) = opened.map_err(|error| match (&error, &options.manifest, fault) {
        (OpenError::NoState, _, Some(fault)) => CliError::Unusable(fault.to_string()),
        (OpenError::Seed(_), Some(file), _) => {
            CliError::Unusable(format!("{}: {error}", file.display()))
        }
        // It names etcd and what is wrong with it.
        _ if options.etcd.is_some() => CliError::Failed(format!("cannot use {error}")),
        _ => CliError::Failed(format!("cannot keep the state: {error}")),
    })?;
    match (manifest, fault) {
        (_, Some(fault)) if store.is_new() => return Err(CliError::Unusable(fault.to_string())),
        (_, Some(fault)) => {
            for line in fault.to_string().lines() {
                log::error!("the manifest is not applied: {line}");
            }
            log::warn!("using the desired state {} instead of the manifest", place_of(options));
        }
        (Some(manifest), None) if !store.is_new() => {
            follow_manifest(options, &store, &manifest.file).await?;
        }
        _ => {}
    }
    Ok((store, events))
}

/// A state was there: the manifest is applied to it, or it counts for nothing.
async fn follow_manifest(
    options: &Options,
    store: &Store,
    manifest: &ManifestFile,
) -> Result<(), CliError> {
    if options.applies {
        let file = manifest.path().display();
        return manifest.apply(store, None).await.map_err(|refused| match refused {
            Refused::Unavailable(_) => CliError::Failed(format!("{file}: {refused}")),
            Refused::Invalid(_) | Refused::Denied(_) => {
                CliError::Unusable(format!("{file}: {refused}"))
            }
        });
    }
    if let Some(state) = store.state().await {
        manifest.warn_of(&state, place_of(options));
    }
    Ok(())
}

fn place_of(options: &Options) -> &'static str {
    if options.etcd.is_some() { "in etcd" } else { "on disk" }
}

/// The source of the first state, for a line of the log.
pub(super) fn first_state(options: &Options, store: &Store) -> FirstState {
    if options.etcd.is_some() {
        return FirstState { source: "state in etcd", level: Level::Info };
    }
    if options.server.is_some() {
        return FirstState { source: "state of the server", level: Level::Info };
    }
    let source = if store.is_new() { "manifest" } else { "kept state" };
    FirstState { source, level: Level::Warn }
}
