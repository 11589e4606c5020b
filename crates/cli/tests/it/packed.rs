//! One file that holds the program and a model: packed, run, looked into, unpacked, damaged.

use crate::util::*;
use modelembed_testkit::{GgufWriter, tiny_metadata, tiny_spec, tiny_tensors};
use std::path::{Path, PathBuf};

const ANSWER: [&str; 6] = ["-n", "12", "-temp", "0", "-p", "the cat"];

struct Chat {
    tiny: Tiny,
    program: PathBuf,
}

impl Chat {
    /// The tiny model, packed with these flags.
    fn pack(flags: &[&str]) -> Chat {
        let tiny = tiny_model();
        let program = tiny.folder.path().join("chat");
        let command = ["pack", "-model", &tiny.model, "-o", program.to_str().unwrap()];
        let packed = run(&[&command[..], flags].concat()).ok();
        assert_eq!(packed.stdout, "");
        assert!(packed.stderr.contains("chat holds the program ("), "{}", packed.stderr);
        Chat { tiny, program }
    }

    fn run(&self, args: &[&str]) -> Run {
        self.run_with(args, None)
    }

    fn run_with(&self, args: &[&str], input: Option<&[u8]>) -> Run {
        run_program(&self.program, self.tiny.folder.path(), args, input)
    }

