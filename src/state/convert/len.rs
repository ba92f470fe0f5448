//! Length of an encoded value, without encoding it.

use crate::state::Node;

/// Bytes of a value in the encoding of a message. Exact for a config; a little more for a workload, whose
/// names of fields are counted as texts.
#[must_use]
pub(crate) fn encoded_len(node: &Node) -> usize {
    match node {
        Node::Str(text) => delimited(text.len()),
        Node::Seq(values) => {
            delimited(values.iter().map(|value| delimited(encoded_len(value))).sum())
        }
        Node::Map(fields) => delimited(
            fields
                .iter()
                .map(|(key, value)| delimited(entry(key.as_str(), encoded_len(value))))
                .sum(),
        ),
        Node::Uint(_) | Node::Unset => 0,
    }
}

fn entry(key: &str, value: usize) -> usize {
    // A default has no field.
    let field = |len: usize| if len == 0 { 0 } else { delimited(len) };
    field(key.len()) + field(value)
}

/// Bytes of a field of this length, with its number and its length in front.
fn delimited(len: usize) -> usize {
    1 + prost::encoding::encoded_len_varint(len as u64) + len
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::{
        pb::ank_base as pb,
        state::{Tree, convert},
    };

    fn configs_of(config: &Node) -> pb::ConfigMap {
        let configs = Node::map([("k", config.clone())]);
        let desired = Node::map([("apiVersion", Node::text("v1")), ("configs", configs)]);
        let tree = Tree::default().with("desiredState", Some(desired));
        let state = convert::to_pb(&tree, convert::Fill::Sparse);
        state.desired_state.unwrap().configs.unwrap()
    }

    #[test]
    fn length_of_a_config_is_that_of_its_message() {
        let text = |len: usize| Node::text(&"x".repeat(len));
        let map = |key: &str, value| Node::map([(key.to_owned(), value)]);
        for config in [
            text(0),
            text(1),
            text(127),
            text(128),
            text(20_000),
            Node::seq(Vec::new()),
            Node::seq(vec![text(0), text(200), Node::seq(vec![text(1)])]),
            map("", text(0)),
            map("a", text(125)),
            map(&"k".repeat(300), Node::seq(vec![map("b", text(16_384)), map("", text(3))])),
            Node::map([("a", text(1)), ("b", map("c", map("d", text(70_000))))]),
        ] {
            let item = configs_of(&config).configs.remove("k").unwrap();
            assert_eq!(encoded_len(&config), item.encoded_len(), "{item:?}");
        }
    }
}
