//! A root volume that is searched for secrets before an image becomes public.

use sporevm::block::{DiskFormat, Reader};
use sporevm::inspect::secrets;

/// Search the disk of [`super::pv_disk`] with the input's changes in it.
pub fn drive(data: &[u8]) {
    let disk = super::pv_disk::changed(data);
    let reader = Reader::open(vec![(super::file(&disk), DiskFormat::Raw)]).unwrap();
    let mut found = 0;
    let _ = secrets::name(reader, &mut |line| {
        found += 1;
        assert!(!line.is_empty());
    });
    assert!(found <= 100, "{found} secrets");
}

/// As [`super::pv_disk`]'s.
pub fn seeds() -> Vec<Vec<u8>> {
    super::pv_disk::seeds()
}
