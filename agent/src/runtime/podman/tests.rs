use super::*;

#[test]
fn pause_before_a_retry_doubles_up_to_its_bound_and_never_gives_up() {
    for (retry, millis) in
        [(1, 500), (2, 1_000), (3, 2_000), (10, 256_000), (11, 300_000), (u32::MAX, 300_000)]
    {
        assert_eq!(longest_pause(retry), Duration::from_millis(millis), "{retry}");
    }
    let shared = || {
        Arc::new(Shared { agent: String::new(), run_dir: String::new(), watch: OnceLock::new() })
    };
    let podman = Runner { kind: Containers(shared()), shared: shared(), left: None };
    let pauses: Vec<_> = (0..100).map(|_| podman.pause_before(10).unwrap()).collect();
    assert!(pauses.iter().all(|pause| *pause <= longest_pause(10)));
    // Anywhere below: of a hundred, some are in each half.
    let half = longest_pause(10) / 2;
    assert!(pauses.iter().any(|pause| *pause < half) && pauses.iter().any(|pause| *pause > half));
}

#[test]
fn podman_restarts_by_its_policy_whatever_ours_is() {
    let restarts = |policy| [restarts_after(policy, true), restarts_after(policy, false)];
    for policy in ["always", "unless-stopped"] {
        assert_eq!(restarts(policy), [true, true], "{policy}");
    }
    assert_eq!(restarts("on-failure"), [true, false]);
    // The first is that of a container without one, the last that of one that is gone.
    for policy in ["no", ""] {
        assert_eq!(restarts(policy), [false, false], "{policy}");
    }
}
