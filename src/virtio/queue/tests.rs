//! Rings and chains, well-formed and not.

use super::*;
use crate::virtio::testing::*;
use proptest::prelude::*;

fn live(driver: &Driver, features: u64) -> SplitQueue {
    SplitQueue::new(driver.ram.clone(), driver.state, 256, features).unwrap()
}

fn malformed(driver: &Driver) -> &'static str {
    live(driver, feature::RING).pop().unwrap_err().0
}

#[test]
fn a_chain_comes_with_its_parts_and_goes_back() {
    let ram = ram();
    let mut driver = Driver::new(&ram, 0, 8);
    driver.chain(2, &[(BUFFERS, 16, false), (BUFFERS + 64, 32, true), (BUFFERS + 128, 1, true)]);
    driver.offer(2);
    let mut queue = live(&driver, feature::RING);
    let chain = queue.pop().unwrap().unwrap();
    assert_eq!((chain.head(), chain.readable_len(), chain.writable_len()), (2, 16, 33));
    let tail = chain.writable(31, 2).unwrap();
    let pieces = [(GuestAddress(BUFFERS + 95), 1), (GuestAddress(BUFFERS + 128), 1)];
    assert_eq!(tail.as_slice(), pieces);
    assert!(chain.writable(31, 3).is_none());
    assert!(queue.pop().unwrap().is_none());
    queue.push_used(2, 33).unwrap();
    assert!(driver.used().is_empty(), "nothing is seen before it is published");
    assert!(queue.publish().unwrap());
    assert_eq!(driver.used(), [(2, 33)]);
}

#[test]
fn chains_are_put_back_in_their_order() {
    let ram = ram();
    let mut driver = Driver::new(&ram, 0, 8);
    for head in [5, 2, 7] {
        driver.chain(head, &[(BUFFERS, 16, true)]);
        driver.offer(head);
    }
    let mut queue = live(&driver, feature::RING);
    let heads: Vec<u16> = (0..3).map(|_| queue.pop().unwrap().unwrap().head()).collect();
    assert_eq!(heads, [5, 2, 7]);
    queue.push_used(5, 16).unwrap();
    queue.put_back(7);
    queue.put_back(2);
    queue.publish().unwrap();
    let state = queue.state();
    assert_eq!((state.next_avail, state.next_used), (1, 1));
    driver.state = state;
    for mut queue in [queue, live(&driver, feature::RING)] {
        let heads: Vec<u16> = (0..2).map(|_| queue.pop().unwrap().unwrap().head()).collect();
        assert_eq!(heads, [2, 7]);
        assert!(queue.pop().unwrap().is_none());
    }
}

#[test]
fn indices_wrap_around() {
    let ram = ram();
    let mut driver = Driver::new(&ram, 0, 4);
    (driver.state.next_avail, driver.state.next_used) = (u16::MAX, u16::MAX);
    driver.chain(1, &[(BUFFERS, 4, true)]);
    driver.set_avail(u16::MAX);
    let mut queue = live(&driver, feature::RING);
    // The slots of a ring of 4 at index 65535 and then 0.
    for _ in 0..2 {
        driver.offer(1);
        assert_eq!(queue.pop().unwrap().unwrap().head(), 1);
        queue.push_used(1, 4).unwrap();
    }
    queue.publish().unwrap();
    assert_eq!(queue.state().next_used, 1);
    assert_eq!(queue.state().next_avail, 1);
}

#[test]
fn interrupts_come_when_the_event_index_is_passed() {
    let ram = ram();
    let mut driver = Driver::new(&ram, 0, 8);
    driver.chain(0, &[(BUFFERS, 4, true)]);
    let mut queue = live(&driver, feature::RING);
    let used_event = GuestAddress(driver.state.avail + 4 + 2 * 8);
    let mut give = |queue: &mut SplitQueue, event: u16, count: usize| {
        ram.write_obj(event, used_event).unwrap();
        for _ in 0..count {
            driver.offer(0);
            queue.pop().unwrap().unwrap();
            queue.push_used(0, 0).unwrap();
        }
        queue.publish().unwrap()
    };
    assert!(give(&mut queue, 0, 1), "used index 0 was waited for");
    assert!(!give(&mut queue, 3, 2), "1 and 2 used, 3 waited for");
    assert!(give(&mut queue, 3, 3), "3 to 5 used, one interrupt for all");
    assert!(!queue.publish().unwrap(), "nothing new, no interrupt");
}

