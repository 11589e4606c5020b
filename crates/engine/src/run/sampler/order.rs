//! The steps of the chain, their names and their order.

use std::fmt;
use std::str::FromStr;

/// A step of the chain that changes logits or leaves tokens out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the options")]
pub enum SamplerStep {
    Penalties,
    Dry,
    TopNSigma,
    TopK,
    TypicalP,
    TopP,
    MinP,
    Xtc,
    Temperature,
}

impl SamplerStep {
    /// Every step, in llama.cpp's default order.
    pub const ALL: [SamplerStep; N] = [
        SamplerStep::Penalties,
        SamplerStep::Dry,
        SamplerStep::TopNSigma,
        SamplerStep::TopK,
        SamplerStep::TypicalP,
        SamplerStep::TopP,
        SamplerStep::MinP,
        SamplerStep::Xtc,
        SamplerStep::Temperature,
    ];

    /// llama.cpp's name.
    pub fn name(self) -> &'static str {
        match self {
            SamplerStep::Penalties => "penalties",
            SamplerStep::Dry => "dry",
            SamplerStep::TopNSigma => "top_n_sigma",
            SamplerStep::TopK => "top_k",
            SamplerStep::TypicalP => "typ_p",
            SamplerStep::TopP => "top_p",
            SamplerStep::MinP => "min_p",
            SamplerStep::Xtc => "xtc",
            SamplerStep::Temperature => "temperature",
        }
    }

    /// The step with this name, or with one of the other names that llama.cpp knows it by.
    fn by_name(name: &str) -> Option<SamplerStep> {
        let name = name.replace('-', "_");
        let other = match name.as_str() {
            "typical_p" | "typical" | "typ" => "typ_p",
            "nucleus" => "top_p",
            "temp" => "temperature",
            name => name,
        };
        SamplerStep::ALL.into_iter().find(|step| step.name() == other)
    }
}

/// Number of steps.
const N: usize = 9;

/// Steps in an order, each at most once. As a text: their names with semicolons (or commas) between
/// them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SamplerOrder {
    steps: [SamplerStep; N],
    len: usize,
}

impl SamplerOrder {
    /// All steps as llama.cpp takes them by default.
    pub const DEFAULT: SamplerOrder = SamplerOrder { steps: SamplerStep::ALL, len: N };

    /// The steps.
    pub fn steps(&self) -> &[SamplerStep] {
        &self.steps[..self.len]
    }

    /// Only the steps that `is_kept` says.
    pub(super) fn filter(&self, is_kept: impl Fn(SamplerStep) -> bool) -> SamplerOrder {
        let mut kept = SamplerOrder { len: 0, ..*self };
        for &step in self.steps().iter().filter(|&&step| is_kept(step)) {
            kept.steps[kept.len] = step;
            kept.len += 1;
        }
        kept
    }
}

impl Default for SamplerOrder {
    fn default() -> SamplerOrder {
        SamplerOrder::DEFAULT
    }
}

impl fmt::Display for SamplerOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.steps().iter().enumerate() {
            write!(f, "{}{}", if i > 0 { ";" } else { "" }, step.name())?;
        }
        Ok(())
    }
}

impl fmt::Debug for SamplerOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// A text that is no [`SamplerOrder`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSamplerOrder {
    /// No step has this name.
    #[error("there is no sampler {seen:?}, wanted some of {known}", known = SamplerOrder::DEFAULT)]
    Unknown {
        /// The name.
        seen: String,
    },
    /// A step is named more than once.
    #[error("the sampler {name} is named twice, wanted each at most once")]
    Twice {
        /// The name.
        name: &'static str,
    },
}

impl FromStr for SamplerOrder {
    type Err = InvalidSamplerOrder;

    fn from_str(text: &str) -> Result<SamplerOrder, InvalidSamplerOrder> {
        let mut order = SamplerOrder { len: 0, ..SamplerOrder::DEFAULT };
        for name in text.split([';', ',']).map(str::trim) {
            let step = SamplerStep::by_name(name).ok_or_else(|| InvalidSamplerOrder::Unknown { seen: name.into() })?;
            if order.steps().contains(&step) {
                return Err(InvalidSamplerOrder::Twice { name: step.name() });
            }
            order.steps[order.len] = step;
            order.len += 1;
        }
        Ok(order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read_and_written() {
        let ok = [
            ("top_k", "top_k"),
            ("temperature;top_p", "temperature;top_p"),
            ("temp, nucleus; typical-p", "temperature;top_p;typ_p"),
            (
                "penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature",
                "penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature",
            ),
        ];
        for (text, want) in ok {
            assert_eq!(text.parse::<SamplerOrder>().map(|order| order.to_string()), Ok(want.into()), "{text}");
        }
        assert_eq!(ok[3].0.parse(), Ok(SamplerOrder::DEFAULT));
        let bad =
            [("", "no sampler \"\""), ("top_k;", "no sampler \"\""), ("topk", "\"topk\", wanted some of penalties;")];
        for (text, want) in bad.into_iter().chain([("temp;temperature", "temperature is named twice")]) {
            let error = text.parse::<SamplerOrder>().expect_err(text).to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
