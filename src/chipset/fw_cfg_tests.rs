use super::*;
use crate::mem::layout::MIN_MEMORY;
use crate::mem::ram;
use proptest::prelude::*;

const REQUEST: u64 = 0x8000;

fn device() -> (FwCfg, GuestRam) {
    let ram = ram::create(MIN_MEMORY).unwrap();
    let items = vec![(0, b"QEMU".to_vec()), (0x20, (0..=255).collect())];
    (FwCfg::new(items, ram.clone()), ram)
}

fn read_byte(device: &FwCfg) -> u8 {
    let mut byte = [0xee];
    device.read(DATA, &mut byte);
    byte[0]
}

/// Do a DMA request; what its control word is then.
fn dma(device: &FwCfg, ram: &GuestRam, control: u32, length: u32, target: u64) -> u32 {
    let mut request = control.to_be_bytes().to_vec();
    request.extend(length.to_be_bytes());
    request.extend(target.to_be_bytes());
    ram.write_slice(&request, GuestAddress(REQUEST)).unwrap();
    device.write(DMA_LOW, &(REQUEST as u32).to_be_bytes());
    u32::from_be_bytes(ram.read_obj(GuestAddress(REQUEST)).unwrap())
}

fn bytes(ram: &GuestRam, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    ram.read_slice(&mut bytes, GuestAddress(at)).unwrap();
    bytes
}

#[test]
fn an_item_reads_byte_by_byte_and_zeros_after_it() {
    let (device, _ram) = device();
    device.write(SELECTOR, &0u16.to_le_bytes());
    assert_eq!([(); 6].map(|()| read_byte(&device)), *b"QEMU\0\0");
    device.write(SELECTOR, &0x8000u16.to_le_bytes());
    assert_eq!(read_byte(&device), 0, "no such item");
    device.write(SELECTOR, &0x20u16.to_le_bytes());
    assert_eq!([(); 2].map(|()| read_byte(&device)), [0, 1]);
}

#[test]
fn dma_selects_reads_and_skips() {
    let (device, ram) = device();
    let mut signature = [0; 8];
    let (high, low) = signature.split_at_mut(4);
    device.read(DMA_HIGH, high);
    device.read(DMA_LOW, low);
    assert_eq!(&signature, b"QEMU CFG");
    assert_eq!(dma(&device, &ram, 0x20 << 16 | SELECT | READ, 4, 0x1_0000), 0);
    assert_eq!(bytes(&ram, 0x1_0000, 5), [0, 1, 2, 3, 0]);
    assert_eq!(dma(&device, &ram, SKIP, 200, 0), 0);
    ram.write_slice(&[0xaa; 100], GuestAddress(0x1_0000)).unwrap();
    assert_eq!(dma(&device, &ram, READ, 60, 0x1_0000), 0);
    let mut expected: Vec<u8> = (204..=255).collect();
    expected.resize(60, 0);
    expected.push(0xaa);
    assert_eq!(bytes(&ram, 0x1_0000, 61), expected);
}

#[test]
fn what_dma_cannot_do_it_says() {
    let (device, ram) = device();
    for (control, length, target) in [
        (SELECT | READ, 4, MIN_MEMORY),
        (SELECT | READ, 8, MIN_MEMORY - 4),
        (SELECT | READ, 16, u64::MAX - 2),
        (SELECT | READ, MAX_TRANSFER + 1, 0x1_0000),
        (SELECT | SKIP, u32::MAX, 0),
        (SELECT | WRITE, 4, 0x1_0000),
    ] {
        assert_eq!(dma(&device, &ram, control, length, target), ERROR, "{control:#x} {length}");
    }
    // A request outside RAM is answered nowhere.
    device.write(DMA_HIGH, &u32::MAX.to_be_bytes());
    device.write(DMA_LOW, &u32::MAX.to_be_bytes());
}

#[test]
fn a_reset_selects_the_signature() {
    let (device, _ram) = device();
    device.write(SELECTOR, &0x20u16.to_le_bytes());
    device.write(DMA_HIGH, &[1; 4]);
    device.reset();
    assert_eq!(read_byte(&device), b'Q');
}

proptest! {
    #[test]
    fn no_access_of_a_guest_harms(
        accesses in prop::collection::vec((0..16u64, 0..4usize, any::<u64>(), any::<bool>()), 0..64),
        request in any::<[u8; 16]>(),
    ) {
        let (device, ram) = device();
        ram.write_slice(&request, GuestAddress(0)).unwrap();
        for (offset, size, value, write) in accesses {
            let mut data = value.to_le_bytes()[..1 << size].to_vec();
            if write { device.write(offset, &data) } else { device.read(offset, &mut data) }
        }
    }
}
