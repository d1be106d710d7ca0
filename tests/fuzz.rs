//! What the fuzz targets do (fuzz/drive): with every file of their corpora, so that what was found
//! once is not lost again, and with a bounded number of inputs that a mutator makes of them, the
//! same on every run. `scripts/fuzz` goes on longer.
//!
//! SPORE_FUZZ_INPUTS=N sets that number for all, SPORE_FUZZ_SEED=N begins elsewhere. An input that
//! fails is kept in the target directory, whose name the failure tells.

#[path = "../fuzz/drive/mod.rs"]
mod drive;

use drive::mutate::{Rng, mutate};
use drive::{TARGETS, Target};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// No input may keep anybody as long. They take milliseconds; a busy machine is allowed for.
const LONGEST: Duration = Duration::from_secs(60);

/// The files of a target's corpus, by name.
fn corpus(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target.name);
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Drive a target with an input that is kept where it fails.
fn one(target: &Target, input: &[u8]) {
    let begin = Instant::now();
    let done = std::panic::catch_unwind(|| (target.drive)(input));
    let late = begin.elapsed() > LONGEST;
    if done.is_err() || late {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{}", target.name));
        std::fs::write(&kept, input).unwrap();
        panic!("{} fails with {} ({:?})", target.name, kept.display(), begin.elapsed());
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect(variable))
}

/// Drive a target with its corpus, then with so many inputs made of that.
fn run(name: &str, inputs: u64) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let files = corpus(target);
    let mut inputs_made_of: Vec<Vec<u8>> = (target.seeds)();
    for (path, input) in files {
        eprintln!("{}", path.display());
        one(target, &input);
        inputs_made_of.push(input);
    }
    assert!(!inputs_made_of.is_empty(), "{name} has nothing to begin with");
    (target.seeds)().iter().for_each(|input| one(target, input));
    // Not 0, of which nothing comes.
    let mut rng = Rng(0x5907e ^ number("SPORE_FUZZ_SEED").unwrap_or_default() << 20);
    for _ in 0..number("SPORE_FUZZ_INPUTS").unwrap_or(inputs) {
        one(target, &mutate(&mut rng, &inputs_made_of));
    }
}

/// A test for each target, and how many inputs it gets.
macro_rules! tests {
    ($($name:ident: $inputs:literal),* $(,)?) => {
        $(#[test]
        fn $name() {
            run(stringify!($name), $inputs);
        })*

        #[test]
        fn every_target_has_a_test() {
            let tested = [$(stringify!($name)),*];
            let targets: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(targets, tested);
        }
    };
}

tests! {
    answers: 3000,
    api: 3000,
    archive: 300,
    blk: 2000,
    bundle: 3000,
    chain: 5000,
    chipset: 3000,
    control: 500,
    elf: 3000,
    esp: 1000,
    ext4: 1000,
    flash: 1000,
    foreign: 300,
    form: 3000,
    formats: 5000,
    fw_cfg: 1000,
    initramfs: 3000,
    journal: 300,
    kernel: 3000,
    memory_file: 500,
    menu_asker: 1000,
    metadata: 1000,
    mmio: 1000,
    net: 2000,
    network: 3000,
    nvme: 500,
    partitions: 2000,
    pci: 1000,
    plan: 5000,
    pv_disk: 500,
    pv_menu: 2000,
    qcow2: 300,
    records: 3000,
    remote: 300,
    scsi: 2000,
    share: 500,
    states: 1000,
    told: 3000,
    vsock: 1000,
}

/// The mutator gives the same inputs for the same seed, and others for another.
#[test]
fn the_mutator_is_deterministic() {
    let corpus = [b"some input".to_vec(), vec![]];
    let inputs = |seed| {
        let mut rng = Rng(seed);
        (0..100).map(|_| mutate(&mut rng, &corpus)).collect::<Vec<_>>()
    };
    assert_eq!(inputs(7), inputs(7));
    assert_ne!(inputs(7), inputs(8));
    let all = inputs(7);
    assert!(all.iter().filter(|input| **input != corpus[0]).count() > 80);
}
