//! Thin entry point: everything is in the library.

use sporevm::image::import::external;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.next_if(|first| first == external::SUBCOMMAND).is_some() {
        return external::main(arguments);
    }
    sporevm::cli::main()
}
