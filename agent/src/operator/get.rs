//! `get` and `watch`: the state as a document, tables of its parts, and its changes.

use fifogate::{
    internal::{
        masks, printed,
        state::{AGENTS, DESIRED_STATE, WORKLOAD_STATES},
    },
    pb::ank_base::response::ResponseContent,
    state::{
        Node, Tree,
        convert::{self, Fill},
    },
};

use super::{
    args::{Format, GetArgs, Gettable},
    connect,
    print::{document, note, one_line, put, table},
};
use crate::{
    cli::CliError,
    command_interface::{Client, state_request},
};

pub(super) async fn get(args: GetArgs) -> Result<(), CliError> {
    if matches!(args.what, Gettable::State | Gettable::Events) {
        check(&args.names)?;
    }
    let mut client = connect(&args.connect).await?;
    let configs = format!("{DESIRED_STATE}.configs");
    let workloads = format!("{DESIRED_STATE}.workloads");
    let masks: Vec<&str> = match args.what {
        Gettable::Events => {
            let output = args.output.unwrap_or(Format::Yaml);
            return events(&mut client, args.names, output, None).await;
        }
        Gettable::State => args.names.iter().map(String::as_str).collect(),
        Gettable::Workloads => vec![&workloads, WORKLOAD_STATES],
        Gettable::Agents => vec![AGENTS, WORKLOAD_STATES],
        Gettable::Configs => vec![&configs],
    };
    let subscription = match args.watch {
        true => Some(client.subscribe(&masks).await?),
        false => None,
    };
    let mut before = String::new();
    loop {
        let state = client.read(&masks).await?;
        let text = text_of(&state, &args)?;
        // An event may concern what the table does not show.
        if text != before {
            let separator = if before.is_empty() { "" } else { "\n" };
            put(&format!("{separator}{text}"))?;
            before = text;
        }
        match &subscription {
            Some(subscription) => client.event(subscription).await?,
            None => {
                client.goodbye().await;
                if args.what == Gettable::State {
                    note_missing(&args.names, &state);
                }
                return Ok(());
            }
        }
    }
}

/// Refuses masks that begin with no part of the state: nobody means them.
pub(super) fn check(masks: &[String]) -> Result<(), CliError> {
    match masks::unknown_parts(masks) {
        faults if faults.is_empty() => Ok(()),
        faults => Err(CliError::Unusable(faults.join("\n"))),
    }
}

fn note_missing(masks: &[String], state: &Tree) {
    for line in masks::without_match(masks, state) {
        note(&format!("note: {line}"));
    }
}

fn text_of(state: &Tree, args: &GetArgs) -> Result<String, CliError> {
    let format = args.output.unwrap_or(match args.what {
        Gettable::State | Gettable::Events => Format::Yaml,
        _ => Format::Text,
    });
    let table = match args.what {
        _ if format != Format::Text => None,
        Gettable::Workloads => Some(workloads(state, args)?),
        Gettable::Agents => Some(agents(state)),
        Gettable::Configs => Some(configs(state)),
        Gettable::State | Gettable::Events => None,
    };
    if let Some(table) = table {
        return Ok(table);
    }
    let message = convert::to_pb(state, Fill::Sparse);
    let value = printed::state(Some(&message))
        .map_err(|error| CliError::Failed(format!("the answer cannot be shown: {error}")))?;
    document(&value, format)
}

