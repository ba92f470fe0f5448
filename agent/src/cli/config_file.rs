//! The configuration file of `fifogate-agent run`: TOML goes in, and comes out as flags of the command line.
//!
//! A key is the long name of a flag. The command line takes precedence over the environment, and the environment
//! over the file: flags of one of them are left out of the file. The rest goes through clap as if it had been typed,
//! so values are checked, and flags exclude and require each other, wherever they stand.

use std::{
    any::TypeId,
    collections::{BTreeMap, BTreeSet},
    env,
    error::Error,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use clap::{
    Arg, ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches,
    error::{ContextKind, ContextValue, ErrorKind},
    parser::ValueSource,
};
use log::LevelFilter;
use toml::de::DeValue;

use super::{
    Cli, level,
    toml_file::{self, Fault, Reader, Value, nearest},
    values::Takeover,
    withheld::withhold,
};
use crate::folders::regular;

/// The subcommand with a file.
const RUN: &str = "run";
/// The flag with the path of the file. It has no key.
const CONFIG: &str = "config";
/// Key for the options behind `--`.
const GATE_OPTIONS: &str = "fifogate-options";
/// Key for the verbosity, in place of `--quiet` and `--verbose`.
const LOG: &str = "log";
/// Its values, and the flags for each.
const LEVELS: [(&str, &[&str]); 4] =
    [("error", &["--quiet"]), ("info", &[]), ("debug", &["-v"]), ("trace", &["-v", "-v"])];

/// A flag without a variable: it may be given several times, and a variable has one value.
const NO_VARIABLE: &str = "tag";

/// An unusable command line.
#[derive(Debug)]
pub(super) enum Refused {
    /// By itself.
    Usage(Box<clap::Error>),
    /// By its file, or together with it.
    File(String),
}

impl From<clap::Error> for Refused {
    fn from(error: clap::Error) -> Self {
        Self::Usage(Box::new(error))
    }
}

/// The file as it was read, with its flags.
#[derive(Debug, Default)]
pub(crate) struct ConfigFile {
    path: PathBuf,
    command_line: Vec<OsString>,
    /// By their long names.
    set: BTreeMap<String, Setting>,
}

/// A flag of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    line: usize,
    args: Vec<String>,
}

impl ConfigFile {
    /// Reads the file again. Warns of changes without an effect before the next start. Returns the log level;
    /// `None` without a file, and if `RUST_LOG` has it.
    ///
    /// # Errors
    /// The command line with the file cannot be used; the text is for the user.
    pub(crate) fn read_again(&self) -> Result<Option<LevelFilter>, String> {
        if self.command_line.is_empty() {
            return Ok(None);
        }
        regular(&self.path).map_err(|error| error.to_string())?;
        let (cli, now) = parse(self.command_line.clone()).map_err(|refused| match refused {
            Refused::Usage(error) => first_paragraph(&error),
            Refused::File(text) => withhold(&text).into_owned(),
        })?;
        let args = |file: &Self, key: &str| file.set.get(key).map(|own| own.args.clone());
        let keys: BTreeSet<_> = self.set.keys().chain(now.set.keys()).map(String::as_str).collect();
        let changed =
            keys.into_iter().filter(|key| *key != LOG && args(self, key) != args(&now, key));
        let changed: Vec<_> = changed.collect();
        if !changed.is_empty() {
            let (path, keys) = (self.path.display(), changed.join(", "));
            log::warn!(
                "{path} has changed, and this counts from the next start of the agent: {keys}"
            );
        }
        Ok(level(cli.quiet, cli.verbose))
    }

    /// The message, with the places of its flags in the file.
    pub(super) fn locate(&self, message: String) -> String {
        let path = self.path.display();
        let named = self.set.iter().filter(|(key, _)| is_named(&message, key));
        let mut named: Vec<_> = named.map(|(key, own)| (own.line, key)).collect();
        named.sort_unstable();
        match &named[..] {
            [] => message,
            [(line, _)] => format!("{path}:{line}: {message}"),
            [(line, _), others @ ..] => {
                let others: Vec<_> =
                    others.iter().map(|(line, key)| format!("{key}:{line}")).collect();
                format!("{path}:{line}: {message} ({})", others.join(", "))
            }
        }
    }
}