#[test]
fn without_event_index_flags_tell() {
    let ram = ram();
    let mut driver = Driver::new(&ram, 0, 8);
    driver.chain(0, &[(BUFFERS, 4, true)]);
    let mut queue = live(&driver, feature::VERSION_1);
    let used_flags = || ram.read_obj::<u16>(GuestAddress(driver.state.used)).unwrap();
    queue.disable_notification().unwrap();
    assert_eq!(used_flags(), 1);
    assert!(!queue.enable_notification().unwrap());
    assert_eq!(used_flags(), 0);
    driver.offer(0);
    assert!(queue.enable_notification().unwrap(), "a chain came before the wish was visible");
    queue.pop().unwrap();
    queue.push_used(0, 0).unwrap();
    ram.write_obj(1u16, GuestAddress(driver.state.avail)).unwrap();
    assert!(!queue.publish().unwrap(), "VIRTQ_AVAIL_F_NO_INTERRUPT");
}

#[test]
fn notifications_are_wanted_at_the_next_index() {
    let ram = ram();
    let mut driver = Driver::new(&ram, 0, 8);
    driver.chain(0, &[(BUFFERS, 4, true)]);
    driver.offer(0);
    let mut queue = live(&driver, feature::RING);
    assert!(queue.enable_notification().unwrap());
    queue.pop().unwrap();
    assert!(!queue.enable_notification().unwrap());
    let avail_event = GuestAddress(driver.state.used + 4 + 8 * 8);
    assert_eq!(ram.read_obj::<u16>(avail_event).unwrap(), 1);
}

#[test]
fn an_indirect_table_is_followed() {
    let ram = ram();
    let mut driver = Driver::new(&ram, 0, 8);
    let table = BUFFERS + 8; // 16-byte alignment is not required of it
    driver.desc(0, BUFFERS + 0x1000, 16, NEXT, 1);
    driver.desc(1, table, 32, INDIRECT | WRITE, 0);
    driver.desc_at(table, 0, BUFFERS + 0x2000, 512, WRITE | NEXT, 1);
    driver.desc_at(table, 1, BUFFERS + 0x3000, 1, WRITE, 0);
    driver.offer(0);
    let chain = live(&driver, feature::RING).pop().unwrap().unwrap();
    assert_eq!((chain.readable_len(), chain.writable_len()), (16, 513));
    let refused = live(&driver, feature::VERSION_1).pop().unwrap_err();
    assert_eq!(refused.0, "an unexpected indirect descriptor", "not without the feature");
}

#[test]
fn malformed_indirect_tables_are_refused() {
    let ram = ram();
    let mut driver = Driver::new(&ram, 0, 8);
    driver.offer(0);
    let table = BUFFERS;
    for (len, flags, reason) in [
        (0, INDIRECT, "an indirect table's length is not of descriptors"),
        (24, INDIRECT, "an indirect table's length is not of descriptors"),
        (32, INDIRECT | NEXT, "a descriptor follows an indirect one"),
    ] {
        driver.desc(0, table, len, flags, 1);
        assert_eq!(malformed(&driver), reason);
    }
    driver.desc(0, table, 32, INDIRECT, 0);
    driver.desc_at(table, 0, table, 32, INDIRECT, 0);
    assert_eq!(malformed(&driver), "an unexpected indirect descriptor", "nested");
    driver.desc_at(table, 0, BUFFERS, 1, NEXT, 2);
    assert_eq!(malformed(&driver), "a descriptor index lies outside its table");
    driver.desc_at(table, 0, BUFFERS, 1, NEXT, 0);
    assert_eq!(malformed(&driver), "a descriptor chain is a loop or longer than the queue");
    driver.desc(0, RAM - 8, 32, INDIRECT, 0);
    assert_eq!(malformed(&driver), "a descriptor lies outside guest memory");
    driver.desc(0, u64::MAX - 8, 32, INDIRECT, 0);
    assert_eq!(malformed(&driver), "a descriptor lies outside guest memory");
}

