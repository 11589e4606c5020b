//! A request while it is answered.

use std::sync::Arc;
use std::time::Instant;

use modelembed::{SequenceId, TokenId};

use crate::request::Request;
use crate::tree::Guard;
use crate::voice::{Chosen, Voice};

/// A request while it is answered. It waits as long as it has no sequence.
pub(crate) struct Task {
    /// Its place among all that came.
    pub(crate) id: u64,
    pub(crate) salt: Option<Arc<str>>,
    /// The prompt, and the answer so far.
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) n_prompt: usize,
    /// Where later requests may go on otherwise, in ascending order.
    pub(crate) turn_ends: Vec<usize>,
    pub(crate) arrived: Instant,
    /// What prompts are computed in the order of; `None` until it was seen.
    pub(crate) rank: Option<f64>,
    /// When its first slice was computed.
    pub(crate) began: Option<Instant>,
    pub(crate) sequence: Option<SequenceId>,
    /// Tokens that the sequence holds.
    pub(crate) n_computed: usize,
    /// Whether another one may have the sequence's last page, which is replaced before it is
    /// written to.
    pub(crate) shares_last: bool,
    /// Keeps the pages in the tree that it stands on.
    pub(crate) guard: Option<Guard>,
    /// Whole pages of it that are in the tree.
    pub(crate) n_sealed: usize,
    /// Times that it went back to the queue.
    pub(crate) n_preempted: usize,
    /// Whether the client knows that the prompt is computed.
    pub(crate) told_prompt: bool,
    /// Tokens of the prompt that the client was told of.
    pub(crate) n_told: usize,
    /// What was chosen in a step, also in one that failed for another sequence: the same logits
    /// come again, but the random stream has gone on.
    pub(crate) chosen: Option<Chosen>,
    /// What the model makes of tokens of the prompt, in the step.
    pub(crate) judged: Vec<Chosen>,
    pub(crate) voice: Voice,
}

impl Task {
    pub(crate) fn new(request: Request, voice: Voice) -> Task {
        let mut turn_ends = request.turn_ends;
        turn_ends.sort_unstable();
        Task {
            id: 0,
            salt: request.salt.map(Arc::from),
            n_prompt: request.prompt.len(),
            tokens: request.prompt,
            turn_ends,
            arrived: Instant::now(),
            rank: None,
            began: None,
            sequence: None,
            n_computed: 0,
            shares_last: false,
            guard: None,
            n_sealed: 0,
            n_preempted: 0,
            told_prompt: false,
            n_told: 0,
            chosen: None,
            judged: Vec::new(),
            voice,
        }
    }

    /// Tokens that are still to be computed.
    pub(crate) fn n_left(&self) -> usize {
        self.tokens.len() - self.n_computed
    }

    /// Whether its next row is one of an answer: a token that was chosen, all before it computed.
    pub(crate) fn is_answering(&self) -> bool {
        self.sequence.is_some() && self.told_prompt && self.n_left() == 1
    }
}