/// Whether a message is about a flag.
fn is_named(message: &str, key: &str) -> bool {
    let flag = format!("--{key}");
    let ends =
        |rest: &str| !rest.starts_with(|own: char| own.is_ascii_alphanumeric() || own == '-');
    message.match_indices(&flag).any(|(at, _)| ends(&message[at + flag.len()..]))
}

/// The command line. Flags of `run` have variables.
pub(super) fn command() -> Command {
    mut_run(with_variable)
}

/// The command line with changed flags of `run`, and commands in their order.
fn mut_run(change: fn(Arg) -> Arg) -> Command {
    Cli::command().mut_subcommands(|command| match command.get_name() {
        RUN => command.mut_args(change),
        _ => command,
    })
}

fn with_variable(arg: Arg) -> Arg {
    let variable = match arg.get_long() {
        Some(long) if long != NO_VARIABLE && arg.get_env().is_none() => {
            format!("FIFOGATE_{}", long.replace('-', "_").to_uppercase())
        }
        _ => return arg,
    };
    // Each by the same rule, which the help has once.
    arg.env(variable).hide_env(true)
}

/// Parses a command line, its environment, and the file named by one of them.
pub(super) fn parse(args: Vec<OsString>) -> Result<(Cli, ConfigFile), Refused> {
    let alone = command().try_get_matches_from(&args);
    let with_file = match &alone {
        Ok(matches) => matches.subcommand_name() == Some(RUN),
        // The file may say what is missing. For a conflict, it is only named.
        Err(error) => error.kind() == ErrorKind::MissingRequiredArgument,
    };
    if with_file {
        let given = command().ignore_errors(true).try_get_matches_from(&args);
        let file = given.as_ref().ok().and_then(|given| given.subcommand_matches(RUN));
        let file = file.and_then(|run| Some((run, run.get_one::<PathBuf>(CONFIG)?)));
        if let Some((run, path)) = file {
            return parse_with(&args, run, path);
        }
    }
    let alone = alone.map_err(|error| with_variables(error, &args))?;
    Ok((Cli::from_arg_matches(&alone)?, ConfigFile::default()))
}

/// The error, with a tip for each variable that is its reason: it is easily forgotten.
fn with_variables(mut error: clap::Error, args: &[OsString]) -> clap::Error {
    let text = error.to_string();
    let tips: Vec<_> = variables_named(&text, args)
        .into_iter()
        .map(|variable| format!("'{variable}' is set in the environment").into())
        .collect();
    if !tips.is_empty() {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
    }
    error
}

/// The variables of those flags that a message names, and the command line does not have.
fn variables_named(message: &str, args: &[OsString]) -> Vec<String> {
    let command = command();
    let is_given = |long: &str| {
        let flag = format!("--{long}");
        let mut args = args.iter().map(|arg| arg.to_string_lossy());
        args.any(|arg| {
            arg.strip_prefix(&*flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
        })
    };
    let flags = run_flags(&command).filter_map(|arg| Some((arg.get_long()?, arg.get_env()?)));
    let named = flags.filter(|(long, variable)| {
        env::var_os(variable).is_some() && is_named(message, long) && !is_given(long)
    });
    named.map(|(_, variable)| variable.to_string_lossy().into_owned()).collect()
}

fn parse_with(
    args: &[OsString],
    given: &ArgMatches,
    path: &Path,
) -> Result<(Cli, ConfigFile), Refused> {
    let text = fs::read_to_string(path).map_err(|error| {
        Refused::File(format!("configuration file {}: {error}", path.display()))
    })?;
    let entries = read(&text).map_err(|fault| Refused::File(fault.of(path)))?;
    let (merged, set) = merge(args, given, &entries, env::var_os("RUST_LOG").is_some());
    let file = ConfigFile { path: path.to_owned(), command_line: args.to_vec(), set };
    let parsed = command().try_get_matches_from(merged);
    match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => Ok((cli, file)),
        Err(error) if error.use_stderr() => Err(refused(&error, &entries, &file)),
        Err(error) => Err(error.into()),
    }
}

