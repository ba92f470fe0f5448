//! Fuzz entry of rendering: bytes become a template and its configs.

use fifogate::state::{Key, Map, Node};

use super::{Budget, Data, MOST_REASON, fill_in, scan};
use crate::limits::{FIELD_STEPS, MOST_BYTES};

/// Renders a template from `data`: the first byte sets the size of the configs, the rest is the
/// template. Used by the fuzz target `templates` and by a test over its seeds.
///
/// # Panics
/// The engine panics, accepts a template over a limit, or writes more than the limit of a field.
#[doc(hidden)]
pub fn fuzz_template(data: &[u8]) {
    let Some((size, template)) = data.split_first() else { return };
    let template = String::from_utf8_lossy(template);
    let scanned = scan::scan(&template);
    let (aliases, configs) = configs(usize::from(*size));
    let mut budget = Budget::of_update();
    let Ok(data) = Data::new(&aliases, &configs, &mut budget) else { return };
    match fill_in(&mut budget, &template, &data) {
        Ok(text) => {
            assert!(text.len() <= MOST_BYTES, "{} bytes", text.len());
            assert!(scanned.is_ok_and(|steps| steps <= FIELD_STEPS));
        }
        Err(error) => {
            let short = super::shortened(error.to_string());
            assert!(short.len() <= MOST_REASON + 10, "{} bytes", short.len());
        }
    }
}

fn configs(size: usize) -> (Map<Node>, Map<Node>) {
    let list = Node::seq((0..size).map(|own| Node::text(&own.to_string())));
    let nested = (0..size % 20).fold(Node::text("x"), |own, _| Node::seq([own]));
    let map = (0..size).map(|own| (format!("k{own}"), Node::text("v")));
    let configs: Map<Node> =
        [("a", Node::text(&"a\n".repeat(size))), ("b", Node::map(map)), ("c", list), ("d", nested)]
            .into_iter()
            .map(|(name, value)| (Key::from(name), value))
            .collect();
    let aliases = configs.iter().map(|(key, _)| (key.clone(), Node::text(key.as_str())));
    (aliases.collect(), configs.clone())
}
