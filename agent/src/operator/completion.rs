//! Completion by the shell: names of the running agent.
//!
//! The words of an unfinished command go in; candidates come out. A shell waits meanwhile: whatever fails or
//! takes long yields no candidates and no message.

use std::{env, ffi::OsString, io, time::Duration};

use clap::{ArgMatches, Command, FromArgMatches, Subcommand};
use clap_complete::{
    CompleteEnv,
    engine::{ArgValueCandidates, CompletionCandidate},
};
use fifogate::{
    internal::state::{AGENTS, DESIRED_STATE, WORKLOAD_STATES},
    state::Tree,
};
use tokio::{runtime::Builder, time::timeout};

use super::{
    OperatorCommand,
    args::{ConnectArgs, Deletable, Gettable},
    connect,
};

/// Time for all candidates of one word.
const PATIENCE: Duration = Duration::from_secs(1);

/// The kind of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    /// A workload of the desired state.
    Workload,
    /// A workload with a state, even one about to end.
    Instance,
    Config,
    Agent,
}

/// Answers a shell that asks for completions by `$COMPLETE`. Returns whether one did.
///
/// # Errors
/// The shell is unknown, or its pipe is closed.
pub(crate) fn answer(command: fn() -> Command, args: &[OsString]) -> Result<bool, clap::Error> {
    let folder = env::current_dir().ok();
    CompleteEnv::with_factory(command).try_complete(args.iter().cloned(), folder.as_deref())
}

/// Workloads of the desired state.
pub(super) fn workloads() -> ArgValueCandidates {
    ArgValueCandidates::new(|| candidates(|_| Some(Named::Workload)))
}

/// Workloads with a state.
pub(super) fn instances() -> ArgValueCandidates {
    ArgValueCandidates::new(|| candidates(|_| Some(Named::Instance)))
}

/// Agents.
pub(super) fn agents() -> ArgValueCandidates {
    ArgValueCandidates::new(|| candidates(|_| Some(Named::Agent)))
}

/// Workloads or configs, by the word before.
pub(super) fn deletables() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        candidates(|args| match args.try_get_one("what").ok()?? {
            Deletable::Workload => Some(Named::Workload),
            Deletable::Config => Some(Named::Config),
        })
    })
}

/// Workloads, if the word before asks for these.
pub(super) fn gettables() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        candidates(|args| {
            let is_workloads = args.try_get_one::<Gettable>("what").ok()?? == &Gettable::Workloads;
            is_workloads.then_some(Named::Instance)
        })
    })
}

fn candidates(named: impl Fn(&ArgMatches) -> Option<Named>) -> Vec<CompletionCandidate> {
    let words = env::args_os().skip_while(|word| word != "--").skip(1);
    let names = understood(words).and_then(|args| {
        let connect = ConnectArgs::from_arg_matches(&args).ok()?;
        names(&connect, named(&args)?).ok()?
    });
    names.unwrap_or_default().into_iter().map(CompletionCandidate::new).collect()
}

/// The arguments of the command in these words, as far as they can be understood.
fn understood(words: impl IntoIterator<Item = OsString>) -> Option<ArgMatches> {
    let mut words = words.into_iter();
    let program = words.next()?;
    // The options of the program have no values.
    let words = words.skip_while(|word| word.to_string_lossy().starts_with('-'));
    let command = OperatorCommand::augment_subcommands(Command::new("operator"));
    let command = command.ignore_errors(true);
    let mut all = command.try_get_matches_from([program].into_iter().chain(words)).ok()?;
    all.remove_subcommand().map(|(_, args)| args)
}

/// The names known to the agent, in time.
fn names(connection: &ConnectArgs, named: Named) -> io::Result<Option<Vec<String>>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let names = runtime.block_on(async {
        let read = timeout(PATIENCE, async {
            let mut client = connect(connection).await.ok()?;
            client.read(&[&mask(named)]).await.ok()
        });
        read.await.ok().flatten().map(|state| names_in(&state, named))
    });
    // The look-up of a host's name cannot be interrupted.
    runtime.shutdown_background();
    Ok(names)
}

fn mask(named: Named) -> String {
    match named {
        Named::Workload => format!("{DESIRED_STATE}.workloads"),
        Named::Instance => WORKLOAD_STATES.to_owned(),
        Named::Config => format!("{DESIRED_STATE}.configs"),
        Named::Agent => AGENTS.to_owned(),
    }
}

fn names_in(state: &Tree, named: Named) -> Vec<String> {
    let mask = mask(named);
    let path: Vec<_> = mask.split('.').collect();
    let entries = state.entries(&path).iter();
    let mut names: Vec<_> = match named {
        Named::Instance => {
            let workloads = entries.flat_map(|(_, workloads)| workloads.entries().iter());
            workloads.map(|(name, _)| name.to_string()).collect()
        }
        _ => entries.map(|(name, _)| name.to_string()).collect(),
    };
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(words: &str) -> Option<String> {
        let args = understood(words.split(' ').map(OsString::from)).unwrap();
        ConnectArgs::from_arg_matches(&args).unwrap().connect
    }

    #[test]
    fn address_is_found_before_and_behind_the_word_to_complete() {
        let unix = Some("unix:/x".to_owned());
        assert_eq!(connection("fifogate-agent -v logs --connect unix:/x "), unix);
        assert_eq!(connection("fifogate-agent delete config  --connect=unix:/x"), unix);
        assert_eq!(connection("fifogate-agent apply --connect unix:/x --agent "), unix);
        assert_eq!(connection("fifogate-agent restart --connect unix:/x --nonsense"), unix);
        assert!(understood(["fifogate-agent".into(), "run".into()]).is_none());
        assert!(understood([]).is_none());
    }
}
