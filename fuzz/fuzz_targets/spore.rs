//! All fuzz targets in one program, which takes minutes to build: SPORE_FUZZ names the one to run.
//! With SPORE_FUZZ_SEEDS the inputs that it begins with are written into that directory first.
#![no_main]

#[path = "../drive/mod.rs"]
mod drive;

use drive::{TARGETS, Target};
use std::path::Path;
use std::sync::OnceLock;

fn target() -> &'static Target {
    static TARGET: OnceLock<&Target> = OnceLock::new();
    TARGET.get_or_init(|| {
        let name = std::env::var("SPORE_FUZZ").expect("SPORE_FUZZ names a target");
        TARGETS.iter().find(|target| target.name == name).expect("SPORE_FUZZ names a target")
    })
}

fn write_seeds() {
    let Some(dir) = std::env::var_os("SPORE_FUZZ_SEEDS") else { return };
    for (n, seed) in (target().seeds)().iter().enumerate() {
        std::fs::write(Path::new(&dir).join(format!("seed-{n}")), seed).expect("write a seed");
    }
}

libfuzzer_sys::fuzz_target!(init: write_seeds(), |data: &[u8]| (target().drive)(data));
