//! A file that is cut short while it is mapped. The process that reads on dies of it, so it is
//! another run of this program.

use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

use modelembed_storage::{LoadMode, Storage, report_lost_pages};

const FILE: &str = "MODELEMBED_TEST_FILE";
const CASE: &str = "MODELEMBED_TEST_CASE";
const SIGBUS: i32 = 7;

fn lose_a_page(path: &Path, case: &str) -> u8 {
    match case {
        "reported" => assert!(report_lost_pages(9) && report_lost_pages(3)),
        "elsewhere" => assert!(report_lost_pages(3)),
        _ => {}
    }
    let open = || Storage::open(path, LoadMode::Map, &mut |_| ControlFlow::Continue(())).unwrap();
    let storage = open();
    let header = storage.header(1).unwrap();
    let mut bytes = header.as_ref().as_ref();
    // SAFETY: the mapping is read only, and lives until the process ends.
    let foreign = unsafe { memmap2::Mmap::map(&File::open(path).unwrap()).unwrap() };
    if case == "elsewhere" {
        bytes = &foreign;
    } else {
        drop(storage); // The header keeps the map alive, and the map its name.
    }
    File::options().write(true).open(path).unwrap().set_len(10).unwrap();
    let last = bytes.len() - 1;
    // Several threads at once, as in a kernel: one of them reports.
    std::hint::black_box(std::thread::scope(|scope| {
        let readers: Vec<_> = (0..8).map(|_| scope.spawn(|| bytes[last])).collect();
        readers.into_iter().map(|reader| reader.join().unwrap()).max().unwrap()
    }))
}

#[test]
fn a_lost_page_ends_the_process_with_a_message() {
    if let (Some(file), Ok(case)) = (std::env::var_os(FILE), std::env::var(CASE)) {
        unreachable!("read {} from a page that is not there", lose_a_page(Path::new(&file), &case));
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shrinking-model");
    let run = |case: &str| -> Output {
        std::fs::write(&path, vec![1u8; 1 << 20]).unwrap();
        let mut test = Command::new(std::env::current_exe().unwrap());
        test.args(["lost_pages::", "--nocapture"]).env(FILE, &path).env(CASE, case).output().unwrap()
    };
    let reported = run("reported");
    let stderr = String::from_utf8_lossy(&reported.stderr).into_owned();
    assert_eq!(reported.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains(&format!("error: {} was cut short", path.display())), "{stderr}");
    assert!(stderr.ends_with('\n') && stderr.matches("error: ").count() == 1, "{stderr}");
    // Without the handler, and for memory that is not ours, the signal stays what it was.
    for case in ["unreported", "elsewhere"] {
        let status = run(case).status;
        assert!(status.signal().is_some_and(|s| s == SIGBUS || cfg!(target_os = "macos")), "{case}: {status}");
    }
}
