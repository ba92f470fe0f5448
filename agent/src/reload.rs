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
    pub(crate) agent: String,
    pub(crate) config: Arc<ConfigFile>,
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
            self.read_config().await;
            self.certificates.read_again().await;
            self.read_manifest().await;
        }
    }

    async fn read_config(&self) {
        let config = Arc::clone(&self.config);
        // On a thread of its own: a file system may hang.
        let read = task::spawn_blocking(move || config.read_again()).await;
        match read.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(Some(level)) => log::set_max_level(level),
            Ok(None) => {}
            Err(text) => log::error!("the configuration stays as it was: {text}"),
        }
    }

    async fn read_manifest(&mut self) {
        let Some(manifest) = &mut self.manifest else { return };
        if !manifest.can_be_read_again() {
            log::warn!("the manifest came from standard input, and cannot be read again");
            return;
        }
        let (before, agent) = (manifest.clone(), self.agent.clone());
        // Its size is not known.
        let read = task::spawn_blocking(move || before.read_again(&agent)).await;
        let faults = match read.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(read) => match read.apply(&self.store, Some(manifest)).await {
                // What it has not any more is removed once.
                Ok(()) => return *manifest = read,
                Err(refused) => format!("{}: {refused}", read.path().display()),
            },
            Err(faults) => faults,
        };
        for fault in faults.lines() {
            log::error!("the manifest is not applied: {fault}");
        }
    }
}
