use super::*;

fn manifest(text: &str) -> Tree {
    fifogate::manifest::parse("test.yaml", text).unwrap().updated.tree
}

fn workload(template: &str) -> Tree {
    let text = format!(
        "apiVersion: v1\nworkloads:\n  w:\n    agent: '{{{{c.node}}}}'\n    runtime: process\n    \
         configs: {{c: cfg}}\n    runtimeConfig: {}\n    files:\n      - {{mountPoint: /f, data: \
         '{{{{c.text}}}}'}}\nconfigs:\n  cfg: {{node: agent_A, text: \"<a&b>\\nnext\", list: [x, \
         y]}}\n",
        serde_json::Value::from(template)
    );
    manifest(&text)
}

fn rendered(template: &str) -> Result<String, String> {
    let (state, faults) = effective(&Tree::initial(), &ConfigIndex::default(), &workload(template));
    if let Some(fault) = faults.first() {
        return Err(fault.reason.clone());
    }
    let workload = state.get("workloads").unwrap().get("w").unwrap();
    assert_eq!(workload.str_at("agent"), Some("agent_A"));
    assert!(workload.get("configs").is_none());
    Ok(workload.str_at("runtimeConfig").unwrap().to_owned())
}

#[test]
fn fields_are_filled_in_without_escaping() {
    assert_eq!(
        rendered("t={{c.text}} {{#each c.list}}[{{this}}]{{/each}}").unwrap(),
        "t=<a&b>\nnext [x][y]"
    );
    let (state, _) = effective(&Tree::initial(), &ConfigIndex::default(), &workload(""));
    let files = state.get("workloads").unwrap().get("w").unwrap().get("files").unwrap();
    assert_eq!(files.as_seq().unwrap()[0].str_at("data"), Some("<a&b>\nnext"));
}

#[test]
fn the_partial_indent_gives_its_indentation_to_every_line() {
    // The line's own end goes with the partial: the last line end is that of what it is given.
    assert_eq!(
        rendered("k: |\n  {{> indent content=c.text}}\n\nend").unwrap(),
        "k: |\n  <a&b>\n  next\nend"
    );
}

#[test]
fn what_is_missing_is_an_error_that_names_the_field() {
    let error = rendered("{{c.missing}}").unwrap_err();
    assert!(error.starts_with("Failed to render field 'runtimeConfig': '"), "{error}");
    assert!(rendered("{{").unwrap_err().contains("runtimeConfig"));
}

#[test]
fn a_template_that_calls_itself_or_grows_without_end_is_refused() {
    let inline = "{{#*inline \"a\"}}{{> a}}{{/inline}}{{> a}}";
    assert!(rendered(inline).unwrap_err().contains("decorators"));
    assert!(rendered("{{> (lookup c 'text')}}").is_err());
    assert!(rendered("{{> indent content=(lookup c 'text')}}").is_ok());
    let each = "{{#each @root.c.list}}".repeat(11);
    let grows = format!("{each}{}{}", "0123456789".repeat(60), "{{/each}}".repeat(11));
    assert!(rendered(&grows).unwrap_err().contains("more than 1048576 bytes"));
}

#[test]
fn a_config_that_changes_renders_those_that_use_it_and_no_other() {
    let text = |value: &str| {
        format!(
            "apiVersion: v1\nworkloads:\n  a: {{agent: x, runtime: r, runtimeConfig: \
             '{{{{c}}}}', configs: {{c: k}}}}\n  b: {{agent: x, runtime: r, runtimeConfig: \
             'same'}}\nconfigs: {{k: '{value}'}}\n"
        )
    };
    let one = manifest(&text("1"));
    let one = one
        .with(EFFECTIVE_STATE, Some(effective(&Tree::initial(), &ConfigIndex::default(), &one).0));
    let mut uses = ConfigIndex::default();
    uses.follow(&one);
    let two = effective(&one, &uses, &manifest(&text("2"))).0;
    let config = |state: &Node, name: &str| {
        state
            .get("workloads")
            .unwrap()
            .get(name)
            .unwrap()
            .str_at("runtimeConfig")
            .unwrap()
            .to_owned()
    };
    assert_eq!((config(&two, "a"), config(&two, "b")), ("2".to_owned(), "same".to_owned()));
}

#[test]
fn blocks_that_would_take_for_ever_are_refused_though_they_write_nothing() {
    let nested = |depth: usize| {
        let each = "{{#each @root.c.list}}";
        rendered(&format!("{}{}", each.repeat(depth), "{{/each}}".repeat(depth)))
    };
    assert_eq!(nested(12).unwrap(), "", "2 + 4 + ... + 4096 runs");
    let error = nested(17).unwrap_err();
    assert!(error.contains("more than the 500000 steps of one field"), "{error}");
}

#[test]
fn template_with_too_much_to_read_is_refused_before_it_is_read() {
    let text = |count| "{{c.text}}, ".repeat(count);
    assert_eq!(rendered(&text(1_000)).unwrap(), "<a&b>\nnext, ".repeat(1_000));
    let error = rendered(&text(10_000)).unwrap_err();
    assert!(error.contains("too many steps to read"), "{error}");
    assert!(rendered(&("x".repeat(1 << 19) + "{{c.text}}")).is_ok());
}

#[test]
fn nothing_that_a_template_nests_exhausts_the_stack_and_reasons_are_short() {
    let around = |open: &str, inner: &str, close: &str| {
        rendered(&format!("{}{inner}{}", open.repeat(20_000), close.repeat(20_000)))
    };
    for (open, inner, close) in
        [("{{#if c.text}}", "", "{{/if}}"), ("{{lookup c (lookup c ", "'text'", ")}}")]
    {
        let error = around(open, inner, close).unwrap_err();
        assert!(error.len() < 3_000, "{} bytes", error.len());
    }
}
