//! Parser of a `runtimeConfig` of the runtime `podman`.
//!
//! YAML goes in; a [`Container`] comes out, or the first fault with its line and column. As Ankaios
//! does, it takes unknown keys.

use crate::runtime::yaml::{self, Data, Fault, ScalarKind, Yaml, fault};

/// The container requested by a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) image: String,
    /// Options in front of the command of podman.
    pub(super) general_options: Vec<String>,
    /// Options of `podman run`.
    pub(super) command_options: Vec<String>,
    /// Command and arguments in the container.
    pub(super) command_args: Vec<String>,
}

/// Parses a `runtimeConfig`.
pub(super) fn parse(text: &str) -> Result<Container, Fault> {
    let keys = "image, generalOptions, commandOptions, commandArgs";
    mapping(text, "image: NAME", keys, |document, entries| {
        let (mut container, mut image) = (Container::default(), None);
        for (key, value) in entries {
            match text_of(key)?.as_str() {
                "image" => image = Some(text_of(value)?),
                "generalOptions" => container.general_options = texts(value)?,
                "commandOptions" => container.command_options = texts(value)?,
                "commandArgs" => container.command_args = texts(value)?,
                _ => {}
            }
        }
        container.image = image.ok_or_else(|| fault(document, "missing field `image`"))?;
        if container.image.is_empty() {
            return Err(fault(document, "`image` is empty"));
        }
        if container.image.starts_with('-') {
            let what = "`image` begins with `-`: options belong to `commandOptions`";
            return Err(fault(document, what));
        }
        Ok(container)
    })
}

/// Reads the entries of a `runtimeConfig` by `read`, which gets the document, too. `least` is the line that
/// it cannot do without, and `keys` are those that it may have.
pub(super) fn mapping<T>(
    text: &str,
    least: &str,
    keys: &str,
    read: impl FnOnce(&Yaml<'_>, &[(Yaml<'_>, Yaml<'_>)]) -> Result<T, Fault>,
) -> Result<T, Fault> {
    yaml::document(text, |document| {
        let missing = || Fault {
            line: 0,
            column: 0,
            what: format!("is empty; it needs at least `{least}`"),
            is_over: false,
        };
        let document = document.ok_or_else(missing)?;
        match &document.data {
            Data::Mapping(entries) => read(document, entries),
            _ => Err(fault(document, &format!("expected a mapping with {keys}"))),
        }
    })
}

pub(super) fn texts(node: &Yaml<'_>) -> Result<Vec<String>, Fault> {
    match &node.data {
        Data::Sequence(values) => values.iter().map(text_of).collect(),
        _ => Err(fault(node, "expected a sequence of texts, such as [\"--net=host\"]")),
    }
}

pub(super) fn text_of(node: &Yaml<'_>) -> Result<String, Fault> {
    match &node.data {
        Data::Scalar(scalar) if scalar.text.contains('\0') => {
            Err(fault(node, "a process cannot be given a zero byte"))
        }
        Data::Scalar(scalar) if scalar.kind == ScalarKind::Text => Ok(scalar.text.to_string()),
        Data::Scalar(scalar) => {
            Err(fault(node, &format!("expected a text: put {} in quotes", scalar.text)))
        }
        Data::Bad | Data::Sequence(_) | Data::Mapping(_) => Err(fault(node, "expected a text")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_are_read_and_unknown_ones_are_taken() {
        let text = "image: alpine\ngeneralOptions: [--log-level=debug]\ncommandOptions:\n- -e\n\
                    - A=1\ncommandArgs: [sh, -c, 'exit 3']\nother: [1, {}]\n";
        let all = |own: &[&str]| own.iter().map(|own| (*own).to_owned()).collect::<Vec<_>>();
        let expected = Container {
            image: "alpine".to_owned(),
            general_options: all(&["--log-level=debug"]),
            command_options: all(&["-e", "A=1"]),
            command_args: all(&["sh", "-c", "exit 3"]),
        };
        assert_eq!(parse(text), Ok(expected));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, expected) in [
            ("", "is empty; it needs at least `image: NAME`"),
            ("commandArgs: [a]", "line 1, column 1: missing field `image`"),
            ("image: ''", "`image` is empty"),
            ("image: --privileged", "`image` begins with `-`"),
            ("image: [a]", "line 1, column 8: expected a text"),
            ("image: 5", "line 1, column 8: expected a text: put 5 in quotes"),
            ("image: a\ncommandArgs: b", "line 2, column 14: expected a sequence of texts"),
            ("image: a\ncommandArgs: [b, 1]", "line 2, column 18: expected a text: put 1"),
            ("text", "line 1, column 1: expected a mapping with image, generalOptions"),
            ("image: 'a", "line 1"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }
}
