//! Build script: compiles `proto/grpc_api.proto`; `proto` is a link, so that the package has a copy.
//!
//! The messages of the state and of requests are those of fifogate. The services of the
//! command interface are generated around types of our own (`src/command_interface/wire.rs`): it passes encoded
//! responses on unopened.

use std::{env, io, path::PathBuf};

use tonic_build::manual::{Builder, Method, Service};

const CODEC: &str = "tonic_prost::ProstCodec";

/// A service with its method, and that one's name in Rust.
type Connection = [&'static str; 3];

const COMMAND: Connection = ["CommandConnection", "ConnectCommand", "connect_command"];
const CLI: Connection = ["CliConnection", "ConnectCli", "connect_cli"];
const AGENT: Connection = ["AgentConnection", "ConnectAgent", "connect_agent"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["grpc_api.proto"], ["proto"])?;
    // Ordered maps, as in fifogate's own types.
    prost_build::Config::new()
        .btree_map(["."])
        .extern_path(".ank_base", "::fifogate::pb::ank_base")
        .compile_fds(descriptors)?;
    let out = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("no OUT_DIR"))?;
    let wire = "crate::command_interface::wire";
    let [from, to] = [format!("{wire}::FromCommander"), format!("{wire}::ToCommander")];
    let api = "crate::grpc_api";
    let [to_server, from_server] = [format!("{api}::ToServer"), format!("{api}::FromServer")];
    for (folder, services, input, output) in
        [("server", [COMMAND, CLI], from, to), ("client", [COMMAND, AGENT], to_server, from_server)]
    {
        let is_server = folder == "server";
        let folder = PathBuf::from(&out).join(folder);
        std::fs::create_dir_all(&folder)?;
        let services = services.map(|[name, route, method]| {
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
