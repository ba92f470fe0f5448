//! A process of the soak: it reads or writes through its pair and obeys its parent, which says
//! something on standard input and listens to lines on standard output that begin with `@`.

use std::{
    collections::BTreeMap,
    env,
    io::stdin,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use fifogate::pb::{
    ank_base::{self as pb, config_item::ConfigItemEnum, response::ResponseContent},
    control_api::from_ankaios::FromAnkaiosEnum,
};
use sha2::{Digest, Sha256};

use testkit::{PATIENCE, Session};

pub(crate) const ROLE: &str = "SOAK_ROLE";
pub(crate) const PAIR: &str = "SOAK_PAIR";
pub(crate) const MASK: &str = "SOAK_MASK";

/// Configs by name.
pub(crate) type View = BTreeMap<String, String>;

/// A value that nothing but itself can be: its text is checked by whoever reads it.
pub(crate) fn value(key: &str, number: u64) -> String {
    // Some are longer than a page, so that frames of several sizes are torn if any is.
    let padding = "x".repeat(usize::try_from(number * 997 % 9_000).unwrap());
    let text = format!("{key}:{number}:{padding}");
    let sum =
        Sha256::digest(&text)[..4].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("{text}:{sum}")
}

/// The number of a value.
fn check(key: &str, text: &str) -> u64 {
    let number = text.split(':').nth(1).unwrap().parse().unwrap();
    assert_eq!(text, value(key, number), "a value is not what was written");
    number
}

pub(crate) fn play() {
    let role = env::var(ROLE).expect("a process of the soak");
    let pair = PathBuf::from(env::var(PAIR).unwrap());
    match role.as_str() {
        "reader" => read(Session::take_over(&pair)),
        _ => write(Session::take_over(&pair)),
    }
}

fn say(text: &str) {
    use std::io::Write;
    // Behind the harness's back, which would keep it.
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n@{text}").unwrap();
    out.flush().unwrap();
}

fn read(mut workload: Session) {
    let mask = env::var(MASK).unwrap();
    workload.read("s", &[&mask], true);
    let view = Arc::new(Mutex::new(View::new()));
    let delay = Arc::new(AtomicU64::new(0));
    let (seen, slow) = (Arc::clone(&view), Arc::clone(&delay));
    thread::spawn(move || {
        for line in stdin().lines() {
            match line.unwrap().split_once(' ') {
                Some(("slow", millis)) => slow.store(millis.parse().unwrap(), Ordering::Relaxed),
                _ => say(&serde_json::to_string(&*seen.lock().unwrap()).unwrap()),
            }
        }
        std::process::exit(0);
    });
    let mut numbers = BTreeMap::new();
    let mut frames = 0_u64;
    loop {
        if let Some(FromAnkaiosEnum::Response(response)) =
            workload.receive_within(Duration::from_secs(3600))
        {
            let Some(ResponseContent::CompleteStateResponse(told)) = response.response_content
            else {
                panic!("{response:?}")
            };
            let mut view = view.lock().unwrap();
            update(&mut view, &told);
            for (key, text) in view.iter() {
                let number = check(key, text);
                let last = numbers.insert(key.clone(), number).unwrap_or(0);
                assert!(last <= number, "{key} went back from {last} to {number}");
            }
            frames += 1;
            if frames == 1 {
                say("ready");
            }
        }
        thread::sleep(Duration::from_millis(delay.load(Ordering::Relaxed)));
    }
}

/// Takes in an answer or an event.
pub(crate) fn update(view: &mut View, told: &pb::CompleteStateResponse) {
    let state = told.complete_state.as_ref().and_then(|state| state.desired_state.as_ref());
    let configs = state.and_then(|state| state.configs.as_ref());
    let text = |item: &pb::ConfigItem| match &item.config_item_enum {
        Some(ConfigItemEnum::String(text)) => text.clone(),
        other => panic!("{other:?}"),
    };
    let now: View = configs
        .into_iter()
        .flat_map(|map| &map.configs)
        .map(|(key, item)| (key.clone(), text(item)))
        .collect();
    let Some(altered) = &told.altered_fields else {
        *view = now;
        return;
    };
    let changed = altered.added_fields.iter().chain(&altered.updated_fields);
    for path in changed.chain(&altered.removed_fields) {
        match path.strip_prefix("desiredState.configs.") {
            Some(key) if now.contains_key(key) => {
                view.insert(key.to_owned(), now[key].clone());
            }
            Some(key) => {
                view.remove(key);
            }
            None => view.clone_from(&now),
        }
    }
}

fn write(mut workload: Session) {
    say("ready");
    for line in stdin().lines() {
        let line = line.unwrap();
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["half"] => {
                let whole = Session::frame_of_config("h", &"v".repeat(3_000));
                workload.write(&whole[..whole.len() / 2]);
                say("half");
            }
            [key, from, count] => {
                let from: u64 = from.parse().unwrap();
                for number in from..from + count.parse::<u64>().unwrap() {
                    // Every seventh is a removal.
                    let set = !number.is_multiple_of(7);
                    workload.set_or_remove_config("u", key, set.then(|| value(key, number)));
                    let answer = workload.receive_within(PATIENCE);
                    assert!(matches!(answer, Some(FromAnkaiosEnum::Response(_))), "{answer:?}");
                }
                say("done");
            }
            _ => panic!("{line}"),
        }
    }
}
