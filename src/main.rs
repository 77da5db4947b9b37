//! The `residua` binary: everything it does lives in the library's [`residua::cli`].

fn main() -> std::process::ExitCode {
    residua::cli::main()
}