/// The fault of command line and file together.
fn refused(error: &clap::Error, entries: &[Entry], file: &ConfigFile) -> Refused {
    let text = first_paragraph(error);
    if error.kind() != ErrorKind::MissingRequiredArgument {
        return Refused::File(match variables_named(&text, &file.command_line) {
            none if none.is_empty() => file.locate(text),
            some => format!("{}; {} is set in the environment", file.locate(text), some.join(", ")),
        });
    }
    let missing = missing(error);
    let asks = entries.iter().find(|entry| {
        file.set.contains_key(&entry.key) && entry.missing.iter().any(|own| missing.contains(own))
    });
    let path = file.path.display();
    Refused::File(match asks {
        Some(Entry { key, line, .. }) => format!("{path}:{line}: {key}: {text}"),
        None => format!("{path}: {text}"),
    })
}

/// The missing flags.
fn missing(error: &clap::Error) -> Vec<String> {
    match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::Strings(all)) => all.clone(),
        _ => Vec::new(),
    }
}

/// The text of an error in one line, without tips and usage.
fn first_paragraph(error: &clap::Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let lines = text.lines().map(str::trim).take_while(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(" ")
}

/// A key of the file.
#[derive(Debug)]
struct Entry {
    key: String,
    line: usize,
    /// The same as arguments.
    args: Vec<String>,
    /// Required flags.
    missing: Vec<String>,
}

/// The arguments with the flags of the file alone, and these by their keys.
fn merge(
    args: &[OsString],
    given: &ArgMatches,
    entries: &[Entry],
    has_filters: bool,
) -> (Vec<OsString>, BTreeMap<String, Setting>) {
    let is_set = |id: &str| {
        let source = given.value_source(id);
        source.is_some_and(|source| source != ValueSource::DefaultValue)
    };
    let command = command();
    let is_said = |key: &str| match key {
        LOG => has_filters || is_set("quiet") || is_set("verbose"),
        GATE_OPTIONS => is_set("gate_options"),
        key => flag(&command, key).is_some_and(|arg| is_set(arg.get_id().as_str())),
    };
    let (mut before, mut behind, mut set) = (Vec::new(), Vec::new(), BTreeMap::new());
    for Entry { key, line, args: own, .. } in entries.iter().filter(|entry| !is_said(&entry.key)) {
        set.insert(key.clone(), Setting { line: *line, args: own.clone() });
        let to = if key == GATE_OPTIONS { &mut behind } else { &mut before };
        to.extend(own.iter().map(OsString::from));
    }
    // Before the subcommand there are only flags without values.
    let is_flag = |own: &&OsString| own.to_string_lossy().starts_with('-');
    let at = 1 + args.iter().skip(1).take_while(is_flag).count();
    let at = (at + 1).min(args.len());
    if !behind.is_empty() && !args.iter().any(|own| own == "--") {
        behind.insert(0, "--".into());
    }
    ([&args[..at], &before, &args[at..], &behind].concat(), set)
}

/// The flag of `run` for a key.
fn flag<'c>(command: &'c Command, key: &str) -> Option<&'c Arg> {
    run_flags(command).find(|arg| arg.get_long() == Some(key))
}

/// The flags of `run` with keys.
fn run_flags(command: &Command) -> impl Iterator<Item = &Arg> {
    let run = command.find_subcommand(RUN).into_iter();
    let all = run.flat_map(Command::get_arguments);
    all.filter(|arg| arg.get_long().is_some_and(|long| long != CONFIG && long != "help"))
}

/// Reads a file. Each key is right by itself then.
fn read(text: &str) -> Result<Vec<Entry>, Fault> {
    let (reader, table) = toml_file::parse(text)?;
    let command = command();
    let mut known: Vec<_> = run_flags(&command).filter_map(Arg::get_long).collect();
    known.extend([LOG, GATE_OPTIONS]);
    known.sort_unstable();
    let mut entries = Vec::new();
    for (key, value) in &table {
        let (name, at) = (key.get_ref().as_ref(), key.span().start);
        let args = match (name, flag(&command, name)) {
            (LOG, _) => level_flags(&reader, value)?,
            (GATE_OPTIONS, _) => reader.strings(name, value)?,
            (_, Some(arg)) => arguments(&reader, arg, name, value)?,
            (_, None) => {
                let known = nearest(name, &known);
                let text = format!("unknown key `{}`{known}", name.escape_debug());
                return Err(reader.fault(at, text));
            }
        };
        let missing = match name {
            LOG | GATE_OPTIONS => Vec::new(),
            _ => try_alone(&args)
                .map_err(|text| reader.fault(value.span().start, format!("{name}: {text}")))?,
        };
        entries.push(Entry { key: name.to_owned(), line: reader.line(at), args, missing });
    }
    // In the order of the file, for the order of its tags.
    entries.sort_by_key(|entry| entry.line);
    Ok(entries)
}

