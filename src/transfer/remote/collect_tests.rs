use super::*;
use crate::context::Context;
use crate::error::Code;
use crate::transfer::region::Location;
use crate::transfer::remote::backend::{Answer, Backend, Fault};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Objects by name, and when each was written.
type Written = BTreeMap<String, (u64, Vec<u8>)>;

/// A bucket in memory, whose clock is set by hand.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<(u64, Written)>>);

impl Memory {
    fn at(&self, ms: u64) {
        self.0.lock().unwrap().0 = ms;
    }

    fn names(&self, place: &str) -> Vec<String> {
        Objects::list(self, place).unwrap().into_iter().map(|(name, _)| name).collect()
    }

    fn remote(&self) -> Remote {
        let objects: Option<Box<dyn Objects>> = Some(Box::new(self.clone()));
        let location = Location::Directory("/nowhere".into());
        Remote {
            name: "west".into(),
            location,
            context: Context::default(),
            backend: Box::new(self.clone()),
            objects,
        }
    }
}

impl Objects for Memory {
    fn read(&self, name: &str, _: u64) -> Answer<Vec<u8>> {
        let found = self.0.lock().unwrap().1.get(name).map(|(_, bytes)| bytes.clone());
        found.ok_or(Fault::Absent)
    }
    fn write(&self, name: &str, bytes: Vec<u8>) -> Answer<()> {
        let mut all = self.0.lock().unwrap();
        let now = all.0;
        all.1.insert(name.to_owned(), (now, bytes));
        Ok(())
    }
    fn delete(&self, name: &str) -> Answer<()> {
        self.0.lock().unwrap().1.remove(name);
        Ok(())
    }
    fn stamp(&self, _: &str) -> Answer<(u64, String)> {
        Err(Fault::Absent)
    }
    fn list(&self, place: &str) -> Answer<Vec<(String, u64)>> {
        let all = self.0.lock().unwrap();
        let name = |path: &String| path.strip_prefix(place)?.strip_prefix('/').map(str::to_owned);
        Ok(all.1.iter().filter_map(|(path, (time, _))| Some((name(path)?, *time))).collect())
    }
}

impl Backend for Memory {
    fn list(&self) -> Answer<Vec<String>> {
        Ok(self.names("images"))
    }
    fn package(&self, id: &str, limit: u64) -> Answer<Vec<u8>> {
        self.read(&format!("images/{id}"), limit)
    }
    fn has(&self, digest: &str) -> Answer<bool> {
        Ok(self.read(&format!("{BLOBS}/{digest}"), 1).is_ok())
    }
    fn put(&self, digest: &str, bytes: Vec<u8>) -> Answer<()> {
        self.write(&format!("{BLOBS}/{digest}"), bytes)
    }
    fn get(&self, digest: &str, size: u64) -> Answer<Vec<u8>> {
        self.read(&format!("{BLOBS}/{digest}"), size)
    }
    fn publish(
        &self,
        id: &str,
        json: Vec<u8>,
        _: &[&crate::transfer::package::Chunk],
    ) -> Answer<()> {
        self.write(&format!("images/{id}"), json)
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap()
}

fn with_a_blob() -> Memory {
    let memory = Memory::default();
    memory.at(ms(LONGEST_COPY) * 2);
    memory.put(&"ab".repeat(32), vec![1]).unwrap();
    memory
}

#[test]
fn what_nothing_needs_goes_once_no_copy_is_going_on() {
    let memory = with_a_blob();
    let remote = memory.remote();
    let copy = announce(&remote).unwrap();
    assert_eq!(collect(&remote).unwrap(), Collected { chunks: 0, busy: true });
    assert_eq!(memory.names(BLOBS).len(), 1);
    drop(copy);
    assert_eq!(collect(&remote).unwrap(), Collected { chunks: 1, busy: false });
    assert!(memory.names(BLOBS).is_empty());
    assert!(memory.names(COPIES).is_empty() && memory.names(COLLECTORS).is_empty());
}

#[test]
fn a_copy_waits_for_a_collector_but_not_for_one_that_was_killed() {
    let memory = with_a_blob();
    let remote = memory.remote();
    let objects = remote.objects().unwrap();
    std::mem::forget(Flag::raise(&remote, objects, COLLECTORS).unwrap());
    let refused = announce_within(&remote, objects, Duration::ZERO).err().unwrap();
    assert_eq!(refused.code(), Some(Code::Unavailable));
    memory.at(ms(LONGEST_COPY) * 2 + ms(LONGEST_COLLECTION));
    drop(announce_within(&remote, objects, Duration::ZERO).unwrap());
    collect(&remote).unwrap();
    assert!(memory.names(COLLECTORS).is_empty());
}

#[test]
fn a_killed_copys_flag_is_old_some_day() {
    let memory = with_a_blob();
    let remote = memory.remote();
    std::mem::forget(announce(&remote).unwrap());
    assert!(collect(&remote).unwrap().busy);
    memory.at(ms(LONGEST_COPY) * 3);
    assert_eq!(collect(&remote).unwrap().chunks, 1);
    assert!(memory.names(COPIES).is_empty());
}

#[test]
fn what_is_not_understood_may_need_anything() {
    let memory = with_a_blob();
    memory.publish("ami-0123456789abcdef0", b"{".to_vec(), &[]).unwrap();
    assert!(collect(&memory.remote()).is_err());
    assert_eq!(memory.names(BLOBS).len(), 1);
}
