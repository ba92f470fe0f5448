//! The configuration file of `ank-agent`: TOML goes in, checked values come out.
//!
//! A message names file, line and key, and never quotes a value: it may be a private key.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::{
    super::toml_file::{self, Fault, Reader, Value, nearest},
    RUNTIMES,
};
use crate::dial::Pem;

/// The only version of the file that there is.
const VERSION: &str = "v1";

const KEYS: [&str; 13] = [
    "version",
    "name",
    "server_url",
    "run_folder",
    "insecure",
    "ca_pem",
    "crt_pem",
    "key_pem",
    "ca_pem_content",
    "crt_pem_content",
    "key_pem_content",
    "tags",
    "runtimes",
];

/// What a file says; `None` where it says nothing.
#[derive(Debug, Default)]
pub(super) struct Config {
    pub(super) name: Option<String>,
    pub(super) server_url: Option<String>,
    pub(super) run_folder: Option<PathBuf>,
    pub(super) insecure: Option<bool>,
    /// Authority, certificate, key.
    pub(super) pems: [Option<Pem>; 3],
    pub(super) tags: Option<BTreeMap<String, String>>,
    pub(super) runtimes: Option<Vec<String>>,
}

/// Reads a file.
///
/// # Errors
/// A text for the user.
pub(super) fn read(path: &Path) -> Result<Config, String> {
    let named = |error| format!("configuration file {}: {error}", path.display());
    let text = fs::read_to_string(path).map_err(named)?;
    let config = parse(&text).map_err(|fault| fault.of(path))?;
    if matches!(config.pems[2], Some(Pem::Text(_))) {
        let mode = fs::metadata(path).map_err(named)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let path = path.display();
            log::warn!(
                "{path} holds a private key, and others may use it (mode {mode:04o}): chmod 600 it"
            );
        }
    }
    Ok(config)
}

fn parse(text: &str) -> Result<Config, Fault> {
    let (reader, table) = toml_file::parse(text)?;
    let mut config = Config::default();
    let (mut version, mut files, mut contents) = (None, [const { None }; 3], [const { None }; 3]);
    for (key, value) in &table {
        let name = key.get_ref().as_ref();
        match name {
            "version" => version = Some(check_version(&reader, value)?),
            "name" => config.name = Some(reader.string(name, value)?),
            "server_url" => config.server_url = Some(reader.string(name, value)?),
            "run_folder" => config.run_folder = Some(reader.string(name, value)?.into()),
            "insecure" => config.insecure = Some(reader.bool(name, value)?),
            "ca_pem" => files[0] = Some(reader.string(name, value)?),
            "crt_pem" => files[1] = Some(reader.string(name, value)?),
            "key_pem" => files[2] = Some(reader.string(name, value)?),
            "ca_pem_content" => contents[0] = Some(reader.string(name, value)?),
            "crt_pem_content" => contents[1] = Some(reader.string(name, value)?),
            "key_pem_content" => contents[2] = Some(reader.string(name, value)?),
            "tags" => config.tags = Some(tags(&reader, value)?),
            "runtimes" => config.runtimes = Some(runtimes(&reader, value)?),
            unknown => {
                let known = nearest(unknown, &KEYS);
                let text = format!("unknown key `{}`{known}", unknown.escape_debug());
                return Err(reader.fault(key.span().start, text));
            }
        }
    }
    if version.is_none() {
        let text = format!("there is no version: begin the file with version = '{VERSION}'");
        return Err(Fault { line: 0, text });
    }
    for (place, (file, content)) in files.into_iter().zip(contents).enumerate() {
        config.pems[place] = match (file, content) {
            (Some(_), Some(_)) => {
                let key = KEYS[5 + place];
                let text = format!("{key} and {key}_content exclude each other");
                return Err(Fault { line: 0, text });
            }
            (Some(file), None) => Some(Pem::File(file.into())),
            (None, content) => content.map(Pem::Text),
        };
    }
    Ok(config)
}

fn check_version(reader: &Reader<'_>, value: &Value<'_>) -> Result<(), Fault> {
    if reader.string("version", value)? == VERSION {
        return Ok(());
    }
    let text = format!("unknown version of the file, expected '{VERSION}'");
    Err(reader.fault(value.span().start, text))
}

