//! Access rules of one workload (docs/protocol.md#access-rules,
//! docs/differences.md#13-sound-authorization, docs/differences.md#14-every-log-rule-entry-counts,
//! docs/differences.md#16-no-rights-for-oneself).
//!
//! In go masks, paths or workload names; out comes whether they are allowed. Sound: a request is
//! allowed only if its masks reach nothing outside of the allow rules and nothing denied, for any
//! content of the state now or later. So answers are not filtered, and a subscription is checked once.

use crate::state::{Key, Mask, MaskSet, Node, Segment};

/// The compiled rules of one workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    read: Lists<Mask>,
    write: Lists<Mask>,
    logs: Lists<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Lists<T> {
    allow: Vec<T>,
    deny: Vec<T>,
}

impl<T> Default for Lists<T> {
    fn default() -> Self {
        Self { allow: Vec::new(), deny: Vec::new() }
    }
}

impl Rules {
    /// Compiles a `controlInterfaceAccess` of the state.
    #[must_use]
    pub fn compile(access: &Node) -> Self {
        let mut rules = Self::default();
        for (list, allow) in [("allowRules", true), ("denyRules", false)] {
            for rule in access.get(list).and_then(Node::as_seq).unwrap_or_default() {
                rules.add(rule, allow);
            }
        }
        // Most have a mask or two, and there may be thousands of rules: spare capacity would dominate.
        for lists in [&mut rules.read, &mut rules.write] {
            lists.allow.shrink_to_fit();
            lists.deny.shrink_to_fit();
        }
        rules
    }

    /// Rules with everything allowed: those of the agent.
    #[must_use]
    pub fn everything() -> Self {
        let masks = || Lists { allow: vec![Mask::parse("*")], deny: Vec::new() };
        let logs = Lists { allow: vec!["*".to_owned()], deny: Vec::new() };
        Self { read: masks(), write: masks(), logs }
    }

    fn add(&mut self, rule: &Node, allow: bool) {
        fn texts<'a>(rule: &'a Node, name: &str) -> impl Iterator<Item = &'a str> {
            rule.get(name).and_then(Node::as_seq).into_iter().flatten().filter_map(Node::as_str)
        }
        fn list<T>(lists: &mut Lists<T>, allow: bool) -> &mut Vec<T> {
            if allow { &mut lists.allow } else { &mut lists.deny }
        }
        // The type is not asked: each has fields of its own, and an absent field adds nothing.
        let operation = rule.str_at("operation").unwrap_or_default();
        if ["Read", "ReadWrite"].contains(&operation) {
            list(&mut self.read, allow).extend(texts(rule, "filterMasks").map(Mask::parse));
        }
        if ["Write", "ReadWrite"].contains(&operation) {
            list(&mut self.write, allow).extend(texts(rule, "filterMasks").map(Mask::parse));
        }
        list(&mut self.logs, allow).extend(texts(rule, "workloadNames").map(str::to_owned));
    }

    /// True if everything within reach of `masks` is readable.
    #[must_use]
    pub fn may_read(&self, masks: &MaskSet) -> bool {
        self.check_read(masks).is_ok()
    }

    /// Checks that everything within reach of `masks` is readable. The error is the first mask of which
    /// this is not so, `None` for everything, and the objection.
    pub(super) fn check_read<'a>(
        &'a self,
        masks: &'a MaskSet,
    ) -> Result<(), (Option<&'a Mask>, Objection<'a, Mask>)> {
        // The root has no segments: only an allow rule `*` covers it, and any deny rule meets it.
        if masks.is_everything() {
            return self.read.check(&[]).map_err(|why| (None, why));
        }
        self.read.check_all(masks.masks())
    }

    /// True if everything within reach of `masks` is writable. An empty list reaches everything.
    #[must_use]
    pub fn may_write(&self, masks: &[Mask]) -> bool {
        self.check_write(masks).is_ok()
    }

    /// As [`Rules::check_read`], for writing.
    pub(super) fn check_write<'a>(
        &'a self,
        masks: &'a [Mask],
    ) -> Result<(), (Option<&'a Mask>, Objection<'a, Mask>)> {
        if masks.is_empty() {
            return self.write.check(&[]).map_err(|why| (None, why));
        }
        self.write.check_all(masks)
    }

    /// True if the value at `path` is readable, with everything below it.
    #[must_use]
    pub fn may_read_path(&self, path: &[&str]) -> bool {
        self.check_read_path(path).is_ok()
    }

    pub(super) fn check_read_path(&self, path: &[&str]) -> Result<(), Objection<'_, Mask>> {
        self.read.check(&segments(path))
    }

    pub(super) fn check_write_path(&self, path: &[&str]) -> Result<(), Objection<'_, Mask>> {
        self.write.check(&segments(path))
    }

    /// True if the logs of all these workloads are readable.
    pub fn may_read_logs<'a>(&self, workloads: impl Iterator<Item = &'a str>) -> bool {
        self.check_logs(workloads).is_ok()
    }

    /// Checks that the logs of all these workloads are readable. The error is the first one of which
    /// this is not so, and the objection.
    pub(super) fn check_logs<'a>(
        &self,
        mut workloads: impl Iterator<Item = &'a str>,
    ) -> Result<(), (&'a str, Objection<'_, String>)> {
        let matches = |pattern: &&String, name| pattern_matches(pattern, name);
        // An empty list is allowed: it names no log (docs/protocol.md#log-rules).
        workloads.try_for_each(|name| {
            if !self.logs.allow.iter().any(|pattern| matches(&pattern, name)) {
                return Err((name, Objection::NotAllowed(&self.logs.allow)));
            }
            let denied = self.logs.deny.iter().find(|pattern| matches(pattern, name));
            denied.map_or(Ok(()), |pattern| Err((name, Objection::Denied(pattern))))
        })
    }
}

