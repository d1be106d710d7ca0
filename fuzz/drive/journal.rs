//! A journal of events, which another account may have written.

use std::sync::OnceLock;

/// A store whose journal is the input.
pub fn drive(data: &[u8]) {
    static HOME: OnceLock<(tempfile::TempDir, sporevm::store::Store)> = OnceLock::new();
    let (_, store) = HOME.get_or_init(|| {
        let home = tempfile::tempdir().unwrap();
        let store = sporevm::store::Store::open_at(&home.path().join("s")).unwrap();
        (home, store)
    });
    let dir = store.account_dir();
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("journal.jsonl"), data).unwrap();
    let lines = data.split(|&byte| byte == b'\n').count();
    let entries = store.entries().unwrap();
    assert!(entries.len() <= lines.max(1 + data.len() / 1000), "{} entries", entries.len());
    let _ = sporevm::service::usage::report(store);
}

/// What a store with the built-in image has.
pub fn seeds() -> Vec<Vec<u8>> {
    let home = tempfile::tempdir().unwrap();
    let store = sporevm::store::Store::open_at(&home.path().join("s")).unwrap();
    sporevm::image::builtin::ensure(&store, "demo").unwrap();
    vec![std::fs::read(store.account_dir().join("journal.jsonl")).unwrap()]
}
