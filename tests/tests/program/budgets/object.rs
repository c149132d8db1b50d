//! What the object declares, compared with the lists of it that the sources have.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use aya_obj::Object;
use sipguard_common::abi::{ABI_VERSION, names};
use sipguard_object::OBJECT;

use super::calls::Calls;

/// Maps of the object, without the sections of global data that the loader makes maps of.
fn maps(object: &Object) -> BTreeSet<&str> {
    object.maps.keys().map(String::as_str).filter(|name| !name.starts_with('.')).collect()
}

#[test]
fn the_list_of_maps_is_that_of_the_object() -> Result<()> {
    let object = Object::parse(OBJECT)?;
    let listed: BTreeSet<&str> = names::MAPS.iter().copied().collect();
    assert_eq!(listed.len(), names::MAPS.len(), "a map is listed twice");
    let declared = maps(&object);
    let missing: Vec<_> = declared.difference(&listed).collect();
    assert!(missing.is_empty(), "{missing:?} are missing in names::MAPS");
    let unknown: Vec<_> = listed.difference(&declared).collect();
    assert!(unknown.is_empty(), "{unknown:?} of names::MAPS are no maps of the object");
    Ok(())
}

/// Type, sizes and entries of each map belong to the ABI: pinned maps are used again by the next version of the program.
#[test]
fn the_maps_change_with_the_abi_version_only() -> Result<()> {
    let object = Object::parse(OBJECT)?;
    let mut now = String::new();
    // Without the work space of the program: no other program reads it.
    for name in maps(&object).into_iter().filter(|name| *name != names::SCRATCH) {
        let map = &object.maps[name];
        let (kind, key, value) = (map.map_type(), map.key_size(), map.value_size());
        writeln!(now, "{name} type {kind} key {key} value {value} entries {}", map.max_entries())?;
    }
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sipguard-common/abi");
    let path = directory.join(format!("maps-{ABI_VERSION}.txt"));
    if std::env::var_os("SIPGUARD_WRITE_ABI").is_some() && !path.exists() {
        std::fs::write(&path, &now)?;
    }
    let committed = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    for (now, committed) in now.lines().zip(committed.lines()) {
        assert_eq!(now, committed, "{}: raise ABI_VERSION", path.display());
    }
    assert_eq!(now.lines().count(), committed.lines().count(), "{}: raise ABI_VERSION", path.display());
    Ok(())
}

/// Functions that every BPF object of this compiler has and that no program calls.
const UNCALLED: [&str; 3] = ["memcpy", "memmove", "memset"];

/// A function that no program reaches is in no budget of the stack.
#[test]
fn every_function_is_in_the_budget_of_the_stack() -> Result<()> {
    let calls = Calls::read(OBJECT)?;
    let mut missing = calls.unreached(&super::PROGRAMS)?;
    missing.retain(|name| !UNCALLED.contains(name));
    assert!(missing.is_empty(), "{missing:?} are called by none of {:?}", super::PROGRAMS);
    Ok(())
}
