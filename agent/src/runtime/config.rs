//! Parser of a `runtimeConfig` of the runtime `process`.
//!
//! YAML goes in; a [`Command`] comes out, or the first fault with its line and column. Unknown and
//! duplicate keys are faults. Texts over the bounds of [`crate::limits`] are rejected while they are
//! read.

use std::{collections::BTreeMap, path::PathBuf};

use crate::limits::MOST_VALUES;

use super::{
    accounts, capabilities, podman,
    yaml::{self, Data, ScalarKind, Yaml, fault},
};

pub use super::yaml::Fault;

/// The process requested by a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// A path, or a name to search in `PATH`.
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Environment variables, besides those of every workload.
    pub env: BTreeMap<String, String>,
    /// Its working directory; `/` if absent.
    pub working_dir: Option<PathBuf>,
    /// `USER` or `USER:GROUP`, each a name or a number; those of the agent if absent.
    pub user: Option<String>,
    /// Bits of the capabilities beyond the default ones.
    pub capabilities: u64,
    /// Whether setuid programs gain no rights; if absent, true for all users but root.
    pub no_new_privileges: Option<bool>,
}

const KEYS: &str = "command, args, env, workingDir, user, capabilities, noNewPrivileges";

/// Checks only the bounds of a `runtimeConfig`. Other faults are reported at the start of the workload.
///
/// # Errors
/// The exceeded bound, with its line and column.
pub fn check_bounds(text: &str) -> Result<(), Fault> {
    match yaml::document(text, |_| Ok(())) {
        Err(fault) if fault.is_over => Err(fault),
        _ => Ok(()),
    }
}

/// Reads `data` in all ways, and checks their results against each other.
///
/// Entry of the fuzz target `runtime_configs`, and of a test over its seeds.
///
/// # Panics
/// The parser panics, or two results disagree.
#[doc(hidden)]
pub fn fuzz_runtime_config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let (Err(over), Err(refused)) = (check_bounds(&text), podman::check_config(&text)) {
        assert_eq!(refused, over);
    }
    match (check_bounds(&text), parse(&text)) {
        (Err(over), Err(refused)) => assert_eq!(refused, over),
        (Err(over), Ok(_)) => unreachable!("it is read although it is over a bound: {over}"),
        (Ok(()), Ok(command)) => {
            assert!(!command.command.is_empty());
            let all = command.args.iter().chain(command.env.keys()).chain(command.env.values());
            assert!(all.chain([&command.command]).all(|own| !own.contains('\0')));
            assert!(command.args.len() + command.env.len() <= MOST_VALUES);
        }
        (Ok(()), Err(_)) => {}
    }
}

/// Parses a `runtimeConfig`.
///
/// # Errors
/// The fault, with its line and column.
pub fn parse(text: &str) -> Result<Command, Fault> {
    yaml::document(text, |document| {
        command(document.ok_or_else(|| {
            let what = "is empty; it needs at least `command: PROGRAM`".to_owned();
            Fault { line: 0, column: 0, what, is_over: false }
        })?)
    })
}

