//! File systems made by mke2fs and left unclean by debugfs, read here and, once replayed by e2fsck,
//! there.

use super::bytes::crc32c;
use super::journal::Journal;
use super::{Error, Ext4, Kind};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;

/// Run a program of e2fsprogs; `codes` are those that it may end with.
fn run(program: &str, args: &[&str], codes: &[i32]) -> String {
    let mut command = Command::new(program);
    command.args(args).env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
    let done = command.output().unwrap();
    let said = [done.stdout, done.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(codes.contains(&done.status.code().unwrap()), "{program} {args:?}: {said:?}");
    said.concat()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// debugfs, by a script: it has no other way to give several commands that end with the first that
/// fails.
fn debugfs(dir: &Path, image: &Path, commands: &[String]) {
    let script = dir.join("script");
    std::fs::write(&script, commands.join("\n") + "\n").unwrap();
    let said = run("debugfs", &["-w", "-f", text(&script), text(image)], &[0]);
    let wrong = |line: &str| {
        line.contains(": ") && !line.starts_with("debugfs") && !line.contains("Allocated inode")
    };
    assert!(!said.lines().any(wrong), "{said}");
}

fn open(image: &[u8]) -> Ext4 {
    let image: Rc<[u8]> = image.into();
    let read = move |bytes: &mut [u8], at: u64| {
        let found = image.get(at as usize..).and_then(|rest| rest.get(..bytes.len()));
        bytes.copy_from_slice(found.ok_or(std::io::ErrorKind::UnexpectedEof)?);
        Ok(())
    };
    Ext4::open(Box::new(read)).unwrap()
}

/// All that a file system has: paths with their content.
fn all(ext4: &Ext4) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut pending = vec![(String::new(), ext4.root().unwrap())];
    while let Some((parent, directory)) = pending.pop() {
        ext4.list(directory, &mut |name, stat| {
            let path = format!("{parent}/{}", String::from_utf8_lossy(name));
            match stat.kind {
                Kind::Directory => pending.push((path, stat)),
                Kind::File => drop(found.insert(path.clone(), ext4.read(&path, 1 << 24).unwrap())),
                _ => {}
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    }
    found
}

fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|n| (n / 7) as u8 ^ seed ^ (n >> 12) as u8).collect()
}

/// mke2fs with these options, over a tree with files of each length that matters.
fn made(dir: &Path, options: &[&str]) -> Vec<u8> {
    let (tree, image) = (dir.join("tree"), dir.join("made"));
    std::fs::create_dir_all(tree.join("d/e")).unwrap();
    for (name, content) in [
        ("old", b"old".to_vec()),
        ("empty", Vec::new()),
        ("tiny", pattern(50, 1)),
        ("small", pattern(100, 1)),
        ("d/large", pattern(700_000, 2)),
        ("d/e/gone", b"gone".to_vec()),
    ] {
        std::fs::write(tree.join(name), content).unwrap();
    }
    for n in 0..200 {
        std::fs::write(tree.join(format!("d/e/a-name-that-is-longer-than-most-{n}")), b"").unwrap();
    }
    std::os::unix::fs::symlink("../d/large", tree.join("d/link")).unwrap();
    std::os::unix::fs::symlink("/d/./link/../link", tree.join("second")).unwrap();
    std::os::unix::fs::symlink(format!("{}d/large", "./".repeat(100)), tree.join("long")).unwrap();
    std::os::unix::fs::symlink("circle", tree.join("circle")).unwrap();
    let more = ["-q", "-F", "-d", text(&tree), text(&image), "16M"];
    run("mke2fs", &[options, &more].concat(), &[0]);
    std::fs::read(image).unwrap()
}

/// What e2fsck makes of it, which replays the journal as the kernel does.
fn checked(dir: &Path, image: &[u8]) -> Vec<u8> {
    let path = dir.join("checked");
    std::fs::write(&path, image).unwrap();
    run("e2fsck", &["-f", "-y", text(&path)], &[0, 1]);
    std::fs::read(path).unwrap()
}

#[test]
fn file_systems_of_all_kinds_are_read() {
    for options in [
        &["-t", "ext2", "-b", "1024"][..],
        &["-t", "ext2", "-O", "^filetype"],
        &["-t", "ext2", "-r", "0"],
        &["-t", "ext3", "-b", "2048"],
        &["-t", "ext4", "-b", "4096"],
        &["-t", "ext4", "-b", "1024", "-O", "64bit,metadata_csum"],
        &["-t", "ext4", "-O", "^64bit,^metadata_csum"],
        &["-t", "ext4", "-b", "1024", "-g", "1024", "-O", "meta_bg,^resize_inode"],
        &["-t", "ext4", "-b", "1024", "-g", "1024", "-O", "meta_bg,^resize_inode,^sparse_super"],
        &["-t", "ext4", "-O", "mmp,large_dir,ea_inode"],
        &["-t", "ext4", "-O", "inline_data"],
        &["-t", "ext4", "-O", "sparse_super2,^resize_inode"],
        &["-t", "ext4", "-b", "1024", "-O", "bigalloc"],
        &["-t", "ext4", "-O", "casefold,encrypt"],
    ] {
        let dir = tempfile::tempdir().unwrap();
        let ext4 = open(&made(dir.path(), options));
        let found = all(&ext4);
        assert_eq!(found.len(), 206, "{options:?}");
        assert_eq!(found["/tiny"], pattern(50, 1), "{options:?}");
        assert_eq!(found["/small"], pattern(100, 1), "{options:?}");
        for path in ["/d/large", "/second", "d/link", "long", "/d/e/../..//d/large"] {
            let read = ext4.read(path, 1 << 20);
            assert!(read.as_deref() == Ok(&pattern(700_000, 2)), "{options:?}: {path}");
        }
        assert_eq!(ext4.read("/old/x", 100), Err(Error::Absent), "{options:?}");
        assert_eq!(ext4.read("/none", 100), Err(Error::Absent), "{options:?}");
        for (path, why) in [("circle", "circle"), ("d", "a directory"), ("d/large", "700000 bytes")]
        {
            let said = ext4.read(path, 100).unwrap_err().to_string();
            assert!(said.contains(why), "{options:?}: {path}: {said}");
        }
    }
}

/// A file system, and the same after changes that only its journal has.
struct Unclean {
    image: Vec<u8>,
    expected: BTreeMap<String, Vec<u8>>,
}

/// Journal what differs between a file system and a changed copy of it, in transactions with a
/// revocation between them, and one at last that is not committed.
fn unclean(dir: &Path, options: &[&str], journal: &str) -> Unclean {
    let before = made(dir, options);
    let size = 1024 << u32::from_le_bytes(before[1048..1052].try_into().unwrap());
    let path = |name: &str| dir.join(name);
    let (image, changed) = (path("image"), path("changed"));
    std::fs::write(&image, &before).unwrap();
    std::fs::write(&changed, &before).unwrap();
    let mut magic = pattern(9000, 3);
    for at in (0..magic.len()).step_by(size) {
        magic[at..at + 4].copy_from_slice(&super::replayed::MAGIC.to_be_bytes());
    }
    std::fs::write(path("magic"), &magic).unwrap();
    std::fs::write(path("new"), b"new").unwrap();
    let write = |from: &str, to: &str| format!("write {} {to}", text(&path(from)));
    let commands = [
        "rm /d/e/gone".into(),
        "rm old".into(),
        write("new", "old"),
        "mkdir n".into(),
        write("magic", "n/magic"),
    ];
    debugfs(dir, &changed, &commands);
    let after = std::fs::read(&changed).unwrap();
    let expected = all(&open(&after));
    assert!(expected["/n/magic"] == magic && expected["/old"] == b"new");
    let superblock = 1024 / size;
    let differ: Vec<usize> = (0..before.len() / size)
        .filter(|n| *n != superblock && before[n * size..][..size] != after[n * size..][..size])
        .collect();
    let content = |name: &str, blocks: &[usize], fill: Option<u8>| {
        let bytes: Vec<u8> = blocks
            .iter()
            .flat_map(|n| fill.map_or(after[n * size..][..size].to_vec(), |byte| vec![byte; size]))
            .collect();
        std::fs::write(path(name), bytes).unwrap();
        let blocks: Vec<String> = blocks.iter().map(ToString::to_string).collect();
        (text(&path(name)).to_owned(), blocks.join(","))
    };
    // Something that was a block of a directory once, revoked when it became data: it must stay as
    // it is.
    let large = pattern(700_000, 2);
    let at = before.windows(64).step_by(size).position(|w| *w == large[size * 5..][..64]);
    let revoked = at.unwrap();
    let (first, second) = differ.split_at(differ.len() / 2);
    let (one, ones) = content("one", &[first, &[revoked]].concat(), None);
    std::fs::write(
        &one,
        [std::fs::read(&one).unwrap()[..first.len() * size].to_vec(), vec![9; size]].concat(),
    )
    .unwrap();
    let (two, twos) = content("two", second, None);
    let (three, threes) = content("three", &differ, Some(0xee));
    debugfs(
        dir,
        &image,
        &[
            format!("jo {journal}"),
            format!("jw -b {ones} {one}"),
            format!("jw -r {revoked}"),
            format!("jw -b {twos} {two}"),
            format!("jw -c -b {threes} {three}"),
            "jc".into(),
        ],
    );
    let image = std::fs::read(&image).unwrap();
    assert!(image[1024 + 0x60] & 4 != 0, "it needs recovery");
    Unclean { image, expected }
}

const UNCLEAN: &[(&[&str], &str)] = &[
    (&["-t", "ext3", "-b", "1024"], ""),
    (&["-t", "ext3", "-b", "4096"], ""),
    (&["-t", "ext4", "-b", "1024", "-O", "^64bit,^metadata_csum"], ""),
    (&["-t", "ext4", "-b", "2048", "-O", "^64bit,^metadata_csum"], ""),
    (&["-t", "ext4", "-b", "4096", "-O", "^64bit,metadata_csum"], "-c -v 3"),
    (&["-t", "ext4", "-b", "1024", "-O", "64bit,metadata_csum"], "-c -v 3"),
    (&["-t", "ext4", "-b", "4096", "-O", "64bit,metadata_csum"], "-c -v 2"),
    (&["-t", "ext4", "-b", "1024", "-O", "^64bit,metadata_csum"], "-c -v 2"),
    (&["-t", "ext4", "-b", "4096", "-O", "64bit,^metadata_csum"], ""),
    (&["-t", "ext4", "-b", "1024", "-O", "64bit,metadata_csum,fast_commit"], "-c -v 3"),
];

#[test]
fn what_only_the_journal_has_counts_as_it_does_to_e2fsck() {
    for (options, journal) in UNCLEAN {
        let dir = tempfile::tempdir().unwrap();
        let Unclean { image, expected } = unclean(dir.path(), options, journal);
        let ext4 = open(&image);
        assert_eq!(ext4.unreplayed(), None, "{options:?} {journal}");
        assert!(all(&ext4) == expected, "{options:?} {journal}");
        let checked = all(&open(&checked(dir.path(), &image)));
        assert!(checked == expected, "{options:?} {journal}: e2fsck has another view");
    }
}

/// The log's blocks moved so that it begins near the journal's end and goes on at its beginning.
#[test]
fn a_log_that_goes_around_the_journals_end_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (options, journal) = UNCLEAN[0];
    let Unclean { mut image, expected } = unclean(dir.path(), options, journal);
    let ext4 = open(&image);
    let log = Journal::open(&ext4).unwrap();
    let place = |number| log.place(number).unwrap() as usize * 1024;
    let moved: Vec<Vec<u8>> =
        (0..60).map(|n| image[place(log.start + n)..][..1024].to_vec()).collect();
    let start = log.last - 5;
    for (n, block) in (0..).zip(&moved) {
        let number = start + n;
        let number = if number >= log.last { number - log.last + log.first } else { number };
        image[place(number)..][..1024].copy_from_slice(block);
    }
    image[place(0) + 28..][..4].copy_from_slice(&(start as u32).to_be_bytes());
    assert!(all(&open(&image)) == expected);
    assert!(all(&open(&checked(dir.path(), &image))) == expected);
}

#[test]
fn a_journal_that_cannot_be_replayed_leaves_what_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let (options, journal) = UNCLEAN[0];
    let whole = unclean(dir.path(), options, journal).image;
    let at = {
        let ext4 = open(&whole);
        Journal::open(&ext4).unwrap().place(0).unwrap() as usize * 1024
    };
    for (offset, bytes, why) in [
        (40, [0x80, 0, 0, 0], "(0x80000000)"),
        (28, [0xff; 4], "where it can't"),
        (0, [0; 4], "no superblock"),
    ] {
        let mut image = whole.clone();
        image[at + offset..][..4].copy_from_slice(&bytes);
        let ext4 = open(&image);
        assert!(ext4.unreplayed().unwrap().contains(why), "{:?}", ext4.unreplayed());
        assert_eq!(ext4.read("/old", 100).unwrap(), b"old");
    }
}

