//! The configuration files that are wrong, each in its own way: `tests/configurations/*.toml`.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

/// Paths of the files, by name.
///
/// # Errors
/// When the directory can't be read, or has suspiciously few files.
pub fn broken() -> Result<Vec<PathBuf>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("configurations");
    let mut paths =
        std::fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.sort();
    ensure!(paths.len() >= 20, "only {} configurations", paths.len());
    Ok(paths)
}
