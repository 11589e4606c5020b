//! Who chooses the next token.

use modelembed_text::TokenId;

use crate::run::sampler::Sampler;

/// Chooses the next token of a generation: a [`Sampler`], or a function of one's own over the
/// logits, which any closure `FnMut(&mut [f32]) -> TokenId` is.
pub trait ChooseToken {
    /// Chooses from the logits of what follows: (n_vocab), free to be changed. At least one of them
    /// is a number; an id outside of them ends the generation with an error.
    fn choose(&mut self, logits: &mut [f32]) -> TokenId;

    /// Tells it that a token became part of the text, prompt or answer, in their order.
    fn accept(&mut self, _id: TokenId) {}

    /// The chain of samplers that this is: it needs less than all logits, and knows what the
    /// engine found out while it computed them.
    #[doc(hidden)]
    fn as_sampler(&mut self) -> Option<&mut Sampler> {
        None
    }
}

impl ChooseToken for Sampler {
    fn choose(&mut self, logits: &mut [f32]) -> TokenId {
        self.sample(logits)
    }

    fn accept(&mut self, id: TokenId) {
        Sampler::accept(self, id);
    }

    fn as_sampler(&mut self) -> Option<&mut Sampler> {
        Some(self)
    }
}

impl<F: FnMut(&mut [f32]) -> TokenId> ChooseToken for F {
    fn choose(&mut self, logits: &mut [f32]) -> TokenId {
        self(logits)
    }
}
