//! `make install`, `make uninstall`, and the archive of `make tarball`. Scripts stand for the built programs, and
//! call those of the tests: nothing is built, and little is packed.

use std::{
    collections::BTreeSet,
    env, fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use testkit::{fifogate, fifogate_agent, repository};

use super::debian::run;

const GLIBC: &str = "x86_64-unknown-linux-gnu";
const MUSL: &str = "x86_64-unknown-linux-musl";

/// What makes an archive, beside Rust and a compiler of C.
const TOOLS: [&str; 13] = [
    "cut", "dirname", "grep", "install", "mkdir", "rm", "sed", "sh", "sort", "tail", "tar", "tr",
    "xz",
];

/// Configuration, which is below /etc.
const CONFIGURATION: [&str; 2] = ["fifogate/agent.toml", "fifogate/manifest.yaml"];

/// The documented files below the prefix (docs/operations.md#install).
fn documented() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for name in ["fifogate", "fifogate-agent"] {
        all.extend([
            format!("bin/{name}"),
            format!("lib/systemd/system/{name}.service"),
            format!("share/bash-completion/completions/{name}"),
            format!("share/fish/vendor_completions.d/{name}.fish"),
            format!("share/man/man1/{name}.1"),
            format!("share/zsh/site-functions/_{name}"),
        ]);
    }
    for name in ["README.md", "ARCHITECTURE.md", "SECURITY.md", "CHANGELOG.md", "LICENSE"] {
        all.insert(format!("share/doc/fifogate/{name}"));
    }
    for (folder, kind, to) in [
        ("proto", "proto", "share/fifogate"),
        ("docs", "md", "share/doc/fifogate"),
        ("docs", "svg", "share/doc/fifogate"),
        ("docs", "png", "share/doc/fifogate"),
        ("docs/tutorials", "md", "share/doc/fifogate"),
    ] {
        let own = files(&repository().join(folder)).into_iter().filter(|own| !own.contains('/'));
        let own = own.filter(|own| own.ends_with(&format!(".{kind}")));
        all.extend(own.map(|own| format!("{to}/{folder}/{own}")));
    }
    all
}

