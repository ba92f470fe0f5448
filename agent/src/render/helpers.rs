//! Metered template helpers: replacements for the engine's helpers with a cost depending on their
//! arguments.
//!
//! They charge their steps to the [`Meter`] of the field before the expensive part, and fail at its
//! limit. Their results equal those of handlebars 6.

use std::{cmp::Ordering, str::FromStr, sync::Arc};

use handlebars::{
    Context, Handlebars, Helper, HelperDef, HelperResult, Output, RenderContext, RenderError,
    RenderErrorReason, Renderable, ScopedJson,
};
use num_order::NumOrd;
use serde_json::{Number, Value};

use super::{data::size_of, steps::Meter};

/// Helper charging the number of steps in its argument.
pub(super) const STEP: &str = "\0step";
/// Helper charging the steps for copying its arguments, as done by a partial.
pub(super) const WEIGH: &str = "\0weigh";

/// Number of copies made by a partial of each argument.
// `render::search` fails where a copy takes far longer than its steps.
const COPIES: u64 = 4;

/// Registers the helpers with an engine.
pub(super) fn register(engine: &mut Handlebars<'_>, meter: &Arc<Meter>) {
    engine.register_helper(STEP, Box::new(Step(meter.clone())));
    engine.register_helper(WEIGH, Box::new(Weigh(meter.clone())));
    engine.register_helper("lookup", Box::new(Lookup(meter.clone())));
    for (name, decide) in COMPARISONS {
        engine.register_helper(name, Box::new(Comparison { name, decide, meter: meter.clone() }));
    }
}

type Decide = fn(&Value, &Value) -> bool;

const COMPARISONS: [(&str, Decide); 6] = [
    ("eq", |x, y| x == y),
    ("ne", |x, y| x != y),
    ("gt", |x, y| compare(x, y) == Some(Ordering::Greater)),
    ("gte", |x, y| compare(x, y).is_some_and(|own| own != Ordering::Less)),
    ("lt", |x, y| compare(x, y) == Some(Ordering::Less)),
    ("lte", |x, y| compare(x, y).is_some_and(|own| own != Ordering::Greater)),
];

struct Step(Arc<Meter>);

impl HelperDef for Step {
    fn call<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
        _: &mut dyn Output,
    ) -> HelperResult {
        let steps = helper.param(0).and_then(|own| own.value().as_u64());
        // Always a number, because `tame` alone writes this call: without one, no budget allows it.
        self.0.step(steps.unwrap_or(u64::MAX))
    }
}

struct Weigh(Arc<Meter>);

impl HelperDef for Weigh {
    fn call<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
        _: &mut dyn Output,
    ) -> HelperResult {
        helper.params().iter().try_for_each(|own| {
            // Counted only up to the steps left: beyond these, the field fails anyway.
            let size = size_of(own.value(), self.0.left());
            self.0.step(size.saturating_mul(COPIES))
        })
    }
}

/// `lookup` without copying the part of a config it returns.
struct Lookup(Arc<Meter>);

impl HelperDef for Lookup {
    fn call_inner<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        engine: &'reg Handlebars<'reg>,
        context: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
    ) -> Result<ScopedJson<'rc>, RenderError> {
        let missing = |index| RenderErrorReason::ParamNotFoundForIndex("lookup", index);
        let collection = helper.param(0).ok_or_else(|| missing(0))?;
        let index = helper.param(1).ok_or_else(|| missing(1))?.value();
        let key = match collection.value() {
            // As text: the engine keeps a path as texts, indices included.
            Value::Array(_) => index.as_u64().map(|own| own.to_string()),
            Value::Object(_) => index.as_str().map(str::to_owned),
            _ => None,
        };
        if let (Some(path), Some(key)) = (collection.context_path(), &key) {
            let whole = path.iter().try_fold(context.data(), |own, key| part(own, key));
            if let Some(value) = whole.and_then(|own| part(own, key)) {
                let path = path.iter().chain([key]).cloned().collect();
                return Ok(ScopedJson::Context(value, path));
            }
        }
        // The collection is a literal of the template, so its part has to be copied.
        let found = key.and_then(|key| part(collection.value(), &key));
        match found {
            // As the engine's own `lookup` answers.
            None if engine.strict_mode() => Err(missing_in_strict_mode()),
            None => Ok(ScopedJson::Derived(Value::Null)),
            Some(value) => {
                self.0.step(size_of(value, self.0.left()))?;
                Ok(ScopedJson::Derived(value.clone()))
            }
        }
    }
}

