//! What tests of this crate share.

/// Whether the program runs under an emulator that answers some questions about memory itself (`scripts/test-cross.sh` says so);
/// tells on standard error what is left out then.
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "what it is asked about is tested on Linux only"))]
pub fn emulated(left_out: &str) -> bool {
    let emulated = std::env::var_os("MODELEMBED_EMULATED").is_some();
    if emulated {
        eprintln!("left out under an emulator: {left_out}");
    }
    emulated
}
