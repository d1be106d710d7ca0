//! The whole-image check that an untrusted image must pass before it is taken into a store.

use super::{COMPRESSED, Image, OFFSET_MASK, corrupt};
use std::collections::HashMap;
use std::io;
use std::sync::atomic::Ordering;

/// A sparse bitmap of host clusters: it costs what the tables reference, not what they claim to span.
#[derive(Default)]
struct Claims(HashMap<u64, Box<[u64; 64]>>);

impl Claims {
    fn claim(&mut self, cluster: u64, what: &str) -> io::Result<()> {
        let page = self.0.entry(cluster >> 12).or_insert_with(|| Box::new([0; 64]));
        let (word, bit) = (&mut page[(cluster >> 6 & 63) as usize], 1 << (cluster & 63));
        if *word & bit != 0 {
            return Err(corrupt(format!(
                "{what} at cluster {cluster} overlaps another structure or is referenced twice"
            )));
        }
        *word |= bit;
        Ok(())
    }
}

impl Image {
    /// Walk all tables: every pointer inside the file, every cluster referenced once.
    ///
    /// # Errors
    /// `InvalidData` naming the first thing wrong.
    pub(crate) fn verify(&self) -> io::Result<()> {
        let bits = self.header.cluster_bits;
        let mut claims = Claims::default();
        claims.claim(0, "the header")?;
        let l1_clusters = (self.l1.len() as u64 * 8).div_ceil(self.header.cluster_size());
        for n in 0..l1_clusters {
            claims.claim((self.header.l1_offset >> bits) + n, "the L1 table")?;
        }
        for n in 0..u64::from(self.header.reftable_clusters) {
            claims.claim((self.header.reftable_offset >> bits) + n, "the refcount table")?;
        }
        let per_table = self.header.l2_entries() / self.slice_entries();
        for (n, l1) in self.l1.iter().enumerate() {
            let table = l1.load(Ordering::Relaxed) & OFFSET_MASK;
            if table == 0 {
                continue;
            }
            claims.claim(table >> bits, "an L2 table")?;
            for index in n as u64 * per_table..(n as u64 + 1) * per_table {
                self.verify_slice(index, &mut claims)?;
            }
        }
        Ok(())
    }

    fn verify_slice(&self, index: u64, claims: &mut Claims) -> io::Result<()> {
        let Some(slice) = self.slice(index)? else { return Ok(()) };
        for entry in slice.words.iter().step_by(self.header.words() as usize) {
            let entry = entry.load(Ordering::Relaxed);
            // Compressed clusters share host clusters with their neighbours.
            if entry & COMPRESSED == 0 && entry & OFFSET_MASK != 0 {
                claims
                    .claim((entry & OFFSET_MASK) >> self.header.cluster_bits, "a data cluster")?;
            }
        }
        Ok(())
    }
}
