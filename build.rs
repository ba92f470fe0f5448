//! Compiles `proto/` without a system `protoc`: Rust types for the component, and the descriptors
//! from which `fifogate encode` and `decode` translate protobuf JSON.

use std::{env, fs, io, path::PathBuf};

use prost::Message;

const FILES: [&str; 3] = ["control_api.proto", "ank_base.proto", "agent_link.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("no OUT_DIR"))?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    prost_build::Config::new().btree_map(["."]).compile_fds(descriptors)?;
    Ok(())
}
