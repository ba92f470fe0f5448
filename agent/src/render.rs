//! Template rendering: fills in the `{{...}}` of workloads from their configs, and builds the effective
//! state (docs/protocol.md#state-tree, docs/protocol.md#updates, docs/protocol.md#manifests).
//!
//! Input is the old and the new desired state; output is the effective state and the failed workloads.
//! Only the `agent`, the `runtimeConfig` and the file contents of workloads with a `configs` alias are
//! rendered. Rendering is strict, pure and without escaping. It visits only workloads with a change in
//! themselves or in their configs, found by [`ConfigIndex`].
//!
//! Templates are untrusted. `scan` bounds their nesting before the engine parses them; `tame` and
//! `helpers` make the engine count its `steps`.

mod config_index;
mod data;
mod fuzz;
mod helpers;
mod scan;
mod steps;
mod tame;

use std::{
    collections::BTreeSet,
    error::Error,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, LazyLock},
};

use fifogate::{
    internal::state::{API_VERSION, DESIRED_STATE, EFFECTIVE_STATE, is_name},
    state::{Key, Map, Node, Tree},
};
use handlebars::{Handlebars, Template, no_escape};

use crate::limits::MOST_REASON;
use data::Data;
use scan::ScanError;
use steps::{Bounded, Meter};
use tame::Unsupported;

pub use config_index::{ConfigIndex, configs_of};
#[doc(hidden)]
pub use fuzz::fuzz_template;
pub use steps::{Budget, OutOfSteps};

/// The reason for a failed rendering. The text is for the client (docs/protocol.md#error-texts), without
/// the frame added by the rejection of an update.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct RenderError {
    /// The workload.
    pub workload: String,
    /// The error.
    pub reason: String,
    /// True if the same workload could not be rendered before either.
    pub is_old: bool,
}

/// Computes the effective state of `new`, and the workloads with a failed rendering. The effective state
/// of `old` has to belong to its desired state, and `uses` to both.
///
/// A failed workload with a known agent is in the effective state as in the desired one, with its
/// `configs`: see [`is_unrendered`]. Other failed workloads are left out.
#[must_use]
pub fn effective(old: &Tree, uses: &ConfigIndex, new: &Tree) -> (Node, Vec<RenderError>) {
    effective_within(old, uses, new, &mut Budget::unbounded())
}

/// Like [`effective`], within the step budget of an update.
#[must_use]
pub fn effective_within(
    old: &Tree,
    uses: &ConfigIndex,
    new: &Tree,
    budget: &mut Budget,
) -> (Node, Vec<RenderError>) {
    let (was, is) = (old.entries(&WORKLOADS), new.entries(&WORKLOADS));
    let configs = new.entries(&CONFIGS);
    let mut again: BTreeSet<&Key> = BTreeSet::new();
    was.diff(is, |name, old, new| {
        if old != new {
            again.insert(name);
        }
    });
    old.entries(&CONFIGS).diff(configs, |key, old, new| {
        if old != new {
            // A workload with a change of its own may be among them, so `again` is a set.
            again.extend(uses.of(key.as_str()));
        }
    });
    let version = new.get(&[DESIRED_STATE, API_VERSION]);
    if let Some(state) = old.get(&[EFFECTIVE_STATE])
        && again.is_empty()
        && version.is_some()
        && state.get(API_VERSION) == version
    {
        return (state.clone(), Vec::new());
    }
    let mut rendered = old.entries(&RENDERED).clone();
    let mut faults = Vec::new();
    for name in again {
        let before = rendered.get(name.as_str()).cloned();
        // Also where the workload fails now: its former rendering must not stay in effect.
        rendered.remove(name.as_str());
        let Some(workload) = is.get(name.as_str()) else { continue };
        // A workload has its own steps, and shares those of the update.
        budget.begin_workload();
        match render(workload, configs, budget) {
            Ok(workload) => rendered.insert(name.clone(), workload),
            Err(Fault { reason, rest }) => {
                // Old only if the same text failed before: a new text is its sender's fault.
                let was_so = before.is_none_or(|own| is_unrendered(&own));
                let is_old = was_so && was.get(name.as_str()) == Some(workload);
                faults.push(RenderError { workload: name.to_string(), reason, is_old });
                if let Some(rest) = rest {
                    rendered.insert(name.clone(), rest);
                }
            }
        }
    }
    let version = version.cloned().unwrap_or_else(|| Node::text("v1"));
    let state = [(API_VERSION, version), ("workloads", Node::Map(rendered))];
    (Node::map(state), faults)
}

