//! Templates: what a workload is once its `{{...}}` are filled in from the configs that it names
//! (PROTOCOL sections 4, 6 and 10), and the effective state that is made of all of them.
//!
//! Only workloads with a `configs` alias are rendered: their `agent`, their `runtimeConfig` and the
//! contents of their files. Rendering is strict, and nothing is escaped. It is pure, and looks again
//! only at workloads that changed or whose configs did: [`Uses`] knows which those are.

mod uses;

use std::{
    collections::BTreeSet,
    fmt,
    io::{self, Write},
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use fifogate::state::{
    API_VERSION, DESIRED_STATE, EFFECTIVE_STATE, Key, Map, Node, Tree, check::is_name,
};
use handlebars::{
    Context, Handlebars, Helper, HelperResult, Output, RenderContext, RenderErrorReason, Template,
    no_escape,
    template::{Parameter, TemplateElement},
};

pub use uses::{Uses, configs_of};

/// Most bytes that one field may become.
const MOST_RENDERED: usize = 1 << 20;

/// Most runs through blocks that the templates of one workload may take: lists in lists in lists need
/// not write anything to take for ever, and an agent does one thing at a time.
const MOST_STEPS: usize = 10_000;

/// Most expressions of a template times its bytes: reading each takes as long as all before it.
const MOST_TO_READ: usize = 32 << 20;

/// Most bytes of the reason why a field cannot be rendered.
const MOST_REASON: usize = 2_000;

/// Why a workload cannot be made from its templates. The text is the reason for the client
/// (PROTOCOL 6.3), without what the refusal of an update puts around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderError {
    /// The workload.
    pub workload: String,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for RenderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for RenderError {}

/// The effective state for the desired state of `new`, given that the one that `old` holds belongs
/// to its desired state, and `uses` to both; and the workloads that cannot be rendered, which are left
/// out of it.
#[must_use]
pub fn effective(old: &Tree, uses: &Uses, new: &Tree) -> (Node, Vec<RenderError>) {
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
            again.extend(uses.of(key.as_str()));
        }
    });
    // One that could not be rendered before may be rendered now.
    again.extend(uses.unrendered());
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
        rendered.remove(name.as_str());
        let Some(workload) = is.get(name.as_str()) else { continue };
        match render(workload, configs) {
            Ok(workload) => rendered.insert(name.clone(), workload),
            Err(reason) => faults.push(RenderError { workload: name.to_string(), reason }),
        }
    }
    let version = version.cloned().unwrap_or_else(|| Node::text("v1"));
    let state = [(API_VERSION, version), ("workloads", Node::Map(rendered))];
    (Node::map(state), faults)
}

const WORKLOADS: [&str; 2] = [DESIRED_STATE, "workloads"];
const CONFIGS: [&str; 2] = [DESIRED_STATE, "configs"];
const RENDERED: [&str; 2] = [EFFECTIVE_STATE, "workloads"];

/// A workload of the desired state as it is meant.
fn render(workload: &Node, configs: &Map<Node>) -> Result<Node, String> {
    let mut rendered = workload.as_map().cloned().unwrap_or_default();
    rendered.remove("configs");
    let aliases = workload.get("configs").and_then(Node::as_map).filter(|map| !map.is_empty());
    if let Some(aliases) = aliases {
        let data = aliases.iter().map(|(alias, key)| {
            let config = configs.get(key.as_str().unwrap_or_default());
            (alias.to_string(), config.map_or(serde_json::Value::Null, json))
        });
        let data = serde_json::Value::Object(data.collect());
        let engine = &engine();
        for field in ["agent", "runtimeConfig"] {
            if let Some(text) = workload.str_at(field) {
                let text = fill_in(engine, field, text, &data)?;
                rendered.insert(field, Node::text(&text));
            }
        }
        if let Some(files) = workload.get("files").and_then(Node::as_seq) {
            let files = files.iter().map(|file| render_file(engine, file, &data));
            let files = files.collect::<Result<Vec<_>, _>>()?;
            rendered.insert("files", Node::seq(files));
        }
    }
    let agent = rendered.get("agent").and_then(Node::as_str).unwrap_or_default();
    if !agent.is_empty() && !is_name(agent) {
        return Err(format!(
            "Unsupported agent name '{agent}'. Only a-z, A-Z, 0-9 chars, underscore (_), and hyphen \
             (-) allowed. Maximum length is 63 characters."
        ));
    }
    Ok(Node::Map(rendered))
}

fn render_file(
    engine: &Handlebars<'_>,
    file: &Node,
    data: &serde_json::Value,
) -> Result<Node, String> {
    let mut rendered = file.as_map().cloned().unwrap_or_default();
    let field = format!("files with mount point {}", file.str_at("mountPoint").unwrap_or_default());
    for content in ["data", "binaryData"] {
        if let Some(text) = file.str_at(content) {
            let text = fill_in(engine, &field, text, data)?;
            rendered.insert(content, Node::text(&text));
        }
    }
    Ok(Node::Map(rendered))
}