/// A tag and its value.
fn tag(kind: u16, value: &[&[u8]]) -> Vec<u8> {
    let value = value.concat();
    [&kind.to_le_bytes()[..], &(value.len() as u16).to_le_bytes(), &value].concat()
}

/// An inode of a file with extents: 160 bytes, as the kernel logs them.
fn inode(len: u32) -> Vec<u8> {
    let mut inode = vec![0; 160];
    inode[..2].copy_from_slice(&0o100_644u16.to_le_bytes());
    inode[4..8].copy_from_slice(&len.to_le_bytes());
    inode[26] = 1;
    inode[32..36].copy_from_slice(&0x8_0000u32.to_le_bytes());
    inode[128] = 32;
    inode
}

#[test]
fn fast_commits_count_as_they_do_to_e2fsck() {
    let dir = tempfile::tempdir().unwrap();
    let (options, journal) = UNCLEAN[9];
    let Unclean { mut image, mut expected } = unclean(dir.path(), options, journal);
    // The kernel says when it mounts that there may be some; mke2fs only leaves room.
    let at = {
        let ext4 = open(&image);
        Journal::open(&ext4).unwrap().place(0).unwrap() as usize * 1024
    };
    image[at + 43] |= 0x20;
    image[at + 0xfc..][..4].fill(0);
    let sum = crc32c(!0, &image[at..at + 1024]);
    image[at + 0xfc..][..4].copy_from_slice(&sum.to_be_bytes());
    let (places, next) = {
        let ext4 = open(&image);
        let journal = Journal::open(&ext4).unwrap();
        let places: Vec<usize> =
            (1..4).map(|n| journal.place(journal.last + n).unwrap() as usize * 1024).collect();
        (places, ext4.replayed.next)
    };
    let old = open(&image).stat("/old").unwrap().number();
    let (number, block) = (900u32, 16_000u32);
    let content = pattern(2500, 7);
    image[block as usize * 1024..][..content.len()].copy_from_slice(&content);
    let (root, le) = (2u32.to_le_bytes(), u32::to_le_bytes);
    let range = |inode: u32, logical: u32, len: u16, physical: u32| {
        let lens = [&len.to_le_bytes()[..], &[0; 2]].concat();
        tag(1, &[&le(inode), &le(logical), &lens, &le(physical)])
    };
    let close = |tags: Vec<Vec<u8>>, block_len: usize| {
        let mut bytes = tags.concat();
        let rest = (block_len - bytes.len() % block_len - 4) as u16;
        bytes.extend([8u16.to_le_bytes(), rest.to_le_bytes()].concat());
        bytes.extend(le(next));
        let sum = crc32c(0, &bytes);
        bytes.extend(le(sum));
        bytes.resize(bytes.len().next_multiple_of(block_len), 0);
        bytes
    };
    let first = close(
        vec![
            tag(9, &[&le(0), &le(next)]),
            tag(6, &[&le(number), &inode(2500)]),
            range(number, 0, 3, block),
            tag(3, &[&root, &le(number), b"fast"]),
            tag(5, &[&root, &le(old), b"old"]),
            tag(4, &[&root, &le(old), b"moved"]),
        ],
        1024,
    );
    let second = close(vec![tag(4, &[&root, &le(number), b"again"])], 1024);
    let torn =
        [tag(5, &[&root, &le(number), b"again"]), vec![8, 0, 8, 0], le(next).to_vec(), vec![1; 4]];
    image[places[0]..][..1024].copy_from_slice(&first);
    image[places[1]..][..1024].copy_from_slice(&second);
    image[places[2]..][..torn.concat().len()].copy_from_slice(&torn.concat());
    let moved = expected.remove("/old").unwrap();
    expected.insert("/moved".into(), moved);
    expected.insert("/fast".into(), content.clone());
    expected.insert("/again".into(), content);
    let found = all(&open(&image));
    assert!(found == expected, "{:?}", found.keys().take(8).collect::<Vec<_>>());
    let checked = all(&open(&checked(dir.path(), &image)));
    let same = |path: &&String| checked.get(*path) == expected.get(*path);
    let differ: Vec<_> = checked.keys().chain(expected.keys()).filter(|path| !same(path)).collect();
    assert_eq!(differ, Vec::<&String>::new(), "e2fsck has another view");
}

