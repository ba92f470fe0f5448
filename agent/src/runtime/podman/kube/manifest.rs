//! The Kubernetes manifest of a workload: the names of its pods, and its text with a pair in it.

use std::{collections::BTreeSet, path::Path, ptr};

use crate::runtime::{
    shim::PAIR,
    yaml::{self, Data, Fault, ScalarKind, Yaml, fault},
};

/// The volume of the pair, as Ankaios names it.
const VOLUME: &str = "control-interface-volume";

/// Kinds whose pods podman makes.
const POD: &str = "Pod";
const DEPLOYMENT: &str = "Deployment";

/// A pod or a deployment of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Named {
    is_deployment: bool,
    name: String,
}

impl Named {
    /// Whether podman gives this name to a pod of it. Versions of podman differ: the pods of a deployment
    /// are `NAME-pod`, or `NAME-pod-0` and on.
    pub(super) fn makes(&self, pod: &str) -> bool {
        if !self.is_deployment {
            return self.name == pod;
        }
        let rest = pod.strip_prefix(&self.name).and_then(|rest| rest.strip_prefix("-pod"));
        rest.is_some_and(|rest| {
            let number = rest.strip_prefix('-');
            let digits = |own: &str| !own.is_empty() && own.bytes().all(|own| own.is_ascii_digit());
            rest.is_empty() || number.is_some_and(digits)
        })
    }

    /// Whether `controlInterfaceTarget` means it by this name.
    fn is_target(&self, pod: &str) -> bool {
        match self.is_deployment {
            true => pod.strip_suffix("-pod") == Some(self.name.as_str()),
            false => self.name == pod,
        }
    }
}

/// Reads the pods and deployments of a manifest.
///
/// # Errors
/// It is no YAML, has none of them, or has two of one name.
pub(super) fn named_in(text: &str) -> Result<Vec<Named>, Fault> {
    yaml::documents(text, |documents| {
        let mut seen = BTreeSet::new();
        for document in documents {
            let Some(named) = named(document) else { continue };
            if !seen.insert(named.clone()) {
                let kind = if named.is_deployment { DEPLOYMENT } else { POD };
                let what = format!("a second {kind} '{}' begins here", named.name);
                return Err(fault(document, &what));
            }
        }
        if seen.is_empty() {
            let what = "it has neither a Pod nor a Deployment with a name".to_owned();
            return Err(Fault { line: 0, column: 0, what, is_over: false });
        }
        Ok(seen.into_iter().collect())
    })
}

/// Whether podman gives this name to a container of a manifest.
pub(super) fn makes_container(text: &str, name: &str) -> bool {
    let made = yaml::documents(text, |documents| {
        let is_made = |document: &Yaml<'_>| {
            let (named, spec) = (named(document)?, spec_of(document)?);
            let lists = ["containers", "initContainers"].map(|key| value_at(spec, key));
            let all = lists.into_iter().flatten().flat_map(|list| match &list.data {
                Data::Sequence(all) => all.as_slice(),
                _ => &[],
            });
            let mut all = all.filter_map(|own| text_at(own, "name"));
            all.find_map(|own| {
                let pod = name.strip_suffix(own)?.strip_suffix('-')?;
                named.makes(pod).then_some(())
            })
        };
        Ok(documents.iter().any(|document| is_made(document).is_some()))
    });
    made.unwrap_or(false)
}

/// The manifest with a pair at a container.
///
/// # Errors
/// The manifest is no YAML, or has no such pod or container.
pub(super) fn with_pair(
    text: &str,
    (pod, container): (&str, &str),
    folder: &Path,
) -> Result<String, Fault> {
    let missing = |what: String| Fault { line: 0, column: 0, what, is_over: false };
    yaml::documents(text, |documents| {
        let is_target = |own: &&Yaml<'_>| named(own).is_some_and(|own| own.is_target(pod));
        let target = documents.iter().find(is_target).ok_or_else(|| {
            missing(format!(
                "controlInterfaceTarget: the manifest has no pod '{pod}' (the pod of a Deployment is \
                 'NAME-pod')"
            ))
        })?;
        let found = spec_of(target).and_then(|spec| Some((spec, container_in(spec, container)?)));
        let (spec, found) = found.ok_or_else(|| {
            missing(format!("controlInterfaceTarget: pod '{pod}' has no container '{container}'"))
        })?;
        let path = serde_json::Value::from(folder.display().to_string());
        let added = [
            Added {
                to: found,
                key: "volumeMounts",
                value: format!("{{name: {VOLUME}, mountPath: {PAIR}}}"),
            },
            Added {
                to: spec,
                key: "volumes",
                value: format!("{{name: {VOLUME}, hostPath: {{path: {path}, type: Directory}}}}"),
            },
        ];
        let mut written = String::new();
        for document in documents {
            written.push_str("---\n");
            write(document, &added, &mut written)?;
            written.push('\n');
        }
        Ok(written)
    })
}

