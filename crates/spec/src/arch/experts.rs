//! What the metadata says of mixtures of experts.

use crate::error::Result;
use crate::keys::{Keys, MAX_LENGTH};
use crate::model::{
    Choice, ExpertSpec, FeedForward, GatedSpec, Gating, HiddenActivation, ModelSpec, MoeSpec, Need, NormSpec,
    RouterInput, SharedSpec,
};

/// Bound that no real model reaches.
const MAX_EXPERTS: u32 = 1 << 16;

/// The keys of all layers. Those of layers without experts may hold anything.
pub(super) struct Experts<'a> {
    keys: &'a Keys<'a>,
    count: usize,
    used: Vec<u32>,
    /// Of one expert; without it the experts that are used share the width of the dense network.
    widths: Option<Vec<u32>>,
    dense_widths: Option<Vec<u32>>,
    groups: Option<(usize, usize)>,
    gating: Gating,
    normalised: bool,
    scale: f32,
    n_shared: Option<usize>,
    shared_width: Option<usize>,
}

impl<'a> Experts<'a> {
    /// Whether a file of an architecture that has them in some models has them.
    pub(super) fn are_there(keys: &Keys<'_>) -> Result<bool> {
        Ok(keys.optional_size("expert_count", MAX_EXPERTS)?.is_some())
    }

