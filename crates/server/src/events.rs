//! What an answer consists of, before it has the shape of an interface: encoders only format it.

use modelembed::TokenId;
use modelembed_serve::{End, EndReason, Event, Usage};
use modelembed_text::chat::{AnswerPart, ReasoningSplit};

/// A part of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Delta {
    /// Reasoning before the answer.
    Reasoning(String),
    /// The answer.
    Content(String),
    /// A call of a tool begins.
    ToolCall {
        /// Which of the answer's calls, from 0.
        index: usize,
        /// What the result will name.
        id: String,
        /// The tool.
        name: String,
    },
    /// More of a call's arguments, as JSON.
    Arguments {
        /// Which of the answer's calls.
        index: usize,
        /// Text that follows what came before.
        text: String,
    },
}

/// A token with its log-probability and those of the most likely ones in its place.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenRow {
    /// The token.
    pub id: TokenId,
    /// Its bytes, which may be a part of a character only.
    pub bytes: Vec<u8>,
    /// Natural logarithm; `None` for a token that nothing stands before.
    pub logprob: Option<f32>,
    /// The most likely ones, most likely first.
    pub top: Vec<(TokenId, f32)>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model has done, or a stop text or token came.
    Stop,
    /// It has as many tokens as were wanted or as there was room for.
    Length,
    /// It ends with calls of tools.
    ToolCalls,
}

/// What happens to one choice of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Happening {
    /// Tokens of the prompt, where they were wanted.
    PromptRow(TokenRow),
    /// Parts that became sure with a token, maybe none, and the token where log-probabilities were
    /// wanted.
    Parts(Vec<Delta>, Option<TokenRow>),
    /// The end, with what was held back.
    End(Vec<Delta>, Finish, Usage),
    /// Nothing more comes, because something went wrong.
    Failed(String),
}

/// From the events of one answer to what happens.
#[derive(Debug)]
pub struct Interpreter {
    /// None where reasoning is a part of the content.
    split: Option<ReasoningSplit>,
    wants_rows: bool,
    /// Tokens of reasoning so far.
    pub reasoning_tokens: usize,
}

impl Interpreter {
    /// For an answer whose reasoning `split` tells apart; with rows for log-probabilities or
    /// without.
    pub fn new(split: Option<ReasoningSplit>, wants_rows: bool) -> Interpreter {
        Interpreter { split, wants_rows, reasoning_tokens: 0 }
    }

    /// What an event means; `None` for one that says nothing here.
    pub fn happening(&mut self, event: Event) -> Option<Happening> {
        match event {
            Event::PromptToken { id, bytes, logprob, top } => {
                Some(Happening::PromptRow(TokenRow { id, bytes, logprob, top }))
            }
            Event::Token { id, text, bytes, logprob, top } => {
                let was_reasoning = self.split.as_ref().is_some_and(ReasoningSplit::is_in_reasoning);
                let parts = self.parts(&text);
                if was_reasoning || parts.iter().any(|part| matches!(part, Delta::Reasoning(_))) {
                    self.reasoning_tokens += 1;
                }
                let row = self.wants_rows.then_some(TokenRow { id, bytes, logprob, top });
                Some(Happening::Parts(parts, row))
            }
            Event::End(End { reason, text, usage }) => Some(self.end(reason, &text, usage)),
            _ => None,
        }
    }

    fn end(&mut self, reason: EndReason, text: &str, usage: Usage) -> Happening {
        let finish = match reason {
            EndReason::Stop | EndReason::StopString(_) | EndReason::StopToken(_) => Finish::Stop,
            EndReason::Length => Finish::Length,
            // It may name files of this machine.
            EndReason::Failed(why) => {
                tracing::error!(why, "an answer could not be computed");
                return Happening::Failed("the answer could not be computed: the server's log says why".to_owned());
            }
            EndReason::Slow => return Happening::Failed("the answer was not read in time".to_owned()),
            EndReason::Cancelled => return Happening::Failed("the answer was cancelled".to_owned()),
            other => return Happening::Failed(format!("the answer ended: {other:?}")),
        };
        let mut parts = self.parts(text);
        if let Some(split) = &mut self.split {
            split.finish(&mut |part, text| push(&mut parts, part, text));
        }
        Happening::End(parts, finish, usage)
    }

    fn parts(&mut self, text: &str) -> Vec<Delta> {
        let mut parts = Vec::new();
        match &mut self.split {
            Some(split) => split.push(text, &mut |part, text| push(&mut parts, part, text)),
            None => push(&mut parts, AnswerPart::Answer, text),
        }
        parts
    }
}

fn push(parts: &mut Vec<Delta>, part: AnswerPart, text: &str) {
    match (part, parts.last_mut()) {
        (AnswerPart::Mark, _) => {}
        _ if text.is_empty() => {}
        (AnswerPart::Reasoning, Some(Delta::Reasoning(last))) | (AnswerPart::Answer, Some(Delta::Content(last))) => {
            last.push_str(text);
        }
        (AnswerPart::Reasoning, _) => parts.push(Delta::Reasoning(text.to_owned())),
        (AnswerPart::Answer, _) => parts.push(Delta::Content(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use modelembed_text::chat::REASONING_MARKS;

    fn token(text: &str) -> Event {
        Event::Token { id: TokenId(1), text: text.to_owned(), bytes: vec![b'x'], logprob: Some(-1.0), top: Vec::new() }
    }

    fn end(reason: EndReason, text: &str) -> Event {
        Event::End(End { reason, text: text.to_owned(), usage: Usage::default() })
    }

    #[test]
    fn reasoning_is_told_from_the_answer_and_marks_are_neither() {
        let mut interpreter = Interpreter::new(Some(ReasoningSplit::new(&REASONING_MARKS[0], false)), false);
        let mut all = Vec::new();
        for text in ["<th", "ink>", "Hm", "m</th", "ink>\n", "Yes", ""] {
            match interpreter.happening(token(text)) {
                Some(Happening::Parts(parts, None)) => all.extend(parts),
                other => panic!("{other:?}"),
            }
        }
        let reasoning = |text: &str| Delta::Reasoning(text.into());
        assert_eq!(all, [reasoning("Hm"), reasoning("m"), Delta::Content("Yes".into())]);
        assert_eq!(interpreter.reasoning_tokens, 3, "with what ends it");
        let ended = interpreter.happening(end(EndReason::Length, "!"));
        assert_eq!(ended, Some(Happening::End(vec![Delta::Content("!".into())], Finish::Length, Usage::default())));
    }

    #[test]
    fn what_went_wrong_is_no_end() {
        let mut interpreter = Interpreter::new(None, true);
        for reason in [EndReason::Cancelled, EndReason::Slow, EndReason::Failed("/home/me".into())] {
            match interpreter.happening(end(reason, "")) {
                Some(Happening::Failed(why)) => assert!(!why.is_empty() && !why.contains("/home/me"), "{why}"),
                other => panic!("{other:?}"),
            }
        }
        match interpreter.happening(token("<think>")) {
            Some(Happening::Parts(parts, Some(row))) => {
                assert_eq!((parts, row.logprob), (vec![Delta::Content("<think>".into())], Some(-1.0)));
            }
            other => panic!("{other:?}"),
        }
    }
}
