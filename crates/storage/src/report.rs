//! Asking the system for a message where a page of a mapped file is lost.

use crate::{lost_pages, os};

/// Makes a lost page of a mapped file end the process with `exit_code` and a message on standard
/// error that names the file, instead of a bare SIGBUS. For programs, not for libraries: it
/// replaces the process's handler, and passes on every SIGBUS that has another cause. False where
/// the system does not know the signal (Windows) or refuses.
pub fn report_lost_pages(exit_code: i32) -> bool {
    lost_pages::set_exit_code(exit_code);
    os::handle_lost_pages()
}

/// Names what is written before the message of [`report_lost_pages`], at most 32 bytes: what ends
/// the line that a terminal's cursor is in.
pub fn write_before_report(bytes: &'static &'static [u8]) {
    lost_pages::set_before(bytes);
}

/// Names what is written at the end of the message of [`report_lost_pages`], at most 128 bytes of
/// its line: what the program has to offer.
pub fn hint_in_report(bytes: &'static &'static [u8]) {
    lost_pages::set_hint(bytes);
}

/// Notes the modes of the terminal that standard input is, if it is one: [`report_lost_pages`]
/// gives them back before the process ends. Only the first call counts.
pub fn restore_before_report() {
    os::keep_terminal_modes();
}