#[test]
fn malformed_chains_are_refused() {
    let ram = ram();
    let mut driver = Driver::new(&ram, 0, 4);
    driver.offer(9);
    assert_eq!(malformed(&driver), "a descriptor index lies outside its table");
    driver.set_avail(0);
    driver.offer(0);
    driver.desc(0, BUFFERS, 4, NEXT, 4);
    assert_eq!(malformed(&driver), "a descriptor index lies outside its table");
    driver.desc(0, BUFFERS, 4, NEXT, 1);
    driver.desc(1, BUFFERS, 4, NEXT, 0);
    assert_eq!(malformed(&driver), "a descriptor chain is a loop or longer than the queue");
    driver.chain(0, &[(BUFFERS, 4, true), (BUFFERS, 4, false)]);
    assert_eq!(malformed(&driver), "a readable descriptor follows a writable one");
    driver.chain(0, &[(BUFFERS, u32::MAX, false), (BUFFERS, 1, true)]);
    assert_eq!(malformed(&driver), "a descriptor chain has 4 GiB or more");
    driver.chain(0, &[(u64::MAX - 3, 5, false)]);
    assert_eq!(malformed(&driver), "a buffer wraps around the address space");
}

#[test]
fn an_available_index_far_ahead_is_refused() {
    let ram = ram();
    let mut driver = Driver::new(&ram, 0, 4);
    driver.set_avail(5);
    let reason = "the available index ran ahead by more than the queue's size";
    assert_eq!(malformed(&driver), reason);
    // Never more in flight than the queue holds, though the index creeps on.
    driver.set_avail(0);
    driver.desc(0, BUFFERS, 4, WRITE, 0);
    let mut queue = live(&driver, feature::RING);
    for _ in 0..4 {
        driver.offer(0);
        queue.pop().unwrap().unwrap();
    }
    driver.offer(0);
    let reason = "more requests in flight than the queue has descriptors";
    assert_eq!(queue.pop().unwrap_err().0, reason);
}

#[test]
fn bad_registers_are_refused() {
    let ram = ram();
    let good = Driver::new(&ram, 0, 8).state;
    let check = |change: fn(&mut QueueState)| {
        let mut state = good;
        change(&mut state);
        state.check(&ram, 256).is_ok()
    };
    assert!(check(|_| ()));
    assert!(!check(|s| s.size = 0));
    assert!(!check(|s| s.size = 3));
    assert!(!check(|s| s.size = 512));
    assert!(!check(|s| s.desc = 8));
    assert!(!check(|s| s.avail += 1));
    assert!(!check(|s| s.used += 2));
    assert!(!check(|s| s.desc = RAM - 64));
    assert!(!check(|s| s.avail = RAM));
    assert!(!check(|s| s.used = !3));
    assert!(!check(|s| s.desc = 1 << 63));
}

proptest! {
    /// Whatever is in the tables, taking chains ends, without a panic, and no chain is longer than
    /// allowed.
    #[test]
    fn random_tables_end(
        descs in proptest::collection::vec((0u64..RAM * 2, 0u32..4096, 0u16..8, 0u16..20), 16),
        garbage in proptest::collection::vec(any::<u8>(), 2048),
        heads in proptest::collection::vec(0u16..18, 16),
        features in any::<u64>(),
    ) {
        let ram = ram();
        ram.write_slice(&garbage, GuestAddress(BUFFERS)).unwrap();
        let mut driver = Driver::new(&ram, 0, 16);
        for (index, (addr, len, flags, next)) in (0..).zip(descs) {
            // Half of them point at the garbage, which is where tables of garbage come from.
            let addr = if flags & INDIRECT != 0 { BUFFERS + addr % 2048 } else { addr };
            driver.desc(index, addr, len, flags, next);
        }
        for head in heads {
            driver.offer(head);
        }
        let mut queue = live(&driver, features);
        let mut taken = 0;
        while let Ok(Some(chain)) = queue.pop() {
            let total = u64::from(chain.readable_len()) + u64::from(chain.writable_len());
            prop_assert!(total <= u64::from(u32::MAX));
            let pieces = chain.readable(0, chain.readable_len()).unwrap().len();
            prop_assert!(pieces <= 16 + 256);
            queue.push_used(chain.head(), 0).unwrap();
            taken += 1;
        }
        prop_assert!(taken <= 16);
    }
}
