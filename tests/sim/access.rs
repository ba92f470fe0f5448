//! The naive model of access rules: every concrete path that a mask can reach is written down, and
//! looked at one by one (docs/protocol.md#coverage, docs/differences.md#13-sound-authorization,
//! docs/differences.md#14-every-log-rule-entry-counts).
//!
//! Names are unlimited, so beside the names that rules and mask hold, one that nobody knows stands
//! for all others.

use std::collections::BTreeSet;

use serde_json::Value;

use super::tree::{self, Path};

const UNKNOWN: &str = "any-other-name";

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rules {
    read: Lists,
    write: Lists,
    logs: Lists,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Lists {
    allow: Vec<Path>,
    deny: Vec<Path>,
}

impl Rules {
    /// The rules of a `controlInterfaceAccess`.
    pub(crate) fn of(access: Option<&Value>) -> Self {
        let mut rules = Self::default();
        for (name, allow) in [("allowRules", true), ("denyRules", false)] {
            let list = access.and_then(|access| access.get(name)).and_then(Value::as_array);
            for rule in list.into_iter().flatten() {
                rules.add(rule, allow);
            }
        }
        rules
    }

    fn add(&mut self, rule: &Value, allow: bool) {
        let texts = |name: &str| -> Vec<String> {
            let texts = rule.get(name).and_then(Value::as_array).into_iter().flatten();
            texts.map(|text| text.as_str().unwrap().to_owned()).collect()
        };
        let masks: Vec<_> = texts("filterMasks").iter().map(|text| tree::split(text)).collect();
        let operation = rule["operation"].as_str().unwrap_or_default();
        for (lists, operations) in
            [(&mut self.read, ["Read", "ReadWrite"]), (&mut self.write, ["Write", "ReadWrite"])]
        {
            if operations.contains(&operation) {
                lists.side(allow).extend(masks.iter().cloned());
            }
        }
        self.logs.side(allow).extend(texts("workloadNames").into_iter().map(|name| vec![name]));
    }

    pub(crate) fn may_read(&self, masks: &[String]) -> bool {
        self.read.allow_masks(masks)
    }

    pub(crate) fn may_write(&self, masks: &[String]) -> bool {
        self.write.allow_masks(masks)
    }

    /// Whether this one leaf may be seen.
    pub(crate) fn may_see(&self, leaf: &[String]) -> bool {
        let over = |rule: &Path| !rule.is_empty() && tree::begins(rule, leaf);
        let meets = |rule: &Path| {
            let len = rule.len().min(leaf.len());
            len > 0 && tree::begins(&rule[..len], leaf)
        };
        self.read.allow.iter().any(over) && !self.read.deny.iter().any(meets)
    }

    pub(crate) fn may_read_logs(&self, names: &[String]) -> bool {
        let any = |rules: &[Path], name: &str| rules.iter().any(|rule| glob(&rule[0], name));
        names.iter().all(|name| any(&self.logs.allow, name) && !any(&self.logs.deny, name))
    }
}

fn glob(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => {
            name.len() >= before.len() + after.len()
                && name.starts_with(before)
                && name.ends_with(after)
        }
    }
}

impl Lists {
    fn side(&mut self, allow: bool) -> &mut Vec<Path> {
        if allow { &mut self.allow } else { &mut self.deny }
    }

    /// No mask is checked as one empty one.
    fn allow_masks(&self, masks: &[String]) -> bool {
        let empty = [String::new()];
        let masks = if masks.is_empty() { &empty } else { masks };
        masks.iter().all(|mask| self.allow_mask(&tree::split(mask)))
    }

    fn allow_mask(&self, mask: &[String]) -> bool {
        let longest = self.rules().map(Vec::len).chain([mask.len()]).max().unwrap_or_default();
        let mut reached = Vec::new();
        self.reach(mask, &mut Vec::new(), longest, &mut reached);
        let everything = |rule: &Path| *rule == ["*"];
        let over = |rule: &Path, path: &Path| !rule.is_empty() && tree::begins(rule, path);
        let allowed =
            |rule: &&Path| everything(rule) || reached.iter().all(|path| over(rule, path));
        self.allow.iter().any(|rule| allowed(&rule))
            && !self.deny.iter().any(|rule| reached.iter().any(|path| over(rule, path)))
    }

    fn rules(&self) -> impl Iterator<Item = &Path> {
        self.allow.iter().chain(&self.deny)
    }

    /// Writes down all paths of the mask, from its own length up to that of the longest rule.
    fn reach(&self, mask: &[String], path: &mut Path, longest: usize, reached: &mut Vec<Path>) {
        let depth = path.len();
        if depth >= mask.len().max(1) {
            reached.push(path.clone());
        }
        if depth >= longest.max(1) {
            return;
        }
        let names: BTreeSet<&str> = match mask.get(depth) {
            Some(name) if name != "*" => BTreeSet::from([name.as_str()]),
            _ => {
                let named = self.rules().filter_map(|rule| rule.get(depth)).map(String::as_str);
                named.filter(|name| *name != "*").chain([UNKNOWN]).collect()
            }
        };
        for name in names {
            path.push(name.to_owned());
            self.reach(mask, path, longest, reached);
            path.pop();
        }
    }
}

mod tests {
    use serde_json::json;

    use super::*;

    /// The tables of docs/protocol.md#coverage, with the repairs of 8.4.
    #[test]
    fn naive_rules_give_the_tables() {
        let rules = |list: &str, mask: &str| {
            let everything =
                json!({"type": "StateRule", "operation": "Read", "filterMasks": ["*"]});
            let rule = json!({"type": "StateRule", "operation": "Read", "filterMasks": [mask]});
            let allow = if list == "allow" { rule.clone() } else { everything };
            let deny = if list == "allow" { json!([]) } else { json!([rule]) };
            Rules::of(Some(&json!({"allowRules": [allow], "denyRules": deny})))
        };
        let row = |list, mask| {
            let rules = rules(list, mask);
            ["", "a", "a.b", "a.b.c", "a.z", "x.b", "a.*"]
                .map(|text| rules.may_read(&[text.into()]))
        };
        assert_eq!(row("allow", "a.b"), [false, false, true, true, false, false, false]);
        assert_eq!(row("allow", "a.*"), [false, false, true, true, true, false, true]);
        assert_eq!(row("allow", "*"), [true; 7]);
        assert_eq!(row("allow", "*.b"), [false, false, true, true, false, true, false]);
        assert_eq!(row("deny", "a.b"), [false, false, false, false, true, true, false]);
        assert_eq!(row("deny", "a.*.c"), [false, false, false, false, false, true, false]);
    }
}