const WORKLOADS: [&str; 2] = [DESIRED_STATE, "workloads"];
const CONFIGS: [&str; 2] = [DESIRED_STATE, "configs"];
const RENDERED: [&str; 2] = [EFFECTIVE_STATE, "workloads"];

/// True if this workload of the effective state could not be rendered. The agent must not start it.
#[must_use]
pub fn is_unrendered(workload: &Node) -> bool {
    workload.get("configs").is_some_and(|configs| !configs.is_empty_collection())
}

/// True if a workload is desired but could not be rendered.
#[must_use]
pub fn lacks(tree: &Tree, name: &str) -> bool {
    let made = tree.entries(&RENDERED).get(name);
    tree.entries(&WORKLOADS).get(name).is_some() && made.is_none_or(is_unrendered)
}

/// The reason for the failed rendering of a desired workload; `None` if it can be rendered.
#[must_use]
pub fn fault_of(tree: &Tree, name: &str) -> Option<String> {
    let workload = tree.entries(&WORKLOADS).get(name)?;
    let rendered = render(workload, tree.entries(&CONFIGS), &mut Budget::unbounded());
    rendered.err().map(|fault| fault.reason)
}

/// The reason for a failed rendering, with the usable part of the workload.
struct Fault {
    reason: String,
    /// The workload with only its agent rendered, if it has an agent.
    rest: Option<Node>,
}

/// Renders a workload of the desired state.
fn render(workload: &Node, configs: &Map<Node>, budget: &mut Budget) -> Result<Node, Fault> {
    let mut rendered = workload.as_map().cloned().unwrap_or_default();
    let aliases = workload.get("configs").and_then(Node::as_map).filter(|map| !map.is_empty());
    // The agent is rendered first: with it, a failed workload can still be shown under its agent.
    let mut work = aliases.map(|aliases| Work { aliases, configs, data: None, budget });
    let unknown = |reason| Fault { reason, rest: None };
    let failed = |error: FieldError| unknown(error.to_string());
    if let Some(work) = &mut work
        && let Some(text) = workload.str_at("agent")
        && let Some(text) = work.fill_in("agent", text).map_err(failed)?
    {
        rendered.insert("agent", Node::text(&text));
    }
    let agent = rendered.get("agent").and_then(Node::as_str).unwrap_or_default();
    if !agent.is_empty() && !is_name(agent) {
        return Err(unknown(format!(
            "Unsupported agent name '{agent}'. Only a-z, A-Z, 0-9 chars, underscore (_), and hyphen \
             (-) allowed. Maximum length is 63 characters."
        )));
    }
    if let Some(work) = &mut work {
        let rest = (!agent.is_empty()).then(|| Node::Map(rendered.clone()));
        let filled = fill_in_rest(work, workload, &mut rendered);
        filled.map_err(|error| Fault { reason: error.to_string(), rest })?;
    }
    rendered.remove("configs");
    Ok(Node::Map(rendered))
}

/// Renders all fields except the agent.
fn fill_in_rest(
    work: &mut Work<'_>,
    workload: &Node,
    rendered: &mut Map<Node>,
) -> Result<(), FieldError> {
    if let Some(text) = workload.str_at("runtimeConfig")
        && let Some(text) = work.fill_in("runtimeConfig", text)?
    {
        rendered.insert("runtimeConfig", Node::text(&text));
    }
    if let Some(files) = workload.get("files").and_then(Node::as_seq) {
        let files = files.iter().map(|file| render_file(work, file));
        let files = files.collect::<Result<Vec<_>, _>>()?;
        rendered.insert("files", Node::seq(files));
    }
    Ok(())
}

fn render_file(work: &mut Work<'_>, file: &Node) -> Result<Node, FieldError> {
    let mut rendered = None;
    for content in ["data", "binaryData"] {
        let Some(text) = file.str_at(content).filter(|text| is_template(text)) else { continue };
        let point = file.str_at("mountPoint").unwrap_or_default();
        let field = format!("files with mount point {point}");
        if let Some(text) = work.fill_in(&field, text)? {
            let all = rendered.get_or_insert_with(|| file.as_map().cloned().unwrap_or_default());
            all.insert(content, Node::text(&text));
        }
    }
    Ok(rendered.map_or_else(|| file.clone(), Node::Map))
}