fn level_flags(reader: &Reader<'_>, value: &Value<'_>) -> Result<Vec<String>, Fault> {
    let level = reader.string(LOG, value)?;
    let found = LEVELS.iter().find(|(name, _)| *name == level);
    let flags = found.map(|(_, flags)| flags.iter().map(|own| (*own).to_owned()).collect());
    flags.ok_or_else(|| {
        let known = nearest(&level, &LEVELS.map(|(name, _)| name));
        reader.fault(value.span().start, format!("{LOG}: unknown level{known}"))
    })
}

/// The arguments for a key.
fn arguments(
    reader: &Reader<'_>,
    arg: &Arg,
    key: &str,
    value: &Value<'_>,
) -> Result<Vec<String>, Fault> {
    let flag = |text: String| format!("--{key}={text}");
    let is_text = value.get_ref().is_str();
    match (arg.get_action(), numbers(arg)) {
        (ArgAction::SetTrue, _) => {
            Ok(reader.bool(key, value)?.then(|| format!("--{key}")).into_iter().collect())
        }
        (ArgAction::Append, _) if !is_text => match reader.strings(key, value)? {
            // Easily what a template of somebody has left of a list: `etcd` without endpoints is no etcd at all.
            none if none.is_empty() => {
                let text = format!("{key} is empty; give a value, or remove the line");
                Err(reader.fault(value.span().start, text))
            }
            all => Ok(all.into_iter().map(flag).collect()),
        },
        (_, Numbers::Only | Numbers::Too) if !is_text => {
            let text = number(value).ok_or_else(|| reader.is_no(key, value, "a number"))?;
            Ok(vec![flag(text)])
        }
        (_, Numbers::Only) => Err(reader.is_no(key, value, "a number")),
        (_, Numbers::Too | Numbers::None) => Ok(vec![flag(reader.string(key, value)?)]),
    }
}

/// Whether numbers are values of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Numbers {
    Only,
    Too,
    None,
}

fn numbers(arg: &Arg) -> Numbers {
    // A port alone is a number.
    if arg.get_value_names().is_some_and(|names| names == ["[HOST:]PORT"]) {
        return Numbers::Too;
    }
    let own = arg.get_value_parser().type_id();
    let all = [
        TypeId::of::<f64>(),
        TypeId::of::<u16>(),
        TypeId::of::<u32>(),
        TypeId::of::<u64>(),
        TypeId::of::<usize>(),
    ];
    match own {
        own if all.iter().any(|number| own == *number) => Numbers::Only,
        own if own == TypeId::of::<Takeover>() => Numbers::Too,
        _ => Numbers::None,
    }
}

/// A number as text, in the decimal system.
fn number(value: &Value<'_>) -> Option<String> {
    match value.get_ref() {
        DeValue::Integer(own) => {
            i128::from_str_radix(own.as_str(), own.radix()).ok().map(|own| own.to_string())
        }
        DeValue::Float(own) => Some(own.as_str().to_owned()),
        _ => None,
    }
}

/// Checks the values of one key. Returns its required flags, or the fault.
fn try_alone(args: &[String]) -> Result<Vec<String>, String> {
    // With a source, as each flag but a source requires one. That two exclude each other is no fault of one key.
    let start = ["fifogate-agent", RUN, "--manifest=-"];
    let all = start.into_iter().chain(args.iter().map(String::as_str));
    let Err(error) = without_environment().try_get_matches_from(all) else { return Ok(Vec::new()) };
    match error.kind() {
        ErrorKind::MissingRequiredArgument => Ok(missing(&error)),
        ErrorKind::ArgumentConflict => Ok(Vec::new()),
        // Without the value, which may be a text of a secret.
        _ => Err(match (error.source(), error.get(ContextKind::ValidValue)) {
            (Some(source), _) => source.to_string(),
            (None, Some(valid)) => format!("expected one of {valid}"),
            (None, None) => "this is no value for it".to_owned(),
        }),
    }
}

