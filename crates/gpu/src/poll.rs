//! Waiting for a device. The graphics library panics where a driver reports the loss of the device
//! to it while it waits; here that is an error like any other.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use crate::error::{Error, Result};

thread_local! {
    /// Whether a panic of this thread is about to be caught here, and so is nobody's business.
    static IS_CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Waits until the device has done what `until` says.
///
/// # Errors
/// A lost device.
pub(crate) fn poll(device: &wgpu::Device, until: wgpu::PollType) -> Result<()> {
    match caught(|| device.poll(until)) {
        Ok(waited) => waited.map(|_| ()).map_err(Error::refused),
        Err(reason) => Err(Error::Lost { reason }),
    }
}

/// What `f` returns, or what it panics with; the panic is not printed. The library holds no lock
/// where it panics and has marked the device as lost by then, so nothing is left half done.
fn caught<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| {
            if !IS_CAUGHT.get() {
                before(info);
            }
        }));
    });
    IS_CAUGHT.set(true);
    let result = catch_unwind(AssertUnwindSafe(f));
    IS_CAUGHT.set(false);
    result.map_err(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        text.map_or_else(
            || "its driver does not say why".into(),
            |text| text.split_whitespace().collect::<Vec<_>>().join(" "),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_message_and_later_ones_are_still_panics() {
        assert_eq!(caught(|| 7), Ok(7));
        assert_eq!(
            caught(|| -> u8 { panic!("Error in poll:\n  device {}", "lost") }),
            Err("Error in poll: device lost".into())
        );
        assert_eq!(caught(|| -> u8 { panic!("lost") }), Err("lost".into()));
        assert!(!IS_CAUGHT.get());
        assert!(catch_unwind(|| panic!("not caught here")).is_err());
    }
}
