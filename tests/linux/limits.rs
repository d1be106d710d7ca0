//! What a machine may take, by a control group of its own. (Linux,
//! Documentation/admin-guide/cgroup-v2.rst)

use super::linux::{Lab, patience};
use std::path::PathBuf;
use std::time::Instant;

/// A guest that never rests is held back, its group has what was asked for, and goes with it.
pub fn a_busy_guest_is_held_back(lab: &Lab) {
    let run = ["run", "demo", "-q", "-m", "64M", "--append=demo.mode=hang"];
    let run = lab.spore(&[&run[..], &["--cpu-quota", "20%", "--memory-max", "256M"]].concat());
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    if said.contains("UnsupportedOperation") {
        return super::linux::skip::skip_anywhere(said);
    }
    assert!(run.status.success(), "{said}");
    let id = String::from_utf8(run.stdout).unwrap().trim().to_owned();
    let described = lab.describe(&id);
    let group = PathBuf::from(described["Spore"]["ControlGroup"].as_str().unwrap());
    let read = |name: &str| std::fs::read_to_string(group.join(name)).unwrap();
    assert_eq!(read("cpu.max").trim(), "20000 100000");
    assert_eq!(read("memory.max").trim(), (256 << 20).to_string());
    let throttled = || -> u64 {
        let statistics = read("cpu.stat");
        let line = statistics.lines().find_map(|line| line.strip_prefix("nr_throttled "));
        line.unwrap().parse().unwrap()
    };
    let deadline = Instant::now() + patience();
    while throttled() < 5 {
        assert!(Instant::now() < deadline, "{}", read("cpu.stat"));
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(lab.state(&id), "running");
    lab.ok(&["terminate", &id]);
    assert!(!group.exists(), "the group goes with the instance");
}
