//! The `netfw` command.

fn main() -> netfw::cli::exit::Exit {
    netfw::cli::main()
}