fn segments(path: &[&str]) -> Vec<Segment> {
    path.iter().map(|name| Segment::Key(Key::from(*name))).collect()
}

/// The reason why rules do not permit something.
#[derive(Clone, Copy, Debug)]
pub(super) enum Objection<'a, T> {
    /// No allow rule covers it. These allow something else.
    NotAllowed(&'a [T]),
    /// This deny rule meets it.
    Denied(&'a T),
}

impl Lists<Mask> {
    /// Checks that one allow mask covers `wanted` completely, and no deny mask meets any part of it.
    fn check(&self, wanted: &[Segment]) -> Result<(), Objection<'_, Mask>> {
        // One rule alone has to cover it: two halves do not add up (docs/protocol.md#coverage).
        if !self.allow.iter().any(|rule| covers(rule.segments(), wanted)) {
            return Err(Objection::NotAllowed(&self.allow));
        }
        let denied = self.deny.iter().find(|rule| meets(rule.segments(), wanted));
        denied.map_or(Ok(()), |rule| Err(Objection::Denied(rule)))
    }

    fn check_all<'a>(
        &'a self,
        masks: &'a [Mask],
    ) -> Result<(), (Option<&'a Mask>, Objection<'a, Mask>)> {
        let check = |mask: &'a Mask| self.check(mask.segments()).map_err(|why| (Some(mask), why));
        masks.iter().try_for_each(check)
    }
}

/// True if every path beginning with `wanted` also begins with `rule`. Names are unlimited, so only a
/// `*` of the rule covers a `*` in `wanted`. The rule `*` alone covers everything; a rule without
/// segments covers nothing.
pub(crate) fn covers(rule: &[Segment], wanted: &[Segment]) -> bool {
    if rule == [Segment::Any] {
        return true;
    }
    let covers_one = |(rule, wanted): (&Segment, &Segment)| *rule == Segment::Any || rule == wanted;
    !rule.is_empty() && rule.len() <= wanted.len() && rule.iter().zip(wanted).all(covers_one)
}