fn json(node: &Node) -> serde_json::Value {
    match node {
        Node::Map(map) => {
            serde_json::Value::Object(map.iter().map(|(k, v)| (k.to_string(), json(v))).collect())
        }
        Node::Seq(values) => serde_json::Value::Array(values.iter().map(json).collect()),
        Node::Str(text) => serde_json::Value::String(text.as_ref().to_owned()),
        Node::Uint(number) => (*number).into(),
        Node::Unset => serde_json::Value::Null,
    }
}

static ENGINE: LazyLock<Handlebars<'static>> = LazyLock::new(|| {
    let mut engine = Handlebars::new();
    engine.set_strict_mode(true);
    // What configs hold is not for the log.
    engine.unregister_helper("log");
    engine.register_escape_fn(no_escape);
    // Standing alone on its line, a partial gives its indentation to every line that it makes.
    if let Ok(template) = Template::compile("{{content}}") {
        engine.register_template(INDENT, template);
    }
    engine
});

/// The one partial that templates may name.
const INDENT: &str = "indent";

/// What every block ends with. No template can name it, so it hides nothing of theirs.
const STEP: &str = "\0step";

static COUNTED: LazyLock<Option<TemplateElement>> = LazyLock::new(|| {
    let Some(TemplateElement::Expression(mut step)) =
        Template::compile("{{step}}").ok()?.elements.pop()
    else {
        return None;
    };
    step.name = Parameter::Name(STEP.to_owned());
    Some(TemplateElement::Expression(step))
});

/// For one workload.
fn engine() -> Handlebars<'static> {
    let mut engine = ENGINE.clone();
    let steps = AtomicUsize::new(0);
    let count = move |_: &Helper<'_>,
                      _: &Handlebars<'_>,
                      _: &Context,
                      _: &mut RenderContext<'_, '_>,
                      _: &mut dyn Output|
          -> HelperResult {
        if steps.fetch_add(1, Ordering::Relaxed) < MOST_STEPS {
            return Ok(());
        }
        let text = format!("the workload's templates go through more than {MOST_STEPS} blocks");
        Err(RenderErrorReason::Other(text).into())
    };
    engine.register_helper(STEP, Box::new(count));
    engine
}

fn fill_in(
    engine: &Handlebars<'_>,
    field: &str,
    template: &str,
    data: &serde_json::Value,
) -> Result<String, String> {
    let wrong = |what: String| format!("Failed to render field '{field}': '{}'", shortened(what));
    // Most fields hold no template: nothing of theirs is anything but text.
    if !template.contains("{{") {
        return Ok(template.to_owned());
    }
    let (expressions, bytes) = (template.matches("{{").count(), template.len());
    if expressions.saturating_mul(bytes) > MOST_TO_READ {
        return Err(wrong(format!(
            "{expressions} expressions in {bytes} bytes are too many: split the template"
        )));
    }
    let mut parsed = Template::compile(template).map_err(|error| wrong(error.to_string()))?;
    tame(&mut parsed).map_err(wrong)?;
    let mut engine = engine.clone();
    engine.register_template("", parsed);
    let mut text = Bounded(Vec::new());
    engine.render_to_write("", data, &mut text).map_err(|error| wrong(error.to_string()))?;
    String::from_utf8(text.0).map_err(|error| wrong(error.to_string()))
}

/// Errors quote the template.
fn shortened(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().find(|(at, _)| *at >= MOST_REASON) {
        text.truncate(end);
        text.push_str("...");
    }
    text
}

/// Refuses what a template can use to call itself, as it would exhaust the stack, and makes every run
/// through a block count.
fn tame(template: &mut Template) -> Result<(), String> {
    for element in &mut template.elements {
        match element {
            TemplateElement::RawString(_)
            | TemplateElement::Expression(_)
            | TemplateElement::HtmlExpression(_)
            | TemplateElement::Comment(_) => {}
            TemplateElement::HelperBlock(block) => {
                for inner in [&mut block.template, &mut block.inverse].into_iter().flatten() {
                    tame(inner)?;
                    inner.elements.extend(COUNTED.clone());
                }
            }
            TemplateElement::PartialExpression(partial) => {
                if partial.name.as_name() != Some(INDENT) {
                    return Err(format!("there is no partial but `{INDENT}`"));
                }
            }
            TemplateElement::PartialBlock(_)
            | TemplateElement::DecoratorExpression(_)
            | TemplateElement::DecoratorBlock(_) => {
                return Err("partial blocks and decorators are not supported".to_owned());
            }
            _ => return Err("this kind of expression is not supported".to_owned()),
        }
    }
    Ok(())
}

/// A text that does not grow without end.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MOST_RENDERED {
            let text = format!("the field would take more than {MOST_RENDERED} bytes");
            return Err(io::Error::other(text));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
