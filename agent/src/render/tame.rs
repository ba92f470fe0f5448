//! Makes a parsed template count its steps: in front of what is in a block stands an expression that takes
//! the steps of all of it, and in front of a partial one that takes those of the values it is given.
//!
//! The steps of an expression do not depend on the values that it meets, except where values are compared,
//! looked up or written: [`super::helpers`] and the output count these.

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

const A_RUN: u64 = 8;
const AN_ELEMENT: u64 = 4;
const A_CALL: u64 = 12;
const A_PATH: u64 = 6;
/// A partial makes a context of its own.
const A_PARTIAL: u64 = 40;

/// The steps of one reference: of the way to the value, and of a literal of the template that it may be
/// in, which is copied.
#[derive(Clone, Copy)]
struct Reference(u64);

/// Refuses what a template can use to call itself, and makes it count. Gives the steps of its own level.
///
/// `way` is the most that it takes to go to a value.
///
/// # Errors
/// It holds something that is not supported.
pub(super) fn tame(template: &mut Template, way: u64) -> Result<u64, String> {
    let literal = largest_literal(template);
    count(template, Reference(A_PATH + way + literal))
}

fn count(template: &mut Template, reference: Reference) -> Result<u64, String> {
    // Also of nothing: each run through a block makes a context, and comes by here.
    let mut steps = A_RUN.saturating_add(reference.0);
    let mut weighed = Vec::new();
    for (index, element) in template.elements.iter_mut().enumerate() {
        steps = steps.saturating_add(AN_ELEMENT);
        let more = match element {
            TemplateElement::RawString(_) | TemplateElement::Comment(_) => 0,
            TemplateElement::Expression(call) | TemplateElement::HtmlExpression(call) => {
                // A name that is made by a call is made twice.
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
                if partial.name.as_name() != Some(INDENT) {
                    return Err(format!("there is no partial but `{INDENT}`"));
                }
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
                return Err("partial blocks and decorators are not supported".to_owned());
            }
            _ => return Err("this kind of expression is not supported".to_owned()),
        };
        steps = steps.saturating_add(more);
    }
    for (index, own) in weighed.into_iter().rev() {
        prepend(template, index, own);
    }
    Ok(steps)
}

/// Puts an element in front of another one, with the other's place in the text.
fn prepend(template: &mut Template, index: usize, element: Option<TemplateElement>) {
    let Some(element) = element else { return };
    template.elements.insert(index, element);
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
            TemplateElement::Expression(call) => A_CALL + of_call(call, reference),
            _ => A_CALL,
        },
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

/// A call of one of our own helpers, which no template can name.
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
