//! The whole-image check that an untrusted image must pass before it is taken into a store.

use super::{COMPRESSED, OFFSET_MASK, Qcow2File, corrupt};
use std::collections::HashMap;
use std::io;
use std::sync::atomic::Ordering;

/// A sparse bitmap of host clusters: it costs what the tables reference, not what they claim to
/// span.
#[derive(Default)]
pub(super) struct Claims {
    pages: HashMap<u64, Box<[u64; 64]>>,
    /// There is compressed data, whose clusters are not claimed: neighbours share them.
    pub compressed: bool,
}

impl Claims {
    pub(super) fn claim(&mut self, cluster: u64, what: &str) -> io::Result<()> {
        let page = self.pages.entry(cluster >> 12).or_insert_with(|| Box::new([0; 64]));
        let (word, bit) = (&mut page[(cluster >> 6 & 63) as usize], 1 << (cluster & 63));
        if *word & bit != 0 {
            return Err(corrupt(format!(
                "{what} at cluster {cluster} overlaps another structure or is referenced twice"
            )));
        }
        *word |= bit;
        Ok(())
    }

    pub(super) fn has(&self, cluster: u64) -> bool {
        let page = self.pages.get(&(cluster >> 12));
        page.is_some_and(|page| page[(cluster >> 6 & 63) as usize] >> (cluster & 63) & 1 != 0)
    }

    pub(super) fn count(&self) -> u64 {
        self.pages
            .values()
            .flat_map(|page| page.iter())
            .map(|word| u64::from(word.count_ones()))
            .sum()
    }
}

impl Qcow2File {
    /// Walk all tables: every pointer inside the file, every cluster referenced once, and every
    /// table whole.
    ///
    /// # Errors
    /// `InvalidData` naming the first thing wrong.
    pub(crate) fn verify(&self) -> io::Result<()> {
        let file_len = self.file_len.load(Ordering::Relaxed);
        let whole = |what: &str, offset: u64, len: u64| match offset.checked_add(len) {
            Some(end) if end <= file_len => Ok(()),
            // What lacks would read as zeros, as if nothing had ever been written there.
            _ => Err(corrupt(format!("{what} at {offset:#x} is cut short by the file's end"))),
        };
        whole("the L1 table", self.header.l1_offset, self.l1.len() as u64 * 8)?;
        for l1 in &self.l1 {
            match l1.load(Ordering::Relaxed) & OFFSET_MASK {
                0 => {}
                table => whole("an L2 table", table, self.header.cluster_size())?,
            }
        }
        self.claims().map(drop)
    }

    /// [`Qcow2File::verify`], and what the tables lead to: all that is used but refcount blocks and
    /// compressed data.
    pub(super) fn claims(&self) -> io::Result<Claims> {
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
        Ok(claims)
    }

    fn verify_slice(&self, index: u64, claims: &mut Claims) -> io::Result<()> {
        let Some(slice) = self.slice(index)? else { return Ok(()) };
        for entry in slice.words.iter().step_by(self.header.words() as usize) {
            let entry = entry.load(Ordering::Relaxed);
            if entry & COMPRESSED != 0 {
                claims.compressed = true;
            } else if entry & OFFSET_MASK != 0 {
                claims
                    .claim((entry & OFFSET_MASK) >> self.header.cluster_bits, "a data cluster")?;
            }
        }
        Ok(())
    }
}
