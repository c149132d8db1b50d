//! The bill of materials: CycloneDX 1.6 (<https://cyclonedx.org/docs/1.6/json/>), with the crates that are linked in, as `Cargo.lock` has them.

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::{
    lock::Lock,
    tree::{Id, Package, Tree},
};

/// The bill of a program of this version.
///
/// # Errors
/// When the lock has another version or no sum of a crate that is linked in.
pub fn of(tree: &Tree, version: &str, lock: &Lock) -> Result<String> {
    let root = tree.find("sipguard")?;
    let others = tree.0.iter().filter(|(id, _)| **id != root);
    let components = others.map(|(id, package)| component(id, package, lock)).collect::<Result<Vec<_>>>()?;
    let dependencies: Vec<Value> = tree
        .0
        .iter()
        .map(|(id, package)| json!({"ref": reference(id), "dependsOn": package.uses.iter().map(reference).collect::<Vec<_>>()}))
        .collect();
    let bill = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {
            "type": "application",
            "bom-ref": reference(&root),
            "name": root.0,
            "version": version,
            "licenses": [{"expression": tree.0[&root].licence}],
        }},
        "components": components,
        "dependencies": dependencies,
    });
    Ok(format!("{}\n", serde_json::to_string_pretty(&bill)?))
}

fn component(id: &Id, package: &Package, lock: &Lock) -> Result<Value> {
    let (name, version) = id;
    let sum = lock.get(id).with_context(|| format!("Cargo.lock has no {name} {version}"))?;
    let mut component = json!({
        "type": "library",
        "bom-ref": reference(id),
        "name": name,
        "version": version,
        // Older crates write `/` for `OR`.
        "licenses": [{"expression": package.licence.replace('/', " OR ")}],
    });
    match (package.from_registry, sum) {
        (true, Some(sum)) => {
            component["purl"] = json!(reference(id));
            component["hashes"] = json!([{"alg": "SHA-256", "content": sum}]);
        }
        (false, None) => {}
        _ => bail!("Cargo.lock has another origin of {name} {version} than cargo"),
    }
    Ok(component)
}

/// The package URL (<https://github.com/package-url/purl-spec>).
fn reference((name, version): &Id) -> String {
    format!("pkg:cargo/{name}@{version}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        command::root,
        dist::{architecture::Architecture, lock},
    };

    /// What `Cargo.lock` says of a package, read otherwise than `lock.rs` does: each line of it is looked for.
    fn is_locked(text: &str, name: &str, version: &str, sum: Option<&str>) -> bool {
        let begin = format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n");
        let Some(at) = text.find(&begin) else { return false };
        let package = &text[at..];
        let package = package.find("\n\n").map_or(package, |end| &package[..end]);
        match sum {
            Some(sum) => package.contains(&format!("checksum = \"{sum}\"")),
            None => !package.contains("checksum"),
        }
    }

    #[test]
    fn the_bill_agrees_with_the_lock() {
        let lock = lock::read().unwrap();
        let text = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
        for architecture in [Architecture::Amd64, Architecture::Arm64] {
            let tree = Tree::of(architecture).unwrap();
            let bill: Value = serde_json::from_str(&of(&tree, "0.1.0", &lock).unwrap()).unwrap();
            let components = bill["components"].as_array().unwrap();
            let mut versions = BTreeMap::new();
            for component in components {
                let word = |key: &str| component[key].as_str().unwrap();
                let sum = component["hashes"][0]["content"].as_str();
                assert!(is_locked(&text, word("name"), word("version"), sum), "{component}");
                versions.insert(word("name"), sum.is_some());
            }
            // Of each part one that only it uses: loader, store, service, programs; and nothing of the tests.
            for (name, of_registry) in [
                ("aya", true),
                ("rusqlite", true),
                ("hyper", true),
                ("aya-ebpf", true),
                ("sipguard-ebpf", false),
            ] {
                assert_eq!(versions.get(name), Some(&of_registry), "{name}");
            }
            assert!(!versions.contains_key("proptest") && !versions.contains_key("sipguard-tests"));
            // Whoever is named is there.
            for dependency in bill["dependencies"].as_array().unwrap() {
                for name in dependency["dependsOn"].as_array().unwrap() {
                    assert!(components.iter().any(|component| component["bom-ref"] == *name), "{name}");
                }
            }
        }
    }

    #[test]
    fn what_the_lock_does_not_have_is_refused() {
        let tree = Tree::of(Architecture::Amd64).unwrap();
        let mut lock = lock::read().unwrap();
        let aya = tree.find("aya").unwrap();
        lock.insert(aya.clone(), None);
        assert!(of(&tree, "0.1.0", &lock).unwrap_err().to_string().contains("another origin of aya"));
        lock.remove(&aya);
        assert!(of(&tree, "0.1.0", &lock).unwrap_err().to_string().contains("Cargo.lock has no aya"));
    }
}
