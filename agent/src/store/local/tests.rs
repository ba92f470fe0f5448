use fifogate::state::{Node, Tree};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

fn manifest(text: &str) -> Tree {
    fifogate::manifest::parse("test.yaml", text).unwrap().updated.tree
}

const ONE: &str = "apiVersion: v1\nworkloads:\n  w: {agent: a, runtime: process, runtimeConfig: x}";

fn set_config(value: &str) -> Update {
    let kind = pb::config_item::ConfigItemEnum::String(value.to_owned());
    let item = pb::ConfigItem { config_item_enum: Some(kind) };
    let configs = pb::ConfigMap { configs: [("k".to_owned(), item)].into() };
    let state = pb::State { configs: Some(configs), ..Default::default() };
    Update {
        by: String::new(),
        new_state: pb::CompleteState { desired_state: Some(state), ..Default::default() },
        masks: vec!["desiredState.configs.k".to_owned()],
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn an_update_is_told_before_it_is_answered() {
    block_on(async {
        let (store, mut events) = Local::open(Some(&manifest(ONE)), None).unwrap();
        assert!(matches!(events.try_recv(), Ok(Event::State { .. })));
        store.update(set_config("1")).await.unwrap();
        let Ok(Event::State { tree, .. }) = events.try_recv() else { panic!("nothing was told") };
        assert_eq!(tree.get(&["desiredState", "configs", "k"]).and_then(Node::as_str), Some("1"));
        store.update(set_config("1")).await.unwrap();
        assert!(events.try_recv().is_err(), "nothing differs");
    });
}

#[test]
fn what_was_acknowledged_is_there_when_the_folder_is_opened_again_and_counts_more_than_the_manifest()
 {
    let dir = tempfile::tempdir().unwrap();
    let open = || Local::open(Some(&manifest(ONE)), Some(dir.path())).unwrap();
    block_on(async {
        let (store, _events) = open();
        store.update(set_config("kept")).await.unwrap();
        let busy = Local::open(None, Some(dir.path())).unwrap_err().to_string();
        assert!(busy.contains("another agent"), "{busy}");
    });
    let (_store, mut events) = open();
    let Ok(Event::State { tree, .. }) = events.try_recv() else { panic!("no state") };
    let config = tree.get(&["desiredState", "configs", "k"]).and_then(|node| node.as_str());
    assert_eq!(config, Some("kept"));
    assert!(tree.get(&["workloadStates", "a", "w"]).is_some());
}

#[test]
fn a_seed_that_does_not_render_is_refused() {
    let text = format!("{ONE}\n  t:\n    agent: a\n    runtime: process\n    configs: {{c: c}}\n");
    let text = format!("{text}    runtimeConfig: \"{{{{c.missing}}}}\"\nconfigs:\n  c: {{d: x}}\n");
    let error = Local::open(Some(&manifest(&text)), None).unwrap_err();
    assert!(matches!(&error, OpenError::Seed(text) if text.contains("runtimeConfig")), "{error}");
}

#[test]
fn empty_file_is_damaged_and_half_of_a_new_one_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("desired-state.redb.new"), [7; 5000]).unwrap();
    block_on(async {
        let (store, _events) = Local::open(Some(&manifest(ONE)), Some(dir.path())).unwrap();
        assert!(store.is_new());
        store.update(set_config("kept")).await.unwrap();
    });
    let names = std::fs::read_dir(dir.path()).unwrap().map(|own| own.unwrap().file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["desired-state.redb"]);
    assert!(!Local::open(None, Some(dir.path())).unwrap().0.is_new());
    std::fs::write(dir.path().join("desired-state.redb"), "").unwrap();
    let error = Local::open(None, Some(dir.path())).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("desired-state.redb is damaged; restore a backup"), "{error}");
    // Nobody makes a new one beside an agent that does.
    std::fs::remove_file(dir.path().join("desired-state.redb")).unwrap();
    let other = std::fs::File::create(dir.path().join("desired-state.redb.new")).unwrap();
    other.lock().unwrap();
    let busy = Local::open(None, Some(dir.path())).map(|_| ()).unwrap_err().to_string();
    assert!(busy.contains("another agent has this file open"), "{busy}");
}

#[test]
fn file_of_something_else_is_refused_as_a_damaged_one() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("desired-state.redb"), "apiVersion: v1\n".repeat(1_000))
        .unwrap();
    let error = Local::open(None, Some(dir.path())).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("desired-state.redb is damaged; restore a backup"), "{error}");
}

#[test]
fn damaged_file_is_refused_by_its_name_or_gives_all_that_was_kept() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        let (store, _events) = Local::open(Some(&manifest(ONE)), Some(dir.path())).unwrap();
        store.update(set_config("kept")).await.unwrap();
    });
    let path = dir.path().join("desired-state.redb");
    let intact = std::fs::read(&path).unwrap();
    let (mut refused, mut random) = (0, ChaCha8Rng::seed_from_u64(1));
    for round in 0..200 {
        let mut bytes = intact.clone();
        if round % 10 == 0 {
            bytes.truncate(random.random_range(1..bytes.len()));
        } else {
            for _ in 0..random.random_range(1..=60) {
                // Most of the file is empty: half of the bits are from its used beginning.
                let most = if random.random() { 8 * bytes.len() } else { 8 * 4096 * 4 };
                let bit = random.random_range(0..most);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
        std::fs::write(&path, &bytes).unwrap();
        match Local::open(None, Some(dir.path())) {
            Ok((_, mut events)) => {
                let Ok(Event::State { tree, .. }) = events.try_recv() else { panic!("no state") };
                let config = tree.get(&["desiredState", "configs", "k"]).and_then(Node::as_str);
                assert_eq!(config, Some("kept"), "round {round}");
            }
            Err(error) => {
                refused += 1;
                let error = error.to_string();
                assert!(error.contains("desired-state.redb"), "round {round}: {error}");
            }
        }
    }
    assert!(refused > 20, "{refused} of 200 refused");
}