/// True if some path beginning with `wanted` lies at, below or above a path named by `rule`.
pub(crate) fn meets(rule: &[Segment], wanted: &[Segment]) -> bool {
    let meet_one = |(rule, wanted): (&Segment, &Segment)| {
        *rule == Segment::Any || *wanted == Segment::Any || rule == wanted
    };
    // `zip` ends with the shorter one: a rule below `wanted` denies it, as no answer is filtered.
    !rule.is_empty() && rule.iter().zip(wanted).all(meet_one)
}

/// True if `deny` meets whatever `allow` covers, so that `allow` allows nothing.
#[cfg(feature = "manifest")]
pub(crate) fn forbids_all(deny: &[Segment], allow: &[Segment]) -> bool {
    // Below `allow` any name can be wanted, also that of no literal.
    let forbids_one =
        |(place, deny): (usize, &Segment)| *deny == Segment::Any || allow.get(place) == Some(deny);
    !deny.is_empty() && deny.iter().enumerate().all(forbids_one)
}

/// True if `name` matches `pattern`, with its first `*` standing for any characters, or none.
pub(crate) fn pattern_matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => {
            // Taken off first: both parts must not overlap (docs/protocol.md#log-rules).
            let rest = name.strip_prefix(before);
            rest.is_some_and(|rest| rest.ends_with(after))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(mask: &str) -> Vec<Segment> {
        Mask::parse(mask).segments().to_vec()
    }

    #[test]
    fn rules_cover_and_meet_as_the_table_says() {
        // rule, request mask, allow rule covers it, deny rule meets it
        let table = [
            ("a.b", "", false, true),
            ("a.b", "a", false, true),
            ("a.b", "a.b", true, true),
            ("a.b", "a.b.c", true, true),
            ("a.b", "x.b", false, false),
            ("a.b", "a.*", false, true),
            ("a.*", "a.*", true, true),
            ("a.*", "a", false, true),
            ("*", "", true, true),
            ("*.b", "", false, true),
            ("*.b", "*", false, true),
            ("*.b", "a.c", false, false),
            ("", "a", false, false),
        ];
        for (rule, wanted, covered, met) in table {
            assert_eq!(covers(&parsed(rule), &parsed(wanted)), covered, "{rule} / {wanted}");
            assert_eq!(meets(&parsed(rule), &parsed(wanted)), met, "{rule} / {wanted}");
        }
    }

    /// Every mask of up to three of these segments.
    #[cfg(feature = "manifest")]
    fn small_masks() -> Vec<Vec<Segment>> {
        let mut all = vec![Vec::new()];
        let mut last = all.clone();
        for _ in 0..3 {
            let longer = |mask: &Vec<Segment>| {
                let mask = mask.clone();
                ["a", "b", "*"].map(move |end| [mask.clone(), parsed(end)].concat())
            };
            last = last.iter().flat_map(longer).collect();
            all.extend(last.iter().cloned());
        }
        all
    }

    #[cfg(feature = "manifest")]
    #[test]
    fn deny_rule_forbids_all_of_an_allow_rule_if_it_meets_whatever_that_covers() {
        let masks = small_masks();
        for deny in &masks {
            for allow in masks.iter().filter(|allow| !allow.is_empty()) {
                // A third name stands for all that no rule names.
                let is_met = |wanted: &Vec<Segment>| {
                    let renamed = wanted.iter().map(|own| match own {
                        Segment::Key(key) if key.as_str() == "b" => Segment::Key(Key::from("c")),
                        own => own.clone(),
                    });
                    let renamed: Vec<_> = renamed.collect();
                    [wanted, &renamed].iter().all(|own| !covers(allow, own) || meets(deny, own))
                };
                let expected = masks.iter().all(is_met);
                assert_eq!(forbids_all(deny, allow), expected, "{deny:?} {allow:?}");
            }
        }
    }

    #[test]
    fn parts_around_the_star_of_a_log_pattern_do_not_overlap() {
        assert!(pattern_matches("a*b", "ab"));
        assert!(!pattern_matches("a*ab", "ab"));
        assert!(pattern_matches("*", ""));
        assert!(!pattern_matches("db", "db1"));
    }
}
