//! Programs that are stopped, continued and ended by signals, and the terminal's modes afterwards.

use crate::lost_pages::{endless_model, rest};
use crate::screen::{Screen, modes_at_start};
use crate::terminal::{leave, saved_questions, start};
use crate::util::*;
use rexpect::process::Signal;
use rustix::process::{Pid, kill_process};
use rustix::termios::LocalModes;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

const CHAT: [&str; 6] = ["-temp", "0", "-n", "1", "-template", "chatml"];

/// The modes in which a shell reads a command and a program its lines.
fn is_cooked(screen: &Screen) -> bool {
    screen.local_modes().contains(LocalModes::ICANON | LocalModes::ISIG | LocalModes::ECHO)
}

#[test]
fn a_chat_that_was_stopped_takes_the_terminal_again_and_draws_its_line() {
    let (tiny, home) = (tiny_model(), tempfile::tempdir().unwrap());
    let mut screen = start(home.path(), &tiny.model, &CHAT);
    for i in 0..2 {
        screen.send("abd");
        screen.wait_until("the line", |screen| screen.cursor().0 == "> abd");
        screen.signal(Signal::SIGSTOP);
        screen.wait_until("a stopped program", |screen| screen.state() == Some('T'));
        // As a shell does.
        screen.set_cooked();
        screen.signal(Signal::SIGCONT);
        screen.wait_until("modes", |screen| !screen.local_modes().intersects(LocalModes::ICANON | LocalModes::ECHO));
        screen.wait_until("a redrawn line", |screen| screen.bytes().matches("> abd").count() > i);
        screen.send("\u{1b}[Dc\r");
        screen.wait_until("an answer", |screen| screen.text().matches("> abcd").count() == i + 1);
        screen.wait_until("a prompt", |screen| screen.cursor() == (">".to_string(), 2));
    }
    screen.say("/save talk.json\r");
    leave(screen);
    assert_eq!(saved_questions(&home.path().join("talk.json")), ["abcd", "abcd"]);
}

/// A job of a shell: its process, whose number the shell wrote into a file.
fn job(home: &Path) -> Pid {
    let text = std::fs::read_to_string(home.join("pid")).unwrap();
    Pid::from_raw(text.trim().parse().unwrap()).unwrap()
}

/// A shell that waits for commands, in which `modelembed` is the binary.
fn shell(home: &Path) -> Screen {
    let mut command = program_at(Path::new("/bin/sh"), home);
    command.current_dir(home).arg("-i").env("PS1", "shell: ").env("ENV", "").env("TERM", "xterm");
    let program = env!("CARGO_BIN_EXE_modelembed");
    let text = format!("#!/bin/sh\necho $$ > pid\nexec {program} \"$@\"\n");
    std::fs::write(home.join("modelembed"), text).unwrap();
    let mut screen = Screen::start(command, 400, 80);
    screen.wait_for("shell:");
    screen.send("stty echo; chmod +x modelembed\r");
    screen.wait_until("a prompt", |screen| screen.cursor().0 == "shell:");
    screen
}

#[test]
fn a_job_gives_the_terminal_back_when_it_stops_and_takes_it_when_it_returns() {
    let (tiny, home) = (tiny_model(), tempfile::tempdir().unwrap());
    let mut screen = shell(home.path());
    let model = tiny.model.clone();
    screen.send(format!("./modelembed -i -model {model} {}\r", CHAT.join(" ")));
    let at_prompt = |screen: &Screen| screen.cursor() == (">".to_string(), 2);
    screen.wait_until("the chat", at_prompt);
    // The key, and the signal from elsewhere.
    for i in 0..2 {
        screen.send("ab");
        screen.wait_until("the line", |screen| screen.cursor().0 == "> ab");
        match i {
            0 => screen.send("\u{1a}"),
            _ => kill_process(job(home.path()), rustix::process::Signal::TSTP).unwrap(),
        }
        screen.wait_until("the shell", |screen| screen.cursor().0 == "shell:");
        screen.wait_until("the shell's modes", is_cooked_or_shell_editing);
        screen.send("fg\r");
        screen.wait_until("the line again", |screen| screen.cursor().0 == "> ab");
        screen.send("\u{1b}[Dx\r");
        screen.wait_until("the edited line", |screen| screen.text().matches("> axb").count() == i + 1);
        screen.wait_until("a prompt", at_prompt);
    }
    // During an answer, the key is the system's.
    screen.send("\u{4}");
    screen.wait_until("the shell", |screen| screen.cursor().0 == "shell:");
    screen.send("exit\r");
    screen.end();
}

