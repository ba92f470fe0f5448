//! Linux capabilities of a workload's process: names are parsed into sets, sets are applied to a
//! process.
//!
//! The default set is the one of container runtimes without `MKNOD` and `NET_RAW`. `MKNOD` would open
//! all disks, as there is no device controller here, and `NET_RAW` all traffic of the node, as the
//! network is the node's. `AUDIT_WRITE` stays: without it PAM refuses `su` and `login` to root.

use std::{error::Error, fmt, io};

use rustix::{
    io::Errno,
    thread::{
        CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
        clear_ambient_capability_set, configure_capability_in_ambient_set,
        remove_capability_from_bounding_set, set_capabilities,
    },
};

/// Capabilities of every workload running as root.
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

/// Name for all capabilities of the agent.
const ALL: &str = "ALL";

/// There is no capability of this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UnknownCapability {
    name: String,
    nearest: Option<&'static str>,
}

impl fmt::Display for UnknownCapability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no capability '{}'", self.name)?;
        self.nearest.map_or(Ok(()), |known| write!(f, "; {known} is the nearest"))
    }
}

impl Error for UnknownCapability {}

/// Parses a capability name, with or without `CAP_`, into its bits.
///
/// # Errors
/// There is no such capability; the error names the nearest one.
pub(super) fn parse(name: &str) -> Result<u64, UnknownCapability> {
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
    Err(UnknownCapability { name: name.to_owned(), nearest })
}

/// Whether the bits include `SYS_ADMIN`: it comes near to all others, and can undo mounts.
pub(super) fn gives_all(bits: u64) -> bool {
    CapabilitySet::from_bits_retain(bits).contains(CapabilitySet::SYS_ADMIN)
}

/// Capabilities in the bounding set of this process.
pub(super) fn possible() -> CapabilitySet {
    // The call fails for a number unknown to the kernel: it is in no set.
    each().filter(|own| capability_is_in_bounding_set(*own).unwrap_or(false)).collect()
}

fn each() -> impl Iterator<Item = CapabilitySet> {
    (0..u64::BITS).map(|number| CapabilitySet::from_bits_retain(1 << number))
}

/// Removes all capabilities outside of `kept` from the bounding set: no program started from here on
/// can gain them, whatever its user.
///
/// # Errors
/// The error of `prctl`; the call needs `SETPCAP`.
pub(super) fn bound(kept: CapabilitySet) -> io::Result<()> {
    for own in each().filter(|own| !kept.contains(*own)) {
        // The first unknown number ends the list: the kernel numbers capabilities without gaps.
        let Ok(is_there) = capability_is_in_bounding_set(own) else { break };
        if is_there {
            remove_capability_from_bounding_set(own)?;
        }
    }
    Ok(())
}

/// Sets the capabilities of this process, and those inherited by a program not running as root.
///
/// # Errors
/// The error of `capset` or `prctl`.
pub(super) fn set(own: CapabilitySet, handed_on: CapabilitySet) -> io::Result<()> {
    match clear_ambient_capability_set() {
        // This kernel has no ambient set.
        Ok(()) | Err(Errno::INVAL) => {}
        Err(errno) => return Err(errno.into()),
    }
    // The kernel raises a capability in the ambient set only if it is permitted and inheritable.
    set_capabilities(
        None,
        CapabilitySets { effective: own, permitted: own, inheritable: handed_on },
    )?;
    for capability in each().filter(|one| handed_on.contains(*one)) {
        configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}

/// The permitted capabilities of this process.
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
            assert_eq!(parse(name).unwrap_err().to_string(), expected);
        }
        assert!(parse("").is_err());
        assert!(parse("CAP_CAP_CHOWN").is_err());
    }
}
