//! Parser of a `runtimeConfig` of the runtime `podman-kube`. As Ankaios does, it takes unknown keys.

use crate::runtime::{
    podman::config::{mapping, text_of, texts},
    yaml::{Fault, Yaml, fault},
};

/// The pods requested by a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Play {
    pub(super) manifest: String,
    /// Options in front of the command of podman.
    pub(super) general_options: Vec<String>,
    /// Options of `podman kube play`.
    pub(super) play_options: Vec<String>,
    /// Options of `podman kube down`.
    pub(super) down_options: Vec<String>,
    /// Pod and container that get the pair.
    pub(super) target: Option<(String, String)>,
}

/// Parses a `runtimeConfig`.
pub(super) fn parse(text: &str) -> Result<Play, Fault> {
    let keys = "manifest, generalOptions, playOptions, downOptions, controlInterfaceTarget";
    mapping(text, "manifest: TEXT", keys, |document, entries| {
        let (mut play, mut manifest) = (Play::default(), None);
        for (key, value) in entries {
            match text_of(key)?.as_str() {
                "manifest" => manifest = Some(text_of(value)?),
                "generalOptions" => play.general_options = texts(value)?,
                "playOptions" => play.play_options = texts(value)?,
                "downOptions" => play.down_options = texts(value)?,
                "controlInterfaceTarget" => play.target = Some(target(value)?),
                _ => {}
            }
        }
        play.manifest = manifest.ok_or_else(|| fault(document, "missing field `manifest`"))?;
        Ok(play)
    })
}

fn target(node: &Yaml<'_>) -> Result<(String, String), Fault> {
    let text = text_of(node)?;
    let parts = text.split_once('/').filter(|(pod, container)| {
        !pod.is_empty() && !container.is_empty() && !container.contains('/')
    });
    let (pod, container) = parts.ok_or_else(|| fault(node, "expected `POD/CONTAINER`"))?;
    Ok((pod.to_owned(), container.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_are_read_and_what_is_wrong_is_told() {
        let play = parse(
            "manifest: 'kind: Pod'\ngeneralOptions: [a]\nplayOptions: [b]\ndownOptions: [c]\n\
             controlInterfaceTarget: p/c\nother: 1",
        );
        let one = |own: &str| vec![own.to_owned()];
        let expected = Play {
            manifest: "kind: Pod".to_owned(),
            general_options: one("a"),
            play_options: one("b"),
            down_options: one("c"),
            target: Some(("p".to_owned(), "c".to_owned())),
        };
        assert_eq!(play, Ok(expected));
        for (text, expected) in [
            ("", "needs at least `manifest"),
            ("playOptions: [a]", "line 1, column 1: missing field `manifest`"),
            ("manifest: {}", "line 1, column 11: expected a text"),
            ("manifest: a\ncontrolInterfaceTarget: p", "line 2, column 25: expected `POD/CONT"),
            ("manifest: a\nplayOptions: b", "line 2, column 14: expected a sequence"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }
}
