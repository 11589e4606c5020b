//! Telling a model's reasoning from its answer, in text that comes piece by piece.

/// How a family of models marks reasoning in its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReasoningMarks {
    /// What stands before it.
    pub start: &'static str,
    /// What stands between it and the answer.
    pub end: &'static str,
    /// What else frames the answer, and is no part of it.
    frame: &'static [&'static str],
    /// Control tokens that marks are made of. An answer has no text for others, and its messages come
    /// back to the template without reasoning.
    tokens: &'static [&'static str],
    /// Whether parts are messages of their own, in channels.
    has_channels: bool,
}

/// Marks that are text, or tokens that always have their text: the template finds them in a message.
const fn text(start: &'static str, end: &'static str) -> ReasoningMarks {
    ReasoningMarks { start, end, frame: &[], tokens: &[], has_channels: false }
}

/// The marks that are known. The first are those of most models.
pub static REASONING_MARKS: &[ReasoningMarks] = &[
    text("<think>", "</think>"),
    text("<seed:think>", "</seed:think>"),
    text("◁think▷", "◁/think▷"),
    text("<thought>", "</thought>"),
    // Magistral, Ministral 3.
    ReasoningMarks { tokens: &["[THINK]", "[/THINK]"], ..text("[THINK]", "[/THINK]") },
    // Command A.
    ReasoningMarks {
        frame: &["<|START_RESPONSE|>", "<|END_RESPONSE|>"],
        tokens: &["<|START_THINKING|>", "<|END_THINKING|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>"],
        ..text("<|START_THINKING|>", "<|END_THINKING|>")
    },
    // Gemma 4.
    ReasoningMarks { tokens: &["<|channel>", "<channel|>"], ..text("<|channel>thought", "<channel|>") },
    // Apertus.
    ReasoningMarks {
        tokens: &["<|inner_prefix|>", "<|inner_suffix|>"],
        ..text("<|inner_prefix|>", "<|inner_suffix|>")
    },
    // gpt-oss: <https://github.com/openai/harmony>.
    ReasoningMarks {
        tokens: &["<|start|>", "<|channel|>", "<|constrain|>", "<|message|>", "<|end|>"],
        has_channels: true,
        ..text("<|channel|>analysis<|message|>", "<|end|>")
    },
];

impl ReasoningMarks {
    /// Those that a template knows.
    pub(super) fn of_template(source: &str) -> Option<&'static ReasoningMarks> {
        let knows = |marks: &&ReasoningMarks| {
            let end = Some(marks.end).filter(|_| !marks.has_channels);
            source.contains(marks.start) || end.is_some_and(|end| source.contains(end))
        };
        REASONING_MARKS.iter().find(knows)
    }

    /// Whether a prompt ends within reasoning.
    pub(super) fn is_open_in(&self, prompt: &str) -> bool {
        let open = prompt.rfind(self.start).map(|at| at + self.start.len());
        open.is_some_and(|at| !prompt[at..].contains(self.end) && prompt[at..].trim().is_empty())
    }

    /// Control tokens that marks are made of: they belong into an answer's text.
    pub fn tokens(&self) -> &'static [&'static str] {
        self.tokens
    }

    /// What of an answer's text goes back to the template as the message: its reasoning too, where
    /// templates look for it there, or the answer alone.
    pub(super) fn message(&self, text: &str, begins_inside: bool) -> String {
        if self.tokens.is_empty() {
            return text.to_owned();
        }
        let mut answer = String::new();
        let mut each = |part, text: &str| {
            if part == AnswerPart::Answer {
                answer.push_str(text);
            }
        };
        let mut split = ReasoningSplit::new(self, begins_inside);
        split.push(text, &mut each);
        split.finish(&mut each);
        answer
    }
}

/// What a part of an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerPart {
    /// A mark, and the space around it.
    Mark,
    /// Reasoning.
    Reasoning,
    /// The answer.
    Answer,
}

/// Splits an answer that comes in pieces. All parts together are the whole text.
#[derive(Clone, Debug)]
pub struct ReasoningSplit {
    marks: ReasoningMarks,
    state: State,
    /// What may be the beginning of a mark.
    held: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing but space came.
    Start,
    /// Behind a start mark: space is part of it.
    Opened,
    Reasoning,
    /// Behind an end mark: space is part of it.
    Closed,
    Answer,
    /// What stands before a message in a channel.
    Header,
}

impl ReasoningSplit {
    /// For answers behind a prompt that ends within reasoning, or does not.
    pub fn new(marks: &ReasoningMarks, begins_inside: bool) -> ReasoningSplit {
        let state = if begins_inside { State::Opened } else { State::Start };
        ReasoningSplit { marks: *marks, state, held: String::new() }
    }

    /// Whether what comes next is reasoning, as far as it is known.
    pub fn is_in_reasoning(&self) -> bool {
        matches!(self.state, State::Opened | State::Reasoning)
    }

