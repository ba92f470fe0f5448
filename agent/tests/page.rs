//! The live page, in a real browser and as its stream.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod http;
mod page {
    pub(crate) mod browser;
}

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, SystemTime},
};

use http::{address_of, get, get_as};
use page::browser::Browser;
use serde_json::json;
use testkit::{Agent, PATIENCE, repository, wait_for, workload};

const OPTIONS: [&str; 2] = ["--page", "0"];

/// Text of a config that no page is to show.
const SECRET: &str = "hush-hush";

fn node() -> Agent {
    let web = workload("web", "sleep 100000", ", dependencies: {sleeps: ADD_COND_RUNNING}");
    let sleeps = workload("sleeps", "sleep 100000", "");
    let configs = format!("configs: {{secret: {SECRET}}}\n");
    Agent::start(&[sleeps, web, configs].concat(), &OPTIONS)
}

/// Whether the row of a workload holds all these texts.
fn row(name: &str, texts: &[&str]) -> String {
    format!(
        "const row = document.querySelector('#workloads tr[data-name={name}]'); \
         return row !== null && {}.every((text) => row.innerText.includes(text))",
        json!(texts)
    )
}

#[test]
fn browser_shows_how_a_workload_appears_changes_its_state_and_is_removed() {
    let Some(browser) = Browser::start() else { return };
    let agent = node();
    let address = address_of(&agent, "/");
    browser.open(&format!("http://{address}/"));
    browser.until("web", &row("web", &["Running(Ok)", "agent_A", "process", "sleeps running"]));
    let agent_row = "return document.querySelector('#agents tr')?.innerText.match(/agent_A\\s+\\d+\\s+[\\d,]+/) != null";
    browser.until("the agent with its figures", agent_row);
    browser.run(
        "window.seen = []; new MutationObserver(() => { \
           const row = document.querySelector('#workloads tr[data-name=late]'); \
           if (row) seen.push(row.children[3].innerText) \
         }).observe(document.getElementById('workloads'), { childList: true, subtree: true })",
    );
    let mut ctl = agent.connect();
    ctl.subscribe(&["desiredState.configs"]);
    let late = workload("late", "sleep 1", "");
    ctl.update(&format!("workloads:\n{late}"), &["desiredState.workloads.late"]).unwrap();
    browser.until("its end", &row("late", &["Succeeded(Ok)"]));
    assert_eq!(browser.run("return seen.includes('Running(Ok)')"), true);
    let subscription = "return document.getElementById('subscriptions').innerText.match(/ctl\\s+desiredState.configs\\s+up to date/) != null";
    browser.until("the subscription", subscription);
    screenshot(&browser);
    ctl.remove_workload("late");
    let gone = "return document.querySelector('#workloads tr[data-name=late]') === null";
    browser.until("its removal", gone);
    let told = "return document.getElementById('events').innerText.includes('removed desiredState.workloads.late')";
    browser.until("its removal among the events", told);
    let text = browser.run("return document.documentElement.outerHTML");
    assert!(!text.as_str().unwrap().contains(SECRET));
}

/// Writes what the window shows into the documents, if the environment asks for it.
fn screenshot(browser: &Browser) {
    if std::env::var_os("WRITE").is_some() {
        fs::write(repository().join("docs/page.png"), browser.screenshot()).unwrap();
    }
}

#[test]
fn event_is_shown_within_200_ms_of_its_update() {
    let Some(browser) = Browser::start() else { return };
    let agent = node();
    browser.open(&format!("http://{}/", address_of(&agent, "/")));
    browser.until("web", &row("web", &["Running(Ok)"]));
    browser.run(
        "window.times = {}; new MutationObserver((all) => { \
           for (const own of all) for (const node of own.addedNodes) \
             times[node.innerText.split('.').pop()] = Date.now() \
         }).observe(document.getElementById('events'), { childList: true })",
    );
    let mut ctl = agent.connect();
    let delay = |name: &str| {
        let mask = format!("desiredState.configs.{name}");
        ctl.update(&format!("configs: {{{name}: '1'}}"), &[&mask]).unwrap();
        let answered = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let script = format!("return times.{name} ?? null");
        let shown = wait_for("the event", || browser.run(&script).as_u64());
        Duration::from_millis(shown).saturating_sub(answered)
    };
    let best = ["one", "two", "three", "four", "five"].map(delay).into_iter().min().unwrap();
    assert!(best < Duration::from_millis(200), "{best:?}");
}

