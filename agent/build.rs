//! Build script: compiles the command interface, `proto/grpc_api.proto`.
//!
//! The messages of the state and of requests are those of fifogate. The services are generated around
//! types of our own (`src/command_interface/wire.rs`): the server passes encoded responses on unopened.

use std::{env, io, path::PathBuf};

use tonic_build::manual::{Builder, Method, Service};

const CODEC: &str = "tonic_prost::ProstCodec";

/// The two services, with their method and its name in Rust.
const SERVICES: [[&str; 3]; 2] = [
    ["CommandConnection", "ConnectCommand", "connect_command"],
    ["CliConnection", "ConnectCli", "connect_cli"],
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=../proto");
    let descriptors = protox::compile(["grpc_api.proto"], ["../proto"])?;
    // Ordered maps, as in fifogate's own types.
    prost_build::Config::new()
        .btree_map(["."])
        .extern_path(".ank_base", "::fifogate::pb::ank_base")
        .compile_fds(descriptors)?;
    let out = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("no OUT_DIR"))?;
    let wire = "crate::command_interface::wire";
    let [from, to] = [format!("{wire}::FromCommander"), format!("{wire}::ToCommander")];
    let api = "crate::command_interface::api";
    let [to_server, from_server] = [format!("{api}::ToServer"), format!("{api}::FromServer")];
    for (folder, is_server, input, output) in
        [("server", true, from, to), ("client", false, to_server, from_server)]
    {
        let folder = PathBuf::from(&out).join(folder);
        std::fs::create_dir_all(&folder)?;
        let services = SERVICES.map(|[name, route, method]| {
            let method = Method::builder()
                .name(method)
                .route_name(route)
                .input_type(&input)
                .output_type(&output)
                .codec_path(CODEC)
                .client_streaming()
                .server_streaming()
                .build();
            Service::builder().package("grpc_api").name(name).method(method).build()
        });
        let builder = Builder::new().build_server(is_server).build_client(!is_server);
        builder.out_dir(folder).compile(&services);
    }
    Ok(())
}
