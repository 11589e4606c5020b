//! What a process without rights is told. Root may do anything, so root starts this program again
//! as another user.

use std::fs::{self, Permissions};
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use modelembed_storage::{LoadMode, Storage, StorageError};

const FOLDER: &str = "MODELEMBED_TEST_FOLDER";
const NOBODY: u32 = 65534;

fn open(path: &Path, mode: LoadMode) -> Result<Storage, StorageError> {
    Storage::open(path, mode, &mut |_| ControlFlow::Continue(()))
}

/// The checks themselves; the folder is another user's if `foreign`.
fn check(folder: &Path, foreign: bool) {
    for (name, mode) in [("closed", LoadMode::Map), ("closed", LoadMode::Buffer), ("locked/model", LoadMode::File)] {
        let error = open(&folder.join(name), mode).unwrap_err();
        assert!(matches!(error, StorageError::PermissionDenied { .. }), "{name}: {error:?}");
        assert!(error.to_string().contains(name), "{error}");
    }
    // A file of another user: the system does not tell what of it is in memory.
    let open = open(&folder.join("open"), LoadMode::Map).unwrap();
    assert_eq!(open.bytes(0..5), Some(&b"bytes"[..]));
    assert_eq!(open.residency(0..5).is_none(), foreign);
    assert!(open.mapped_resident_bytes().is_some_and(|bytes| bytes > 0));
}

#[test]
fn a_user_without_rights() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return check(Path::new(&folder), true);
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let permit = |name: &str, mode| fs::set_permissions(at(name), Permissions::from_mode(mode)).unwrap();
    fs::create_dir(at("locked")).unwrap();
    for name in ["closed", "open", "locked/model"] {
        fs::write(at(name), b"bytes").unwrap();
    }
    permit("open", 0o444);
    permit("closed", 0);
    permit("locked", 0);
    permit("", 0o755);
    if fs::metadata(dir.path()).unwrap().uid() == 0 {
        // A copy, since the build's folder may be closed to others.
        fs::copy(std::env::current_exe().unwrap(), at("test")).unwrap();
        permit("test", 0o755);
        let child = Command::new(at("test"))
            .arg("other_user::")
            .env(FOLDER, dir.path())
            .current_dir("/")
            .uid(NOBODY)
            .gid(NOBODY)
            .output();
        let child = child.unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    } else {
        check(dir.path(), false);
    }
    permit("locked", 0o755);
}
