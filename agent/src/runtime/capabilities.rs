//! Capabilities of a workload's process: names in, sets out, and their way into the process.
//!
//! By default a workload has those that container runtimes grant, without two. `MKNOD` would give it
//! all disks, as there is no device controller here, and `NET_RAW` all traffic of the node, as the
//! network is the node's. `AUDIT_WRITE` stays: PAM refuses `su` and `login` to root without it.

use std::io;

use rustix::{
    io::Errno,
    thread::{
        CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
        clear_ambient_capability_set, configure_capability_in_ambient_set,
        remove_capability_from_bounding_set, set_capabilities,
    },
};

/// Capabilities of every workload that is root.
pub(super) const USUAL: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::AUDIT_WRITE)
    .union(CapabilitySet::SETFCAP);

/// The name for all that the agent has.
const ALL: &str = "ALL";

/// The bits of a name, with or without `CAP_`.
///
/// # Errors
/// There is none of this name; the text says which is the nearest.
pub(super) fn parse(name: &str) -> Result<u64, String> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if short == ALL {
        return Ok(u64::MAX);
    }
    if let Some(found) = CapabilitySet::from_name(short) {
        return Ok(found.bits());
    }
    let names = CapabilitySet::all().iter_names().map(|(known, _)| known);
    let nearest = names
        .max_by(|a, b| strsim::jaro_winkler(a, short).total_cmp(&strsim::jaro_winkler(b, short)));
    let nearest = nearest.map_or_else(String::new, |known| format!("; {known} is the nearest"));
    Err(format!("there is no capability '{name}'{nearest}"))
}

/// Whether these bits hold the one that comes near to all others: with it, mounts can be undone.
pub(super) fn gives_all(bits: u64) -> bool {
    CapabilitySet::from_bits_retain(bits).contains(CapabilitySet::SYS_ADMIN)
}

/// Each capability that may be raised at all in this process.
pub(super) fn possible() -> CapabilitySet {
    // A number that the kernel does not know is in no set.
    each().filter(|own| capability_is_in_bounding_set(*own).unwrap_or(false)).collect()
}

fn each() -> impl Iterator<Item = CapabilitySet> {
    (0..u64::BITS).map(|number| CapabilitySet::from_bits_retain(1 << number))
}

/// Sees to it that no program that is started from here on, by any user, has a capability that is not
/// in `kept`.
///
/// # Errors
/// What `prctl` reports; it takes `SETPCAP`.
pub(super) fn bound(kept: CapabilitySet) -> io::Result<()> {
    for own in each().filter(|own| !kept.contains(*own)) {
        // The kernel's number of capabilities ends here.
        let Ok(is_there) = capability_is_in_bounding_set(own) else { break };
        if is_there {
            remove_capability_from_bounding_set(own)?;
        }
    }
    Ok(())
}

/// Sets what this process has now, and what it hands on when it becomes a program that is not root.
///
/// # Errors
/// What `capset` reports.
pub(super) fn set(own: CapabilitySet, handed_on: CapabilitySet) -> io::Result<()> {
    match clear_ambient_capability_set() {
        // A kernel without such a set.
        Ok(()) | Err(Errno::INVAL) => {}
        Err(errno) => return Err(errno.into()),
    }
    set_capabilities(
        None,
        CapabilitySets { effective: own, permitted: own, inheritable: handed_on },
    )?;
    for capability in each().filter(|one| handed_on.contains(*one)) {
        configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}

/// The capabilities that this process has.
pub(super) fn current() -> CapabilitySet {
    capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.permitted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_with_and_without_their_prefix_in_any_case() {
        for name in ["NET_ADMIN", "CAP_NET_ADMIN", "cap_net_admin", "Net_Admin"] {
            assert_eq!(parse(name), Ok(1 << 12), "{name}");
        }
        assert_eq!(parse("all"), Ok(u64::MAX));
        for (_, own) in CapabilitySet::all().iter_names() {
            assert_eq!(own.bits().count_ones(), 1);
        }
    }

    #[test]
    fn names_that_do_not_exist_are_refused_with_the_nearest_that_does() {
        for (name, nearest) in [
            ("SYS_ADMN", "SYS_ADMIN"),
            ("CAP_NETADMIN", "NET_ADMIN"),
            ("chwon", "CHOWN"),
            ("SYS PTRACE", "SYS_PTRACE"),
        ] {
            let expected = format!("there is no capability '{name}'; {nearest} is the nearest");
            assert_eq!(parse(name), Err(expected));
        }
        assert!(parse("").is_err());
        assert!(parse("CAP_CAP_CHOWN").is_err());
    }
}