fn without_environment() -> Command {
    mut_run(|arg| arg.env(None::<&str>))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Command as Subcommand;

    /// The options of `run` by a file and a command line.
    fn run(text: &str, args: &[&str]) -> Result<super::super::RunArgs, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.toml");
        fs::write(&path, text).unwrap();
        let path = path.to_str().unwrap();
        let all =
            ["fifogate-agent", "run", "--config", path].into_iter().chain(args.iter().copied());
        let parsed = parse(all.map(OsString::from).collect());
        match parsed.map_err(|refused| match refused {
            Refused::File(text) => text.replace(path, "FILE"),
            Refused::Usage(error) => format!("usage: {error}"),
        })? {
            (Cli { command: Subcommand::Run(args), .. }, _) => Ok(*args),
            (other, _) => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_flag_of_run_can_be_set_in_the_file_and_all_but_tags_in_the_environment() {
        let command = command();
        let samples = [
            "true",
            "100000",
            "5000",
            "'a'",
            "'a=b'",
            "'127.0.0.1:1'",
            "'http://127.0.0.1:1'",
            "'end'",
            "'full'",
        ];
        let mut seen = 0;
        for arg in run_flags(&command) {
            let long = arg.get_long().unwrap();
            let texts = samples.iter().map(|sample| format!("{long} = {sample}"));
            let entries = texts.map(|text| read(&text)).find_map(Result::ok);
            let entries = entries.unwrap_or_else(|| panic!("no sample is a value of {long}"));
            let all = ["fifogate-agent", RUN].map(OsString::from);
            let given = without_environment().ignore_errors(true);
            let given = given.clone().try_get_matches_from(&all).unwrap();
            let given = given.subcommand_matches(RUN).unwrap();
            let (args, set) = merge(&all, given, &entries, false);
            assert_eq!(set.get(long).map(|own| own.line), Some(1));
            let set = without_environment().ignore_errors(true).try_get_matches_from(args).unwrap();
            let set = set.subcommand_matches(RUN).unwrap();
            let source = set.value_source(arg.get_id().as_str());
            assert_eq!(source, Some(ValueSource::CommandLine), "{long}");
            assert_eq!(arg.get_env().is_some(), long != NO_VARIABLE, "{long}");
            seen += 1;
        }
        assert!(seen > 25, "{seen}");
    }

    #[test]
    fn file_is_read_and_the_command_line_takes_precedence() {
        let file = "state-dir = '/s'\nname = 'agent_B'\ngrace = 0x10\nlog-bytes = 1_000_000\n\
                    log = 'debug'\nlisten = '127.0.0.1:1'\ninsecure = true\n\
                    fifogate-options = ['--window', '2']\n";
        let args = run(file, &[]).unwrap();
        assert_eq!(args.state_dir.as_deref(), Some(Path::new("/s")));
        assert_eq!((&*args.name, args.grace, args.log_bytes), ("agent_B", 16.0, 1_000_000));
        assert_eq!(args.gate_options, ["--window", "2"]);
        let args = run(file, &["--grace", "1.5", "--name=agent_C", "--", "-q"]).unwrap();
        assert_eq!((&*args.name, args.grace, args.log_bytes), ("agent_C", 1.5, 1_000_000));
        assert_eq!(args.gate_options, ["-q"]);
        let args = run("grace = 0.5\nmanifest = 'm'", &["--"]).unwrap();
        assert_eq!((args.grace, args.gate_options.len()), (0.5, 0));
        assert!(run("manifest = 'm'\nmetrics = 9100\npage = '[::1]:0'", &[]).is_ok());
        let cluster = "etcd = ['a:1', 'b:2']\ntakeover-after = 'never'\nprefix = 'p'";
        assert_eq!(run(cluster, &[]).unwrap().etcd.len(), 2);
        assert!(run("etcd = 'a:1,b:2'\ntakeover-after = 10", &[]).is_ok());
        let server = "server = 'http://a:1'\ntag = ['a=b', 'c=d']\ninsecure = false";
        let args = run(server, &[]).unwrap();
        assert_eq!(args.tags.len(), 2);
        assert_eq!(run(server, &["--tag", "e=f"]).unwrap().tags.len(), 1);
    }

    #[test]
    fn faults_are_told_with_file_line_and_key() {
        let cases: [(&str, &[&str], &str); 21] = [
            ("\nnmae = 'a'", &[], "FILE:2: unknown key `nmae`; name is the nearest of advertise,"),
            ("state_dir = 'a'", &[], "FILE:1: unknown key `state_dir`; state-dir is the nearest"),
            ("config = 'a'", &[], "FILE:1: unknown key `config`"),
            ("name = 1", &[], "FILE:1: name is of the type integer, expected a string"),
            ("grace = '1'", &[], "FILE:1: grace is of the type string, expected a number"),
            ("\n\ngrace = -1", &[], "FILE:3: grace: 0 to 86400"),
            ("log-bytes = 1", &[], "FILE:1: log-bytes: 1 is not in 65536.."),
            (
                "insecure = 1",
                &[],
                "FILE:1: insecure is of the type integer, expected true or false",
            ),
            ("isolation = 'ful'", &[], "FILE:1: isolation: expected one of full, mounts, none"),
            ("tag = [1]", &[], "FILE:1: tag holds a value of the type integer, expected an array"),
            ("tag = 'a'", &[], "FILE:1: tag: expected KEY=VALUE"),
            ("name = 'a'\netcd = []", &[], "FILE:2: etcd is empty; give a value, or remove the"),
            (
                "takeover-after = true",
                &[],
                "FILE:1: takeover-after is of the type boolean, expected",
            ),
            ("takeover-after = 0", &[], "FILE:1: takeover-after: expected 1 to 86400, or `never`"),
            (
                "log = 'warn'",
                &[],
                "FILE:1: log: unknown level; known are error, info, debug, trace",
            ),
            ("name =", &[], "FILE:1: "),
            (
                "state-dir = '/s'\n\netcd = ['a:1']",
                &[],
                "FILE:1: the argument '--state-dir <DIR>' cannot be used with '--etcd <ENDPOINT,…>' (etcd:3)",
            ),
            (
                "\nstate-dir = '/s'",
                &["--etcd", "a:1"],
                "FILE:2: the argument '--state-dir <DIR>' cannot be used with '--etcd <ENDPOINT,…>'",
            ),
            (
                "manifest = 'm'\netcd-ca = 'c'",
                &[],
                "FILE:2: etcd-ca: the following required arguments were not provided: --etcd <ENDPOINT",
            ),
            ("name = 'a'", &[], "FILE: the following required arguments were not provided: <--man"),
            ("", &["--nmae"], "usage: error: unexpected argument '--nmae' found"),
        ];
        for (text, args, expected) in cases {
            let found = run(text, args).unwrap_err();
            assert!(found.starts_with(expected), "{text}: {found}");
        }
    }

    #[test]
    fn default_file_is_good_and_has_every_key() {
        let text = include_str!("../../../contrib/agent.toml");
        let set: Vec<_> = read(text).unwrap().into_iter().map(|entry| entry.key).collect();
        assert_eq!(set, ["manifest", "state-dir", "run-dir", "on-exit"]);
        assert!(run(text, &[]).is_ok());
        let all: String =
            text.lines().map(|line| line.trim_start_matches('#').to_owned() + "\n").collect();
        let command = command();
        let keys = run_flags(&command).filter_map(Arg::get_long).chain([LOG, GATE_OPTIONS]);
        for key in keys {
            let start = format!("{key} = ");
            let line = all.lines().find(|line| line.starts_with(&start));
            let line = line.unwrap_or_else(|| panic!("{key} is missing"));
            read(line).unwrap_or_else(|fault| panic!("{line}: {}", fault.text));
        }
    }

    #[test]
    fn message_is_located_by_the_flags_that_it_names() {
        let lines = [("name", 3), ("etcd", 2), ("etcd-key", 7)];
        let setting = |line| Setting { line, args: Vec::new() };
        let set = lines.map(|(key, line)| (key.to_owned(), setting(line))).into();
        let file = ConfigFile { path: "F".into(), set, ..ConfigFile::default() };
        for (message, expected) in [
            ("--name 'a b': wrong", "F:3: --name 'a b': wrong"),
            ("--etcd-key x: --name", "F:3: --etcd-key x: --name (etcd-key:7)"),
            ("'--etcd <E>'", "F:2: '--etcd <E>'"),
            ("--other, --names", "--other, --names"),
        ] {
            assert_eq!(file.locate(message.to_owned()), expected);
        }
    }
}
