//! `authz.jsonl`, `authz-weak.jsonl` and `hello.jsonl`: who may do what, and who may come in.

use fifogate::{
    internal::{Rules, check_version, state::MaskSet},
    state::Mask,
};
use serde_json::Value;

use super::rows::{Count, access, rows, same, strings};

fn rules(row: &Value) -> Rules {
    Rules::compile(&access(row))
}

fn allowed(row: &Value) -> bool {
    let (rules, request) = (rules(row), &row["request"]);
    let masks = strings(&request["masks"]);
    match request["kind"].as_str().unwrap() {
        "complete_state" => rules.may_read(&MaskSet::parse(masks)),
        "update_state" => {
            let masks: Vec<_> = masks.iter().map(|mask| Mask::parse(mask)).collect();
            rules.may_write(&masks)
        }
        "logs" => rules.may_read_logs(strings(&request["workloads"]).iter().map(String::as_str)),
        "logs_cancel" | "events_cancel" => true,
        "none" => false,
        other => panic!("unknown kind {other}"),
    }
}

#[test]
fn requests_are_allowed_as_recorded() {
    let mut count = Count::default();
    for row in rows("authz") {
        count.row(&row, same("allowed", &allowed(&row), &row["allowed"].as_bool().unwrap()));
    }
    count.finish("authz.jsonl");
}

#[test]
fn where_the_reference_is_weak_requests_are_allowed_soundly() {
    let mut count = Count::default();
    for row in rows("authz-weak") {
        count.row(&row, same("sound", &allowed(&row), &row["sound"].as_bool().unwrap()));
    }
    count.finish("authz-weak.jsonl");
}

#[test]
fn versions_are_accepted_as_recorded() {
    let mut count = Count::default();
    for mut row in rows("hello") {
        let ours = check_version(row["version"].as_str().unwrap())
            .err()
            .map(|refusal| refusal.to_string());
        let theirs = row["reason"].as_str().map(str::to_owned);
        row["name"] = row["version"].clone();
        count.row(&row, same("reason", &ours, &theirs));
    }
    count.finish("hello.jsonl");
}
