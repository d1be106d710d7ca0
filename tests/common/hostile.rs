//! The guest that attacks its devices.

use super::Store;
use std::path::{Path, PathBuf};

#[path = "../../images/demo/compile.rs"]
mod compile;

/// Builds it in the store's directory.
pub fn build(store: &Store) -> PathBuf {
    let elf = store.home().join("hostile.elf");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let main = root.join("tests/guests/hostile/main.rs");
    compile::compile(&rustc, &main, &root.join("images/demo/guest.ld"), &elf).unwrap();
    elf
}
