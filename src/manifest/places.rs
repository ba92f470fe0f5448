//! Text of a manifest, and the places in it of faults that its reader does not know: those of templates and of a
//! `runtimeConfig`.

use std::path::Path;

use super::{
    Fault, ManifestError,
    yaml::{self, Data, Yaml},
};
use crate::{source, state::DESIRED_STATE};

/// The text in a file, or the one on standard input for the path `-`, behind its name in messages.
///
/// # Errors
/// The input cannot be read, or is no text.
pub fn read_text(path: &Path) -> Result<(String, String), ManifestError> {
    let file = source::name(path);
    let text = super::text_of(&file, source::open(path))?;
    Ok((file, text))
}

/// The faults `remarks` of a valid manifest, sorted by their places in `text`. Each has the path of its
/// value in the desired state; a number is a place in a sequence. A value that is not in the text has
/// the place of what is around it.
#[must_use]
pub fn faults_at(
    file: &str,
    text: &str,
    remarks: impl IntoIterator<Item = (Vec<String>, String)>,
) -> ManifestError {
    let text = yaml::readable(text);
    let documents = yaml::load(&text, &yaml::FOR_MANIFESTS).unwrap_or_default();
    let root = documents.first().map(|document| below(document, DESIRED_STATE).unwrap_or(document));
    let fault = |(path, message): (Vec<String>, String)| {
        let (line, column) = root.map_or((0, 0), |root| place(root, &path));
        Fault { file: file.to_owned(), line, column, message }
    };
    let mut faults: Vec<_> = remarks.into_iter().map(fault).collect();
    faults.sort_by_key(|fault| (fault.line, fault.column));
    ManifestError { faults }
}

fn place(root: &Yaml<'_>, path: &[String]) -> (usize, usize) {
    let mut node = root;
    for name in path {
        let Some(inside) = below(node, name) else { break };
        node = inside;
    }
    (node.line(), node.column())
}

fn below<'n, 'i>(node: &'n Yaml<'i>, name: &str) -> Option<&'n Yaml<'i>> {
    match &node.data {
        Data::Mapping(entries) => {
            entries.iter().find(|(key, _)| key.as_str() == Some(name)).map(|(_, value)| value)
        }
        Data::Sequence(items) => items.get(name.parse::<usize>().ok()?),
        Data::Scalar(_) | Data::Bad => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remark_has_the_place_of_its_value_or_of_what_is_around_it() {
        let text = "desiredState:\n  apiVersion: v1\n  workloads:\n    w:\n      files: [a, b]\n";
        let path = |path: &str| path.split('.').map(str::to_owned).collect::<Vec<_>>();
        let remarks = ["workloads.w.files.1", "workloads.w.files.2", "workloads.x", "apiVersion"];
        let told = faults_at("m", text, remarks.map(|own| (path(own), own.to_owned())));
        assert_eq!(
            told.to_string(),
            "m:2:15: apiVersion\nm:4:5: workloads.x\nm:5:14: workloads.w.files.2\nm:5:18: \
             workloads.w.files.1"
        );
    }
}