/// A value for the sequence of a key in a mapping. The sequence may be missing.
struct Added<'a> {
    to: &'a Yaml<'a>,
    key: &'static str,
    value: String,
}

fn container_in<'a, 'i>(spec: &'a Yaml<'i>, name: &str) -> Option<&'a Yaml<'i>> {
    let Data::Sequence(containers) = &value_at(spec, "containers")?.data else { return None };
    containers.iter().find(|own| text_at(own, "name") == Some(name))
}

fn named(document: &Yaml<'_>) -> Option<Named> {
    let is_deployment = match text_at(document, "kind")? {
        POD => false,
        DEPLOYMENT => true,
        _ => return None,
    };
    let name = text_at(value_at(document, "metadata")?, "name")?.to_owned();
    Some(Named { is_deployment, name })
}

/// The spec of the pods of a document.
fn spec_of<'a, 'i>(document: &'a Yaml<'i>) -> Option<&'a Yaml<'i>> {
    let spec = value_at(document, "spec")?;
    match named(document)?.is_deployment {
        true => value_at(value_at(spec, "template")?, "spec"),
        false => Some(spec),
    }
}

fn value_at<'a, 'i>(node: &'a Yaml<'i>, key: &str) -> Option<&'a Yaml<'i>> {
    let Data::Mapping(entries) = &node.data else { return None };
    entries.iter().find(|(own, _)| is_key(own, key)).map(|(_, value)| value)
}

fn text_at<'a>(node: &'a Yaml<'_>, key: &str) -> Option<&'a str> {
    match &value_at(node, key)?.data {
        Data::Scalar(scalar) => Some(&scalar.text),
        _ => None,
    }
}

fn is_key(node: &Yaml<'_>, key: &str) -> bool {
    matches!(&node.data, Data::Scalar(scalar) if scalar.text == key)
}

/// Writes JSON, which is YAML; numbers stay as they are written.
fn write(node: &Yaml<'_>, added: &[Added<'_>], to: &mut String) -> Result<(), Fault> {
    match &node.data {
        Data::Scalar(scalar) => match scalar.kind {
            ScalarKind::Text => to.push_str(&serde_json::Value::from(&*scalar.text).to_string()),
            ScalarKind::Null => to.push_str("null"),
            ScalarKind::Boolean | ScalarKind::Number => to.push_str(&scalar.text),
        },
        Data::Sequence(values) => {
            to.push('[');
            for (number, value) in values.iter().enumerate() {
                to.push_str(if number == 0 { "" } else { ", " });
                write(value, added, to)?;
            }
            to.push(']');
        }
        Data::Mapping(entries) => write_mapping(node, entries, added, to)?,
        Data::Bad => return Err(fault(node, "a value in conflict with its tag")),
    }
    Ok(())
}