/// A shell that edits its lines has modes of its own while it does.
fn is_cooked_or_shell_editing(screen: &Screen) -> bool {
    is_cooked(screen) || !screen.local_modes().contains(LocalModes::NOFLSH)
}

#[test]
fn the_terminal_comes_back_whatever_ends_a_chat() {
    let tiny = tiny_model();
    let kill = |home: &Path, signal| kill_process(job(home), signal).unwrap();
    type End<'a> = (&'a str, &'a str, &'a dyn Fn(&mut Screen, &Path));
    let ends: [End<'_>; 5] = [
        ("TERM", "ended 143", &|_, home| kill(home, rustix::process::Signal::TERM)),
        ("HUP", "ended 129", &|_, home| kill(home, rustix::process::Signal::HUP)),
        ("INT", "ended 130", &|_, home| kill(home, rustix::process::Signal::INT)),
        ("Ctrl-D", "ended 0", &|screen, _| screen.send("\u{4}")),
        ("lost pages", "ended 74", &|screen, home| {
            std::fs::File::options().write(true).open(home.join("model.gguf")).unwrap().set_len(5000).unwrap();
            screen.send("the cat\r");
        }),
    ];
    for (name, wanted, end) in ends {
        let home = tempfile::tempdir().unwrap();
        std::fs::copy(&tiny.model, home.path().join("model.gguf")).unwrap();
        // The shell keeps the terminal open, and as it was left, until it reads a line.
        let shell = "sh -c 'echo $$ > pid; exec \"$@\"' sh \"$@\"; echo ended $?; read line";
        let mut command = program_at(Path::new("/bin/sh"), home.path());
        command.args(["-c", shell, "sh", env!("CARGO_BIN_EXE_modelembed"), "-i", "-model", "model.gguf"]).args(CHAT);
        command.current_dir(home.path()).env("TERM", "xterm");
        let before = modes_at_start().local_modes;
        let mut screen = Screen::start(command, 400, 80);
        screen.wait_for_prompt(1);
        assert_ne!(screen.local_modes(), before, "{name}");
        assert!(screen.bytes().contains("\u{1b}[?2004h"), "{name}");
        end(&mut screen, home.path());
        screen.wait_for(wanted);
        assert_eq!(screen.local_modes(), before, "{name}");
        assert!(screen.bytes().contains("\u{1b}[?2004l"), "{name}");
        screen.send("\n");
        let (_, text) = screen.end();
        assert!(name != "lost pages" || text.lines().any(|line| line.starts_with("error: model.gguf was")), "{text}");
    }
}

#[test]
fn signals_that_the_parent_ignores_stay_ignored() {
    // In the middle of an answer: nobody reads it, so it cannot end. Twice, since a second Ctrl-C
    // ends what the first does not.
    for signal in ["INT", "TERM", "HUP", "QUIT"] {
        let (model, home) = (endless_model(), tempfile::tempdir().unwrap());
        let mut command = program_at(Path::new("/bin/sh"), home.path());
        let shell = format!("trap '' {signal}; exec \"$@\"");
        command.args(["-c", &shell, "sh", env!("CARGO_BIN_EXE_modelembed"), "-quiet", "-raw", "-temp", "0"]);
        command.args(["-ctx", "100000", "-n", "3000", "-p", "the cat", "-model", &model.model]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 20]).unwrap();
        for _ in 0..2 {
            let shell = format!("kill -{signal} {}", child.id());
            assert!(Command::new("sh").args(["-c", &shell]).status().unwrap().success());
        }
        let (code, len, stderr) = rest(child);
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{signal}");
        assert!(len > 1000, "{signal}: {len} bytes");
    }
    // A chat at its prompt.
    let (tiny, home) = (tiny_model(), tempfile::tempdir().unwrap());
    let mut command = program_at(Path::new("/bin/sh"), home.path());
    let shell = "trap '' INT TERM HUP QUIT TSTP; exec \"$@\" -i";
    command.args(["-c", shell, "sh", env!("CARGO_BIN_EXE_modelembed"), "-model", &tiny.model]).args(CHAT);
    command.env("TERM", "xterm");
    let mut screen = Screen::start(command, 400, 80);
    screen.wait_for_prompt(1);
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGTSTP, Signal::SIGINT] {
        screen.signal(signal);
    }
    screen.say("the cat\r");
    leave(screen);
}