    /// Takes a piece and hands out what is known of it.
    pub fn push(&mut self, piece: &str, each: &mut dyn FnMut(AnswerPart, &str)) {
        self.held.push_str(piece);
        while self.step(each) {}
    }

    /// The text has ended: what was held back is what it looks like.
    pub fn finish(&mut self, each: &mut dyn FnMut(AnswerPart, &str)) {
        let part = match self.state {
            State::Start | State::Answer | State::Closed => AnswerPart::Answer,
            State::Opened | State::Reasoning => AnswerPart::Reasoning,
            State::Header => AnswerPart::Mark,
        };
        if !self.held.is_empty() {
            each(part, &self.held);
            self.held.clear();
        }
    }

    /// Hands out one part; whether there may be more.
    fn step(&mut self, each: &mut dyn FnMut(AnswerPart, &str)) -> bool {
        match self.state {
            State::Start => self.start(each),
            State::Opened | State::Closed => {
                let (space, next) = (self.held.len() - self.held.trim_start().len(), self.next());
                let is_over = space < self.held.len();
                if space > 0 {
                    let state = if is_over { next } else { self.state };
                    return self.out(space, AnswerPart::Mark, state, each) && is_over;
                }
                if is_over {
                    self.state = next;
                }
                is_over
            }
            State::Reasoning => {
                let (end, closed) =
                    (self.marks.end, if self.marks.has_channels { State::Header } else { State::Closed });
                if let Some(at) = self.held.find(end) {
                    // Space before the mark is part of it.
                    let n = self.held[..at].trim_end().len();
                    self.out(n, AnswerPart::Reasoning, State::Reasoning, each);
                    return self.out(at - n + end.len(), AnswerPart::Mark, closed, each);
                }
                let sure = self.held[..self.held.len() - self.held_back(&[end])].trim_end().len();
                self.out(sure, AnswerPart::Reasoning, State::Reasoning, each);
                false
            }
            State::Answer => {
                // Channels: another message follows. Others: their frame, wherever it stands.
                let channel_end = [self.marks.end];
                let (marks, next) = match self.marks.has_channels {
                    true => (&channel_end[..], State::Header),
                    false => (self.marks.frame, State::Answer),
                };
                let found = marks.iter().filter_map(|mark| self.held.find(mark).map(|at| (at, mark.len()))).min();
                if let Some((at, len)) = found {
                    self.out(at, AnswerPart::Answer, State::Answer, each);
                    return self.out(len, AnswerPart::Mark, next, each);
                }
                let sure = self.held.len() - self.held_back(marks);
                self.out(sure, AnswerPart::Answer, State::Answer, each);
                false
            }
            State::Header => self.header(each),
        }
    }

    fn next(&self) -> State {
        if self.state == State::Opened { State::Reasoning } else { State::Answer }
    }

    /// At the beginning: reasoning, or an answer without any.
    fn start(&mut self, each: &mut dyn FnMut(AnswerPart, &str)) -> bool {
        let text = self.held.trim_start();
        let at = self.held.len() - text.len();
        if self.marks.has_channels {
            let first = ["<|channel|>", "<|start|>"];
            if first.iter().any(|mark| text.starts_with(mark)) {
                self.state = State::Header;
                return true;
            }
            let may_come = first.iter().any(|mark| mark.starts_with(text));
            return !may_come && self.out(0, AnswerPart::Answer, State::Answer, each);
        }
        let mark = self.marks.start;
        if text.starts_with(mark) {
            return self.out(at + mark.len(), AnswerPart::Mark, State::Opened, each);
        }
        !mark.starts_with(text) && self.out(0, AnswerPart::Answer, State::Answer, each)
    }

    /// `<|start|>assistant<|channel|>final<|message|>`, of which the channel counts: what is not
    /// `analysis` is said to the user.
    fn header(&mut self, each: &mut dyn FnMut(AnswerPart, &str)) -> bool {
        let last = "<|message|>";
        let Some(at) = self.held.find(last) else { return false };
        let channel = self.held[..at].rsplit("<|channel|>").next().unwrap_or_default();
        let is_analysis = channel.trim_start().starts_with("analysis");
        let state = if is_analysis { State::Reasoning } else { State::Answer };
        self.out(at + last.len(), AnswerPart::Mark, state, each)
    }

    /// Hands out the first `n` bytes.
    fn out(&mut self, n: usize, part: AnswerPart, state: State, each: &mut dyn FnMut(AnswerPart, &str)) -> bool {
        if n > 0 {
            each(part, &self.held[..n]);
            self.held.drain(..n);
        }
        self.state = state;
        true
    }

