//! The last configuration that was applied, kept beside the store: a machine that starts with a mistake in its files is not without a filter.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ConfigSource, LoadedConfig, Sources, validate};

/// Name of the file.
const NAME: &str = "last-good.json";

#[derive(Serialize, Deserialize)]
struct SavedConfig {
    /// In UTC, for people.
    applied: String,
    files: Vec<KeptFile>,
}

#[derive(Serialize, Deserialize)]
struct KeptFile {
    path: PathBuf,
    text: String,
}

/// A configuration that was applied earlier.
#[derive(Debug)]
pub struct LastGood {
    /// What it means.
    pub loaded: LoadedConfig,
    /// When it was applied, for people.
    pub applied: String,
}

/// Where it is, for a store.
#[must_use]
pub fn file(store: &Path) -> PathBuf {
    store.with_file_name(NAME)
}

/// Keeps files that were applied. Those without any text are what an operator attaches with to do without a configuration, and are not kept.
///
/// # Errors
/// When the file can't be written; what was kept before stays.
pub fn keep(store: &Path, sources: &Sources) -> Result<()> {
    if sources.0.iter().all(|source| source.text.trim().is_empty()) {
        return Ok(());
    }
    let files = sources
        .0
        .iter()
        .map(|ConfigSource { path, text }| KeptFile { path: path.clone(), text: text.clone() });
    let applied = Timestamp::now().strftime("%Y-%m-%d %H:%M:%SZ").to_string();
    let text = serde_json::to_string_pretty(&SavedConfig { applied, files: files.collect() })?;
    let path = file(store);
    let new = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        }
        // What a killed one has left goes, also when it is a link.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        // The new name as well outlives a power failure.
        path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    };
    write().with_context(|| format!("writing {}", path.display()))
}

/// What was kept.
///
/// # Errors
/// When nothing was, or what was is damaged or not valid for this version; for people.
pub fn load(store: &Path) -> Result<LastGood> {
    let path = file(store);
    let shown = path.display();
    ensure!(path.exists(), "there is no earlier one: {shown} is written when one is applied");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {shown}"))?;
    let kept: SavedConfig = serde_json::from_str(&text).with_context(|| format!("{shown} is damaged"))?;
    let sources = kept.files.into_iter().map(|KeptFile { path, text }| ConfigSource { path, text }).collect();
    let loaded = validate(Sources(sources), Vec::new())
        .map_err(|invalid| anyhow::anyhow!("{shown} is not valid: {}", invalid.sentences.join("; ")))?;
    Ok(LastGood { loaded, applied: kept.applied })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(text: &str) -> Sources {
        Sources(vec![ConfigSource { path: "/etc/sipguard/sipguard.toml".into(), text: text.to_owned() }])
    }

    #[test]
    fn what_was_kept_is_read_back_and_an_empty_file_does_not_replace_it() {
        let directory = std::env::temp_dir().join(format!("sipguard-last-good-{}", std::process::id()));
        let store = directory.join("new/sipguard.db");
        let none = load(&store).unwrap_err().to_string();
        assert!(none.contains("there is no earlier one"), "{none}");

        keep(&store, &sources("[guard]\nports = [5070]\n")).unwrap();
        keep(&store, &sources(" \n")).unwrap();
        let last = load(&store).unwrap().loaded;
        assert_eq!(last.config.settings.ports, Some(vec![5070]));
        assert_eq!(last.sources.paths(), [Path::new("/etc/sipguard/sipguard.toml")]);

        // As by a version that knew other settings.
        keep(&store, &sources("[guard]\nporst = [5070]\n")).unwrap();
        let error = load(&store).unwrap_err().to_string();
        assert!(error.contains("last-good.json is not valid") && error.contains("porst"), "{error}");
        fs::write(file(&store), "{").unwrap();
        assert!(load(&store).unwrap_err().to_string().contains("is damaged"));
        fs::remove_dir_all(directory).unwrap();
    }
}
