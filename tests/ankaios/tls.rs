//! Mutual TLS between all programs of a cluster.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::json;
use tempfile::TempDir;
use testkit::{Podman, wait_for};

use crate::{
    cluster::Cluster,
    manifest::{LIVES, Workload, manifest},
};

/// Makes `ca.pem`, and `NAME.pem` with `NAME.key` for each file and the name in it. The server of Ankaios wants
/// extensions in each certificate.
fn certificates(folder: &Path, names: &[(&str, &str)]) {
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let write = |file: String, text: String, mode| {
        let path = folder.join(file);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    };
    write("ca.pem".to_owned(), params.self_signed(&key).unwrap().pem(), 0o644);
    let issuer = Issuer::new(params, key);
    for (file, name) in names {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let params = CertificateParams::new(vec![(*name).to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        write(format!("{file}.pem"), certificate.pem(), 0o644);
        write(format!("{file}.key"), key.serialize_pem(), 0o600);
    }
}

fn pems(folder: &Path, name: &str) -> [PathBuf; 3] {
    ["ca.pem".to_owned(), format!("{name}.pem"), format!("{name}.key")].map(|own| folder.join(own))
}

fn cluster(names: &[(&str, &str)], manifest: &str) -> Option<Cluster> {
    let dir = tempfile::tempdir().unwrap();
    let all = [&[("ank-server", "ank-server"), ("operator", "operator")], names].concat();
    certificates(dir.path(), &all);
    secure(dir, manifest)
}

fn secure(dir: TempDir, manifest: &str) -> Option<Cluster> {
    Cluster::with(dir, Some(pems), manifest)
}

#[test]
fn agents_of_both_kinds_join_by_mutual_tls() {
    let text = manifest(
        [
            ("mine", Workload::process("ours", LIVES).spoken_for()),
            ("theirs", Workload::container("real", LIVES)),
        ],
        &json!({}),
    );
    let Some(cluster) = cluster(&[("ours", "ours"), ("real", "real")], &text) else { return };
    let Some(podman) = Podman::new() else { return };
    let (ours, _real) = (cluster.ours("ours", &[]), cluster.real("real", &podman));
    cluster.until("ours", "mine", "Running(Ok)");
    cluster.until("real", "theirs", "Running(Ok)");
    ours.speak("mine", "set", &["desiredState.configs.a=b"]).good();
    assert_eq!(cluster.state()["desiredState"]["configs"], json!({"a": "b"}));
}

#[test]
fn an_agent_with_the_certificate_of_another_is_not_taken_and_says_why() {
    let names = [("ours", "somebody"), ("any", "*")];
    let Some(cluster) = cluster(&names, &manifest([], &json!({}))) else { return };
    let ours = cluster.start_ours("ours", &[], &[]);
    wait_for("word of it", || ours.log().contains("does not match SAN").then_some(()));
    assert!(ours.log().contains("somebody"), "{}", ours.log());
    assert_eq!(cluster.state()["agents"].get("ours"), None);
    // The server takes a certificate for any name.
    let _any = cluster.ours("any", &[]);
}
