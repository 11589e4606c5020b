//! How tokens are drawn, from the options to the engine's sampler.

use crate::args::{SamplingArgs, Seed, Window};
use crate::terminal::Notes;
use crate::usage::UsageError;
use anyhow::{Context, Result};
use modelembed::{
    Dry, DryBreakers, Mirostat, MirostatVersion, Model, Sampler, SamplerOptions, SamplerStep, TokenId, Xtc,
};

/// How tokens are drawn.
#[derive(Debug)]
pub struct Sampling {
    options: SamplerOptions,
    logit_biases: Vec<(TokenId, f32)>,
    ignore_eos: bool,
    dry_breakers: Vec<String>,
    /// What was asked for without effect, a sentence each.
    idle: Vec<String>,
}

impl Sampling {
    pub fn of(args: &SamplingArgs) -> Sampling {
        let window = |window| match window {
            Window::Last(n) => Some(n),
            Window::All => None,
        };
        let mirostat = |version| Mirostat { version, tau: args.mirostat_ent, eta: args.mirostat_lr };
        let options = SamplerOptions::default()
            .seed(match args.seed {
                Seed::Fixed(seed) => seed,
                Seed::Random => random_seed(),
            })
            .order(args.samplers)
            .temp(args.temp)
            .dynatemp_range(args.dynatemp_range)
            .dynatemp_exponent(args.dynatemp_exp)
            .top_k(args.top_k as usize)
            .top_p(args.top_p)
            .min_p(args.min_p)
            .typical_p(args.typical)
            .top_n_sigma(args.top_n_sigma)
            .xtc(
                (args.xtc_probability > 0.0)
                    .then_some(Xtc { probability: args.xtc_probability, threshold: args.xtc_threshold }),
            )
            .repeat_last_n(window(args.repeat_last_n).unwrap_or(usize::MAX))
            .repeat_penalty(args.repeat_penalty)
            .presence_penalty(args.presence_penalty)
            .frequency_penalty(args.frequency_penalty)
            .dry((args.dry_multiplier > 0.0).then_some(Dry {
                multiplier: args.dry_multiplier,
                base: args.dry_base,
                allowed_length: args.dry_allowed_length as usize,
                last_n: window(args.dry_penalty_last_n),
            }))
            .mirostat(match args.mirostat {
                0 => None,
                1 => Some(mirostat(MirostatVersion::V1)),
                _ => Some(mirostat(MirostatVersion::V2)),
            });
        let dry_breakers = match args.dry_sequence_breaker.as_slice() {
            [] => DryBreakers::DEFAULT.map(str::to_string).to_vec(),
            given => given.iter().filter(|text| *text != "none").cloned().collect(),
        };
        Sampling {
            idle: idle(&options),
            options,
            logit_biases: args.logit_bias.clone(),
            ignore_eos: args.ignore_eos,
            dry_breakers,
        }
    }

    /// What a server answers by where a request says nothing.
    pub fn options(&self, notes: Notes) -> SamplerOptions {
        self.idle.iter().for_each(|sentence| notes.warning(sentence));
        self.options
    }

    /// The sampler for a model; says what of the options is without effect.
    pub fn sampler(&self, model: &Model, notes: Notes) -> Result<Sampler> {
        self.idle.iter().for_each(|sentence| notes.warning(sentence));
        let n_vocab = model.n_vocab();
        if let Some((id, _)) = self.logit_biases.iter().find(|(id, _)| id.0 as usize >= n_vocab) {
            let message = format!("-logit-bias: there is no token {id}, the model has 0 to {}", n_vocab - 1);
            return Err(UsageError(message).into());
        }
        let mut sampler = Sampler::new(self.options)?;
        let forbidden = model.tokenizer().eog_tokens().filter(|_| self.ignore_eos).map(|id| (id, f32::NEG_INFINITY));
        sampler.set_logit_biases(self.logit_biases.iter().copied().chain(forbidden));
        if self.options.dry.is_some() {
            let breakers = DryBreakers::new(model.tokenizer(), &self.dry_breakers).context("-dry-sequence-breaker")?;
            sampler.set_dry_breakers(breakers);
        }
        Ok(sampler)
    }
}

/// Options that change nothing, because what they belong to is not in the chain. Defaults are not
/// meant by anybody.
fn idle(options: &SamplerOptions) -> Vec<String> {
    let usual = SamplerOptions::default();
    let rows = [
        ("-dynatemp-range", SamplerStep::Temperature, options.dynatemp_range != usual.dynatemp_range),
        ("-top-k", SamplerStep::TopK, options.top_k != usual.top_k),
        ("-top-p", SamplerStep::TopP, options.top_p != usual.top_p),
        ("-min-p", SamplerStep::MinP, options.min_p != usual.min_p),
        ("-typical", SamplerStep::TypicalP, options.typical_p < 1.0),
        ("-top-nsigma", SamplerStep::TopNSigma, options.top_n_sigma > 0.0),
        ("-xtc-probability", SamplerStep::Xtc, options.xtc.is_some()),
        ("-repeat-penalty", SamplerStep::Penalties, options.repeat_penalty != 1.0),
        ("-presence-penalty", SamplerStep::Penalties, options.presence_penalty != 0.0),
        ("-frequency-penalty", SamplerStep::Penalties, options.frequency_penalty != 0.0),
        ("-dry-multiplier", SamplerStep::Dry, options.dry.is_some()),
        ("-temp", SamplerStep::Temperature, options.temp != usual.temp && options.mirostat.is_none()),
    ];
    let is_in_order = |step| options.order.steps().contains(&step);
    let asked = rows.into_iter().filter(|&(_, _, is_asked)| is_asked);
    let names = |rows: Vec<&str>, why: &str| {
        let verb = if rows.len() == 1 { "has" } else { "have" };
        (!rows.is_empty()).then(|| format!("{} {verb} no effect: {why}", rows.join(", ")))
    };
    if options.mirostat.is_some() {
        let why = "with -mirostat only the temperature, -logit-bias and -ignore-eos count";
        return names(asked.map(|(name, ..)| name).collect(), why).into_iter().collect();
    }
    let left_out = asked.filter(|&(_, step, _)| !is_in_order(step));
    left_out.filter_map(|(name, step, _)| names(vec![name], &format!("{} is not in -samplers", step.name()))).collect()
}

fn random_seed() -> u64 {
    // The standard library keys its hash maps with the system's randomness.
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_effect_is_said() {
        let order = |text: &str| text.parse().unwrap();
        let mirostat = Some(Mirostat { version: MirostatVersion::V2, tau: 5.0, eta: 0.1 });
        let usual = SamplerOptions::default();
        let rows = [
            (usual, ""),
            (usual.top_k(5).temp(0.0).repeat_penalty(1.1), ""),
            (usual.top_k(5).order(order("top_k")), ""),
            (
                usual.temp(0.5).min_p(0.0).order(order("top_k")),
                "-min-p has no effect: min_p is not in -samplers\n-temp has no effect: temperature is not in -samplers",
            ),
            (usual.mirostat(mirostat).temp(0.5), ""),
            (
                usual.mirostat(mirostat).top_k(5).presence_penalty(1.0),
                "-top-k, -presence-penalty have no effect: with -mirostat only the temperature, -logit-bias and -ignore-eos \
                 count",
            ),
        ];
        for (options, wanted) in rows {
            assert_eq!(idle(&options).join("\n"), wanted, "{options:?}");
        }
    }
}
