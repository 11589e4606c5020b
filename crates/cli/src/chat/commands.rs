//! The commands of a chat: lines that begin with a slash.

/// A line of a chat, understood.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// Something to say to the model.
    Say(&'a str),
    /// Nothing was typed.
    Nothing,
    /// `/help`
    Help,
    /// `/reset`
    Reset,
    /// `/stats`
    Stats,
    /// `/system`, with the new text if one was given.
    System(Option<&'a str>),
    /// `/save FILE`
    Save(&'a str),
    /// `/exit`
    Exit,
    /// A slash and something else.
    Unknown(&'a str),
}

/// Name, argument and meaning of every command, for `/help`.
const COMMANDS: &[(&str, &str, &str)] = &[
    ("/help", "", "this list"),
    ("/reset", "", "forget the conversation, keep the system message"),
    ("/stats", "", "memory and speed so far"),
    ("/system", "[TEXT]", "show the system message, or begin anew with another"),
    ("/save", "FILE", "write the whole conversation to a JSON file"),
    ("/exit", "", "leave (so does Ctrl-D)"),
];

/// What `/help` prints.
pub fn help() -> String {
    let mut text = String::from("Commands:\n");
    for (name, argument, meaning) in COMMANDS {
        text.push_str(&format!("  {:<16}{meaning}\n", format!("{name} {argument}")));
    }
    text.push_str(
        "A line that ends with \\ goes on in the next one; lines between \"\"\" are one message.\n\
         Ctrl-C stops an answer. A message may begin with // to say a slash.",
    );
    text
}

/// Understands a line. `//` says a slash to the model.
pub fn parse(line: &str) -> Line<'_> {
    let trimmed = line.trim();
    if trimmed.is_empty() {
        return Line::Nothing;
    }
    if let Some(rest) = trimmed.strip_prefix('/')
        && rest.starts_with('/')
    {
        return Line::Say(rest);
    }
    if !trimmed.starts_with('/') {
        return Line::Say(line);
    }
    let (name, argument) = trimmed.split_once(char::is_whitespace).unwrap_or((trimmed, ""));
    match (name, argument.trim()) {
        ("/help" | "/?", _) => Line::Help,
        ("/reset", "") => Line::Reset,
        ("/stats", "") => Line::Stats,
        ("/system", "") => Line::System(None),
        ("/system", text) => Line::System(Some(text)),
        ("/save", file) if !file.is_empty() => Line::Save(file),
        ("/exit" | "/quit" | "/bye", "") => Line::Exit,
        _ => Line::Unknown(trimmed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_are_commands_and_everything_else_is_said() {
        let rows = [
            ("hello", Line::Say("hello")),
            ("  indented\ncode ", Line::Say("  indented\ncode ")),
            ("", Line::Nothing),
            (" \t", Line::Nothing),
            ("/help", Line::Help),
            (" /reset ", Line::Reset),
            ("/stats", Line::Stats),
            ("/system", Line::System(None)),
            ("/system You are  brief. ", Line::System(Some("You are  brief."))),
            ("/save my chat.json", Line::Save("my chat.json")),
            ("/save", Line::Unknown("/save")),
            ("/exit", Line::Exit),
            ("/rest", Line::Unknown("/rest")),
            ("/etc/passwd", Line::Unknown("/etc/passwd")),
            ("//etc/passwd", Line::Say("/etc/passwd")),
        ];
        let failed: Vec<_> = rows.iter().filter(|(line, wanted)| parse(line) != *wanted).collect();
        assert!(failed.is_empty(), "{failed:?}");
    }

    #[test]
    fn help_names_every_command_that_is_understood() {
        for (name, argument, _) in COMMANDS {
            assert!(help().contains(name));
            assert!(!matches!(parse(&format!("{name} {argument}")), Line::Unknown(_) | Line::Say(_)), "{name}");
        }
    }
}
