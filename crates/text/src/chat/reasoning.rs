//! Telling a model's reasoning from its answer, in text that comes piece by piece.

/// How a family of models marks reasoning in its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReasoningMarks {
    /// What stands before it.
    pub start: &'static str,
    /// What stands between it and the answer.
    pub end: &'static str,
}

/// The marks that are known, those of text: where marks are control tokens, reasoning is a message of
/// its own. The first are those of most models.
pub static REASONING_MARKS: &[ReasoningMarks] = &[
    ReasoningMarks { start: "<think>", end: "</think>" },
    ReasoningMarks { start: "<seed:think>", end: "</seed:think>" },
    ReasoningMarks { start: "◁think▷", end: "◁/think▷" },
];

impl ReasoningMarks {
    /// Those that a template knows.
    pub(super) fn of_template(source: &str) -> Option<&'static ReasoningMarks> {
        REASONING_MARKS.iter().find(|marks| source.contains(marks.start) || source.contains(marks.end))
    }

    /// Whether a prompt ends within reasoning.
    pub(super) fn is_open_in(&self, prompt: &str) -> bool {
        let open = prompt.rfind(self.start).map(|at| at + self.start.len());
        open.is_some_and(|at| !prompt[at..].contains(self.end) && prompt[at..].trim().is_empty())
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
}

impl ReasoningSplit {
    /// For answers behind a prompt that ends within reasoning, or does not.
    pub fn new(marks: &ReasoningMarks, begins_inside: bool) -> ReasoningSplit {
        let state = if begins_inside { State::Opened } else { State::Start };
        ReasoningSplit { marks: *marks, state, held: String::new() }
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
        };
        if !self.held.is_empty() {
            each(part, &self.held);
            self.held.clear();
        }
    }

    /// Hands out one part; whether there may be more.
    fn step(&mut self, each: &mut dyn FnMut(AnswerPart, &str)) -> bool {
        match self.state {
            State::Start => {
                let text = self.held.trim_start();
                let at = self.held.len() - text.len();
                let mark = self.marks.start;
                if text.starts_with(mark) {
                    return self.out(at + mark.len(), AnswerPart::Mark, State::Opened, each);
                }
                !mark.starts_with(text) && self.out(0, AnswerPart::Answer, State::Answer, each)
            }
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
                if let Some(at) = self.held.find(self.marks.end) {
                    // Space before the mark is part of it.
                    let n = self.held[..at].trim_end().len();
                    self.out(n, AnswerPart::Reasoning, State::Reasoning, each);
                    let n = self.held.find(self.marks.end).map_or(0, |at| at + self.marks.end.len());
                    return self.out(n, AnswerPart::Mark, State::Closed, each);
                }
                let sure = self.held[..self.held.len() - self.held_back()].trim_end().len();
                self.out(sure, AnswerPart::Reasoning, State::Reasoning, each);
                false
            }
            State::Answer => {
                self.out(self.held.len(), AnswerPart::Answer, State::Answer, each);
                false
            }
        }
    }

    fn next(&self) -> State {
        if self.state == State::Opened { State::Reasoning } else { State::Answer }
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

    /// Bytes at the end that the end mark may begin with.
    fn held_back(&self) -> usize {
        let mark = self.marks.end;
        let starts = mark.char_indices().map(|(i, _)| i).skip(1);
        starts.filter(|&n| self.held.ends_with(&mark[..n])).max().unwrap_or(0)
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
        ];
        for (marks, inside, text, reasoning, answer) in cases {
            for n in [1, 2, 3, 7, 1000] {
                let got = split(marks, inside, text, n);
                assert_eq!(got, (reasoning.to_owned(), answer.to_owned()), "{text:?} in pieces of {n}");
            }
        }
    }

    #[test]
    fn templates_tell_their_marks_and_prompts_where_they_end() {
        let of = |source: &str| ReasoningMarks::of_template(source).map(|marks| marks.start);
        assert_eq!(of("{% if x %}</think>{% endif %}"), Some("<think>"));
        assert_eq!(of("{{ '</seed:think>' }}"), Some("<seed:think>"));
        assert_eq!(of("nothing"), None);
        let think = &REASONING_MARKS[0];
        assert!(think.is_open_in("<|im_start|>assistant\n<think>\n"));
        for closed in ["<|im_start|>assistant\n", "<think>\n\n</think>\n\n", "say <think> please"] {
            assert!(!think.is_open_in(closed), "{closed:?}");
        }
    }
}
