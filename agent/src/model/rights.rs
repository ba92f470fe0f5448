//! Access rules in effect while one state replaces another, and for ending instances.
//!
//! Input is a state or two sets of rules; output is a set of rules. Invariant: combined rules never
//! allow more than each set alone.

use fifogate::{
    internal::{
        Rules, parts,
        state::{EFFECTIVE_STATE, MaskSet, begins_with_a_mistake},
    },
    pb::ank_base::{self as pb, access_rights_rule::AccessRightsRuleEnum as Kind},
    state::{Instance, Mask, Tree},
};

use super::workload;

/// The rules of the workload with the name of an instance, and whether they belong to this instance; if
/// not, the instance ends.
#[must_use]
pub fn rights_of(tree: &Tree, instance: &Instance) -> (pb::ControlInterfaceAccess, bool) {
    let Some(node) = tree.get(&[EFFECTIVE_STATE, "workloads", &instance.workload]) else {
        return (pb::ControlInterfaceAccess::default(), false);
    };
    let access = workload(node).control_interface_access.unwrap_or_default();
    let (access, _) = without_unknown_masks(access);
    (access, Instance::of(&instance.workload, node) == *instance)
}

/// Rules without the masks that begin with no part of the state, and these masks. A workload may set such
/// rules, as in Ankaios; they grant and deny nothing, and fifogate rejects them from an agent.
#[must_use]
pub fn without_unknown_masks(
    mut access: pb::ControlInterfaceAccess,
) -> (pb::ControlInterfaceAccess, Vec<String>) {
    let mut unknown = Vec::new();
    for rule in access.allow_rules.iter_mut().chain(&mut access.deny_rules) {
        if let Some(Kind::StateRule(own)) = &mut rule.access_rights_rule_enum {
            let is_unknown =
                |mask: &mut String| begins_with_a_mistake(&Mask::parse(mask)).is_some();
            unknown.extend(own.filter_masks.extract_if(.., is_unknown));
        }
    }
    (access, unknown)
}

/// The rights granted by both sets of rules, as far as their masks can express it: each mask allowed as
/// a whole by the other set, minus the denials of both.
#[must_use]
pub fn common_rights(
    one: &pb::ControlInterfaceAccess,
    other: &pb::ControlInterfaceAccess,
) -> pb::ControlInterfaceAccess {
    if one == other {
        return one.clone();
    }
    let (rules_of_one, rules_of_other) = (compile(one), compile(other));
    let of_one = one.allow_rules.iter().filter_map(|rule| allowed_part(rule, &rules_of_other));
    // From both sides: the narrower mask of each pair is the one to keep.
    let of_other = other.allow_rules.iter().filter_map(|rule| allowed_part(rule, &rules_of_one));
    let allow_rules: Vec<_> = of_one.chain(of_other).collect();
    let denied = [one.deny_rules.as_slice(), other.deny_rules.as_slice()];
    // Without an allow rule nothing is allowed, and denials would have no effect.
    let deny_rules = if allow_rules.is_empty() { Vec::new() } else { denied.concat() };
    pb::ControlInterfaceAccess { allow_rules, deny_rules }
}

/// Compiles rules; unreadable ones allow nothing.
fn compile(access: &pb::ControlInterfaceAccess) -> Rules {
    let access = parts::access_from_pb(access).ok().flatten();
    access.as_ref().map(Rules::compile).unwrap_or_default()
}

