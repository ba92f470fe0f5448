//! The outcome of an update: the states of its started and ended workloads.
//!
//! A subscription tells when to look again, or some time does, and each look reads the states anew: so
//! nothing is missed, however many events were merged.

use std::{collections::BTreeMap, time::Duration};

use fifogate::{
    internal::state::{AGENTS, DESIRED_STATE, WORKLOAD_STATES},
    pb::ank_base as pb,
    state::{Key, Node, Tree},
};
use serde_json::json;
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    args::{Format, UpdateArgs},
    print::{document, one_line, put},
    progress::{Line, Progress},
};
use crate::{
    cli::CliError,
    command_interface::{Client, ClientError},
};

/// An instance of a workload, and its expected state.
#[derive(Debug)]
struct Awaited {
    workload: String,
    id: String,
    agent: String,
    goal: Goal,
    /// It was in the state.
    was_there: bool,
    runs_since: Option<Instant>,
    line: Line,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    Started,
    Ended,
    /// Ended and started again: the state from before does not count, at most until the time.
    Replaced(Instant),
    /// As replaced, and its end was seen, or it is too late for that.
    StartedAgain,
}

/// Age at which a replaced instance counts as started again, although nobody has seen its end.
const UNSEEN: Duration = Duration::from_secs(3);

/// Time for which a workload has to run to count as started: with a mistake in it, it mostly ends at once.
const SETTLED: Duration = Duration::from_millis(500);

/// Pause between two looks at the states without an event.
const LOOK: Duration = Duration::from_millis(500);

/// Sends an update, and waits for its outcome.
pub(super) async fn carry_out(
    mut client: Client,
    args: &UpdateArgs,
    (new_state, masks): (pb::CompleteState, Vec<String>),
) -> Result<(), CliError> {
    // Before the update: no change falls between both.
    let subscription = match args.no_wait {
        true => None,
        false => Some(client.subscribe(&[WORKLOAD_STATES]).await?),
    };
    let success = client.update(new_state, masks).await?;
    put(&summary(&success, args.output)?)?;
    let Some(subscription) = subscription else {
        client.goodbye().await;
        return Ok(());
    };
    let end = Instant::now() + Duration::from_secs(args.timeout);
    let mut progress = Progress::new();
    let mut awaited = awaited(&success, &mut progress)?;
    let waiting = until_done(&mut client, &subscription, &mut awaited, &progress);
    let waited = timeout_at(end, waiting).await;
    awaited.iter_mut().for_each(|own| own.line.end());
    let accepted = "the update was accepted";
    let failed = match waited {
        Ok(Ok(failed)) => failed,
        Ok(Err(error)) => {
            let text = format!("{accepted}, and its outcome is unknown: {error}");
            return Err(CliError::Failed(text));
        }
        Err(_) => {
            let names = unfinished(&mut client, &awaited).await.join(", ");
            let after = args.timeout;
            let text = format!("{accepted}, and is still not done after {after} s: {names}");
            return Err(CliError::Failed(text));
        }
    };
    client.goodbye().await;
    if failed.is_empty() {
        return Ok(());
    }
    Err(CliError::Failed(format!("{accepted}, but failed: {}", failed.join(", "))))
}

fn summary(success: &pb::UpdateStateSuccess, output: Format) -> Result<String, CliError> {
    let (added, deleted) = (&success.added_workloads, &success.deleted_workloads);
    if output != Format::Text {
        return document(&json!({ "addedWorkloads": added, "deletedWorkloads": deleted }), output);
    }
    let name = |instance: &String| instance.split('.').next().unwrap_or_default().to_owned();
    let mut what = BTreeMap::new();
    for instance in deleted {
        what.insert(name(instance), "deleted");
    }
    for instance in added {
        let word = if what.contains_key(&name(instance)) { "replaced" } else { "added" };
        what.insert(name(instance), word);
    }
    if what.is_empty() {
        return Ok("no workload is started or ended by this\n".to_owned());
    }
    Ok(what.iter().map(|(name, word)| format!("workload {name} {word}\n")).collect())
}

