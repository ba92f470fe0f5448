//! SIGHUP: the agent reads its files again (docs/operations.md#reload).
//!
//! Files go in; a log level, certificates of the command interface, and an update of the store come out. No workload
//! ends but those that the manifest removes or changes. A file that cannot be used changes nothing, and the others count.

use std::sync::Arc;

use tokio::{sync::Notify, task};

use crate::{
    cli::ConfigFile, command_interface::Certificates, manifest_file::ManifestFile, store::Store,
};

/// What is read again.
#[derive(Debug)]
pub(crate) struct Reload {
    pub(crate) config: ConfigFile,
    pub(crate) certificates: Certificates,
    pub(crate) manifest: Option<ManifestFile>,
    pub(crate) store: Store,
}

impl Reload {
    /// Reads everything again at each notification, for ever.
    pub(crate) async fn serve(mut self, asked: Arc<Notify>) {
        loop {
            asked.notified().await;
            log::info!("SIGHUP: reading the files again");
            // First: what follows is logged by its level.
            self.read_config();
            self.certificates.read_again().await;
            if let Some(manifest) = &mut self.manifest {
                read_manifest(manifest, &self.store).await;
            }
        }
    }

    fn read_config(&self) {
        match self.config.read_again() {
            Ok(Some(level)) => log::set_max_level(level),
            Ok(None) => {}
            Err(text) => log::error!("the configuration stays as it was: {text}"),
        }
    }
}

/// Reads a manifest again, and applies it.
async fn read_manifest(manifest: &mut ManifestFile, store: &Store) {
    if !manifest.can_be_read_again() {
        log::warn!("the manifest came from standard input, and cannot be read again");
        return;
    }
    let path = manifest.path().to_owned();
    // Its size is not known.
    let read = task::spawn_blocking(move || ManifestFile::read(&path)).await;
    let faults = match read {
        Ok(Ok(read)) => match read.apply(store, Some(manifest)).await {
            // What it has not any more is removed once.
            Ok(()) => return *manifest = read,
            Err(refused) => format!("{}: {refused}", read.path().display()),
        },
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    for fault in faults.lines() {
        log::error!("the manifest is not applied: {fault}");
    }
}
