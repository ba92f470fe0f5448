//! The bytes that a client says, made before anything is measured, and the manifest to begin with.

use std::fmt::Write;

use fifogate::{
    frame::encode,
    pb::{
        ank_base::{self as pb, config_item::ConfigItemEnum, request::RequestContent},
        control_api::{ToAnkaios, to_ankaios::ToAnkaiosEnum},
    },
};
use prost::Message;

/// The key of the config that is read and changed.
pub(crate) const SPEED: &str = "speed";
pub(crate) const SPEED_MASK: &str = "desiredState.configs.speed";

/// Configs that are read in turn.
pub(crate) const SHELF: usize = 64;

/// The mask of one of them.
pub(crate) fn shelf_mask(index: usize) -> String {
    format!("desiredState.configs.{}", shelf(index % SHELF))
}

/// Names are equally long, so that all answers are.
fn shelf(index: usize) -> String {
    format!("shelf{index:02}")
}

pub(crate) fn read(id: &str, masks: &[&str], subscribe: bool) -> Vec<u8> {
    let field_mask = masks.iter().map(|mask| (*mask).to_owned()).collect();
    let ask = pb::CompleteStateRequest { field_mask, subscribe_for_events: subscribe };
    request(id, RequestContent::CompleteStateRequest(ask))
}

pub(crate) fn set_speed(value: &str) -> Vec<u8> {
    let text = ConfigItemEnum::String(value.to_owned());
    let item = pb::ConfigItem { config_item_enum: Some(text) };
    let configs = pb::ConfigMap { configs: [(SPEED.to_owned(), item)].into() };
    let desired = pb::State { configs: Some(configs), ..Default::default() };
    let new_state = pb::CompleteState { desired_state: Some(desired), ..Default::default() };
    let update_mask = vec![SPEED_MASK.to_owned()];
    let ask = pb::UpdateStateRequest { new_state: Some(new_state), update_mask };
    request("update", RequestContent::UpdateStateRequest(ask))
}

fn request(id: &str, content: RequestContent) -> Vec<u8> {
    let request = pb::Request { request_id: id.to_owned(), request_content: Some(content) };
    let message = ToAnkaios { to_ankaios_enum: Some(ToAnkaiosEnum::Request(request)) };
    encode(&message.encode_to_vec()).into()
}

/// The whole frame at the start of `bytes`, if all of it is there: how long it is.
pub(crate) fn frame_len(bytes: &[u8]) -> Option<usize> {
    let (mut len, mut shift) = (0_usize, 0);
    for (index, byte) in bytes.iter().enumerate() {
        len |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            let whole = index + 1 + len;
            return (whole <= bytes.len()).then_some(whole);
        }
    }
    None
}

/// A manifest with workloads that look like such: an image, a command, tags, a dependency.
pub(crate) fn manifest(state: usize, pairs: usize) -> String {
    manifest_with(state, pairs, 0)
}

/// The same, with configs to read in turn. They are not everywhere: an update of a config takes longer among more.
pub(crate) fn manifest_with(state: usize, pairs: usize, configs: usize) -> String {
    let mut text = "apiVersion: v1\nconfigs:\n  speed: \"00000000\"\n".to_owned();
    for index in 0..configs {
        writeln!(text, "  {}: \"00000000\"", shelf(index)).unwrap();
    }
    text.push_str("workloads:\n");
    for index in 0..state {
        writeln!(
            text,
            "  w{index}: {{ runtime: podman, agent: agent_a, restartPolicy: ALWAYS, \
             tags: {{ owner: team-{}, tier: backend }}, \
             runtimeConfig: \"image: registry.example/app-{index}:1.4.2\\n\
             commandArgs: [serve, --port, '{}']\" }}",
            index % 10,
            8000 + index,
        )
        .unwrap();
    }
    for index in 0..pairs {
        writeln!(
            text,
            "  p{index}: {{ runtime: podman, agent: agent_a, runtimeConfig: \"image: p\", \
             controlInterfaceAccess: {{ allowRules: [{{ type: StateRule, \
             operation: ReadWrite, filterMasks: [\"*\"] }}] }} }}"
        )
        .unwrap();
    }
    text
}