fn command(document: &Yaml<'_>) -> Result<Command, Fault> {
    let mut command = Command::default();
    for (key, value) in mapping(document, &format!("expected a mapping with {KEYS}"))? {
        match scalar(key)? {
            "command" => command.command = scalar(value)?.to_owned(),
            "args" => {
                let Data::Sequence(values) = &value.data else {
                    let what = "args must be a sequence, such as [\"-c\", \"true\"]";
                    return Err(fault(value, what));
                };
                let args = values.iter().map(|arg| scalar(arg).map(str::to_owned));
                command.args = args.collect::<Result<_, _>>()?;
            }
            "env" => {
                for (name, value) in mapping(value, "env must be a mapping from name to value")? {
                    let spelled = scalar(name)?;
                    // The environment is a list of NAME=VALUE, so such a name would be read as another one.
                    if spelled.is_empty() || spelled.contains(['=', '\0']) {
                        return Err(fault(name, "this is no name for an environment variable"));
                    }
                    command.env.insert(spelled.to_owned(), scalar(value)?.to_owned());
                }
            }
            "workingDir" => {
                let folder = PathBuf::from(scalar(value)?);
                if !folder.is_absolute() {
                    return Err(fault(value, "workingDir is an absolute path"));
                }
                command.working_dir = Some(folder);
            }
            "user" => {
                let user = scalar(value)?;
                accounts::check(user).map_err(|text| fault(value, &format!("user: {text}")))?;
                command.user = Some(user.to_owned());
            }
            "capabilities" => command.capabilities = capability_bits(value)?,
            "noNewPrivileges" => {
                command.no_new_privileges = Some(match scalar(value)? {
                    // Booleans of YAML 1.2 only: `yes` is a text.
                    "true" | "True" | "TRUE" => true,
                    "false" | "False" | "FALSE" => false,
                    _ => return Err(fault(value, "noNewPrivileges is true or false")),
                });
            }
            other => {
                return Err(fault(key, &format!("unknown key '{other}'; there are {KEYS}")));
            }
        }
    }
    if command.command.is_empty() {
        return Err(fault(document, "`command` is missing"));
    }
    Ok(command)
}

fn capability_bits(node: &Yaml<'_>) -> Result<u64, Fault> {
    let Data::Sequence(names) = &node.data else {
        return Err(fault(node, "capabilities must be a sequence, such as [NET_ADMIN]"));
    };
    names.iter().try_fold(0, |bits, name| {
        let own = capabilities::parse(scalar(name)?);
        Ok(bits | own.map_err(|error| fault(name, &error.to_string()))?)
    })
}

type Entry<'i> = (Yaml<'i>, Yaml<'i>);

fn mapping<'n, 'i>(node: &'n Yaml<'i>, expected: &str) -> Result<&'n [Entry<'i>], Fault> {
    match &node.data {
        Data::Mapping(entries) => Ok(entries),
        _ => Err(fault(node, expected)),
    }
}

