//! Build script: compiles `proto/` with protox, so no system `protoc` is needed.
//!
//! It writes three results to `OUT_DIR`: the Rust types, the file descriptors for the protobuf JSON
//! of `fifogate encode` and `decode`, and the table of message-typed fields. By this table the
//! fields of a frame are counted before it is decoded.

use std::{env, fmt::Write, fs, io, path::PathBuf};

use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorSet};

const FILES: [&str; 3] = ["control_api.proto", "ank_base.proto", "agent_link.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("no OUT_DIR"))?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    fs::write(out.join("message_fields.rs"), message_fields(&descriptors)?)?;
    // Ordered maps: equal messages are encoded to equal bytes. Later versions add reject codes.
    prost_build::Config::new()
        .btree_map(["."])
        // Messages of commanders pass through the agent unopened.
        .bytes([".agent_link"])
        .enum_attribute("agent_link.RejectCode", "#[non_exhaustive]")
        .compile_fds(descriptors)?;
    Ok(())
}

/// Generates the Rust code of the table: for each message type its message-typed fields, as pairs
/// of a field number and the index of the field's type in the table.
fn message_fields(descriptors: &FileDescriptorSet) -> Result<String, Box<dyn std::error::Error>> {
    let mut types = Vec::new();
    for file in &descriptors.file {
        for message in &file.message_type {
            collect(&format!(".{}", file.package()), message, &mut types);
        }
    }
    let place = |name: &str| types.iter().position(|(own, _)| own == name);
    let mut code = "static MESSAGE_FIELDS: &[&[(u64, usize)]] = &[\n".to_owned();
    for (name, message) in &types {
        // Scalars and enums have no index in the table, and are left out.
        let fields = message.field.iter().filter_map(|field| {
            place(field.type_name()).map(|place| format!("({}, {place})", field.number()))
        });
        writeln!(code, "    &[{}], // {name}", fields.collect::<Vec<_>>().join(", "))?;
    }
    let root = place(".control_api.ToAnkaios").ok_or("control_api.proto has no ToAnkaios")?;
    writeln!(code, "];\nconst TO_ANKAIOS: usize = {root};")?;
    Ok(code)
}

fn collect<'a>(
    scope: &str,
    message: &'a DescriptorProto,
    types: &mut Vec<(String, &'a DescriptorProto)>,
) {
    let name = format!("{scope}.{}", message.name());
    message.nested_type.iter().for_each(|nested| collect(&name, nested, types));
    types.push((name, message));
}
