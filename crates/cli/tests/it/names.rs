//! Names out of the command line and out of files: on one line, and without what steers a terminal.

use crate::util::*;
use modelembed_gguf::TensorType;
use modelembed_testkit::{GgufWriter, tiny_metadata, tiny_spec};

/// A name that would begin a message of its own, and paint it red.
const HOSTILE: &str = "a\nerror: \u{1b}[31mb\u{202e}.gguf";
const SHOWN: &str = r"a\u{a}error: \u{1b}[31mb\u{202e}.gguf";

/// No line begins with what a name says, and no escape code is there.
fn is_tame(text: &str) -> bool {
    !text.contains(['\u{1b}', '\u{202e}', '\u{7}']) && !text.lines().any(|line| line.starts_with("error: \\u{1b}"))
}

#[test]
fn file_names_are_shown_on_one_line() {
    let tiny = tiny_model();
    let folder = tiny.folder.path();
    std::fs::copy(&tiny.model, folder.join(HOSTILE)).unwrap();
    std::fs::create_dir(folder.join(format!("folder{HOSTILE}"))).unwrap();
    std::fs::write(folder.join(format!("empty{HOSTILE}")), "").unwrap();
    std::fs::write(folder.join(format!("noise{HOSTILE}")), "some bytes that are nothing at all").unwrap();
    let of = |kind: &str| format!("{kind}{HOSTILE}");
    let (folder_name, empty, noise, missing) = (of("folder"), of("empty"), of("noise"), of("missing"));
    let packed = of("packed");
    let rows: [(&[&str], i32, &str); 12] = [
        (&["-model", HOSTILE, "-p", "x", "-n", "1"], 0, "  Model: "),
        (&["-model", HOSTILE, "inspect"], 0, "File: "),
        (&["-model", HOSTILE, "status"], 0, "Model: "),
        (&["-model", HOSTILE, "verify"], 0, "  "),
        (&["-model", HOSTILE, "pack", "-o", &packed], 0, "✓ packed"),
        (&["-model", &packed, "verify"], 0, " in packed"),
        (&["-model", &folder_name, "-p", "x"], 1, "error: folder"),
        (&["-model", &empty, "-p", "x"], 1, "error: empty"),
        (&["-model", &noise, "-p", "x"], 1, "error: noise"),
        (&["-model", &missing, "-p", "x"], 1, "error: Model file not found: missing"),
        (&["-model", HOSTILE, "-p", "x", "-template", &missing], 1, ""),
        (&["-model", HOSTILE, "-p", "x", "-n", HOSTILE], 2, "invalid value '"),
    ];
    for (args, code, before) in rows {
        let run = run_in(folder, args, None);
        let all = format!("{}{}", run.stdout, run.stderr);
        assert_eq!(run.code, code, "{args:?}: {all}");
        assert!(is_tame(&all), "{args:?}: {all}");
        let wanted = format!("{before}{SHOWN}");
        assert!(before.is_empty() || all.contains(&wanted), "{args:?}: {wanted:?} is not in\n{all}");
    }
    // Programs get the name as it is.
    let inspected = run_in(folder, &["-model", HOSTILE, "inspect", "-format", "json"], None).ok();
    let object: serde_json::Value = serde_json::from_str(&inspected.stdout).unwrap();
    assert_eq!(object["path"], HOSTILE);
    assert!(is_tame(&inspected.stdout));
    // What stands beside the file that was not found.
    let beside = run_in(folder, &["-model", "missing", "-p", "x"], None);
    assert!(beside.stderr.contains(&format!("\n  -model {SHOWN}\n")) && is_tame(&beside.stderr), "{}", beside.stderr);
    // What a chat writes.
    let input = format!("/save no/such{}\n/save t\u{1b}[1malk\n", HOSTILE.replace('\n', " "));
    let args = ["-i", "-model", HOSTILE, "-template", "chatml"];
    let chat = run_in(folder, &args, Some(input.as_bytes())).ok();
    assert!(chat.stderr.contains(r"0 messages written to t\u{1b}[1malk)"), "{}", chat.stderr);
    assert!(is_tame(&chat.stderr), "{}", chat.stderr);
}

#[test]
fn names_in_a_model_file_are_shown_on_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let spec = tiny_spec("llama");
    let name = "x\nerror: \u{1b}[31mtensor";
    let pairs = tiny_metadata(&spec).into_iter().filter(|(key, _)| key != "general.name");
    let writer = pairs.fold(GgufWriter::new(), |writer, (key, value)| writer.pair(&key, value));
    let writer = writer.pair("general.name", name).pair("general.na\u{1b}[31mme", "x");
    let writer = writer.tensor(name, TensorType::F32, &[32], &[0; 128]);
    std::fs::write(&path, writer.build()).unwrap();
    let model = path.to_str().unwrap();
    for (args, code, wanted) in [
        (&["inspect"][..], 0, r"x\u{a}error: \u{1b}[31mtensor"),
        (&["inspect"], 0, r"general.na\u{1b}[31mme"),
        (&["verify", "-tensors"], 0, r"x\u{a}error: \u{1b}[31mtensor"),
        (&["-p", "x"], 1, "error: "),
    ] {
        let run = run(&[&["-model", model], args].concat());
        let all = format!("{}{}", run.stdout, run.stderr);
        assert_eq!(run.code, code, "{args:?}: {all}");
        assert!(all.contains(wanted) && is_tame(&all), "{args:?}: {all}");
    }
}

#[test]
fn errors_and_warnings_begin_on_a_line_of_their_own() {
    let tiny = tiny_model();
    // An error before the first piece of an answer, and both streams in one.
    let home = tempfile::tempdir().unwrap();
    let mut command = program_at(std::path::Path::new("/bin/sh"), home.path());
    let long = "the cat sat on the mat ".repeat(10);
    command.args(["-c", "\"$@\" 2>&1", "sh", env!("CARGO_BIN_EXE_modelembed"), "-model", &tiny.model, "-ctx", "8"]);
    let output = command.args(["-p", &long]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().any(|line| line.starts_with("error: ")), "{text}");
    assert!(!text.contains("Response: error"), "{text}");
}
