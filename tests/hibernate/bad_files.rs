//! Memory files that nothing can go on from: each is refused in one line, and none is lost.

use crate::common::{Store, has_kvm};
use crate::{counts_on, endure, find, memory, refusal};
use kvm_bindings::kvm_cpuid_entry2;
use sha2::{Digest, Sha256};
use sporevm::vmm::memory_file::{self, Saved};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes before the digests: magic, version, bytes of RAM, place and length of the state.
const NUMBERS: usize = 40;

/// A hibernated instance, its count and its memory file.
fn hibernated(store: &Store) -> (String, u64, PathBuf) {
    let id = endure(store);
    let count = counts_on(store, &id, 0);
    store.ok(&["stop", "--hibernate", &id]);
    (id, count, memory(store))
}

fn open(path: &Path) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

/// The state as it lies in the file, with its place.
fn state(file: &File) -> (u64, Vec<u8>) {
    let mut head = [0; NUMBERS];
    file.read_exact_at(&mut head, 0).unwrap();
    let at = u64::from_le_bytes(head[24..32].try_into().unwrap());
    let mut state = vec![0; u64::from_le_bytes(head[32..40].try_into().unwrap()) as usize];
    file.read_exact_at(&mut state, at).unwrap();
    (at, state)
}

/// Write the file as a Spore would that saved this.
fn write(file: &File, version: u64, saved: &Saved) {
    let (at, _) = state(file);
    let state = postcard::to_stdvec(saved).unwrap();
    let mut head = [0; NUMBERS];
    file.read_exact_at(&mut head, 0).unwrap();
    head[8..16].copy_from_slice(&version.to_le_bytes());
    head[32..40].copy_from_slice(&(state.len() as u64).to_le_bytes());
    let mut head = head.to_vec();
    head.extend(Sha256::digest(&state));
    head.extend(Sha256::digest(&head));
    file.set_len(at + state.len() as u64).unwrap();
    file.write_all_at(&state, at).unwrap();
    file.write_all_at(&head, 0).unwrap();
}

#[test]
fn damage_anywhere_is_refused_and_keeps_the_memory() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let (id, count, path) = hibernated(&store);
    let file = open(&path);
    let len = file.metadata().unwrap().len();
    let saved = memory_file::read(&file).unwrap();
    let (at, state) = state(&file);
    // A place in each part: where its middle is, and where it begins.
    let part = |bytes: &Vec<u8>| {
        let found = state.windows(bytes.len()).position(|window| window == &bytes[..]).unwrap();
        [at + found as u64, at + (found + bytes.len() / 2) as u64]
    };
    let parts: Vec<u64> = saved.parts.iter().flat_map(|(_, bytes)| part(bytes)).collect();
    for at in [0, 8, 20, 100].into_iter().chain(parts.iter().copied()).chain([len - 1]) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
        assert!(refusal(&store, &id).contains("its memory file"), "at {at}");
        file.write_all_at(&byte, at).unwrap();
    }
    // Cut short at each boundary: a copy, since what is cut off is gone.
    let whole = path.with_file_name("whole");
    fs::rename(&path, &whole).unwrap();
    for cut in [0, 100, 4096, at / 2, at].into_iter().chain(parts).chain([len - 1]) {
        fs::copy(&whole, &path).unwrap();
        open(&path).set_len(cut).unwrap();
        assert!(refusal(&store, &id).contains("it is cut short"), "at {cut}");
    }
    fs::remove_file(&path).unwrap();
    assert!(refusal(&store, &id).contains("is gone"));
    fs::rename(&whole, &path).unwrap();
    store.ok(&["start", &id]);
    counts_on(&store, &id, count);
    assert!(find(&store, |name| name == "memory").is_empty(), "it is of the past");
}

/// Leaf 1 of the first vCPU's saved CPUID, changed.
fn with_leaf_1(saved: &mut Saved, change: impl Fn(&mut kvm_cpuid_entry2)) {
    let vcpus = saved.parts.iter_mut().find(|(name, _)| name == "vCPUs").unwrap();
    // Version, when it was, how many there are, and of the first its CPUID.
    type Begin = (u16, u64, usize, Vec<kvm_cpuid_entry2>);
    let (mut begin, rest) = postcard::take_from_bytes::<Begin>(&vcpus.1).unwrap();
    change(begin.3.iter_mut().find(|entry| entry.function == 1).unwrap());
    vcpus.1 = [postcard::to_stdvec(&begin).unwrap(), rest.to_vec()].concat();
}

#[test]
fn the_file_of_another_spore_cpu_or_machine_is_refused() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let (id, count, path) = hibernated(&store);
    let file = open(&path);
    let saved = || memory_file::read(&file).unwrap();
    let original = saved();
    write(&file, 2, &original);
    assert!(refusal(&store, &id).contains("has version 2; this Spore reads version 1"));
    write(&file, 1, &original);
    let refuses = |why: &str, change: &dyn Fn(&mut Saved)| {
        let mut changed = saved();
        change(&mut changed);
        write(&file, 1, &changed);
        let said = refusal(&store, &id);
        assert!(said.contains(why), "{why}: {said}");
        write(&file, 1, &original);
    };
    refuses("another CPU model", &|saved| with_leaf_1(saved, |leaf| leaf.eax ^= 0x10));
    refuses("CPU features that this host lacks", &|saved| {
        with_leaf_1(saved, |leaf| (leaf.ecx, leaf.edx) = (u32::MAX, u32::MAX));
    });
    for (n, (name, _)) in original.parts.iter().enumerate() {
        refuses(&format!("has no state of {name}"), &|saved| drop(saved.parts.remove(n)));
        refuses(&format!("the saved state of {name} has version 9"), &|saved| {
            saved.parts[n].1[0] = 9;
        });
        refuses(&format!("the saved state of {name} is damaged"), &|saved| {
            saved.parts[n].1.push(0)
        });
    }
    refuses("it was hibernated with 2 CPUs, and has 1 now", &|saved| saved.shape.cpus = 2);
    refuses("it was hibernated with device /dev/vdz (x) in slot 9", &|saved| {
        saved.shape.devices.push(("/dev/vdz".into(), 9, "x".into()));
    });
    refuses("it was hibernated without device entropy (entropy) in slot 1", &|saved| {
        saved.shape.devices.retain(|(name, ..)| name != "entropy");
    });
    store.ok(&["start", &id]);
    counts_on(&store, &id, count);
}

/// Spore gave machines no socket device once. Their guests go on as they were, also when they are
/// hibernated again.
#[test]
fn a_machine_of_an_earlier_spore_goes_on_without_a_socket_device() {
    if !has_kvm() {
        return;
    }
    let store = Store::new();
    let (id, count, path) = hibernated(&store);
    let file = open(&path);
    let mut saved = memory_file::read(&file).unwrap();
    assert!(saved.shape.has("vsock"));
    saved.shape.devices.retain(|(name, ..)| name != "vsock");
    saved.parts.retain(|(name, _)| name != "vsock");
    write(&file, 1, &saved);
    store.ok(&["start", &id]);
    let count = counts_on(&store, &id, count);
    store.ok(&["stop", "--hibernate", &id]);
    let again = memory_file::read(&open(&memory(&store))).unwrap();
    assert!(!again.shape.has("vsock") && again.parts.iter().all(|(name, _)| name != "vsock"));
    store.ok(&["start", &id]);
    counts_on(&store, &id, count);
}
