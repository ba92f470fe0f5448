use clap::CommandFactory;

use super::*;

fn parse(args: &[&str]) -> Cli {
    Cli::try_parse_from([&["fifogate"], args].concat()).unwrap()
}

#[test]
fn definition_contradicts_itself_nowhere() {
    Cli::command().debug_assert();
}

#[test]
fn default_run_dir_is_the_users_own() {
    let own = |is_root, dir: Option<&str>| default_run_dir(is_root, dir.map(OsString::from)).ok();
    assert_eq!(own(true, Some("/run/user/0")), Some("/run/fifogate".into()));
    assert_eq!(own(true, None), Some("/run/fifogate".into()));
    assert_eq!(own(false, Some("/run/user/7")), Some("/run/user/7/fifogate".into()));
    for none in [None, Some(""), Some("not/absolute")] {
        assert_eq!(own(false, none), None);
    }
    let error = default_run_dir(false, None).unwrap_err().to_string();
    assert!(error.contains("--run-dir"), "{error}");
}

#[test]
fn each_v_says_more_and_each_q_less() {
    let level = |flags: &[&str]| parse(&[&["man"], flags].concat()).logging.level();
    assert_eq!(level(&[]), None);
    assert_eq!(level(&["-v"]), Some(LevelFilter::Debug));
    assert_eq!(level(&["-vv"]), Some(LevelFilter::Trace));
    assert_eq!(level(&["-q"]), Some(LevelFilter::Warn));
    assert_eq!(level(&["-qq"]), Some(LevelFilter::Error));
    assert_eq!(level(&["--quiet", "-q", "-q"]), Some(LevelFilter::Off));
}

#[test]
fn limits_without_flags_are_the_defaults_and_each_flag_sets_its_own() {
    let limits = |flags: &[&str]| {
        let Command::Run(args) = parse(&[&["run", "--manifest", "m"], flags].concat()).command
        else {
            panic!("not run");
        };
        Limits::from(&args.limits)
    };
    assert_eq!(limits(&[]), Limits::default());
    let flags = [
        "--max-frame=1",
        "--max-fields=1",
        "--outbox-bytes=2",
        "--outbox-messages=3",
        "--total-bytes=4",
        "--max-versions=5",
        "--max-masks=6",
        "--max-mask-length=7",
        "--max-request-id=8",
        "--max-subscriptions=9",
        "--subscription-bytes=10",
        "--max-in-flight=11",
        "--in-flight-bytes=12",
        "--max-malformed=13",
        "--max-wakeups=14",
        "--max-state-bytes=15",
        "--max-forwarded=16",
        "--max-link-frame=17",
        "--link-bytes=18",
        "--max-commander-masks=19",
    ];
    let expected = Limits {
        max_frame: 1,
        max_fields: 1,
        outbox_bytes: 2,
        outbox_messages: 3,
        total_bytes: 4,
        max_versions: 5,
        max_masks: 6,
        max_commander_masks: 19,
        max_mask_length: 7,
        max_request_id: 8,
        max_subscriptions: 9,
        subscription_bytes: 10,
        max_in_flight: 11,
        in_flight_bytes: 12,
        max_malformed: 13,
        max_wakeups: 14,
        max_state_bytes: 15,
        max_forwarded: 16,
        max_link_frame: 17,
        link_bytes: 18,
    };
    assert_eq!(limits(&flags), expected);
}

#[test]
fn timeout_is_a_positive_number_of_seconds() {
    assert_eq!(seconds("5"), Ok(Duration::from_secs(5)));
    assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
    assert!(seconds("1e30").is_err());
    assert!(seconds("1e15").unwrap() > Duration::from_secs(1_000_000));
    for wrong in ["0", "-1", "nan", "inf", "5s", ""] {
        assert!(seconds(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn update_is_given_by_changes_or_by_a_file_and_masks() {
    let given = |args: &[&str]| Cli::try_parse_from([&["fifogate", "set"], args].concat()).is_ok();
    assert!(given(&["a=b", "c-"]));
    assert!(given(&["-f", "s.yaml", "--mask", "a", "b"]));
    assert!(given(&["-f", "-", "--mask", "a", "--mask", "b"]));
    for wrong in [&[][..], &["-f", "s.yaml"], &["--mask", "a"], &["a=b", "-f", "x", "--mask", "a"]]
    {
        assert!(!given(wrong), "{wrong:?}");
    }
}
