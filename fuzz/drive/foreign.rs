//! Disk images of other programs: VHD, VMDK and VHDX.
//!
//! The first byte says which. A VHDX has megabytes of nothing, so its input is pieces: the number
//! of a page of 4 KiB (16 bits, little-endian), then the page. Its checksums are put right, or no
//! mutation would get behind them.

use sporevm::block::foreign::{self, Bytes, Image, Place, vhd::Vhd, vhdx, vhdx::Vhdx, vmdk::Vmdk};
use std::rc::Rc;

const PAGE: usize = 4 << 10;
/// Bytes of a VHDX at most.
const FILE: usize = 16 << 20;
/// Packed runs that are read; a file has no more of them than a small one can name.
const MOST: usize = 64;

/// Open the image and walk through all of it.
pub fn drive(data: &[u8]) {
    let (kind, data) = super::number(data);
    let (file, image) = match kind % 3 {
        0 => opened(data.to_vec(), |file| Ok(Box::new(Vhd::open(file)?))),
        1 => opened(data.to_vec(), |file| Ok(Box::new(Vmdk::open(file)?))),
        _ => opened(unfolded(data), |file| Ok(Box::new(Vhdx::open(file)?))),
    };
    let Some(image) = image else { return };
    let (len, size, mut last, mut packed) = (file.size(), image.size(), 0, 0);
    // Who imports refuses disks of more than 64 TiB before.
    if size > 64 << 40 {
        return;
    }
    let _ = foreign::each_run(&*image, len, &mut |at, place, run| {
        assert!(run > 0 && at >= last && at + run <= size, "{at}+{run} of {size}");
        last = at + run;
        if place == Place::Packed {
            packed += 1;
            if packed <= MOST {
                let _ = image.read_exact_at(&mut vec![0; run as usize], at);
            }
        }
        Ok(())
    });
}

type File = Rc<dyn Bytes>;

fn opened(
    bytes: Vec<u8>,
    open: impl FnOnce(File) -> std::io::Result<Box<dyn Image>>,
) -> (File, Option<Box<dyn Image>>) {
    let file: File = Rc::new(bytes);
    (Rc::clone(&file), open(file).ok())
}

/// The VHDX that the pieces are of.
fn unfolded(data: &[u8]) -> Vec<u8> {
    let mut file = vec![0; FILE];
    for piece in data.chunks(2 + PAGE).filter(|piece| piece.len() > 2) {
        let at = usize::from(u16::from_le_bytes([piece[0], piece[1]])) * PAGE;
        if let Some(room) = file.get_mut(at..at + piece.len() - 2) {
            room.copy_from_slice(&piece[2..]);
        }
    }
    // Headers and region tables. ([MS-VHDX] 2.2)
    for (at, len) in [(64 << 10, 4 << 10), (192 << 10, 64 << 10)] {
        let sum = vhdx::checksum(&file[at..at + len]);
        file[at + 4..at + 8].copy_from_slice(&sum.to_le_bytes());
    }
    file
}

/// Those in the corpus, which qemu-img made, go deeper.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut sparse = vec![1];
    sparse.extend(b"KDMV\x01\0\0\0\x03\0\0\0\x80\0\0\0\0\0\0\0\x80\0\0\0\0\0\0\0");
    sparse.resize(2048, 0);
    let mut fixed = vec![0; 1537];
    fixed.extend(b"conectix\0\0\0\x02\0\x01\0\0\xff\xff\xff\xff\xff\xff\xff\xff");
    fixed.resize(2049, 0);
    vec![sparse, fixed]
}
