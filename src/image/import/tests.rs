use super::*;
use std::io::Write;
use std::os::unix::fs::FileExt;

/// 5 MiB and a bit with data in three places.
fn sample() -> Vec<u8> {
    let mut bytes = vec![0; (5 << 20) + 1536];
    for (at, seed) in [(0, 7u32), ((3 << 20) - 100, 99), ((5 << 20) + 512, 3)] {
        let mut state = seed;
        for byte in &mut bytes[at..at + 1000] {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (state >> 24) as u8;
        }
    }
    bytes
}

fn bring(bytes: &[u8], options: &Options) -> Result<(Imported, Vec<u8>)> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("source");
    std::fs::write(&path, bytes).unwrap();
    let target = dir.path().join("target");
    std::fs::create_dir(&target).unwrap();
    let imported = import(&Source::Path(path), &target, options)?;
    let data = std::fs::read(target.join(DATA)).unwrap();
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), 1, "only the disk stays");
    Ok((imported, data))
}

#[test]
fn compressed_and_plain_disks_arrive_alike() {
    let disk = sample();
    let (plain, data) = bring(&disk, &Options::default()).unwrap();
    assert_eq!(data, disk);
    assert_eq!(plain.size_bytes, disk.len() as u64);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&disk).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&disk).unwrap();
    let zstd = zstd::encode_all(&disk[..], 1).unwrap();
    for packed in [gzip.finish().unwrap(), xz.finish().unwrap(), zstd] {
        let (imported, data) = bring(&packed, &Options::default()).unwrap();
        assert_eq!(data, disk);
        assert_eq!(imported, plain);
        let cut = bring(&packed[..packed.len() - 20], &Options::default());
        assert!(cut.is_err(), "a truncated stream is not a disk");
    }
}

#[test]
fn half_a_sector_is_made_whole() {
    let (imported, data) = bring(&[1; 700], &Options::default()).unwrap();
    assert_eq!(imported.size_bytes, 1024);
    assert_eq!(data[..700], [1; 700]);
    assert_eq!(data[700..], [0; 324]);
}

#[test]
fn what_cannot_be_imported_is_named() {
    let none = bring(&[], &Options::default()).unwrap_err();
    assert!(none.to_string().contains("empty"), "{none}");
    let dir = tempfile::tempdir().unwrap();
    let options = Options::default();
    let directory = import(&Source::Path(dir.path().into()), dir.path(), &options).unwrap_err();
    assert!(directory.to_string().contains("directory"), "{directory}");
    let absent = Source::Path(dir.path().join("absent"));
    let absent = import(&absent, dir.path(), &options).unwrap_err();
    assert!(absent.to_string().contains("No such file"), "{absent}");
}

#[test]
fn a_sparse_disk_stays_sparse() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("source");
    let source = File::create(&path).unwrap();
    source.set_len(8 << 30).unwrap();
    source.write_all_at(b"spore", 6 << 30).unwrap();
    let target = dir.path().join("target");
    std::fs::create_dir(&target).unwrap();
    let imported = import(&Source::Path(path), &target, &Options::default()).unwrap();
    assert_eq!(imported.size_bytes, 8 << 30);
    let metadata = std::fs::metadata(target.join(DATA)).unwrap();
    assert!(metadata.blocks() * 512 <= 64 << 10, "{} blocks", metadata.blocks());
}
