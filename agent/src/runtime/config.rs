//! What a `runtimeConfig` of the runtime `process` says: YAML in, a command out, or what is wrong and
//! where.

use std::{collections::BTreeMap, path::PathBuf};

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};

/// A process as a workload asks for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// A path, or a name that is looked for in `PATH`.
    pub command: String,
    /// What it is given.
    pub args: Vec<String>,
    /// Beside what every workload has in its environment.
    pub env: BTreeMap<String, String>,
    /// Where it begins; `/` if nothing is said.
    pub working_dir: Option<PathBuf>,
    /// A name or a number; who runs the agent if nothing is said.
    pub user: Option<String>,
}

const KEYS: &str = "command, args, env, workingDir, user";

/// Reads a `runtimeConfig`.
///
/// # Errors
/// What is wrong, with its line and column.
pub fn parse(text: &str) -> Result<Command, String> {
    let documents = MarkedYaml::load_from_str(text).map_err(|error| {
        let marker = error.marker();
        at(marker.line(), marker.col() + 1, error.info())
    })?;
    let document = match &documents[..] {
        [document] => document,
        [] => return Err("runtimeConfig is empty; it needs at least `command: PROGRAM`".to_owned()),
        [_, second, ..] => return Err(fault(second, "a second document begins here")),
    };
    let mut command = Command::default();
    for (key, value) in mapping(document, &format!("expected a mapping with {KEYS}"))? {
        match scalar(text, key)?.as_str() {
            "command" => command.command = scalar(text, value)?,
            "args" => {
                let YamlData::Sequence(values) = &value.data else {
                    return Err(fault(
                        value,
                        "args must be a sequence, such as [\"-c\", \"true\"]",
                    ));
                };
                command.args =
                    values.iter().map(|arg| scalar(text, arg)).collect::<Result<_, _>>()?;
            }
            "env" => {
                for (name, value) in mapping(value, "env must be a mapping from name to value")? {
                    let spelled = scalar(text, name)?;
                    if spelled.is_empty() || spelled.contains(['=', '\0']) {
                        return Err(fault(name, "this is no name for an environment variable"));
                    }
                    command.env.insert(spelled, scalar(text, value)?);
                }
            }
            "workingDir" => command.working_dir = Some(scalar(text, value)?.into()),
            "user" => command.user = Some(scalar(text, value)?),
            other => {
                let text = format!("unknown key '{other}'; there are {KEYS}");
                return Err(fault(key, &text));
            }
        }
    }
    if command.command.is_empty() {
        return Err(fault(document, "`command` is missing"));
    }
    Ok(command)
}

type Entry<'n, 'i> = (&'n MarkedYaml<'i>, &'n MarkedYaml<'i>);

fn mapping<'n, 'i>(
    node: &'n MarkedYaml<'i>,
    expected: &str,
) -> Result<impl Iterator<Item = Entry<'n, 'i>> + use<'n, 'i>, String> {
    match &node.data {
        YamlData::Mapping(map) => Ok(map.iter()),
        _ => Err(fault(node, expected)),
    }
}

/// The text of a scalar, as it is written: `60` and `"60"` are the same argument.
fn scalar(text: &str, node: &MarkedYaml<'_>) -> Result<String, String> {
    let written = || {
        let (start, end) = (node.span.start.index(), node.span.end.index());
        text.chars().skip(start).take(end.saturating_sub(start)).collect::<String>()
    };
    let value = match &node.data {
        YamlData::Value(Scalar::String(text)) => text.to_string(),
        YamlData::Value(Scalar::Null) => return Err(fault(node, "a value is missing")),
        YamlData::Value(_) => written().trim().to_owned(),
        _ => return Err(fault(node, "expected a single value")),
    };
    if value.contains('\0') {
        return Err(fault(node, "a process cannot be given a zero byte"));
    }
    Ok(value)
}

fn fault(node: &MarkedYaml<'_>, what: &str) -> String {
    let start = node.span.start;
    at(start.line(), start.col() + 1, what)
}

fn at(line: usize, column: usize, what: &str) -> String {
    format!("runtimeConfig, line {line}, column {column}: {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_are_read_and_numbers_stay_as_they_are_written() {
        let text = "command: /bin/sleep\nargs: [0x10, \"2\", 1.50, true]\nenv: {A: 1, B: \"x y\"}\n\
                    workingDir: /tmp\nuser: nobody\n";
        let expected = Command {
            command: "/bin/sleep".into(),
            args: ["0x10", "2", "1.50", "true"].map(String::from).to_vec(),
            env: [("A", "1"), ("B", "x y")].map(|(k, v)| (k.into(), v.into())).into(),
            working_dir: Some("/tmp".into()),
            user: Some("nobody".into()),
        };
        assert_eq!(parse(text), Ok(expected));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, expected) in [
            ("", "is empty"),
            ("command: x\nimage: y", "line 2, column 1: unknown key 'image'; there are command"),
            ("args: [a]", "`command` is missing"),
            ("command: [a]", "line 1, column 10: expected a single value"),
            ("command: a\nargs: b", "line 2, column 7: args must be a sequence"),
            ("command: a\nenv: [b]", "env must be a mapping"),
            ("command: a\nenv: {\"a=b\": c}", "no name for an environment variable"),
            ("just text", "line 1, column 1: expected a mapping with command, args"),
            ("command: 'a", "line 1"),
            ("command:", "a value is missing"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }
}