fn part<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    match value {
        Value::Array(values) => values.get(key.parse::<usize>().ok()?),
        Value::Object(map) => map.get(key),
        _ => None,
    }
}

fn missing_in_strict_mode() -> RenderError {
    RenderErrorReason::MissingVariable(None).into()
}

/// A comparison of two values, as an expression, a parameter or a block.
struct Comparison {
    name: &'static str,
    decide: Decide,
    meter: Arc<Meter>,
}

impl Comparison {
    fn decide(&self, helper: &Helper<'_>, engine: &Handlebars<'_>) -> Result<bool, RenderError> {
        let given = |index| {
            let own = helper.param(index);
            // As in the engine's own helpers, a missing value counts as a missing parameter.
            let own = own.filter(|own| !(engine.strict_mode() && own.is_value_missing()));
            own.map(|own| own.value())
                .ok_or(RenderErrorReason::ParamNotFoundForIndex(self.name, index))
        };
        let (x, y) = (given(0)?, given(1)?);
        let left = self.meter.left();
        // A comparison ends with the smaller value, so the size of the other one is not counted
        // beyond it.
        let most = size_of(x, left);
        self.meter.step(size_of(y, most).min(most).saturating_mul(2))?;
        Ok((self.decide)(x, y))
    }
}

impl HelperDef for Comparison {
    fn call_inner<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        engine: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
    ) -> Result<ScopedJson<'rc>, RenderError> {
        Ok(ScopedJson::Derived(Value::Bool(self.decide(helper, engine)?)))
    }

    fn call<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        engine: &'reg Handlebars<'reg>,
        context: &'rc Context,
        render: &mut RenderContext<'reg, 'rc>,
        out: &mut dyn Output,
    ) -> HelperResult {
        let decided = self.decide(helper, engine)?;
        if !helper.is_block() {
            let text = if decided { "true" } else { "false" };
            return out
                .write(text)
                .map_err(|error| RenderErrorReason::Other(error.to_string()).into());
        }
        let inner = if decided { helper.template() } else { helper.inverse() };
        inner.map_or(Ok(()), |inner| inner.render(engine, context, render, out))
    }
}

fn compare(x: &Value, y: &Value) -> Option<Ordering> {
    let parsed = |text: &str| Number::from_str(text).ok();
    match (x, y) {
        (Value::Number(x), Value::Number(y)) => compare_numbers(x, y),
        (Value::String(x), Value::String(y)) => Some(x.cmp(y)),
        (Value::Bool(x), Value::Bool(y)) => Some(x.cmp(y)),
        (Value::Number(x), Value::String(y)) => compare_numbers(x, &parsed(y)?),
        (Value::String(x), Value::Number(y)) => {
            compare_numbers(y, &parsed(x)?).map(Ordering::reverse)
        }
        _ => None,
    }
}

fn compare_numbers(x: &Number, y: &Number) -> Option<Ordering> {
    fn with<T>(x: &T, y: &Number) -> Option<Ordering>
    where
        T: NumOrd<u64> + NumOrd<i64> + NumOrd<f64>,
    {
        // By the kind of each number, as in the engine: large integers lose digits as `f64`.
        match (y.as_u64(), y.as_i64(), y.as_f64()) {
            (Some(y), ..) => x.num_partial_cmp(&y),
            (_, Some(y), _) => x.num_partial_cmp(&y),
            (.., Some(y)) => x.num_partial_cmp(&y),
            _ => None,
        }
    }
    match (x.as_u64(), x.as_i64(), x.as_f64()) {
        (Some(x), ..) => with(&x, y),
        (_, Some(x), _) => with(&x, y),
        (.., Some(x)) => with(&x, y),
        _ => None,
    }
}