fn tags(reader: &Reader<'_>, value: &Value<'_>) -> Result<BTreeMap<String, String>, Fault> {
    let table = value.get_ref().as_table();
    let table = table.ok_or_else(|| reader.is_no("tags", value, "a table of strings"))?;
    let tags = table.iter().map(|(key, value)| {
        let key = key.get_ref().as_ref();
        Ok((key.to_owned(), reader.string(&format!("tags.{key}"), value)?))
    });
    tags.collect()
}

fn runtimes(reader: &Reader<'_>, value: &Value<'_>) -> Result<Vec<String>, Fault> {
    let array = value.get_ref().as_array();
    let array = array.ok_or_else(|| reader.is_no("runtimes", value, "an array of strings"))?;
    let runtimes = array.iter().map(|value| {
        let name = reader.string("a runtime", value)?;
        if RUNTIMES.contains(&&*name) {
            return Ok(name);
        }
        let known = nearest(&name, &RUNTIMES);
        let text = format!("unknown runtime '{}'{known}", name.escape_debug());
        Err(reader.fault(value.span().start, text))
    });
    runtimes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        let Fault { line, text } = parse(text).unwrap_err();
        format!("{line}: {text}")
    }

    #[test]
    fn every_key_is_read() {
        let config = parse(
            "version = 'v1'\nname = 'agent_B'\nserver_url = 'http://a:1'\nrun_folder = '/r'\n\
             insecure = true\nca_pem = '/ca'\ncrt_pem_content = 'text'\nkey_pem = '/key'\n\
             runtimes = ['podman', 'process']\n[tags]\nplace = 'here'\n'a.b' = ''\n",
        )
        .unwrap();
        assert_eq!(config.name.as_deref(), Some("agent_B"));
        assert_eq!(config.server_url.as_deref(), Some("http://a:1"));
        assert_eq!(config.run_folder.as_deref(), Some(Path::new("/r")));
        assert_eq!(config.insecure, Some(true));
        assert_eq!(format!("{:?}", config.pems), r#"[Some("/ca"), Some(PEM), Some("/key")]"#);
        let tags = [("a.b", ""), ("place", "here")];
        let tags = tags.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(config.tags, Some(tags.into()));
        assert_eq!(config.runtimes, Some(vec!["podman".to_owned(), "process".to_owned()]));
    }

    #[test]
    fn faults_are_told_with_their_line_and_the_nearest_key_and_never_with_a_value() {
        let version = "version = 'v1'\n";
        let cases = [
            ("", "0: there is no version: begin the file with version = 'v1'"),
            ("version = 'v2'", "1: unknown version of the file, expected 'v1'"),
            ("version = 1", "1: version is of the type integer, expected a string"),
            ("\nnmae = 'a'", "2: unknown key `nmae`; name is the nearest"),
            ("\nserver = 'a'", "2: unknown key `server`"),
            (
                "version = 'v1'\ninsecure = 'SECRET'",
                "2: insecure is of the type string, expected true or false",
            ),
            ("[tags]\na = 1", "2: tags.a is of the type integer, expected a string"),
            ("tags = ['SECRET']", "1: tags is of the type array, expected a table of strings"),
            ("runtimes = ['podmann']", "1: unknown runtime 'podmann'; podman is the nearest"),
        ];
        for (text, expected) in cases {
            assert!(fault(text).starts_with(expected), "{text}: {}", fault(text));
        }
        for part in ["ca_pem", "crt_pem", "key_pem"] {
            let text = format!("{version}{part} = '/x'\n{part}_content = 'SECRET'");
            assert_eq!(fault(&text), format!("0: {part} and {part}_content exclude each other"));
        }
        for broken in [
            "key_pem_content = 'SECRET",
            "key_pem_content = SECRET",
            "key_pem_content = \"SECRET\\q\"",
            "key_pem_content = '''SECRET",
            "SECRET SECRET",
            "SECRET\n= 1",
            "key_pem_content = 'a'\nkey_pem_content = 'SECRET'",
            "key_pem_content = 'a' SECRET",
            "key_pem_content = -----BEGIN SECRET",
        ] {
            let text = fault(&format!("{version}{broken}"));
            assert!(!text.contains("SECRET") && text.starts_with(['2', '3']), "{text}");
            assert_eq!(text.lines().count(), 1);
        }
    }
}