fn awaited(
    success: &pb::UpdateStateSuccess,
    progress: &mut Progress,
) -> Result<Vec<Awaited>, CliError> {
    let mut one = |(instance, goal): (&String, Goal)| {
        let [workload, id, agent] = instance.split('.').collect::<Vec<_>>()[..] else {
            return Err(CliError::Failed(format!("'{instance}' is no name of an instance")));
        };
        let [workload, id, agent] = [workload, id, agent].map(str::to_owned);
        let line = progress.line(&workload);
        Ok(Awaited { workload, id, agent, goal, was_there: false, runs_since: None, line })
    };
    let replaced = |instance| success.deleted_workloads.contains(instance);
    let added = success.added_workloads.iter().map(|instance| {
        let goal = match replaced(instance) {
            true => Goal::Replaced(Instant::now() + UNSEEN),
            false => Goal::Started,
        };
        (instance, goal)
    });
    let deleted = success.deleted_workloads.iter();
    let deleted = deleted.filter(|instance| !success.added_workloads.contains(instance));
    added.chain(deleted.map(|instance| (instance, Goal::Ended))).map(&mut one).collect()
}

/// The workloads that are not done, with what they wait for.
async fn unfinished(client: &mut Client, awaited: &[Awaited]) -> Vec<String> {
    let path = |own: &Awaited| format!("{DESIRED_STATE}.workloads.{}.dependencies", own.workload);
    let waits = |own: &&Awaited| own.line.told().starts_with("Pending(WaitingToStart)");
    let masks: Vec<_> = awaited.iter().filter(waits).map(path).collect();
    let masks: Vec<_> = masks.iter().map(String::as_str).collect();
    let state = match masks[..] {
        [] => Tree::default(),
        _ => client.read(&masks).await.unwrap_or_default(),
    };
    let text = |own: &Awaited| {
        let all = state.entries(&[DESIRED_STATE, "workloads", &own.workload, "dependencies"]);
        let one = |(name, condition): (&Key, &Node)| {
            format!("{name}: {}", condition.as_str().unwrap_or_default())
        };
        match all.iter().map(one).collect::<Vec<_>>() {
            none if none.is_empty() => own.workload.clone(),
            some => format!("{} (it waits for {})", own.workload, some.join(", ")),
        }
    };
    awaited.iter().map(text).collect()
}

/// Waits for all instances. Returns the names of the failed ones.
async fn until_done(
    client: &mut Client,
    subscription: &str,
    awaited: &mut Vec<Awaited>,
    progress: &Progress,
) -> Result<Vec<String>, ClientError> {
    let mut failed = Vec::new();
    loop {
        let state = client.read(&[WORKLOAD_STATES, AGENTS]).await?;
        awaited.retain_mut(|own| match own.look(&state) {
            None => true,
            Some(good) => {
                own.line.end();
                failed.extend((!good).then(|| own.workload.clone()));
                false
            }
        });
        if awaited.is_empty() {
            return Ok(failed);
        }
        // No event comes for changes that were undone before it was made.
        if let Ok(event) = timeout(LOOK, progress.meanwhile(client.event(subscription))).await {
            event?;
        }
    }
}

