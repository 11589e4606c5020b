//! What is packed comes back; what was cut off or changed is refused, wherever it was.

use std::io::Cursor;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use modelembed_packed::{Packed, PackedError, Plan, Progress, Source, sha256_hex, unpack_names};
use modelembed_testkit::Rng;

const KIB64: u64 = 64 << 10;

fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn random(seed: u64, n: usize) -> Vec<u8> {
    let mut out = Vec::new();
    Rng::new(seed).bytes(n, &mut out);
    out
}

/// A folder with a program and files to pack.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        std::fs::write(self.at(name), bytes).unwrap();
        self.at(name)
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn plan(&self, program: &[u8], parts: &[(&str, &[u8])]) -> Plan {
        let source = |(name, bytes): &(&str, &[u8])| Source {
            path: self.write(name, bytes),
            range: 0..bytes.len() as u64,
            name: name.to_string(),
            header_bytes: 100,
        };
        Plan {
            program: self.write("program", program),
            parts: parts.iter().map(source).collect(),
            flags: vec!["--temp=0.5".into(), "--system=Sei \"kurz\".\n".into()],
            output: self.at("out"),
            overwrite: false,
        }
    }
}

fn find(bytes: &[u8]) -> Result<Option<Packed>, PackedError> {
    Packed::find_in(&mut Cursor::new(bytes), Path::new("x"))
}

/// A small packed file: program, one part.
fn small() -> Vec<u8> {
    let folder = Folder::new();
    let plan = folder.plan(&random(1, 1000), &[("model.gguf", &random(2, 3000))]);
    plan.write(&mut go_on).unwrap();
    std::fs::read(&plan.output).unwrap()
}

