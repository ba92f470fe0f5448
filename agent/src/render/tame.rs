//! Instrumentation of parsed templates: inserts expressions that charge steps.
//!
//! A parsed template goes in; out comes the same template with a charge in front of each block's content
//! and of each partial, and the steps of its top level. The steps of an expression do not depend on its
//! values, except for comparisons, lookups and output: [`super::helpers`] and the output buffer count
//! these.

use handlebars::{
    Path, Template,
    template::{HelperTemplate, Parameter, TemplateElement},
};
use serde_json::Value;

use super::{
    INDENT,
    data::size_of,
    helpers::{STEP, WEIGH},
};

// `render::search` measures these numbers: it fails where a step takes far too long.
const A_RUN: u64 = 8;
const AN_ELEMENT: u64 = 4;
const A_CALL: u64 = 12;
const A_PATH: u64 = 6;
/// A partial creates its own context.
const A_PARTIAL: u64 = 40;

/// A template contains an unsupported construct.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unsupported {
    #[error("there is no partial but `{INDENT}`")]
    Partial,
    #[error("partial blocks and decorators are not supported")]
    BlockOrDecorator,
    #[error("this kind of expression is not supported")]
    Expression,
}

/// Steps of one reference: the path to the value, and the copy of a literal containing it.
#[derive(Clone, Copy)]
struct Reference(u64);

/// Rejects constructs by which a template could call itself, and inserts the charges. Returns the steps
/// of the top level; `way` is the most steps from the data's root to a value.
///
/// # Errors
/// The template contains an unsupported construct.
pub(super) fn tame(template: &mut Template, way: u64) -> Result<u64, Unsupported> {
    // A reference may lead into any literal of the template, so the largest one counts for all.
    let literal = largest_literal(template);
    count(template, Reference(A_PATH + way + literal))
}

fn count(template: &mut Template, reference: Reference) -> Result<u64, Unsupported> {
    // Empty content counts too: each run through a block creates a context and passes here.
    let mut steps = A_RUN.saturating_add(reference.0);
    let mut weighed = Vec::new();
    for (index, element) in template.elements.iter_mut().enumerate() {
        steps = steps.saturating_add(AN_ELEMENT);
        let more = match element {
            TemplateElement::RawString(_) | TemplateElement::Comment(_) => 0,
            TemplateElement::Expression(call) | TemplateElement::HtmlExpression(call) => {
                // The engine evaluates a computed name twice.
                of_call(call, reference).saturating_mul(2)
            }
            TemplateElement::HelperBlock(block) => {
                let own = of_call(block, reference);
                for inner in [&mut block.template, &mut block.inverse].into_iter().flatten() {
                    let steps = count(inner, reference)?;
                    prepend(inner, 0, call(STEP, vec![Parameter::Literal(steps.into())]));
                }
                own
            }
            TemplateElement::PartialExpression(partial) => {
                // Any other partial could be the template itself, without an end.
                if partial.name.as_name() != Some(INDENT) {
                    return Err(Unsupported::Partial);
                }
                // Without a parameter a partial gets the current value, and copies it as well.
                let context = partial.params.first().cloned();
                let given: Vec<_> = context
                    .or_else(this)
                    .into_iter()
                    .chain(partial.hash.values().cloned())
                    .collect();
                let steps = given.iter().map(|own| of_parameter(own, reference));
                let steps = steps.fold(A_PARTIAL, u64::saturating_add).saturating_mul(2);
                weighed.push((index, call(WEIGH, given)));
                steps
            }
            TemplateElement::PartialBlock(_)
            | TemplateElement::DecoratorExpression(_)
            | TemplateElement::DecoratorBlock(_) => {
                return Err(Unsupported::BlockOrDecorator);
            }
            _ => return Err(Unsupported::Expression),
        };
        // A cost without a bound has to stay above every budget.
        steps = steps.saturating_add(more);
    }
    // From the back: an insertion moves all elements behind it.
    for (index, own) in weighed.into_iter().rev() {
        prepend(template, index, own);
    }
    Ok(steps)
}

/// Inserts an element before another one, with the other's position in the text.
fn prepend(template: &mut Template, index: usize, element: Option<TemplateElement>) {
    let Some(element) = element else { return };
    template.elements.insert(index, element);
    // The engine looks positions up by index: elements and positions have to stay in step.
    if let Some(place) = template.mapping.get(index).cloned() {
        template.mapping.insert(index, place);
    }
}

fn of_call(call: &HelperTemplate, reference: Reference) -> u64 {
    let all = call.params.iter().chain(call.hash.values()).chain([&call.name]);
    all.map(|own| of_parameter(own, reference)).fold(A_CALL, u64::saturating_add)
}

fn of_parameter(parameter: &Parameter, reference: Reference) -> u64 {
    match parameter {
        Parameter::Name(_) | Parameter::Literal(_) => 1,
        Parameter::Path(path) => {
            let (Path::Relative((_, text)) | Path::Local((_, _, text))) = path;
            reference.0.saturating_add(u64::try_from(text.len() / 4).unwrap_or(u64::MAX))
        }
        Parameter::Subexpression(inner) => match inner.as_element() {
            TemplateElement::Expression(call) => A_CALL.saturating_add(of_call(call, reference)),
            _ => A_CALL,
        },
        // A kind of a later engine: without a known cost no budget allows it.
        _ => u64::MAX,
    }
}

/// The size of the largest literal of a template.
fn largest_literal(template: &Template) -> u64 {
    let of = |element: &TemplateElement| match element {
        TemplateElement::Expression(call) | TemplateElement::HtmlExpression(call) => {
            literal_in(call)
        }
        TemplateElement::HelperBlock(block) => {
            let inner = [&block.template, &block.inverse].into_iter().flatten();
            inner.map(largest_literal).fold(literal_in(block), u64::max)
        }
        TemplateElement::PartialExpression(partial) => {
            partial.params.iter().chain(partial.hash.values()).map(literal).max().unwrap_or(0)
        }
        _ => 0,
    };
    template.elements.iter().map(of).max().unwrap_or(0)
}

fn literal_in(call: &HelperTemplate) -> u64 {
    call.params.iter().chain(call.hash.values()).map(literal).max().unwrap_or(0)
}

fn literal(parameter: &Parameter) -> u64 {
    match parameter {
        Parameter::Literal(value) => match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
            value => size_of(value, u64::MAX) - 1,
        },
        Parameter::Subexpression(inner) => match inner.as_element() {
            TemplateElement::Expression(call) => literal_in(call),
            _ => 0,
        },
        _ => 0,
    }
}

/// A call of an internal helper. No template can name it.
fn call(name: &str, parameters: Vec<Parameter>) -> Option<TemplateElement> {
    let parsed = Template::compile("{{call}}").ok()?.elements.pop();
    let Some(TemplateElement::Expression(mut call)) = parsed else { return None };
    call.name = Parameter::Name(name.to_owned());
    call.params = parameters;
    Some(TemplateElement::Expression(call))
}

fn this() -> Option<Parameter> {
    Path::parse("this").ok().map(Parameter::Path)
}
