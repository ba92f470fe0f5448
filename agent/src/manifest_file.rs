//! The manifest of `run`: read at the start and at each reload, and applied to the state of the store.

use std::path::{Path, PathBuf};

use fifogate::{
    internal::manifest::read_text,
    internal::state::{API_VERSION, DESIRED_STATE},
    manifest::{self, ManifestError},
    state::{
        Node, Tree,
        convert::{self, Fill},
    },
};

use crate::{
    check,
    entries::{Differences, PARTS, restarted_as},
    folders::regular,
    model::Update,
    store::{Refused, Store},
};

/// The path that stands for standard input.
const STANDARD_INPUT: &str = "-";

/// A manifest, as it was read.
#[derive(Clone, Debug)]
pub(crate) struct ManifestFile {
    path: PathBuf,
    tree: Tree,
}

impl ManifestFile {
    /// Reads a file, or standard input for the path `-`. Logs its warnings.
    ///
    /// # Errors
    /// It cannot be read, or is no valid manifest.
    pub(crate) fn read(path: &Path) -> Result<Self, ManifestError> {
        let manifest = manifest::read_or_stdin(path)?;
        for warning in &manifest.warnings {
            log::warn!("{warning}");
        }
        Ok(Self { path: path.to_owned(), tree: manifest.updated.tree })
    }

    /// A file that could not be read, for a later reading.
    pub(crate) fn unread(path: &Path) -> Self {
        Self { path: path.to_owned(), tree: Tree::default() }
    }

    /// Reads the file again.
    ///
    /// # Errors
    /// It is no file or no valid manifest, or a workload of `agent` in it could not be started.
    pub(crate) fn read_again(&self, agent: &str) -> Result<Self, String> {
        regular(&self.path).map_err(|error| error.to_string())?;
        let (file, text) = read_text(&self.path).map_err(|error| error.to_string())?;
        let manifest = manifest::parse(&file, &text).map_err(|error| error.to_string())?;
        let tree = manifest.updated.tree;
        check::can_start(&file, &text, &tree, agent).map_err(|error| error.to_string())?;
        for warning in &manifest.warnings {
            log::warn!("{warning}");
        }
        Ok(Self { path: self.path.clone(), tree })
    }

    /// Its desired state.
    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Standard input is read once.
    pub(crate) fn can_be_read_again(&self) -> bool {
        self.path != Path::new(STANDARD_INPUT)
    }

    /// Warns, with the differences, if the state of a store counts and this manifest does not.
    pub(crate) fn warn_of(&self, state: &Tree, place: &str) {
        let differences = Differences::between(state, &self.tree);
        if differences.is_empty() {
            log::info!("using the desired state {place} instead of the manifest");
            return;
        }
        let only_there = format!("only {place}");
        let text = differences.text(["only in the manifest", &only_there, "changed"]);
        log::warn!("using the desired state {place} instead of the manifest; they differ: {text}");
    }

    /// Makes the entries of the desired state those of this manifest, and removes those that only `before` has, an
    /// earlier reading of it. All other entries stay. Logs the difference.
    ///
    /// # Errors
    /// The store refuses the update. Nothing has changed then.
    pub(crate) async fn apply(&self, store: &Store, before: Option<&Self>) -> Result<(), Refused> {
        let path = self.path.display();
        let Some(state) = store.state().await else { return Ok(()) };
        let concerned = [Some(self), before];
        let current = only_entries_of(&state, concerned.into_iter().flatten());
        let wanted = with_restarts_of(&self.tree, &state);
        let differences = Differences::between(&current, &wanted);
        if differences.is_empty() {
            log::info!("the manifest {path} was applied: nothing differs");
            return Ok(());
        }
        let new_state = convert::to_pb(&wanted, Fill::Sparse);
        let update = Update { new_state, masks: differences.masks(), by: String::new() };
        store.update(update).await?;
        let text = differences.text(["added", "removed", "changed"]);
        log::info!("the manifest {path} was applied: {text}");
        Ok(())
    }
}

/// The desired state of a manifest, with the restarts of a state: no workload is to be restarted by their loss.
fn with_restarts_of(manifest: &Tree, state: &Tree) -> Tree {
    let path = [DESIRED_STATE, "workloads"];
    let mut workloads = manifest.entries(&path).clone();
    for (name, workload) in manifest.entries(&path) {
        if let Some(other) = state.entries(&path).get(name.as_str()) {
            workloads.insert(name.clone(), restarted_as(workload, other));
        }
    }
    let mut desired = manifest.entries(&[DESIRED_STATE]).clone();
    desired.insert("workloads", Node::Map(workloads));
    manifest.with(DESIRED_STATE, Some(Node::Map(desired)))
}

/// The desired state with only those entries that are in one of the manifests.
fn only_entries_of<'m>(
    state: &Tree,
    manifests: impl Iterator<Item = &'m ManifestFile> + Clone,
) -> Tree {
    let parts = PARTS.map(|(part, _)| {
        let path = [DESIRED_STATE, part];
        let mut entries = fifogate::state::Map::new();
        for (name, entry) in state.entries(&path) {
            let is_named =
                |own: &ManifestFile| own.tree.entries(&path).get(name.as_str()).is_some();
            if manifests.clone().any(is_named) {
                entries.insert(name.clone(), entry.clone());
            }
        }
        (part, Node::Map(entries))
    });
    let version = state.get(&[DESIRED_STATE, API_VERSION]).cloned();
    let version = version.map(|version| (API_VERSION, version));
    Tree::default().with(DESIRED_STATE, Some(Node::map(version.into_iter().chain(parts))))
}