impl Awaited {
    /// Looks at the state of the instance: whether it is done, and well.
    fn look(&mut self, state: &Tree) -> Option<bool> {
        let path = [WORKLOAD_STATES, &self.agent, &self.workload, &self.id];
        let Some(own) = state.get(&path) else {
            self.runs_since = None;
            if self.goal == Goal::Started && self.was_there {
                self.line.tell("removed or replaced by another update");
                return Some(false);
            }
            self.line.tell("Removed");
            if self.goal == Goal::Ended {
                return Some(true);
            }
            // Its end before the start that is awaited.
            self.goal = match self.goal {
                Goal::Replaced(_) => Goal::StartedAgain,
                other => other,
            };
            return None;
        };
        self.was_there = true;
        let text = |name| own.str_at(name).unwrap_or_default();
        let (word, sub, info) = (text("state"), text("subState"), text("additionalInfo"));
        let info = if info.is_empty() { String::new() } else { format!(": {}", one_line(info)) };
        self.line.tell(&format!("{word}({sub}){info}"));
        if state.get(&[AGENTS, &self.agent]).is_none() && !self.agent.is_empty() {
            self.line.tell(&format!("agent {} is not connected", self.agent));
            return Some(true);
        }
        let runs_since = (word == "Running").then(Instant::now);
        self.runs_since = runs_since.map(|now| self.runs_since.unwrap_or(now));
        let done = match (word, sub) {
            ("AgentDisconnected", _) => Some(true),
            (_, "DeleteFailed") => Some(false),
            _ if self.goal == Goal::Ended => None,
            ("Running" | "Succeeded" | "NotScheduled", _) => Some(true),
            ("Failed", _) | (_, "StartingFailed") => Some(false),
            _ => None,
        };
        match self.goal {
            // Still the state from before, perhaps.
            Goal::Replaced(unseen) if done.is_some() && Instant::now() < unseen => return None,
            Goal::Replaced(_) => self.goal = Goal::StartedAgain,
            _ => {}
        }
        let has_settled = self.runs_since.is_none_or(|since| since.elapsed() >= SETTLED);
        done.filter(|_| has_settled)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn awaited(goal: Goal) -> Awaited {
        let [workload, id, agent] = ["w", "1", "a"].map(str::to_owned);
        let line = Progress::new().line(&workload);
        Awaited { workload, id, agent, goal, was_there: false, runs_since: None, line }
    }

    /// A state of the instance; none without a name.
    fn state(name: &str) -> Tree {
        let agents = Node::map([("a", Node::map([("x", Node::text("x"))]))]);
        let tree = Tree::default().with(AGENTS, Some(agents));
        if name.is_empty() {
            return tree;
        }
        let own = Node::map([("state", Node::text(name)), ("subState", Node::text("Ok"))]);
        let states = ["1", "w", "a"].into_iter().fold(own, |own, name| Node::map([(name, own)]));
        tree.with(WORKLOAD_STATES, Some(states))
    }

    /// The outcomes of looks, each a moment after the one before.
    async fn looks(own: &mut Awaited, names: &[&str]) -> Vec<Option<bool>> {
        let mut found = Vec::new();
        for name in names {
            found.push(own.look(&state(name)));
            advance(Duration::from_millis(400)).await;
        }
        found
    }

    #[tokio::test(start_paused = true)]
    async fn started_is_what_still_runs_a_moment_later() {
        let mut own = awaited(Goal::Started);
        let found = looks(&mut own, &["", "Pending", "Running", "Running", "Running"]).await;
        assert_eq!(found, [None, None, None, None, Some(true)]);
        let mut own = awaited(Goal::Started);
        assert_eq!(looks(&mut own, &["Running", "Failed"]).await, [None, Some(false)]);
        let mut own = awaited(Goal::Started);
        assert_eq!(looks(&mut own, &["Succeeded"]).await, [Some(true)]);
        let mut own = awaited(Goal::Started);
        assert_eq!(looks(&mut own, &["Pending", ""]).await, [None, Some(false)], "it is replaced");
        let mut own = awaited(Goal::Ended);
        assert_eq!(looks(&mut own, &["Running", "Stopping", ""]).await, [None, None, Some(true)]);
    }

    #[tokio::test(start_paused = true)]
    async fn state_from_before_a_restart_is_no_outcome() {
        for end in ["Stopping", ""] {
            let mut own = awaited(Goal::Replaced(Instant::now() + UNSEEN));
            let names = ["Running", "Running", "Running", end, "", "Running"];
            assert_eq!(looks(&mut own, &names).await, [None; 6], "{end}");
            assert_eq!(looks(&mut own, &["Running", "Running"]).await, [None, Some(true)]);
        }
        let mut own = awaited(Goal::Replaced(Instant::now() + UNSEEN));
        let found = looks(&mut own, &["Failed", "Failed", "Pending", "Running", "Failed"]).await;
        assert_eq!(found, [None, None, None, None, Some(false)]);
        // Its end and its start came between two looks.
        let mut own = awaited(Goal::Replaced(Instant::now() + UNSEEN));
        assert_eq!(looks(&mut own, &["Running"; 9]).await[..8], [None; 8]);
        assert_eq!(looks(&mut own, &["Running"]).await, [Some(true)]);
    }
}
