/// Whether an emulator plays the processor and answers some questions about memory itself:
/// `scripts/test-cross.sh` says so by `MODELEMBED_EMULATED`.
pub fn is_emulated() -> bool {
    std::env::var_os("MODELEMBED_EMULATED").is_some()
}

/// As [`is_emulated`], and tells on standard error what a test leaves out then.
pub fn emulated(left_out: &str) -> bool {
    if is_emulated() {
        eprintln!("left out under an emulator: {left_out}");
    }
    is_emulated()
}