fn workloads(state: &Tree, args: &GetArgs) -> Result<String, CliError> {
    let mut rows = Vec::new();
    for (agent, workloads) in state.entries(&[WORKLOAD_STATES]) {
        for (name, ids) in workloads.entries() {
            let is_meant =
                args.names.is_empty() || args.names.iter().any(|own| own == name.as_str());
            let of_agent = args.agent.as_ref().is_none_or(|own| own == agent.as_str());
            for (_, own) in ids.entries().iter().filter(|_| is_meant && of_agent) {
                let text = |name| own.str_at(name).unwrap_or_default();
                let desired = state.get(&[DESIRED_STATE, "workloads", name.as_str()]);
                let desired = desired.filter(|own| own.str_at("agent") == Some(agent.as_str()));
                let runtime = desired.and_then(|own| own.str_at("runtime")).unwrap_or_default();
                rows.push(vec![
                    name.to_string(),
                    agent.to_string(),
                    runtime.to_owned(),
                    format!("{}({})", text("state"), text("subState")),
                    one_line(text("additionalInfo")),
                ]);
            }
        }
    }
    let is_shown = |name: &&String| rows.iter().any(|row| row[0] == **name);
    let missing: Vec<_> = args.names.iter().filter(|name| !is_shown(name)).cloned().collect();
    if !missing.is_empty() && !args.watch {
        return Err(CliError::Failed(format!("there is no workload {}", missing.join(", "))));
    }
    rows.sort();
    Ok(table(&["WORKLOAD", "AGENT", "RUNTIME", "STATE", "INFORMATION"], &rows))
}

fn agents(state: &Tree) -> String {
    let mut rows = Vec::new();
    for (name, agent) in state.entries(&[AGENTS]) {
        let number = |path: [&str; 2]| match agent.get(path[0]).and_then(|own| own.get(path[1])) {
            Some(Node::Uint(number)) => Some(*number),
            // As the fields of the message are: a number in a message of its own.
            Some(Node::Map(map)) => map.iter().find_map(|(_, own)| match own {
                Node::Uint(number) => Some(*number),
                _ => None,
            }),
            _ => None,
        };
        let unit = |value: Option<String>| value.unwrap_or_default();
        let workloads = state.entries(&[WORKLOAD_STATES, name.as_str()]).iter().count();
        let tags = agent.get("tags").map(Node::entries).into_iter().flat_map(|tags| tags.iter());
        let tags = tags.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
        rows.push(vec![
            name.to_string(),
            workloads.to_string(),
            unit(number(["status", "cpuUsage"]).map(|percent| format!("{percent}%"))),
            unit(number(["status", "freeMemory"]).map(|bytes| format!("{} MiB", bytes >> 20))),
            one_line(&tags.collect::<Vec<_>>().join(",")),
        ]);
    }
    table(&["AGENT", "WORKLOADS", "CPU", "FREE MEMORY", "TAGS"], &rows)
}

fn configs(state: &Tree) -> String {
    let kind = |node: &Node| match node {
        Node::Map(map) => format!("{} values", map.iter().count()),
        Node::Seq(list) => format!("list of {}", list.len()),
        other => one_line(other.as_str().unwrap_or_default()),
    };
    let row = |(name, node): (&fifogate::state::Key, &Node)| vec![name.to_string(), kind(node)];
    let rows: Vec<_> = state.entries(&[DESIRED_STATE, "configs"]).iter().map(row).collect();
    table(&["CONFIG", "VALUE"], &rows)
}

/// Prints the state, and each change of it, until the end of the command.
pub(super) async fn events(
    client: &mut Client,
    masks: Vec<String>,
    output: Format,
    count: Option<u64>,
) -> Result<(), CliError> {
    let masks: Vec<_> = masks.iter().map(String::as_str).collect();
    let id = client.send(state_request(&masks, true)).await?;
    let mut printed_before = 0;
    loop {
        let ResponseContent::CompleteStateResponse(change) = client.response(&id).await? else {
            return Err(client.unexpected().into());
        };
        let value = printed::change(&change)
            .map_err(|error| CliError::Failed(format!("the answer cannot be shown: {error}")))?;
        let separator = if printed_before > 0 && output != Format::Json { "---\n" } else { "" };
        put(&format!("{separator}{}", document(&value, output)?))?;
        if count.is_some_and(|count| printed_before >= count) {
            return Ok(());
        }
        printed_before += 1;
    }
}
