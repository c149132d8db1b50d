//! What the fuzz targets found once, replayed: the corpus and every regression.

use std::fs;
use std::path::Path;

/// Replays what is in a directory; how many files that were.
fn replay(directory: &Path, target: fn(&[u8])) -> usize {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let mut count = 0;
    for entry in entries {
        let path = entry.expect("the inputs can be listed").path();
        // Of a test that fails, the last line names the input.
        println!("{}", path.display());
        target(&fs::read(&path).expect("an input can be read"));
        count += 1;
    }
    count
}

#[test]
fn the_corpus_and_every_regression_pass() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, target) in sipguard_fuzz::TARGETS {
        assert!(replay(&here.join("corpus").join(name), target) > 0, "the corpus of {name} is empty");
        replay(&here.join("regressions").join(name), target);
    }
}