    /// Where the model begins.
    fn first(&self) -> usize {
        let model = std::fs::read(&self.tiny.model).unwrap();
        let packed = std::fs::read(&self.program).unwrap();
        let places = (0..packed.len()).step_by(64 << 10);
        places.into_iter().find(|at| packed[*at..].starts_with(&model)).expect("the model lies at a multiple of 64 KiB")
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_packed_program_answers_as_the_program_and_the_model_do() {
    let chat = Chat::pack(&[]);
    let wanted = run(&[&["-model", &chat.tiny.model][..], &ANSWER].concat()).ok().stdout;
    for mode in [&[][..], &["-mmap=false"], &["-memory"]] {
        let own = chat.run(&[&ANSWER[..], mode].concat()).ok();
        assert_eq!(own.stdout, wanted, "{mode:?}");
        assert!(own.stderr.contains(&format!("  Model: {}", path(&chat.program))), "{}", own.stderr);
        let other = run(&[&["-model", path(&chat.program)][..], &ANSWER, mode].concat()).ok();
        assert_eq!(other.stdout, wanted, "as -model of another program, {mode:?}");
    }
    let piped = chat.run_with(&ANSWER[..4], Some(b"the cat\n")).ok();
    assert_eq!(piped.stdout, wanted, "a pipe");
    // Another model is another model.
    let named = chat.run(&[&["-model", &chat.tiny.model][..], &ANSWER].concat()).ok();
    assert_eq!(named.stdout, wanted);
    assert!(named.stderr.contains("models/tiny.gguf"), "{}", named.stderr);
    assert_eq!(chat.run(&["-model", "none.gguf", "-p", "x"]).code, 1);
    #[cfg(unix)]
    {
        let link = chat.tiny.folder.path().join("link");
        std::os::unix::fs::symlink("chat", &link).unwrap();
        assert_eq!(run_program(&link, chat.tiny.folder.path(), &ANSWER, None).ok().stdout, wanted, "through a link");
    }
}

#[test]
fn what_is_typed_overrides_what_was_packed() {
    let chat = Chat::pack(&["-n", "7", "-temp", "0", "-system", "Be brief.", "-memory", "-ctx", "333"]);
    let run = chat.run(&["-p", "the cat"]).ok();
    for part in ["Context size: 333", "into memory buffer", "Decode: 6 tokens"] {
        assert!(run.stderr.contains(part), "{part}: {}", run.stderr);
    }
    let run = chat.run(&["-p", "the cat", "-n", "3", "-ctx", "222", "-mmap"]).ok();
    for part in ["Context size: 222", "memory-mapped", "Decode: 2 tokens"] {
        assert!(run.stderr.contains(part), "{part}: {}", run.stderr);
    }
    // -raw takes the place of the system message.
    let raw = chat.run(&["-p", "the cat", "-raw"]).ok();
    let wanted = crate::util::run(&["-model", &chat.tiny.model, "-p", "the cat", "-raw", "-n", "7", "-temp", "0"]).ok();
    assert_eq!(raw.stdout, wanted.stdout);
    // A mistake is told as one in what was typed; sub-commands leave out what they do not take.
    let bad = chat.run(&["-temp", "hot"]);
    assert!(bad.code == 2 && bad.stderr.contains("hot"), "{}", bad.stderr);
    chat.run(&["tokenize", "-p", "the"]).ok();
    chat.run(&["-help"]).ok();
    chat.run(&["-version"]).ok();
}

#[test]
fn a_template_file_is_packed_as_text() {
    let folder = tempfile::tempdir().unwrap();
    let template = folder.path().join("t.jinja");
    std::fs::write(&template, "{{ messages[0].content }}").unwrap();
    let chat = Chat::pack(&["-template", path(&template), "-n", "12", "-temp", "0"]);
    std::fs::remove_file(&template).unwrap();
    let wanted = run(&[&["-raw", "-model", &chat.tiny.model][..], &ANSWER].concat()).ok().stdout;
    assert_eq!(chat.run(&["-p", "the cat"]).ok().stdout, wanted);
}

#[test]
fn it_can_be_looked_into_and_unpacked() {
    let chat = Chat::pack(&["-n", "3"]);
    let inspect = |run: Run| -> serde_json::Value {
        let mut object: serde_json::Value = serde_json::from_str(&run.ok().stdout).unwrap();
        object.as_object_mut().unwrap().remove("path");
        object
    };
    let wanted = inspect(run(&["inspect", "-format", "json", "-model", &chat.tiny.model]));
    assert_eq!(inspect(chat.run(&["inspect", "-format", "json"])), wanted);
    assert_eq!(inspect(run(&["inspect", "-format", "json", "-model", path(&chat.program)])), wanted);
    let model = std::fs::read(&chat.tiny.model).unwrap();
    let out = chat.tiny.folder.path().join("back.gguf");
    for unpack in [
        chat.run(&["unpack", "-o", path(&out)]),
        run(&["unpack", "-model", path(&chat.program), "-o", path(&out), "-force"]),
    ] {
        let unpacked = unpack.ok();
        assert!(unpacked.stderr.contains("SHA-256 "), "{}", unpacked.stderr);
        assert!(std::fs::read(&out).unwrap() == model);
    }
    let again = chat.run(&["unpack", "-o", path(&out)]);
    assert!(again.code == 1 && again.stderr.contains("is there already; -force replaces it"), "{}", again.stderr);
    let plain = run(&["unpack", "-model", &chat.tiny.model, "-o", "x"]);
    assert!(plain.code == 1 && plain.stderr.contains("no model is packed into"), "{}", plain.stderr);
}

#[test]
fn packing_again_replaces_the_model_and_refuses_what_would_be_lost() {
    let chat = Chat::pack(&["-n", "3"]);
    let other = tiny_model();
    std::fs::write(&other.model, modelembed_testkit::tiny(&tiny_spec("qwen2"))).unwrap();
    let before = std::fs::read(&chat.program).unwrap();
    let refused = chat.run(&["pack", "-model", &other.model, "-o", "chat"]);
    assert!(refused.code == 1 && refused.stderr.contains("is there already"), "{}", refused.stderr);
    assert!(std::fs::read(&chat.program).unwrap() == before);
    let again = ["pack", "-model", &other.model, "-o", "chat", "-force", "-n", "4", "-temp", "0"];
    if cfg!(windows) {
        // The system does not replace the very program that runs; another one may do it.
        let refused = chat.run(&again);
        assert!(refused.code == 1 && refused.stderr.contains("a program that is running"), "{}", refused.stderr);
        assert!(std::fs::read(&chat.program).unwrap() == before);
        let folder = chat.program.parent().unwrap();
        let left = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(left.filter(|name| name.to_string_lossy().ends_with(".unfinished")).count(), 0);
        run_in(folder, &again, None).ok();
    } else {
        // Onto the very program that runs.
        chat.run(&again).ok();
    }
    let after = std::fs::read(&chat.program).unwrap();
    assert!(after[..chat_program_bytes()] == before[..chat_program_bytes()], "the program is the same");
    let wanted = run(&["-model", &other.model, "-p", "the", "-n", "4", "-temp", "0"]).ok().stdout;
    assert_eq!(chat.run(&["-p", "the"]).ok().stdout, wanted);
    // A model is not replaced by what holds it; a prompt is not a default; a broken model is not
    // packed.
    let onto = run(&["pack", "-model", &other.model, "-o", &other.model, "-force"]);
    assert!(onto.code == 1 && onto.stderr.contains("is the model itself"), "{}", onto.stderr);
    assert_eq!(run(&["pack", "-model", &other.model, "-o", "x", "-p", "hi"]).code, 2);
    assert_eq!(run(&["pack", "-model", &other.model, "-o", "x", "-raw", "-system", "x"]).code, 2);
    assert_eq!(run(&["pack", "-model", &other.model]).code, 2);
    std::fs::write(&other.model, b"GGUF nonsense").unwrap();
    let out = other.folder.path().join("out");
    assert_eq!(run(&["pack", "-model", &other.model, "-o", path(&out)]).code, 1);
    assert!(!out.exists());
}

fn chat_program_bytes() -> usize {
    std::fs::metadata(env!("CARGO_BIN_EXE_modelembed")).unwrap().len() as usize
}

#[test]
fn damaged_ones_say_so_and_end_with_1() {
    let chat = Chat::pack(&["-n", "3"]);
    let whole = std::fs::read(&chat.program).unwrap();
    let (first, len) = (chat.first(), whole.len());
    let model_bytes = std::fs::metadata(&chat.tiny.model).unwrap().len() as usize;
    let end = first + model_bytes;
    let mut damaged: Vec<(String, Vec<u8>)> = Vec::new();
    for cut in [first, first + 1, first + 5000, end - 1, end, end + 1, len - 65, len - 64, len - 63, len - 1] {
        damaged.push((format!("cut at {cut} of {len}"), whole[..cut].to_vec()));
    }
    // In the front mark, the header, the manifest and every field of the end mark.
    for at in
        [first - 64, first - 1, first, first + 100, end, end + 30, len - 64, len - 32, len - 24, len - 20, len - 1]
    {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x20;
        damaged.push((format!("byte {at} of {len}"), bytes));
    }
    damaged.push(("one byte more".into(), [&whole[..], b"x"].concat()));
    for (what, bytes) in damaged {
        std::fs::remove_file(&chat.program).unwrap();
        std::fs::write(&chat.program, bytes).unwrap();
        make_executable(&chat.program);
        for run in [chat.run(&["-p", "x"]), chat.run(&["inspect"]), run(&["inspect", "-model", path(&chat.program)])] {
            assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{what}: {}", run.stderr);
            let told = ["was packed into this program, but", "was packed by another version"];
            assert!(told.iter().any(|told| run.stderr.contains(told)), "{what}: {}", run.stderr);
        }
        chat.run(&["-version"]).ok();
    }
    // A weight that changed is found where the whole model is read.
    let mut bytes = whole.clone();
    bytes[end - 100] ^= 1;
    std::fs::remove_file(&chat.program).unwrap();
    std::fs::write(&chat.program, bytes).unwrap();
    make_executable(&chat.program);
    let run = chat.run(&["unpack", "-o", "back.gguf"]);
    assert!(run.code == 1 && run.stderr.contains("tiny.gguf has the SHA-256"), "{}", run.stderr);
    assert!(!chat.tiny.folder.path().join("back.gguf").exists());
}

fn make_executable(_path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(_path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn a_split_model_is_packed_whole() {
    let folder = tempfile::tempdir().unwrap();
    let spec = tiny_spec("llama");
    let tensors = tiny_tensors(&spec);
    let half = tensors.len() / 2;
    let mut names = Vec::new();
    for (i, part) in [&tensors[..half], &tensors[half..]].into_iter().enumerate() {
        let metadata = if i == 0 { tiny_metadata(&spec) } else { Vec::new() };
        let writer = metadata.into_iter().fold(GgufWriter::new(), |w, (key, value)| w.pair(&key, value));
        let writer = writer.split(i as u16, 2, tensors.len() as i32);
        let writer = part.iter().fold(writer, |w, t| w.tensor(&t.name, t.ty, &t.dims, &t.data));
        let name = format!("m-0000{}-of-00002.gguf", i + 1);
        std::fs::write(folder.path().join(&name), writer.build()).unwrap();
        names.push(name);
    }
    let at = |name: &str| folder.path().join(name);
    run_in(folder.path(), &["pack", "-model", &names[1], "-o", "chat"], None).ok();
    let tiny = tiny_model();
    let wanted = run(&[&["-model", &tiny.model][..], &ANSWER].concat()).ok();
    for mode in [&[][..], &["-mmap=false"], &["-memory"]] {
        let answer = run_program(&at("chat"), folder.path(), &[&ANSWER[..], mode].concat(), None).ok();
        assert_eq!(answer.stdout, wanted.stdout, "{mode:?}");
    }
    let one = run_program(&at("chat"), folder.path(), &["unpack", "-o", "one.gguf"], None);
    assert!(one.code == 1 && one.stderr.contains("2 files"), "{}", one.stderr);
    std::fs::create_dir(at("back")).unwrap();
    run_program(&at("chat"), folder.path(), &["unpack", "-o", "back"], None).ok();
    for name in names {
        assert!(std::fs::read(at("back").join(&name)).unwrap() == std::fs::read(at(&name)).unwrap(), "{name}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn two_processes_share_the_model() {
    use std::io::{Read, Write};
    use std::process::{Child, Stdio};
    let chat = Chat::pack(&["-n", "3", "-template", "chatml"]);
    let start = || -> Child {
        let mut command = program_at(&chat.program, chat.tiny.folder.path());
        command.args(["-i", "-format", "json", "-quiet"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        // One answer: the weights are in use.
        child.stdin.as_mut().unwrap().write_all(b"the cat\n").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 10]).unwrap();
        child
    };
    let mut both = [start(), start()];
    let first = chat.first();
    for child in &both {
        let smaps = std::fs::read_to_string(format!("/proc/{}/smaps", child.id())).unwrap();
        let kib = |line: &str| line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok());
        let mut inside = false;
        let (mut shared, mut private) = (0, 0);
        for line in smaps.lines() {
            let mut fields = line.split_whitespace();
            let is_mapping = fields.next().is_some_and(|f| f.contains('-'));
            if is_mapping {
                let offset = fields.nth(1).and_then(|f| u64::from_str_radix(f, 16).ok());
                inside = line.ends_with("/chat") && offset.is_some_and(|offset| offset >= first as u64);
            } else if inside && line.starts_with("Shared_") {
                shared += kib(line).unwrap();
            } else if inside && line.starts_with("Private_") {
                private += kib(line).unwrap();
            }
        }
        let model_kib = std::fs::metadata(&chat.tiny.model).unwrap().len() / 1024;
        // A page that only one of them touched so far counts as its own.
        assert!(
            shared > model_kib / 2 && private < model_kib / 4,
            "of {model_kib} KiB: {shared} shared, {private} private"
        );
    }
    for child in &mut both {
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}

#[cfg(unix)]
#[test]
fn started_without_arguments_on_a_terminal_it_chats() {
    let chat = Chat::pack(&["-template", "chatml", "-n", "4", "-temp", "0"]);
    let mut command = program_at(&chat.program, chat.tiny.folder.path());
    command.stdin(std::process::Stdio::inherit()).env("TERM", "xterm");
    let options = rexpect::session::Options::new().timeout_ms(Some(120_000));
    let mut session = rexpect::session::spawn_with_options(command, options).unwrap();
    session.exp_string("Ctrl-D leaves").unwrap();
    session.exp_string("> ").unwrap();
    session.send("the cat\r").unwrap();
    session.flush().unwrap();
    session.exp_string("(cut: -n allows no more tokens)").unwrap();
    session.exp_string("> ").unwrap();
    session.send("\u{4}").unwrap();
    session.flush().unwrap();
    assert!(session.exp_eof().unwrap().contains("Memory Statistics:"));
}
