//! Compiles the freestanding guest of the built-in image `demo`.

use std::env;
use std::path::Path;
use std::process::ExitCode;

#[path = "images/demo/compile.rs"]
mod compile;

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=images/demo");
    let (Some(rustc), Some(out)) = (env::var_os("RUSTC"), env::var_os("OUT_DIR")) else {
        println!("cargo::error=RUSTC and OUT_DIR are not set: build with cargo");
        return ExitCode::FAILURE;
    };
    let demo = Path::new("images/demo");
    let out = Path::new(&out).join("demo.elf");
    match compile::compile(&rustc, &demo.join("main.rs"), &demo.join("guest.ld"), &out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("{reason}");
            println!("cargo::error=cannot compile the demo guest (images/demo), see above");
            ExitCode::FAILURE
        }
    }
}