/// Most fields contain no template and stay as they are.
fn is_template(text: &str) -> bool {
    text.contains("{{")
}

static ENGINE: LazyLock<Handlebars<'static>> = LazyLock::new(|| {
    let mut engine = Handlebars::new();
    engine.set_strict_mode(true);
    // Values of configs must not reach the log.
    engine.unregister_helper("log");
    engine.register_escape_fn(no_escape);
    // A partial alone on its line indents every line of its output.
    if let Ok(template) = Template::compile("{{content}}") {
        engine.register_template(INDENT, template);
    }
    engine
});

/// The only partial available to templates.
const INDENT: &str = "indent";

/// A field cannot be rendered.
#[derive(Debug, thiserror::Error)]
enum FieldError {
    /// The configs are larger than there are steps left.
    #[error("The configs that it refers to are too large: {0}")]
    Data(OutOfSteps),
    /// The template of this field.
    #[error("Failed to render field '{}': '{}'", .0, shortened(.1.to_string()))]
    Template(String, TemplateError),
}

/// A template cannot be rendered.
#[derive(Debug, thiserror::Error)]
enum TemplateError {
    #[error(transparent)]
    Scan(#[from] ScanError),
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    #[error(transparent)]
    Steps(#[from] OutOfSteps),
    /// The engine's own error. Its type is large, so only its text is kept.
    #[error("{0}")]
    Engine(String),
    #[error("the template engine failed")]
    Panic,
}

/// The inputs for rendering the fields of one workload.
struct Work<'a> {
    aliases: &'a Map<Node>,
    configs: &'a Map<Node>,
    /// Built for the first template.
    data: Option<Data>,
    budget: &'a mut Budget,
}

impl Work<'_> {
    /// Renders a field; `None` if it contains no template.
    fn fill_in(&mut self, field: &str, template: &str) -> Result<Option<String>, FieldError> {
        if !is_template(template) {
            return Ok(None);
        }
        let data = match self.data.take() {
            Some(data) => data,
            None => Data::new(self.aliases, self.configs, self.budget).map_err(FieldError::Data)?,
        };
        let wrong = |error| FieldError::Template(field.to_owned(), error);
        // A panic of the engine must not end other workloads.
        let filled = catch_unwind(AssertUnwindSafe(|| fill_in(self.budget, template, &data)));
        // Kept for the other fields: the configs are copied once for each workload.
        self.data = Some(data);
        filled.unwrap_or(Err(TemplateError::Panic)).map(Some).map_err(wrong)
    }
}

fn fill_in(budget: &mut Budget, template: &str, data: &Data) -> Result<String, TemplateError> {
    let meter = budget.field();
    let filled = fill_in_by(&meter, template, data);
    // Also after an error: the steps were spent.
    budget.settle(&meter);
    filled
}

fn fill_in_by(meter: &Arc<Meter>, template: &str, data: &Data) -> Result<String, TemplateError> {
    meter.charge(AN_ENGINE + scan::scan(template)?)?;
    // Only after the scan: the engine's parser recurses, and would overflow the stack on deep nesting.
    let engine_error = |error: &dyn Error| TemplateError::Engine(error.to_string());
    let mut parsed = Template::compile(template).map_err(|error| engine_error(&error))?;
    let steps = tame::tame(&mut parsed, data.way)?;
    meter.charge(steps)?;
    // A clone for each field: the helpers hold its meter.
    let mut engine = ENGINE.clone();
    helpers::register(&mut engine, meter);
    engine.register_template("", parsed);
    let mut text = Bounded::new(meter);
    let done = engine.render_with_context_to_write("", &data.context, &mut text);
    done.map_err(|error| engine_error(&error))?;
    String::from_utf8(text.bytes).map_err(|error| engine_error(&error))
}

/// Steps for creating an engine for a field.
const AN_ENGINE: u64 = 200;

/// Bounds the length of an error: it quotes the template.
fn shortened(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().find(|(at, _)| *at >= MOST_REASON) {
        text.truncate(end);
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod search;
#[cfg(test)]
mod tests;
