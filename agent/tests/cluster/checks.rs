//! The checks of the others, which are to fail where something is wrong.

use fifogate::state::Node;

use super::view::View;

#[test]
fn a_digest_is_of_the_leaves_and_not_of_how_they_came() {
    let text = |text: &str| Node::text(text);
    let both = Node::map([("a", text("1")), ("ab", text("2"))]);
    let mut view = View::default();
    let path = ["desiredState", "configs"];
    let part = [path[0], path[1], "a"];
    view.set(&path, Some(&both));
    let first = view.clone();
    view.set(&part, Some(&text("3")));
    assert_ne!(view.digest(), first.digest());
    view.set(&part, Some(&text("1")));
    assert!(view == first);
    view.set(&part, None);
    assert_eq!(view.difference(&first), [r#"desiredState.configs.a: None, Some("\"1\"")"#]);
    view.set(&path, None);
    assert_eq!(view.digest(), View::default().digest());
}
