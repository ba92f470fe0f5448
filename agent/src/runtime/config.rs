//! What a `runtimeConfig` of the runtime `process` says: YAML in, a command out, or what is wrong and
//! where.

use std::{collections::BTreeMap, path::PathBuf};

use super::capabilities;
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
    /// Bits of the capabilities that it is to have beside the usual ones.
    pub capabilities: u64,
    /// Whether programs with the setuid bit give nothing; for all users but root if nothing is said.
    pub no_new_privileges: Option<bool>,
}

const KEYS: &str = "command, args, env, workingDir, user, capabilities, noNewPrivileges";

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
            "capabilities" => command.capabilities = capability_bits(text, value)?,
            "noNewPrivileges" => {
                let YamlData::Value(Scalar::Boolean(given)) = &value.data else {
                    return Err(fault(value, "noNewPrivileges is true or false"));
                };
                command.no_new_privileges = Some(*given);
            }
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

fn capability_bits(text: &str, node: &MarkedYaml<'_>) -> Result<u64, String> {
    let YamlData::Sequence(names) = &node.data else {
        return Err(fault(node, "capabilities must be a sequence, such as [NET_ADMIN]"));
    };
    names.iter().try_fold(0, |bits, name| {
        let own = capabilities::parse(&scalar(text, name)?);
        Ok(bits | own.map_err(|reason| fault(name, &reason))?)
    })
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
                    workingDir: /tmp\nuser: nobody\ncapabilities: [CAP_NET_ADMIN, chown]\n\
                    noNewPrivileges: false\n";
        let expected = Command {
            command: "/bin/sleep".into(),
            args: ["0x10", "2", "1.50", "true"].map(String::from).to_vec(),
            env: [("A", "1"), ("B", "x y")].map(|(k, v)| (k.into(), v.into())).into(),
            working_dir: Some("/tmp".into()),
            user: Some("nobody".into()),
            capabilities: 1 << 12 | 1,
            no_new_privileges: Some(false),
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
            ("command: a\ncapabilities: ALL", "capabilities must be a sequence"),
            ("command: a\ncapabilities: [[]]", "line 2, column 16: expected a single value"),
            (
                "command: a\ncapabilities: [CHOWN, X]",
                "line 2, column 23: there is no capability 'X'",
            ),
            ("command: a\nnoNewPrivileges: yes", "noNewPrivileges is true or false"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }
}