    /// Bytes at the end that one of the marks may begin with.
    fn held_back(&self, marks: &[&str]) -> usize {
        let of_mark = |mark: &&str| {
            let starts = mark.char_indices().map(|(i, _)| i).skip(1);
            starts.filter(|&n| self.held.ends_with(&mark[..n])).max().unwrap_or(0)
        };
        marks.iter().map(of_mark).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reasoning and answer of a text in pieces of so many characters.
    fn split(marks: &ReasoningMarks, begins_inside: bool, text: &str, n: usize) -> (String, String) {
        let (mut reasoning, mut answer, mut whole) = (String::new(), String::new(), String::new());
        let mut each = |part: AnswerPart, text: &str| {
            whole.push_str(text);
            match part {
                AnswerPart::Mark => {}
                AnswerPart::Reasoning => reasoning.push_str(text),
                AnswerPart::Answer => answer.push_str(text),
            }
        };
        let mut split = ReasoningSplit::new(marks, begins_inside);
        let chars: Vec<char> = text.chars().collect();
        for piece in chars.chunks(n) {
            split.push(&piece.iter().collect::<String>(), &mut each);
        }
        split.finish(&mut each);
        assert_eq!(whole, text, "nothing is lost");
        (reasoning, answer)
    }

    #[test]
    fn reasoning_and_answer_are_told_apart_wherever_pieces_are_cut() {
        let think = &REASONING_MARKS[0];
        let of = |start: &str| REASONING_MARKS.iter().find(|marks| marks.start.starts_with(start)).expect("known");
        let cases = [
            (think, false, "<think>\nWell, 1 < 2.\n</think>\n\nYes.\n", "Well, 1 < 2.", "Yes.\n"),
            (think, false, "\n<think></think>No.", "", "No."),
            (think, false, "<think>\n\n</think>\n\nNo.", "", "No."),
            (think, true, "Hm </thin k> so\n</think>Ok", "Hm </thin k> so", "Ok"),
            (think, true, "cut off", "cut off", ""),
            (think, false, "<think>cut </thi", "cut </thi", ""),
            (think, false, "No reasoning, <think> is a tag.", "", "No reasoning, <think> is a tag."),
            (think, false, "<thin", "", "<thin"),
            (think, false, "", "", ""),
            (think, false, "<think>a</think>b</think>c", "a", "b</think>c"),
            (&REASONING_MARKS[2], false, "◁think▷é ◁\n◁/think▷ü", "é ◁", "ü"),
            (of("[THINK]"), false, "[THINK]a [THIN[/THINK]b", "a [THIN", "b"),
            (
                of("<|START_THINKING|>"),
                false,
                "<|START_THINKING|>a<|END_THINKING|><|START_RESPONSE|>b <|c<|END_RESPONSE|>",
                "a",
                "b <|c",
            ),
            (of("<|channel>thought"), false, "<|channel>thought\na\n<channel|>b", "a", "b"),
            (
                of("<|channel|>analysis"),
                false,
                "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>analysis<|message|>b<|end|>\
                 <|start|>assistant<|channel|>final<|message|>c<|d",
                "ab",
                "c<|d",
            ),
            (of("<|channel|>analysis"), false, "<|channel|>final<|message|>a", "", "a"),
            (of("<|channel|>analysis"), false, "<|channel|>anal", "", ""),
            (of("<|channel|>analysis"), false, "no channel", "", "no channel"),
        ];
        for (marks, inside, text, reasoning, answer) in cases {
            for n in [1, 2, 3, 7, 1000] {
                let got = split(marks, inside, text, n);
                assert_eq!(got, (reasoning.to_owned(), answer.to_owned()), "{text:?} in pieces of {n}");
            }
        }
    }

    #[test]
    fn a_message_keeps_reasoning_where_templates_look_for_it() {
        let message = |start: &str, text: &str| {
            let marks = REASONING_MARKS.iter().find(|marks| marks.start.starts_with(start)).expect("known");
            marks.message(text, false)
        };
        assert_eq!(message("<think>", "<think>a</think>b"), "<think>a</think>b");
        assert_eq!(message("[THINK]", "[THINK]a[/THINK]b"), "b");
        let harmony = "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b";
        assert_eq!(message("<|channel|>", harmony), "b");
    }

    #[test]
    fn templates_tell_their_marks_and_prompts_where_they_end() {
        let of = |source: &str| ReasoningMarks::of_template(source).map(|marks| marks.start);
        assert_eq!(of("{% if x %}</think>{% endif %}"), Some("<think>"));
        assert_eq!(of("{{ '</seed:think>' }}"), Some("<seed:think>"));
        assert_eq!(of("nothing"), None);
        // ChatML and others have an `<|end|>` too.
        assert_eq!(of("<|end|>"), None);
        assert_eq!(of("'<|channel|>analysis<|message|>' + x"), Some("<|channel|>analysis<|message|>"));
        let think = &REASONING_MARKS[0];
        assert!(think.is_open_in("<|im_start|>assistant\n<think>\n"));
        for closed in ["<|im_start|>assistant\n", "<think>\n\n</think>\n\n", "say <think> please"] {
            assert!(!think.is_open_in(closed), "{closed:?}");
        }
    }
}