/// The part of an allow rule also allowed by `by`; `None` if nothing is left.
fn allowed_part(rule: &pb::AccessRightsRule, by: &Rules) -> Option<pb::AccessRightsRule> {
    let mut rule = rule.clone();
    let is_left = match rule.access_rights_rule_enum.as_mut()? {
        Kind::StateRule(own) => {
            let (reads, writes) = match own.operation() {
                pb::ReadWriteEnum::RwNothing => (false, false),
                pb::ReadWriteEnum::RwRead => (true, false),
                pb::ReadWriteEnum::RwWrite => (false, true),
                pb::ReadWriteEnum::RwReadWrite => (true, true),
            };
            own.filter_masks.retain(|mask| {
                (!reads || by.may_read(&MaskSet::parse([mask])))
                    && (!writes || by.may_write(&[Mask::parse(mask)]))
            });
            !own.filter_masks.is_empty()
        }
        Kind::LogRule(own) => {
            // The other rules match the pattern like a plain name: if they match it, they match all
            // names it stands for.
            own.workload_names.retain(|name| by.may_read_logs([name.as_str()].into_iter()));
            !own.workload_names.is_empty()
        }
    };
    is_left.then_some(rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(kind: Kind) -> pb::AccessRightsRule {
        pb::AccessRightsRule { access_rights_rule_enum: Some(kind) }
    }

    fn state(operation: pb::ReadWriteEnum, masks: &[&str]) -> pb::AccessRightsRule {
        let filter_masks = masks.iter().map(|&mask| mask.to_owned()).collect();
        rule(Kind::StateRule(pb::StateRule { operation: operation.into(), filter_masks }))
    }

    fn logs(names: &[&str]) -> pb::AccessRightsRule {
        let workload_names = names.iter().map(|&name| name.to_owned()).collect();
        rule(Kind::LogRule(pb::LogRule { workload_names }))
    }

    fn access(
        allow: &[pb::AccessRightsRule],
        deny: &[pb::AccessRightsRule],
    ) -> pb::ControlInterfaceAccess {
        pb::ControlInterfaceAccess { allow_rules: allow.to_vec(), deny_rules: deny.to_vec() }
    }

    #[test]
    fn nothing_is_allowed_by_both_that_one_of_them_does_not_allow() {
        use pb::ReadWriteEnum::{RwRead as R, RwReadWrite as Rw, RwWrite as W};
        let all = [
            access(&[], &[]),
            access(&[state(Rw, &["*"])], &[]),
            access(&[state(R, &["*"]), logs(&["*"])], &[]),
            access(&[state(Rw, &["desiredState.configs"])], &[]),
            access(&[state(W, &["desiredState"])], &[state(W, &["desiredState.configs.a"])]),
            access(&[state(R, &["desiredState.configs.a", "agents"]), logs(&["d*"])], &[]),
            access(&[state(Rw, &["desiredState.*.a"])], &[state(R, &["desiredState.workloads"])]),
            access(&[logs(&["db", "d*b"])], &[logs(&["dx*"])]),
        ];
        let masks = [
            "",
            "*",
            "desiredState",
            "desiredState.configs",
            "desiredState.configs.*",
            "desiredState.configs.a",
            "desiredState.configs.b.c",
            "desiredState.workloads.a",
            "agents.x",
        ];
        for one in &all {
            for other in &all {
                let both = compile(&common_rights(one, other));
                let (one, other) = (compile(one), compile(other));
                for mask in masks {
                    let (read, write) = ([MaskSet::parse([mask])], [Mask::parse(mask)]);
                    let may_read = |rules: &Rules| read.iter().all(|mask| rules.may_read(mask));
                    assert!(!may_read(&both) || may_read(&one) && may_read(&other), "{mask}");
                    let may_write = |rules: &Rules| rules.may_write(&write);
                    assert!(!may_write(&both) || may_write(&one) && may_write(&other), "{mask}");
                }
                for name in ["db", "dxb", "d", "e"] {
                    let may = |rules: &Rules| rules.may_read_logs([name].into_iter());
                    assert!(!may(&both) || may(&one) && may(&other), "{name}");
                }
            }
        }
    }

    #[test]
    fn masks_with_a_mistyped_part_are_taken_out_of_allow_and_deny_rules() {
        use pb::ReadWriteEnum::RwRead as R;
        let given = access(
            &[state(R, &["desiredstate", "agents", "configs.*", "foo"]), logs(&["desiredstate"])],
            &[state(R, &["*.x", "agent", "workloadStates.nobody"])],
        );
        let (left, unknown) = without_unknown_masks(given);
        let expected = access(
            &[state(R, &["agents", "foo"]), logs(&["desiredstate"])],
            &[state(R, &["*.x", "workloadStates.nobody"])],
        );
        assert_eq!(
            (left, unknown.join(" ")),
            (expected, "desiredstate configs.* agent".to_owned())
        );
    }

    #[test]
    fn all_is_left_that_a_narrower_or_wider_rule_still_allows() {
        use pb::ReadWriteEnum::{RwRead as R, RwReadWrite as Rw};
        let wide = access(&[state(Rw, &["*"]), logs(&["*"])], &[]);
        let narrow = access(&[state(R, &["desiredState.configs"]), logs(&["d*"])], &[]);
        for both in [common_rights(&wide, &narrow), common_rights(&narrow, &wide)] {
            let both = compile(&both);
            assert!(both.may_read(&MaskSet::parse(["desiredState.configs.a"])));
            assert!(!both.may_read(&MaskSet::parse(["agents"])));
            assert!(!both.may_write(&[Mask::parse("desiredState.configs.a")]));
            assert!(both.may_read_logs(["db"].into_iter()));
            assert!(!both.may_read_logs(["web"].into_iter()));
        }
        assert_eq!(common_rights(&wide, &wide), wide);
        assert_eq!(common_rights(&wide, &access(&[], &[])), access(&[], &[]));
    }
}