#[test]
fn what_is_packed_is_found_aligned_and_comes_back() {
    let folder = Folder::new();
    // Longer than one step of the copy; exactly at the alignment; and just too long for the front
    // mark before the next multiple.
    let big = random(3, (9 << 20) + 17);
    for (program_bytes, first_at) in [(1, KIB64), (KIB64 - 64, KIB64), (KIB64 - 63, 2 * KIB64), (KIB64, 2 * KIB64)] {
        let program = random(4, program_bytes as usize);
        let parts: [(&str, &[u8]); 3] = [("a.gguf", &big), ("b.gguf", &random(5, KIB64 as usize)), ("c é.gguf", b"x")];
        let plan = Plan { overwrite: true, ..folder.plan(&program, &parts) };
        let mut told = Vec::new();
        let packed = plan
            .write(&mut |progress| {
                told.push(progress);
                ControlFlow::Continue(())
            })
            .unwrap();
        assert!(told.is_sorted_by_key(|p| p.done_bytes) && told.len() > 3);
        assert_eq!(told.last().map(|p| p.done_bytes), told.last().map(|p| p.total_bytes));
        let file = std::fs::read(&plan.output).unwrap();
        assert!(file.starts_with(&program));
        assert_eq!(packed.manifest().parts[0].offset, first_at);
        assert_eq!(packed.manifest().flags, plan.flags);
        for (part, (name, bytes)) in packed.manifest().parts.iter().zip(parts) {
            assert_eq!((part.name.as_str(), part.offset % KIB64), (name, 0));
            assert!(file[part.range().start as usize..part.range().end as usize] == *bytes, "{name}");
            assert_eq!(part.sha256, sha256_hex(bytes));
            part.check_header(bytes).unwrap();
            assert!(part.check_header(b"other").is_err());
        }
        packed.check(&plan.output, &mut go_on).unwrap();
        std::fs::create_dir_all(folder.at("back")).unwrap();
        let names = unpack_names(&packed, &folder.at("back")).unwrap();
        packed.unpack(&plan.output, &names, true, &mut go_on).unwrap();
        for (name, bytes) in parts {
            assert!(std::fs::read(folder.at("back").join(name)).unwrap() == bytes, "{name}");
        }
        assert!(unpack_names(&packed, &folder.at("one.gguf")).is_err(), "three files into one");
        // Packing what is packed takes the program only.
        let again = Plan { program: plan.output.clone(), output: folder.at("again"), overwrite: true, ..plan.clone() };
        again.write(&mut go_on).unwrap();
        assert!(std::fs::read(&again.output).unwrap() == file);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |name: &str| std::fs::metadata(folder.at(name)).unwrap().permissions().mode();
            assert_eq!((mode("out") & 0o100, mode("back/a.gguf") & 0o111), (0o100, 0));
        }
    }
    let left: Vec<_> = folder.names().into_iter().filter(|name| name.contains("unfinished")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_file_cut_off_anywhere_behind_the_program_says_so() {
    let file = small();
    for len in 0..file.len() {
        match find(&file[..len]) {
            // Of a program alone nobody can tell that something followed.
            Ok(None) => assert!((len as u64) < KIB64, "{len} of {} bytes", file.len()),
            Err(PackedError::EndMissing { file_bytes }) => {
                assert!(len as u64 >= KIB64 && file_bytes == len as u64, "{len} bytes");
            }
            other => panic!("{len} of {} bytes: {other:?}", file.len()),
        }
    }
    let mut longer = file.clone();
    longer.push(0);
    assert!(matches!(find(&longer), Err(PackedError::EndMissing { .. })), "something appended");
    assert!(find(&file).unwrap().is_some());
}

#[test]
fn every_flipped_byte_of_marks_and_manifest_is_noticed() {
    let file = small();
    let part = find(&file).unwrap().unwrap().manifest().parts[0].clone();
    let first = part.offset as usize;
    for at in (first - 64..first).chain(part.range().end as usize..file.len()) {
        for bits in [0x01, 0x80, 0xff] {
            let mut bad = file.clone();
            bad[at] ^= bits;
            let found = find(&bad);
            assert!(found.is_err(), "byte {at} of {} ^ {bits:#x}: {found:?}", file.len());
        }
    }
}

#[test]
fn a_changed_model_is_found_by_a_check_and_by_unpacking() {
    let folder = Folder::new();
    let plan = folder.plan(b"program", &[("m.gguf", &random(7, 5000))]);
    let packed = plan.write(&mut go_on).unwrap();
    let mut bytes = std::fs::read(&plan.output).unwrap();
    let at = packed.manifest().parts[0].range().end as usize - 1;
    bytes[at] ^= 1;
    let bad = folder.write("bad", &bytes);
    let packed = Packed::find(&bad).unwrap().expect("its description is whole");
    let error = packed.check(&bad, &mut go_on).unwrap_err().to_string();
    assert!(error.contains("m.gguf has the SHA-256"), "{error}");
    let before = folder.names();
    let error = packed.unpack(&bad, &[folder.at("back")], false, &mut go_on).unwrap_err().to_string();
    assert!(error.contains("m.gguf has the SHA-256"), "{error}");
    assert_eq!(folder.names(), before, "nothing is left behind");
    // A program that was changed is not packed again.
    bytes[at] ^= 1;
    bytes[3] ^= 1;
    let bad = folder.write("bad", &bytes);
    assert!(packed.check(&bad, &mut go_on).unwrap_err().to_string().contains("the program has"));
    let again = Plan { program: bad, output: folder.at("again"), ..plan };
    assert!(again.write(&mut go_on).unwrap_err().to_string().contains("the program has"));
    assert!(!folder.at("again").exists());
}

#[test]
fn nothing_is_replaced_unasked_and_nothing_is_left_behind() {
    let folder = Folder::new();
    let plan = folder.plan(b"program", &[("m.gguf", &random(7, 20 << 20))]);
    folder.write("out", b"precious");
    let before = folder.names();
    assert!(matches!(plan.write(&mut go_on), Err(PackedError::Exists { .. })));
    let forced = Plan { overwrite: true, ..plan.clone() };
    let cancelled = forced.write(&mut |_| ControlFlow::Break(()));
    assert!(matches!(cancelled, Err(PackedError::Cancelled)), "{cancelled:?}");
    assert_eq!(
        (std::fs::read(folder.at("out")).unwrap().as_slice(), folder.names()),
        (&b"precious"[..], before.clone())
    );
    let nowhere = Plan { output: folder.at("no/such/folder"), ..plan.clone() };
    assert!(matches!(nowhere.write(&mut go_on), Err(PackedError::Write { .. })));
    let onto_folder = Plan { output: folder.0.path().to_owned(), overwrite: true, ..plan.clone() };
    assert!(matches!(onto_folder.write(&mut go_on), Err(PackedError::Output { .. })));
    // One that appears meanwhile is not replaced either.
    std::fs::remove_file(folder.at("out")).unwrap();
    let raced = plan.write(&mut |_| {
        folder.write("out", b"quicker");
        ControlFlow::Continue(())
    });
    assert!(matches!(raced, Err(PackedError::Exists { .. })), "{raced:?}");
    // A source that changes meanwhile.
    let changing = forced.write(&mut |_| {
        std::fs::File::options()
            .append(true)
            .open(folder.at("m.gguf"))
            .and_then(|mut f| {
                use std::io::Write;
                f.write_all(b"more")
            })
            .unwrap();
        ControlFlow::Continue(())
    });
    assert!(matches!(changing, Err(PackedError::SourceChanged { .. })), "{changing:?}");
    assert_eq!(folder.names(), before);
    let flags = vec!["a\0b".to_string()];
    let refused = Plan { flags, overwrite: true, ..plan.clone() }.write(&mut go_on);
    assert!(matches!(refused, Err(PackedError::Unfit { .. })), "{refused:?}");
    assert_eq!(folder.names(), before);
}

/// A process that is killed cannot clean up: on Linux nothing has a name before it is complete.
#[cfg(target_os = "linux")]
#[test]
fn what_is_unfinished_has_no_name() {
    for overwrite in [false, true] {
        let folder = Folder::new();
        let model = small();
        let mut plan = folder.plan(b"program", &[("a.gguf", &model)]);
        plan.overwrite = overwrite;
        if overwrite {
            folder.write("out", b"what was there before");
            plan.output = folder.at("out");
        }
        let before = folder.names();
        let mut seen = 0;
        let packed = plan.write(&mut |_| {
            seen += 1;
            assert_eq!(folder.names(), before);
            ControlFlow::Continue(())
        });
        let packed = packed.unwrap();
        assert!(seen > 0 && packed.manifest().parts.len() == 1);
        assert_eq!(folder.names().len(), before.len() + usize::from(!overwrite), "{:?}", folder.names());
        let out = std::fs::read(&plan.output).unwrap();
        assert!(out.starts_with(b"program"));
        use std::os::unix::fs::PermissionsExt;
        assert_ne!(std::fs::metadata(&plan.output).unwrap().permissions().mode() & 0o100, 0);
    }
}

/// Replaces the manifest; its hash is right.
fn with_manifest(file: &[u8], json: &str) -> Vec<u8> {
    let part = find(file).unwrap().unwrap().manifest().parts[0].clone();
    let mut out = file[..part.range().end as usize].to_vec();
    out.extend(json.as_bytes());
    let mut mark = file[file.len() - 32..].to_vec();
    mark[..8].copy_from_slice(&(json.len() as u64).to_le_bytes());
    let hash = sha256_hex(&[json.as_bytes(), &mark].concat());
    out.extend((0..32).map(|i| u8::from_str_radix(&hash[2 * i..2 * i + 2], 16).unwrap()));
    out.extend(mark);
    out
}

#[test]
fn descriptions_that_lie_are_refused() {
    let file = small();
    let packed = find(&file).unwrap().unwrap();
    let good = serde_json::to_string(packed.manifest()).unwrap();
    assert_eq!(find(&with_manifest(&file, &good)).unwrap(), Some(packed.clone()));
    let sha = &packed.manifest().program.sha256;
    let rows = [
        ("\"offset\":65536", "\"offset\":0"),
        ("\"offset\":65536", "\"offset\":65537"),
        ("\"offset\":65536", "\"offset\":131072"),
        ("\"offset\":65536", "\"offset\":18446744073709551615"),
        ("\"offset\":65536", "\"offset\":-1"),
        ("\"offset\":65536", "\"offset\":6.5536e4"),
        ("\"bytes\":3000", "\"bytes\":0"),
        ("\"bytes\":3000", "\"bytes\":2999"),
        ("\"bytes\":3000", "\"bytes\":3001"),
        ("\"bytes\":3000", "\"bytes\":18446744073709551615"),
        ("\"bytes\":3000", "\"bytes\":18446744073709486080"), // the end wraps to 0
        ("\"bytes\":1000", "\"bytes\":0"),
        ("\"bytes\":1000", "\"bytes\":70000"),
        ("\"bytes\":1000", "\"bytes\":18446744073709551615"),
        ("\"bytes\":1000", "\"bytes\":18446744073709551552"),
        ("\"header_bytes\":100", "\"header_bytes\":3001"),
        ("\"name\":\"model.gguf\"", "\"name\":\"../model.gguf\""),
        ("\"name\":\"model.gguf\"", "\"name\":\"\""),
        ("\"name\":\"model.gguf\"", "\"name\":\"..\""),
        ("\"name\":\"model.gguf\"", "\"name\":\"C:model.gguf\""),
        ("\"name\":\"model.gguf\"", "\"name\":\"a\\\\b\""),
        ("\"name\":\"model.gguf\"", "\"name\":\"a\\u001b[2J\""),
        ("\"flags\":[", "\"flags\":[\"a\\u0000b\","),
        ("\"flags\":[", "\"flags\":[1,"),
        ("\"flags\":", "\"more\":1,\"flags\":"),
        ("\"flags\":", "\"flogs\":"),
        (sha, "00"),
        (sha, &sha.to_uppercase()),
        (sha, &"zz".repeat(32)),
        ("{", "[["),
        (&good, ""),
        (&good, "null"),
        (&good, "{}"),
        (&good, &"[".repeat(100_000)), // no stack is deep enough
    ];
    for (from, to) in rows {
        assert!(good.contains(from), "{from}");
        let bad = with_manifest(&file, &good.replacen(from, to, 1));
        match find(&bad) {
            Err(error @ PackedError::Changed { .. }) => {
                let text = error.to_string();
                assert!(text.len() < 1000 && !text.contains('\u{1b}'), "{from} -> {to}: {text}");
            }
            other => panic!("{from} -> {to}: {other:?}"),
        }
    }
    // More parts than the file has.
    let twice = good.replacen("\"parts\":[", "\"parts\":[{\"name\":\"b\",\"offset\":65536,\"bytes\":1,\"sha256\":\"\",\"header_bytes\":0,\"header_sha256\":\"\"},", 1);
    assert!(find(&with_manifest(&file, &twice)).is_err());
    assert!(find(&with_manifest(&file, &good.replacen("\"parts\":[", "\"parts\":[],\"x\":[", 1))).is_err());
}

#[test]
fn marks_that_lie_are_refused_without_allocating_what_they_say() {
    let file = small();
    let at = file.len() - 32;
    for number in [0, 1, 63, file.len() as u64 - 64, file.len() as u64, 1 << 40, 1 << 63, u64::MAX - 63, u64::MAX] {
        let mut bad = file.clone();
        bad[at..at + 8].copy_from_slice(&number.to_le_bytes());
        assert!(matches!(find(&bad), Err(PackedError::Changed { .. })), "{number}");
    }
    let mut later = file.clone();
    later[at + 8] = 2;
    assert!(matches!(find(&later), Err(PackedError::Version { seen: 2, wanted: 1 })));
}

#[test]
fn other_files_hold_no_model() {
    let folder = Folder::new();
    for bytes in [&b""[..], b"x", &[0; 64], &random(1, 200_000), &[b"GGUF".as_slice(), &[0; 70_000]].concat()] {
        assert_eq!(Packed::find(&folder.write("file", bytes)).unwrap(), None);
    }
    assert_eq!(Packed::find(&folder.at("none")).unwrap(), None);
    assert_eq!(Packed::find(folder.0.path()).unwrap(), None);
    // A program of its own, this test, has the magic number only turned over.
    assert_eq!(Packed::find(&std::env::current_exe().unwrap()).unwrap(), None);
}