    /// Reads the keys. `gating` is what the architecture does where the file does not say,
    /// `normalised` whether it normalises weights whatever the file says.
    pub(super) fn read(keys: &'a Keys<'a>, gating: Gating, normalised: bool) -> Result<Experts<'a>> {
        let count = keys.size("expert_count", MAX_EXPERTS)?;
        let used = keys.per_layer("expert_used_count")?.ok_or_else(|| keys.bad("expert_used_count", "is missing"))?;
        let key = "expert_gating_func";
        let gating = match keys.stored_u32(key)? {
            None | Some(0) => gating,
            Some(1) => Gating::Softmax,
            Some(2) => Gating::Sigmoid,
            Some(3) => Gating::SoftmaxOfChosen,
            Some(4) => Gating::SqrtSoftplus,
            Some(id) => {
                return Err(keys.unsupported(
                    key,
                    id,
                    "1 to 4: softmax, sigmoid, softmax of the chosen, sqrt-softplus",
                ));
            }
        };
        Ok(Experts {
            keys,
            count,
            used,
            widths: keys.per_layer("expert_feed_forward_length")?.filter(|widths| widths.iter().any(|&n| n != 0)),
            dense_widths: keys.per_layer("feed_forward_length")?,
            groups: groups(keys, count)?,
            gating,
            // llama.cpp writes `false` for architectures that it normalises in whatever a file says.
            normalised: keys.flag("expert_weights_norm")?.unwrap_or(false) || normalised,
            scale: keys.positive_f32("expert_weights_scale")?.unwrap_or(1.0),
            n_shared: keys.optional_size("expert_shared_count", MAX_EXPERTS)?,
            shared_width: keys.optional_size("expert_shared_feed_forward_length", MAX_LENGTH)?,
        })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The same where the key of the dense network's width holds one expert's.
    pub(super) fn with_dense_width(mut self) -> Experts<'a> {
        self.widths = self.widths.or(self.dense_widths.take());
        self
    }

    /// Gives a model's layers their networks: mixtures, as `change` makes them, behind the dense
    /// layers that the file counts, where `is_mixed` says so.
    pub(super) fn fill(
        &self,
        spec: &mut ModelSpec,
        norm: NormSpec,
        is_mixed: impl Fn(usize) -> bool,
        change: impl Fn(&mut MoeSpec),
    ) -> Result<()> {
        let n_dense = self.keys.u32("leading_dense_block_count")?.unwrap_or(0) as usize;
        spec.fill_ffn(norm, |il| {
            if il < n_dense || !is_mixed(il) {
                let key = "feed_forward_length";
                let width = self.dense_widths.as_ref().map(|widths| widths[il]);
                let width = width.ok_or_else(|| self.keys.bad(key, "is missing"))?;
                let width = self.keys.bounded(key, width, MAX_LENGTH)?;
                return Ok(FeedForward::Gated(GatedSpec::plain(width, HiddenActivation::Silu)));
            }
            let mut moe = self.layer(il)?;
            change(&mut moe);
            Ok(FeedForward::Moe(moe))
        })
    }

    /// The same where a layer without a router in the file is a dense one.
    pub(super) fn fill_where_routed(
        &self,
        spec: &mut ModelSpec,
        norm: NormSpec,
        change: impl Fn(usize, &mut MoeSpec, &mut GatedSpec),
    ) -> Result<()> {
        // It says the same of some of these files.
        self.keys.note("leading_dense_block_count");
        let key = "feed_forward_length";
        let widths = self.dense_widths.as_ref().ok_or_else(|| self.keys.bad(key, "is missing"))?;
        spec.fill_ffn(norm, |il| {
            let width = self.keys.bounded(key, widths[il], MAX_LENGTH)?;
            let (mut moe, mut gated) = (self.layer(il)?, GatedSpec::plain(width, HiddenActivation::Silu));
            change(il, &mut moe, &mut gated);
            Ok(FeedForward::MoeOrGated(Box::new(moe), gated))
        })
    }

    /// The mixture of one layer: experts with a gate and SiLU, chosen by probability.
    pub(super) fn layer(&self, il: usize) -> Result<MoeSpec> {
        let n_used = self.keys.bounded("expert_used_count", self.used[il], MAX_EXPERTS)?;
        if n_used > self.count {
            let problem = format!("is {n_used}, wanted at most the {} experts", self.count);
            return Err(self.keys.bad("expert_used_count", problem));
        }
        let width = match (&self.widths, &self.dense_widths) {
            (Some(widths), _) => self.keys.bounded("expert_feed_forward_length", widths[il], MAX_LENGTH)?,
            (None, Some(widths)) => {
                let share = widths[il] / n_used as u32;
                self.keys.bounded("feed_forward_length", share, MAX_LENGTH)?
            }
            (None, None) => return Err(self.keys.bad("expert_feed_forward_length", "is missing")),
        };
        let shared_width = self.shared_width.or_else(|| self.n_shared.map(|n| n.saturating_mul(width)));
        let shared = shared_width.map(|width| SharedSpec { width, is_weighted: false, clamp: None });
        let expert =
            ExpertSpec { width, activation: HiddenActivation::Silu, is_gated: true, bias: Need::Never, clamp: None };
        Ok(MoeSpec {
            n_experts: self.count,
            n_used,
            groups: self.groups,
            router_input: RouterInput::Normed,
            choice: Choice::Probabilities,
            gating: self.gating,
            normalised: self.normalised,
            scale: self.scale,
            expert,
            shared,
            router_bias: Need::Never,
            weighs_input: false,
            latent: None,
        })
    }
}

/// Groups of experts and how many of them a position may use; one group is none.
fn groups(keys: &Keys<'_>, n_experts: usize) -> Result<Option<(usize, usize)>> {
    let used = keys.optional_size("expert_group_used_count", MAX_EXPERTS)?;
    let Some(count) = keys.optional_size("expert_group_count", MAX_EXPERTS)?.filter(|n| *n > 1) else {
        return Ok(None);
    };
    if !n_experts.is_multiple_of(count) {
        return Err(keys.bad("expert_group_count", format!("{count} does not divide the {n_experts} experts")));
    }
    match used {
        Some(used) if used <= count => Ok(Some((count, used))),
        Some(used) => Err(keys.bad("expert_group_used_count", format!("is {used}, wanted at most the {count} groups"))),
        None => Err(keys.bad("expert_group_used_count", "is missing beside expert_group_count")),
    }
}
