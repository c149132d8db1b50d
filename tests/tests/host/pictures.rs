//! The pictures of the documents: there, small, and of a size that a page shows. What makes each is named by its variable in `docs/testing.md`.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

/// Bytes of a picture at the most.
const MOST_BYTES: usize = 150_000;
/// Name, width and height in pixels.
const PICTURES: [(&str, u32, u32); 2] = [("dashboard.png", 1400, 900), ("top.png", 1350, 540)];

#[test]
fn each_picture_is_a_small_png_that_the_documents_show() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (name, width, height) in PICTURES {
        let bytes = fs::read(root.join("docs/pictures").join(name)).with_context(|| name.to_owned())?;
        ensure!(
            bytes.starts_with(b"\x89PNG\r\n\x1a\n") && bytes.len() < MOST_BYTES,
            "{name}: {}",
            bytes.len()
        );
        // The first chunk of a PNG begins with its width and height.
        let number = |at: usize| bytes[at..at + 4].iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
        ensure!((number(16), number(20)) == (width, height), "{name} is {} x {}", number(16), number(20));
        let shown = fs::read_to_string(root.join("README.md"))?;
        ensure!(shown.contains(&format!("](docs/pictures/{name})")), "README.md does not show {name}");
    }
    Ok(())
}