/// The text of a scalar as written: `60` and `"60"` are the same argument.
fn scalar<'n>(node: &'n Yaml<'_>) -> Result<&'n str, Fault> {
    match &node.data {
        Data::Scalar(scalar) if scalar.kind == ScalarKind::Null => {
            Err(fault(node, "a value is missing"))
        }
        Data::Scalar(scalar) if scalar.text.contains('\0') => {
            Err(fault(node, "a process cannot be given a zero byte"))
        }
        Data::Scalar(scalar) => Ok(&scalar.text),
        Data::Bad | Data::Sequence(_) | Data::Mapping(_) => {
            Err(fault(node, "expected a single value"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MOST_BYTES;

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
            ("command: a\nenv: {A: b, A: c}", "line 2, column 13: duplicated key `A`"),
            ("command: a\nargs: [[b]]", "line 2, column 8: expected a single value"),
            ("command: a\n---\ncommand: b", "line 3, column 1: a second document begins here"),
            ("command: a\nargs: &a [*a]", "line 2, column 11: this alias stands in what it"),
            ("command: a\nargs: [&a [b], *a]", "line 2, column 11: expected a single value"),
            ("? [command]\n: a", "line 1, column 3: a key has to be a text"),
            ("command: a\nargs: [*a]", "line 2, column 8"),
            ("command: a\ncapabilities: ALL", "capabilities must be a sequence"),
            ("command: a\ncapabilities: [[]]", "line 2, column 16: expected a single value"),
            (
                "command: a\ncapabilities: [CHOWN, X]",
                "line 2, column 23: there is no capability 'X'",
            ),
            ("command: a\nnoNewPrivileges: yes", "noNewPrivileges is true or false"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }

    #[test]
    fn comments_tags_and_aliases_of_scalars_are_read() {
        let text = [
            "%YAML 1.2",
            "---",
            "command: &c !!str sleep # b",
            "args:",
            "- *c",
            "- !!str 1",
            "- >",
            "  x",
            "  y",
            "",
        ];
        let command = parse(&text.join("\n")).unwrap();
        assert_eq!(command.args, ["sleep", "1", "x y\n"]);
    }

    #[test]
    fn yaml_that_libyaml_reads_is_read() {
        for text in [
            "command: a\nargs: [\n  b,\n  c\n]",
            "command: a\nargs: [\nb,\nc\n]\n",
            "command:\ta\nargs:\t[b,\tc]",
            "command: a\nargs: &l [b, c]\nenv: {x: \"y\n z\"}",
            "\u{feff}command: a\nargs: [b, c]",
            "---\n\u{feff}command: a\nargs: [b, c]",
            "{\"command\":\"a\",\n\t\"args\":[\"b\",\"\\u0063\"]}",
        ] {
            let command = parse(text).unwrap_or_else(|fault| panic!("{text:?}: {fault}"));
            assert_eq!(
                (command.command.as_str(), command.args),
                ("a", vec!["b".into(), "c".into()])
            );
        }
        // The end of the text is no line feed.
        let args = |text: &str| parse(text).unwrap().args;
        assert_eq!(args("command: a\nargs:\n- |\n  x"), ["x"]);
        assert_eq!(args("command: a\nargs:\n- \"\\ud83d\\ude00\""), ["😀"]);
        assert_eq!(args("command: &l a\nargs: [*l, 3.10, 0755]"), ["a", "3.10", "0755"]);
    }

    #[test]
    fn texts_pass_at_each_bound_and_not_one_above_it() {
        let ones = |count| format!("command: a\nargs: [{}1]\n", "1,".repeat(count));
        // The mapping, three texts in it, and the sequence are values, too.
        for (at, above, expected) in [
            (nested("- ", 20), nested("- ", 21), "nests more than 20 levels"),
            (flow(20), flow(21), "nests more than 20 levels"),
            (flow(20), flow(20_000), "nests more than 20 levels"),
            (nested("- ", 20), nested("- ", 100_000), "nests more than 20 levels"),
            (ones(MOST_VALUES - 6), ones(MOST_VALUES - 5), "more than 65536 values"),
            (long(MOST_BYTES), long(MOST_BYTES + 1), "more than 1048576 bytes"),
            (repeated(16), repeated(17), "aliases repeat more than 1048576 bytes"),
        ] {
            let short = |text: &str| text.chars().take(50).collect::<String>();
            assert_eq!(check_bounds(&at), Ok(()), "{}", short(&at));
            let refused = check_bounds(&above).unwrap_err().to_string();
            assert!(refused.contains(expected), "{}: {refused}", short(&above));
            assert!(parse(&above).unwrap_err().what.contains(expected), "{}", short(&above));
        }
    }

    /// A text with this number of levels, opened by repeating `open`.
    fn nested(open: &str, levels: usize) -> String {
        format!("{}x", open.repeat(levels / open.matches(' ').count()))
    }

    fn flow(levels: usize) -> String {
        format!("{}x{}", "[".repeat(levels), "]".repeat(levels))
    }

    fn long(bytes: usize) -> String {
        format!("command: {}", "x".repeat(bytes - 9))
    }

    fn repeated(count: usize) -> String {
        let text = "x".repeat(MOST_BYTES / 16);
        format!("command: &a {text}\nargs: [{}]", vec!["*a"; count].join(","))
    }

    #[test]
    fn what_breaks_off_in_its_nesting_or_multiplies_by_aliases_is_read_in_no_time() {
        let laughs: String = (1..10)
            .map(|own| {
                format!("a{own}: &a{own} [{}]\n", vec![format!("*a{}", own - 1); 10].join(","))
            })
            .collect();
        for text in [
            format!("a0: &a0 lol\n{laughs}"),
            "[".repeat(1 << 19),
            "{a: ".repeat(1 << 17),
            "- - ".repeat(1 << 17),
            "&a ".repeat(1 << 17),
            "!t ".repeat(1 << 17),
            "\"".repeat(1 << 19),
            "#\n".repeat(1 << 18),
            "---\n".repeat(1 << 17),
            "- |\n".repeat(1 << 17),
        ] {
            let begun = std::time::Instant::now();
            assert!(parse(&text).is_err());
            assert!(begun.elapsed().as_secs() < 5, "{:?}", &text[..20]);
        }
    }
}
