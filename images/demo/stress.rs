//! Random requests against the root volume, each checked against a copy in memory:
//! `demo.mode=stress demo.ops=N demo.seed=N`.

use crate::rt::blk::*;
use crate::rt::machine::Machine;
use crate::rt::random::Random;
use crate::rt::virtio::{Part, feature};
use crate::rt::{memory, sha256};
use crate::say;
use alloc::{vec, vec::Vec};

/// Requests in flight at once.
const DEPTH: usize = 16;
/// Sectors a request at most.
const MAX: usize = 512;

/// A request in flight.
struct Flying {
    queue: usize,
    head: u16,
    kind: u32,
    sector: usize,
    count: usize,
    buffer: usize,
}

struct Stress {
    blk: Blk,
    random: Random,
    /// What the volume holds.
    copy: Vec<u8>,
    /// Sectors whose content a discard has left open (Virtio 1.2, 5.2.6.1).
    open: Vec<bool>,
    buffers: Vec<Vec<u8>>,
    ranges: &'static mut [u8],
}

/// Do `demo.ops` requests, then write zeros where discards were and print the digest of the whole.
pub fn run(machine: &Machine) -> ! {
    let number =
        |key, default| machine.boot.option(key).and_then(|n| n.parse().ok()).unwrap_or(default);
    let (ops, seed) = (number("demo.ops", 1000), number("demo.seed", 1));
    let wanted = FLUSH | MQ | DISCARD | WRITE_ZEROES | feature::INDIRECT_DESC | feature::EVENT_IDX;
    let device = machine.disks[0];
    let blk = Blk::start(device, wanted, 4, 64);
    let size = blk.sectors as usize * SECTOR;
    assert!(2 * size + (32 << 20) < memory::left(), "memory for a copy of {size} bytes");
    say!(
        "stress: {ops} requests, seed {seed}, {} queues, features {:#x}",
        blk.queues.len(),
        blk.features
    );
    let mut stress = Stress {
        random: Random(seed | 1 << 40),
        copy: vec![0; size],
        open: vec![false; size / SECTOR],
        buffers: (0..DEPTH).map(|_| vec![0; MAX * SECTOR]).collect(),
        ranges: memory::pages(1),
        blk,
    };
    let Stress { blk, copy, .. } = &mut stress;
    blk.read(0, copy);
    let mut done = 0;
    while done < ops {
        done += stress.batch();
    }
    stress.close();
    let (digest, irqs) = (sha256::hex(&stress.copy), crate::cpu::irq_count(device.gsi));
    say!("stress: {done} requests, {irqs} interrupts, sha256 {digest}");
    machine.acpi.power_off()
}

impl Stress {
    /// Up to [`DEPTH`] requests at once, none on the sectors of another: virtio-blk orders nothing.
    fn batch(&mut self) -> u64 {
        let mut flying: Vec<Flying> = Vec::with_capacity(DEPTH);
        let count = 1 + self.random.below(DEPTH);
        for buffer in 0..count {
            let most = if self.random.below(4) == 0 { MAX } else { 16 };
            let sectors = 1 + self.random.below(most);
            let sector = self.random.below(self.open.len());
            let sectors = sectors.min(self.open.len() - sector);
            let free = |f: &Flying| f.sector + f.count <= sector || sector + sectors <= f.sector;
            if flying.iter().all(free) {
                flying.push(self.submit(buffer, sector, sectors));
            }
        }
        self.blk.queues.iter_mut().for_each(|queue| queue.notify());
        for queue in 0..self.blk.queues.len() {
            let expected = flying.iter().filter(|f| f.queue == queue).count();
            for _ in 0..expected {
                let (head, _) = self.blk.queues[queue].wait();
                let request = flying.iter().find(|f| f.queue == queue && f.head == head);
                self.finish(request.expect("a request of ours"));
            }
        }
        flying.len() as u64
    }

    fn submit(&mut self, buffer: usize, sector: usize, count: usize) -> Flying {
        let queue = self.random.below(self.blk.queues.len());
        let mut kinds = [IN, IN, IN, OUT, OUT, OUT, T_FLUSH, IN, OUT];
        if self.blk.features & DISCARD != 0 {
            kinds[7] = T_DISCARD;
        }
        if self.blk.features & WRITE_ZEROES != 0 {
            kinds[8] = T_WRITE_ZEROES;
        }
        let kind = kinds[self.random.below(kinds.len())];
        let range = sector * SECTOR..(sector + count) * SECTOR;
        let head = match kind {
            IN | OUT => {
                let bytes = &mut self.buffers[buffer][..count * SECTOR];
                if kind == OUT {
                    let word = self.random.next();
                    for (n, chunk) in bytes.chunks_exact_mut(8).enumerate() {
                        chunk.copy_from_slice(&word.wrapping_mul(n as u64 | 1).to_le_bytes());
                    }
                    self.copy[range].copy_from_slice(bytes);
                    self.open[sector..sector + count].fill(false);
                }
                // In two parts that need not be whole sectors (Virtio 1.2, 2.7.4.2: no assumption
                // about the framing).
                let (a, b) = bytes.split_at_mut(1 + self.random.below(count * SECTOR - 1));
                let part = if kind == IN { Part::output } else { |b: &mut [u8]| Part::input(b) };
                self.blk.submit(queue, kind, sector as u64, &[part(a), part(b)])
            }
            T_FLUSH => self.blk.submit(queue, kind, 0, &[]),
            _ => {
                let unmap = kind == T_WRITE_ZEROES && self.random.below(2) == 0;
                let segment = &mut self.ranges[16 * buffer..][..16];
                segment[..8].copy_from_slice(&(sector as u64).to_le_bytes());
                segment[8..12].copy_from_slice(&(count as u32).to_le_bytes());
                segment[12..].copy_from_slice(&u32::from(unmap).to_le_bytes());
                self.copy[range].fill(0);
                self.open[sector..sector + count].fill(kind == T_DISCARD);
                self.blk.submit(queue, kind, 0, &[Part::input(segment)])
            }
        };
        Flying { queue, head, kind, sector, count, buffer }
    }

    fn finish(&mut self, f: &Flying) {
        let status = self.blk.status(f.queue, f.head);
        assert_eq!(status, 0, "request type {} of {} sectors at {}", f.kind, f.count, f.sector);
        if f.kind == IN {
            let bytes = self.buffers[f.buffer].chunks_exact(SECTOR).take(f.count);
            for (n, bytes) in (f.sector..).zip(bytes) {
                let same = bytes == &self.copy[n * SECTOR..(n + 1) * SECTOR];
                assert!(same || self.open[n], "sector {n} holds something else");
            }
        }
    }

    /// Give discarded sectors a content, flush, and compare the whole volume.
    fn close(&mut self) {
        for sector in 0..self.open.len() {
            if self.open[sector] {
                let zeros = Part::input(&[0; SECTOR]);
                assert_eq!(self.blk.request(OUT, sector as u64, &[zeros]), 0, "write failed");
            }
        }
        assert_eq!(self.blk.request(T_FLUSH, 0, &[]), 0, "flush failed");
        let mut back = vec![0; self.copy.len()];
        self.blk.read(0, &mut back);
        assert!(back == self.copy, "the volume differs from the copy");
    }
}
