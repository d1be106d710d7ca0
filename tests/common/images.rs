//! Images of a store as EC2 describes them, what the store has of them, and how it refuses.

use super::Store;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Output;

/// EC2's description of an image.
pub fn show(store: &Store, image: &str) -> Value {
    let all: Value =
        serde_json::from_str(&store.ok(&["image", "show", image, "-o", "json"])).unwrap();
    all["Images"][0].clone()
}

/// The first snapshot of an image that is described so.
pub fn snapshot_of(image: &Value) -> String {
    image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"].as_str().unwrap().to_owned()
}

/// The file of an image's first snapshot, which is as its digest says.
pub fn data(store: &Store, image: &str) -> PathBuf {
    let id = snapshot_of(&show(store, image));
    store.ok(&["snapshot", "verify", &id]);
    store.home().join("snapshots").join(id).join("data")
}

/// All objects that make images, and what is unfinished.
pub fn objects(store: &Store) -> Vec<PathBuf> {
    let list = |kind| fs::read_dir(store.home().join(kind)).unwrap().map(|e| e.unwrap().path());
    let kinds = ["images", "snapshots", "kernels", "ramdisks", "tmp"];
    let mut all: Vec<PathBuf> = kinds.into_iter().flat_map(list).collect();
    all.sort();
    all
}

/// What a command said on its standard error.
pub fn error_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Find a command refused with this code, in one line, which is given.
#[track_caller]
pub fn refusal(output: &Output, code: &str) -> String {
    let error = error_of(output);
    assert!(error.starts_with(&format!("spore: {code}: ")), "{error:?}");
    assert_eq!(error.lines().count(), 1, "{error:?}");
    assert_eq!(output.status.code(), Some(1), "{error:?}");
    error
}

/// `spore ARGS` is refused.
#[track_caller]
pub fn refused(store: &Store, args: &[&str], code: &str) -> String {
    refusal(&store.spore(args), code)
}

/// Content that nothing compresses.
pub fn noise(bytes: &mut [u8], seed: u64) {
    let mut state = seed;
    for word in bytes.chunks_exact_mut(8) {
        // Knuth's MMIX generator.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        word.copy_from_slice(&state.to_le_bytes());
    }
}