/// All files below a folder.
fn files(folder: &Path) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mut left = vec![folder.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                all.insert(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    all
}

fn script(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Makes a folder of built programs, which need these versions of glibc.
fn build(folder: &Path) {
    for (program, needs) in [(fifogate(), "GLIBC_2.9"), (fifogate_agent(), "GLIBC_2.17 GLIBC_2.34")]
    {
        let name = Path::new(program).file_name().unwrap();
        script(&folder.join(name), &format!("# {needs}\nexec '{program}' \"$@\""));
    }
}

/// Checks what was installed by a prefix below a root.
fn check_installed(root: &Path, prefix: &str) {
    let own = root.join(prefix.trim_start_matches('/'));
    assert_eq!(files(&own), documented());
    assert_eq!(files(&root.join("etc")), CONFIGURATION.map(str::to_owned).into());
    for name in documented() {
        let file = fs::metadata(own.join(&name)).unwrap();
        let mode = if name.starts_with("bin/") { 0o755 } else { 0o644 };
        assert!(file.permissions().mode() & 0o7777 == mode && file.len() > 0, "{name}");
    }
    for name in ["fifogate", "fifogate-agent"] {
        let unit = own.join(format!("lib/systemd/system/{name}.service"));
        let unit = fs::read_to_string(unit).unwrap();
        assert!(unit.contains(&format!("ExecStart={prefix}/bin/{name} ")), "{unit}");
        let version = run(Command::new(own.join("bin").join(name)).arg("--version"));
        assert!(version.starts_with(&format!("{name} ")), "{version}");
    }
}

#[test]
fn make_installs_the_documented_files_and_removes_them_but_no_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let (target, root) = (folder.path().join("target"), folder.path().join("a root"));
    build(&target.join("release"));
    let make = |goal: &str| {
        let mut make = Command::new("make");
        make.current_dir(repository()).args([goal, "CARGO=true", "PREFIX=/opt/own"]);
        make.arg(format!("TARGET={}", target.display()));
        make.arg(format!("DESTDIR={}", root.display()));
        // Of a `make test` around the tests.
        run(make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL"))
    };
    make("install");
    check_installed(&root, "/opt/own");
    let own = root.join("opt/own");
    let configured = root.join("etc").join(CONFIGURATION[0]);
    fs::write(&configured, "mine").unwrap();
    make("install");
    assert_eq!(fs::read_to_string(&configured).unwrap(), "mine");
    fs::write(own.join("bin/other"), "").unwrap();
    make("uninstall");
    assert_eq!(files(&own), ["bin/other".to_owned()].into());
    for folder in ["share/fifogate", "share/doc/fifogate"] {
        assert!(!own.join(folder).exists(), "{folder}");
    }
    assert_eq!(fs::read_to_string(&configured).unwrap(), "mine");
    assert_eq!(files(&root.join("etc")).len(), CONFIGURATION.len());
}

/// A machine on which the archive is made.
struct Machine {
    /// Has Rust's target for musl.
    has_target: bool,
    has_musl_gcc: bool,
}

/// Makes an archive there, and installs what is in it; returns the arguments of cargo and the text for users.
fn archive(machine: &Machine, name: &str) -> (String, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    build(&path("target/release"));
    build(&path("target").join(MUSL).join("release"));
    fs::create_dir(path("output")).unwrap();
    fs::create_dir(path("bin")).unwrap();
    let folders = env::var_os("PATH").unwrap();
    for tool in TOOLS {
        let mut found = env::split_paths(&folders).map(|own| own.join(tool));
        symlink(found.find(|own| own.exists()).unwrap(), path("bin").join(tool)).unwrap();
    }
    let libraries = path(if machine.has_target { "bin" } else { "missing" });
    let rustc = format!("[ $1 = -vV ] && echo 'host: {GLIBC}' || echo {}", libraries.display());
    script(&path("bin/rustc"), &rustc);
    script(&path("bin/cargo"), &format!("echo \"$@\" > {}", path("cargo").display()));
    if machine.has_musl_gcc {
        script(&path("bin/musl-gcc"), "exit 1");
    }
    let mut make = Command::new(repository().join("contrib/tarball/build.sh"));
    make.arg(path("output")).env("PATH", path("bin")).env("CARGO_TARGET_DIR", path("target"));
    let said = run(&mut make);
    let version = env!("CARGO_PKG_VERSION");
    let own = format!("fifogate-{version}-{name}");
    assert_eq!(files(&path("output")), [format!("{own}.tar.xz")].into(), "{said}");
    let packed: PathBuf = path("output").join(format!("{own}.tar.xz"));
    run(Command::new("tar").arg("--extract").arg("--file").arg(packed).current_dir(folder.path()));
    let mut install = Command::new(path(&own).join("install.sh"));
    run(install.env("DESTDIR", path("root")).env("PREFIX", "/usr"));
    check_installed(&path("root"), "/usr");
    let text = fs::read_to_string(path(&own).join("INSTALL")).unwrap();
    (fs::read_to_string(path("cargo")).unwrap(), text)
}

#[test]
fn archive_is_static_where_musl_is_and_says_elsewhere_which_glibc_it_needs() {
    for (has_target, has_musl_gcc) in [(true, true), (true, false), (false, true)] {
        let machine = Machine { has_target, has_musl_gcc };
        let is_static = has_target && has_musl_gcc;
        let (arguments, text) = archive(&machine, if is_static { MUSL } else { GLIBC });
        assert_eq!(arguments.contains(&format!("--target {MUSL}")), is_static, "{arguments}");
        let needs = if is_static { "nothing else" } else { "GLIBC_2.34 or newer" };
        assert!(text.contains(needs), "{text}");
    }
}
