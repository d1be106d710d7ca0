//! Compiles the freestanding guest of the built-in image `demo`, and names the build.

use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs, io};

#[path = "images/demo/compile.rs"]
mod compile;

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=images/demo");
    println!("cargo::rerun-if-changed=Cargo.lock");
    println!("cargo::rerun-if-changed=src");
    match build_id() {
        Ok(id) => println!("cargo::rustc-env=SPORE_BUILD={id}"),
        Err(error) => println!("cargo::error=cannot read the sources: {error}"),
    }
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

/// What the programs of one build know each other by: they are compiled of the same sources.
fn build_id() -> io::Result<String> {
    let mut files = Vec::new();
    find(Path::new("src"), &mut files)?;
    files.sort();
    files.extend(Path::new("Cargo.lock").exists().then(|| "Cargo.lock".into()));
    let mut digest = Sha256::new();
    for file in files {
        let content = fs::read(&file)?;
        digest.update(format!("{} {} ", file.display(), content.len()));
        digest.update(content);
    }
    Ok(digest.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect())
}

fn find(directory: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