#[test]
fn ranges_are_cut_and_put_in_their_places() {
    let fast = |tags: &[Vec<u8>]| {
        let mut bytes = tag(9, &[&0u32.to_le_bytes(), &5u32.to_le_bytes()]);
        bytes.extend(tags.concat());
        let tail = [8u16.to_le_bytes(), 8u16.to_le_bytes()].concat();
        bytes.extend([tail, 5u32.to_le_bytes().to_vec()].concat());
        let sum = crc32c(0, &bytes);
        bytes.extend(sum.to_le_bytes());
        super::fast_commit::FastCommits::parse(&[bytes.into()], 5)
    };
    let le = u32::to_le_bytes;
    let run = |logical, physical, len| super::run::Run { logical, physical, len };
    let del = |logical, len| tag(2, &[&le(7), &le(logical), &le(len)]);
    let add = |logical, len: u16, physical| {
        tag(1, &[&le(7), &le(logical), &len.to_le_bytes(), &[0; 2], &le(physical)])
    };
    for (tags, expected) in [
        (vec![del(3, 2)], vec![run(0, 100, 3), run(5, 105, 5)]),
        (vec![add(8, 4, 50)], vec![run(0, 100, 8), run(8, 50, 4)]),
        (vec![add(0, 10, 50), del(0, 1)], vec![run(1, 51, 9)]),
        (vec![add(2, 0x8002, 50)], vec![run(0, 100, 2), run(4, 104, 6)]),
        (vec![del(20, 4)], vec![run(0, 100, 10)]),
    ] {
        let mut runs = vec![run(0, 100, 10)];
        fast(&tags).remap(7, &mut runs);
        assert_eq!(runs, expected);
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    /// Superblocks, descriptors, inodes, directories, journals, fast commits: whatever is wrong
    /// with them.
    #[test]
    fn anything_is_read_or_refused(
        flips in proptest::collection::vec((0usize..1 << 20, proptest::prelude::any::<u8>()), 1..60)
    ) {
        static IMAGES: std::sync::LazyLock<Vec<Vec<u8>>> = std::sync::LazyLock::new(|| {
            let of = |at: usize| {
                let dir = tempfile::tempdir().unwrap();
                unclean(dir.path(), UNCLEAN[at].0, UNCLEAN[at].1).image
            };
            vec![of(0), of(9)]
        });
        for image in &*IMAGES {
            let mut image = image.clone();
            for (at, byte) in &flips {
                // Mostly where the metadata is.
                image[at >> (byte % 8)] = *byte;
            }
            let image: Rc<[u8]> = image.into();
            let read = move |bytes: &mut [u8], at: u64| {
                let found = usize::try_from(at).ok().and_then(|at| image.get(at..)).and_then(|rest| rest.get(..bytes.len()));
                bytes.copy_from_slice(found.ok_or(std::io::ErrorKind::UnexpectedEof)?);
                Ok(())
            };
            if let Ok(ext4) = Ext4::open(Box::new(read)) {
                for path in ["/old", "/d/large", "/n/magic", "/second", "/d/e/gone"] {
                    let _ = ext4.read(path, 1 << 20);
                }
            }
        }
    }
}
