use handlebars::{
    Template,
    template::{HelperTemplate, Parameter, TemplateElement},
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::*;

/// Levels of a template as the engine read it.
fn levels(template: &Template) -> usize {
    let of = |element: &TemplateElement| match element {
        TemplateElement::Expression(call) | TemplateElement::HtmlExpression(call) => of_call(call),
        TemplateElement::HelperBlock(block) => {
            let inner = [&block.template, &block.inverse].into_iter().flatten();
            of_call(block).max(1 + inner.map(levels).max().unwrap_or(0))
        }
        _ => 0,
    };
    template.elements.iter().map(of).max().unwrap_or(0)
}

fn of_call(call: &HelperTemplate) -> usize {
    let all = call.params.iter().chain(call.hash.values()).chain([&call.name]);
    all.map(of_parameter).max().unwrap_or(0)
}

fn of_parameter(parameter: &Parameter) -> usize {
    match parameter {
        Parameter::Literal(value) => of_literal(value),
        Parameter::Subexpression(inner) => match inner.as_element() {
            TemplateElement::Expression(call) => 1 + of_call(call),
            _ => 0,
        },
        _ => 0,
    }
}

fn of_literal(value: &serde_json::Value) -> usize {
    match value {
        serde_json::Value::Array(values) => 1 + values.iter().map(of_literal).max().unwrap_or(0),
        serde_json::Value::Object(map) => 1 + map.values().map(of_literal).max().unwrap_or(0),
        _ => 0,
    }
}

/// Separated by `§`.
const PIECES: &[&str] = &[
    "{{§}}§{{{§}}}§{{{{§}}}}§{{#if a}}§{{/if}}§{{#each a}}§{{/each}}§{{else}}§{{else if b}}",
    "{{^}}§{{a}}§{{a.b}}§{{a.[b c]}}§{{> indent content=a}}§{{!-- §--}}§{{! §{{~§~}}§~§ §\n§\\",
    "\\\\§\"§'§[§]§(§)§{§}§,§:§=§|§as |x|§as§else§a§b.c§../a§this§this.a§./a§@root§@root.a",
    "@index§1§-1.5§1E3§null§true§\"a b\"§'a }} b'§[1,2]§{\"a\":1}§[\"]\"]§(len a)§(eq a b)§x=1",
    "x=(len a)§.§/§#§&§é§len §lookup §{{#with (lookup a 'b') as |y|}}§{{/with}}§{{{{raw}}}}",
    "{{{{/raw}}}}§^",
];

/// Everything that decides where an expression ends, put together at random.
fn random(random: &mut StdRng) -> String {
    let count = random.random_range(1..14);
    let all: Vec<_> = PIECES.iter().flat_map(|line| line.split('§')).collect();
    let text = (0..count).map(|_| all[random.random_range(0..all.len())]).collect::<String>();
    if random.random_bool(0.5) { format!("{{{{{text}}}}}") } else { text }
}

#[test]
fn every_template_that_the_engine_takes_is_taken_and_nests_no_deeper_than_was_seen() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let rounds = std::env::var("ROUNDS").ok().and_then(|own| own.parse().ok()).unwrap_or(20_000);
    let mut source = StdRng::seed_from_u64(seed);
    let mut taken = 0;
    for _ in 0..rounds {
        let text = random(&mut source);
        let compiled = std::panic::catch_unwind(|| Template::compile(&text));
        let Ok(Ok(template)) = compiled else { continue };
        taken += 1;
        match scan(&text) {
            Ok(_) => assert!(levels(&template) <= MAX_NESTING, "{text:?}"),
            Err(error) => assert!(error.to_string().contains("not supported"), "{text:?}: {error}"),
        }
    }
    assert!(taken > rounds / 20, "{taken}");
}