fn write_mapping(
    node: &Yaml<'_>,
    entries: &[(Yaml<'_>, Yaml<'_>)],
    added: &[Added<'_>],
    to: &mut String,
) -> Result<(), Fault> {
    let new = added.iter().find(|own| ptr::eq(ptr::from_ref(own.to).cast(), ptr::from_ref(node)));
    let mut comma = "";
    to.push('{');
    for (key, value) in entries {
        to.push_str(comma);
        comma = ", ";
        write(key, added, to)?;
        to.push_str(": ");
        if new.is_some_and(|own| is_key(key, own.key)) {
            continue_sequence(value, added, to)?;
        } else {
            write(value, added, to)?;
        }
        if let Some(new) = new.filter(|own| is_key(key, own.key)) {
            to.push_str(&new.value);
            to.push(']');
        }
    }
    if let Some(new) = new
        && !entries.iter().any(|(key, _)| is_key(key, new.key))
    {
        to.push_str(&format!("{comma}\"{}\": [{}]", new.key, new.value));
    }
    to.push('}');
    Ok(())
}

/// Writes a sequence, or null in place of an empty one, up to where another value may follow.
fn continue_sequence(node: &Yaml<'_>, added: &[Added<'_>], to: &mut String) -> Result<(), Fault> {
    to.push('[');
    match &node.data {
        Data::Sequence(values) => {
            for value in values {
                write(value, added, to)?;
                to.push_str(", ");
            }
            Ok(())
        }
        Data::Scalar(scalar) if scalar.kind == ScalarKind::Null => Ok(()),
        _ => Err(fault(node, "expected a sequence")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "kind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  - {name: c, image: i}\n\
                        ---\nkind: Deployment\nmetadata: {name: d}\nspec:\n  template:\n    spec:\n      \
                        volumes: [{name: v}]\n      containers:\n      - {name: c, volumeMounts: \
                        [{name: v, mountPath: /v}]}\n---\nkind: ConfigMap\ndata: {a: '1', b: 0644, n: }\n";

    #[test]
    fn pair_is_added_to_the_container_of_a_pod_or_a_deployment_and_nothing_else_changes() {
        let (pod, deployment, rest) = (
            "---\n{\"kind\": \"Pod\", \"metadata\": {\"name\": \"p\"}, \"spec\": {\"containers\": \
             [{\"name\": \"c\", \"image\": \"i\"",
            "---\n{\"kind\": \"Deployment\", \"metadata\": {\"name\": \"d\"}, \"spec\": {\"template\": \
             {\"spec\": {\"volumes\": [{\"name\": \"v\"}",
            "---\n{\"kind\": \"ConfigMap\", \"data\": {\"a\": \"1\", \"b\": 0644, \"n\": null}}\n",
        );
        let mount = format!("{{name: {VOLUME}, mountPath: {PAIR}}}");
        let volume = format!("{{name: {VOLUME}, hostPath: {{path: \"/f\", type: Directory}}}}");
        let to_pod = with_pair(TEXT, ("p", "c"), Path::new("/f")).unwrap();
        let expected =
            format!("{pod}, \"volumeMounts\": [{mount}]}}], \"volumes\": [{volume}]}}}}\n");
        assert!(to_pod.starts_with(&expected), "{to_pod}");
        assert!(to_pod.contains(deployment) && to_pod.ends_with(rest), "{to_pod}");
        let to_deployment = with_pair(TEXT, ("d-pod", "c"), Path::new("/f")).unwrap();
        for expected in [format!("{deployment}, {volume}]"), format!("\"/v\"}}, {mount}]")] {
            assert!(to_deployment.contains(&expected), "{to_deployment}");
        }
        assert!(named_in(&to_deployment).is_ok(), "it is still YAML");
    }

    #[test]
    fn missing_targets_and_second_documents_of_one_name_are_told() {
        let told = |target| with_pair(TEXT, target, Path::new("/f")).unwrap_err().to_string();
        assert!(told(("x", "c")).contains("no pod 'x'"));
        assert!(told(("d", "c")).contains("no pod 'd'"));
        assert!(told(("p", "x")).contains("pod 'p' has no container 'x'"));
        let twice = format!("{TEXT}---\nkind: Pod\nmetadata: {{name: p}}\n");
        let fault = named_in(&twice).unwrap_err();
        assert_eq!(fault.what, "a second Pod 'p' begins here");
        assert!(named_in("kind: Service\n").unwrap_err().what.contains("neither a Pod nor"));
    }

    #[test]
    fn names_of_the_pods_of_a_deployment_depend_on_the_version_of_podman() {
        let all = named_in(TEXT).unwrap();
        let is_made = |pod| all.iter().any(|own| own.makes(pod));
        for pod in ["p", "d-pod", "d-pod-0", "d-pod-12"] {
            assert!(is_made(pod), "{pod}");
        }
        for pod in ["d", "p-pod", "d-pod-", "d-pod-x", "d-pods", "pp"] {
            assert!(!is_made(pod), "{pod}");
        }
    }

    #[test]
    fn names_of_containers_are_those_of_their_pods_with_their_own() {
        for (name, expected) in [
            ("p-c", true),
            ("d-pod-c", true),
            ("d-pod-0-c", true),
            ("p-x", false),
            ("d-c", false),
            ("pc", false),
            ("x-p-c", false),
            ("c", false),
        ] {
            assert_eq!(makes_container(TEXT, name), expected, "{name}");
        }
        let init = "kind: Pod\nmetadata: {name: p}\nspec: {initContainers: [{name: i}]}\n";
        assert!(makes_container(init, "p-i") && !makes_container(init, "p-c"));
    }
}
