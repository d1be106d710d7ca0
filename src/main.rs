//! Thin entry point: everything is in the library.

use sporevm::image::import::external;
use sporevm::image::secrets;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    // Before anything else looks at the arguments: how soon an instance runs depends on it.
    if arguments.next_if(|first| first == "__vmm").is_some() {
        return sporevm::vmm::main();
    }
    if arguments.next_if(|first| first == external::SUBCOMMAND).is_some() {
        return external::main(arguments);
    }
    if arguments.next_if(|first| first == secrets::SUBCOMMAND).is_some() {
        return secrets::main(arguments);
    }
    sporevm::cli::main()
}
