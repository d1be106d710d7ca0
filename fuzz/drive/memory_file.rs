//! The file that a hibernated machine is in. Its digests are put right, or no mutation would get
//! behind them.

use sha2::{Digest, Sha256};
use sporevm::mem::layout::{MIN_MEMORY, PAGE};
use sporevm::mem::{GuestRam, ram};
use sporevm::plan::{VmConfig, VmPlan};
use sporevm::sys::fds;
use sporevm::vmm::memory_file::{self, Shape, Writing};
use sporevm::vmm::resume::Resuming;
use sporevm::vmm::state::processors;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, OnceLock};
use vm_memory::{Bytes, GuestAddress};

/// Bytes of RAM: the last chunk is one of one page.
const MEMORY: u64 = MIN_MEMORY + PAGE;
/// Bytes of the header: a magic, four numbers, two digests.
const HEADER: usize = 8 + 4 * 8 + 2 * 32;
/// RAM that the file maps together.
const CHUNK: u64 = 2 << 20;

/// RAM is never given back, so all runs share it.
fn memory() -> &'static Mutex<GuestRam> {
    static RAM: OnceLock<Mutex<GuestRam>> = OnceLock::new();
    RAM.get_or_init(|| Mutex::new(ram::create(MEMORY).unwrap()))
}

/// The plan of the fuzzed plan's seed, with this RAM.
fn plan() -> &'static VmPlan {
    static PLAN: OnceLock<VmPlan> = OnceLock::new();
    PLAN.get_or_init(|| {
        let plan = VmPlan::from_bytes(&super::plan::seeds()[0]).unwrap();
        VmPlan { config: VmConfig { memory: MEMORY, ..plan.config }, ..plan }
    })
}

/// First what is wrong with the file, if anything: an even byte says nothing is, or which of the
/// header's numbers is another (two bytes: which, and what is added). Then the state.
pub fn drive(data: &[u8]) {
    let Some((&[wrong, by], state)) = data.split_first_chunk() else { return };
    let mut numbers = [1, MEMORY, PAGE + MEMORY, state.len() as u64];
    if wrong & 1 == 1 {
        let number = &mut numbers[usize::from(wrong >> 1 & 3)];
        *number = number.wrapping_add(u64::from(by).rotate_right(u32::from(wrong >> 3)));
    }
    let file = file(numbers, state);
    let ram = memory().lock().unwrap();
    if let Ok(saved) = memory_file::read(&file) {
        for (name, part) in &saved.parts {
            assert!(saved.part(name).is_ok());
            let _ = processors::saved_cpuid(part);
        }
    }
    let Ok(resuming) = Resuming::read(file, &mut plan().clone()) else { return };
    resuming.map(&ram).unwrap();
    // Each chunk is the file's, which has this byte all over, or zeros.
    for at in (0..MEMORY).step_by(CHUNK as usize) {
        let (first, last) = (at, (at + CHUNK).min(MEMORY) - 1);
        let [first, last] = [first, last].map(|at| ram.read_obj::<u8>(GuestAddress(at)).unwrap());
        assert!(first == last && (first == 0 || first == 7), "{at:#x}: {first} {last}");
    }
    ram::clear(&ram).unwrap();
}

/// RAM of sevens, in the first and last page of each chunk at least, behind this header.
fn file(numbers: [u64; 4], state: &[u8]) -> File {
    static SEVENS: OnceLock<File> = OnceLock::new();
    let file = SEVENS.get_or_init(|| {
        let file = fds::memfd("fuzz").unwrap();
        file.set_len(PAGE + MEMORY).unwrap();
        for at in (0..MEMORY).step_by(CHUNK as usize) {
            file.write_all_at(&[7; PAGE as usize], PAGE + at).unwrap();
            file.write_all_at(&[7; PAGE as usize], at + CHUNK.min(MEMORY - at)).unwrap();
        }
        file
    });
    let mut header = b"SPOREMEM".to_vec();
    numbers.iter().for_each(|number| header.extend(number.to_le_bytes()));
    header.extend(Sha256::digest(state));
    header.extend(Sha256::digest(&header));
    assert_eq!(header.len(), HEADER);
    file.set_len(PAGE + MEMORY + state.len() as u64).unwrap();
    file.write_all_at(&header, 0).unwrap();
    file.write_all_at(state, PAGE + MEMORY).unwrap();
    file.try_clone().unwrap()
}

/// The state of a machine as it is written, with parts and some of RAM; and one of a vCPU with
/// CPUID.
pub fn seeds() -> Vec<Vec<u8>> {
    let state = |parts: Vec<(String, Vec<u8>)>, filled: &[u64]| {
        let ram = ram::create(MEMORY).unwrap();
        filled.iter().for_each(|&at| ram.write_obj(1u8, GuestAddress(at)).unwrap());
        let file = fds::memfd("fuzz").unwrap();
        let (to, shape) = (file.try_clone().unwrap(), Shape::of(&plan().config));
        let finished = Arc::new(fds::eventfd().unwrap());
        let writing = Writing::begin(to, shape, parts, &ram, finished).unwrap();
        writing.work();
        writing.outcome().unwrap().unwrap();
        let len = file.metadata().unwrap().len() - PAGE - MEMORY;
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, PAGE + MEMORY).unwrap();
        bytes
    };
    // The state's form, a time, and no vCPU.
    let vcpus = vec![1, 5, 0];
    let parts = vec![("vCPUs".to_owned(), vcpus), ("power".to_owned(), vec![1, 0])];
    let states = [state(Vec::new(), &[]), state(parts, &[0, 5 * CHUNK, MEMORY - 1])];
    let mut seeds: Vec<Vec<u8>> = states.iter().map(|state| [&[0, 0][..], state].concat()).collect();
    seeds.extend([1, 3, 5, 7].map(|wrong| [&[wrong, 1][..], &states[1]].concat()));
    seeds
}