#[test]
fn browser_connects_again_after_the_agent_was_restarted_and_shows_what_is_there_then() {
    let Some(browser) = Browser::start() else { return };
    let mut agent = node();
    let address = address_of(&agent, "/");
    browser.open(&format!("http://{address}/"));
    browser.until("web", &row("web", &["Running(Ok)"]));
    agent.kill_with_gate();
    let link = |text: &str| {
        format!("return document.getElementById('link').innerText.startsWith('{text}')")
    };
    browser.until("that it says so", &link("no connection"));
    agent.edit_manifest(|text| text.replace("  web:", "  other:"));
    agent.change_options(|options| options[1].clone_from(&address));
    agent.restart();
    browser.until("other", &row("other", &["Running(Ok)"]));
    browser.until("that it says so", &link("connected"));
    let gone = "return document.querySelector('#workloads tr[data-name=web]') === null";
    assert_eq!(browser.run(gone), true);
}

#[test]
fn keyboard_and_screen_readers_find_their_way() {
    let Some(browser) = Browser::start() else { return };
    let agent = node();
    browser.open(&format!("http://{}/", address_of(&agent, "/")));
    browser.until("web", &row("web", &["Running(Ok)"]));
    for (what, script) in [
        ("one main and one header", "$$('main').length === 1 && $$('header').length === 1"),
        ("a language", "document.documentElement.lang === 'en'"),
        ("heads of columns", "$$('thead th').every((own) => own.scope === 'col')"),
        ("heads of rows", "$$('tbody tr').every((own) => own.firstChild.scope === 'row')"),
        ("named regions", "$$('section').every((own) => own.hasAttribute('aria-labelledby'))"),
        (
            "names that are there",
            "$$('[aria-labelledby]').every((own) => \
             document.getElementById(own.getAttribute('aria-labelledby')))",
        ),
        ("events that are read", "$$('#events')[0].ariaLive === 'polite'"),
        ("what scrolls has the focus", "$$('.wide, #events').every((own) => own.tabIndex === 0)"),
        ("a pause", "($$('#pause')[0].click(), $$('#pause')[0].ariaPressed === 'true')"),
        (
            "nothing but its own script",
            "(() => { const own = document.createElement('script'); own.text = 'window.evil = 1'; \
             document.body.append(own); return window.evil === undefined })()",
        ),
    ] {
        let script =
            format!("const $$ = (own) => [...document.querySelectorAll(own)]; return {script}");
        assert_eq!(browser.run(&script), true, "{what}");
    }
}

/// A stream of events, with its head.
fn stream(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    stream
}

/// Reads until this text has come, and returns all.
fn until(stream: &mut TcpStream, text: &str) -> String {
    let mut all = Vec::new();
    loop {
        let mut some = [0; 4096];
        let count = stream.read(&mut some).unwrap();
        all.extend_from_slice(&some[..count]);
        let seen = String::from_utf8_lossy(&all);
        if seen.contains(text) {
            return seen.into_owned();
        }
        assert!(count > 0, "{seen}");
    }
}

#[test]
fn stream_has_paths_and_states_but_no_text_of_configs_or_of_a_runtime_config() {
    let agent = node();
    let mut ctl = agent.connect();
    ctl.until_state("web", "Running(Ok)");
    let mut stream = stream(&address_of(&agent, "/"));
    let mut all = until(&mut stream, "\"Running(Ok)\"");
    let mask = "desiredState.configs.secret";
    ctl.update(&format!("configs: {{secret: {SECRET}-2}}"), &[mask]).unwrap();
    all += &until(&mut stream, mask);
    assert!(all.starts_with("HTTP/1.1 200"), "{all}");
    for hidden in [SECRET, "100000"] {
        assert!(!all.contains(hidden), "{hidden} in {all}");
    }
}

#[test]
fn viewers_are_bounded_and_the_place_of_one_that_leaves_is_free() {
    let agent = node();
    let address = address_of(&agent, "/");
    let all: Vec<_> = (0..16)
        .map(|_| {
            let mut own = stream(&address);
            until(&mut own, "event: hello");
            own
        })
        .collect();
    assert_eq!(get(&address, "/events").status, 503);
    assert_eq!(get(&address, "/").status, 200);
    drop(all);
    wait_for("a place", || {
        let mut own = stream(&address);
        let mut status = [0; 12];
        own.read_exact(&mut status).unwrap();
        (&status == b"HTTP/1.1 200").then_some(())
    });
}

#[test]
fn page_has_a_strict_policy_and_is_for_localhost_alone() {
    let agent = node();
    let address = address_of(&agent, "/");
    let answer = get(&address, "/");
    assert_eq!(answer.status, 200);
    let head = answer.head.to_lowercase();
    assert!(head.contains("content-security-policy: default-src 'none'; script-src 'sha256-"));
    assert!(head.contains("x-content-type-options: nosniff"), "{head}");
    for path in ["/", "/events"] {
        assert_eq!(get_as(&address, "evil.example", path).status, 421);
    }
    // Nothing of it is elsewhere.
    assert!(!answer.body.contains("http://") && !answer.body.contains("https://"));
}
