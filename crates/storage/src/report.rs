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