#[test]
fn expressions_end_where_the_engine_ends_them() {
    for text in [
        "{{len \"}}\"}}",
        "{{len '}} {{#if'}}",
        "{{a.[}}]}}",
        "{{len [\"]\"]}}",
        "\\{{#if a}}",
        "\\\\{{a}}",
        "{{!-- {{#if}} --}}",
        "{{! {{#if }}",
        "{{{a} }}",
        "{{ { a } }}",
        "{{else.a}}",
        "{{elsewhere.a}}",
        "{{#if a}}{{else}}{{/if}}",
        "{{#if a}}{{^}}{{/if}}",
        "{{~#if a~}}{{~else if b~}}{{~/if~}}",
        "{{{{raw}}}} {{#if {{{{/raw}}}}",
        "{{#each a as |b c|}}{{/each}}",
        "{{& a}}",
        "{{(lookup a 'b')}}",
        "{{> indent content=(lookup a 'b')}}",
        "{{len {\"a\": [{}, []]}}}",
        "{{len a=1 b='c'}}",
        "{{ len as b }}",
        "{{@../index}}",
        "{{../../a}}",
        "{{len [a b]}}",
    ] {
        assert!(Template::compile(text).is_ok(), "the engine takes {text}");
        assert!(scan(text).is_ok(), "{text}: {:?}", scan(text));
    }
}

#[test]
fn templates_pass_at_each_bound_and_not_one_above_it() {
    let around = |open: &str, inner: &str, close: &str, count: usize| {
        format!("{}{inner}{}", open.repeat(count), close.repeat(count))
    };
    type Make<'a> = Box<dyn Fn(usize) -> String + 'a>;
    let blocks: Make<'_> = Box::new(|count| around("{{#if a}}", "", "{{/if}}", count));
    let calls: Make<'_> =
        Box::new(|count| format!("{{{{len {}}}}}", around("(len ", "a", ")", count)));
    let named: Make<'_> =
        Box::new(|count| format!("{{{{len {}}}}}", around("(len x=", "a", ")", count)));
    let literals: Make<'_> =
        Box::new(|count| format!("{{{{len {}}}}}", around("[", "1", "]", count)));
    let both: Make<'_> = Box::new(|count| {
        format!("{{{{len {}}}}}", around("{\"a\":[", "1", "]}", count.div_ceil(2)))
    });
    let mixed: Make<'_> = Box::new(|count| {
        let call = format!("{{{{len {}}}}}", around("(len ", "[1]", ")", count - 11));
        around("{{#if a}}", &call, "{{/if}}", 10)
    });
    for make in [blocks, calls, named, literals, both, mixed] {
        assert!(scan(&make(20)).is_ok() && Template::compile(&make(20)).is_ok(), "{}", make(20));
        for count in [22, 100_000] {
            let error = scan(&make(count)).unwrap_err();
            assert!(error.to_string().contains("more than 20 levels"), "{error}");
        }
    }
    let branches = |count| format!("{{{{#if a}}}}{}{{{{/if}}}}", "{{else if a}}".repeat(count));
    assert!(scan(&branches(99)).is_ok() && Template::compile(&branches(99)).is_ok());
    assert!(
        scan(&branches(100)).unwrap_err().to_string().contains("more than 100 levels of branches")
    );
    let parameters = |count| format!("{{{{len{}}}}}", " a".repeat(count));
    assert!(scan(&parameters(64)).is_ok());
    assert!(scan(&parameters(65)).unwrap_err().to_string().contains("more than 64 parameters"));
}

#[test]
fn steps_of_reading_grow_with_what_the_engine_reads_again_and_again() {
    let steps = |text: &str| scan(text).unwrap_or(u64::MAX);
    let plain = steps(&"x".repeat(30_000));
    for again in ["{{!-- }}", "\\{{", "{{a}}"] {
        let some = steps(&again.repeat(30_000 / again.len()));
        assert!(some > 10 * plain, "{again}: {some} {plain}");
    }
    let (one, two) = (steps(&"{{a}}".repeat(1_000)), steps(&"{{a}}".repeat(10_000)));
    assert!(two > 50 * one, "the lines before each are counted again: {one} {two}");
}
