//! What the metadata says of recurrences: the `ssm` keys, which each kind reads as sizes of its
//! own.

use crate::error::Result;
use crate::keys::{Keys, MAX_HEADS, MAX_LENGTH};
use crate::model::{ChannelNorm, ChannelSpec, KeySharing, Need, ScanKind, ScanPacking, ScanSpec};

/// A gated delta net: `state_size` is the length of keys, and `group_count` the number of key
/// heads.
pub(super) fn gated_delta(keys: &Keys<'_>, eps: f32) -> Result<ScanSpec> {
    let scan = read(keys, ScanKind::GatedDelta, eps)?;
    Ok(ScanSpec { sharing: KeySharing::Tiled, output_norm: Need::Always, ..scan })
}

/// Mamba 2: `state_size` counts state elements a channel, and `group_count` the groups of heads
/// that share B and C.
pub(super) fn mamba2(keys: &Keys<'_>, eps: f32, output_norm: Need) -> Result<ScanSpec> {
    let scan = read(keys, ScanKind::Mamba2, eps)?;
    Ok(ScanSpec { conv_bias: Need::Maybe, output_norm, ..scan })
}

/// Mamba: a recurrence of each channel.
pub(super) fn channels(keys: &Keys<'_>, eps: f32, norm: ChannelNorm) -> Result<ChannelSpec> {
    Ok(ChannelSpec {
        channels: keys.size("ssm.inner_size", MAX_LENGTH)?,
        state: keys.size("ssm.state_size", MAX_LENGTH)?,
        rank: keys.size("ssm.time_step_rank", MAX_LENGTH)?,
        conv_kernel: keys.size("ssm.conv_kernel", MAX_LENGTH)?,
        norm,
        eps,
    })
}

fn read(keys: &Keys<'_>, kind: ScanKind, eps: f32) -> Result<ScanSpec> {
    let inner = keys.size("ssm.inner_size", MAX_LENGTH)?;
    // The key is named after the rank of the time step in Mamba 1; later kinds have one step a
    // head.
    let value_heads = keys.size("ssm.time_step_rank", MAX_HEADS)?;
    let key_heads = keys.size("ssm.group_count", MAX_HEADS)?;
    if !inner.is_multiple_of(value_heads) {
        return Err(keys.bad("ssm.time_step_rank", format!("{value_heads} does not divide the inner size {inner}")));
    }
    if !value_heads.is_multiple_of(key_heads) {
        return Err(keys.bad("ssm.group_count", format!("{key_heads} does not divide the {value_heads} heads")));
    }
    Ok(ScanSpec {
        kind,
        key_heads,
        value_heads,
        key_dim: keys.size("ssm.state_size", MAX_LENGTH)?,
        value_dim: inner / value_heads,
        sharing: KeySharing::Grouped,
        packing: ScanPacking::Apart,
        conv_kernel: keys.size("ssm.conv_kernel", MAX_LENGTH)?,
        conv_bias: Need::Never,
        output_norm: Need::Never,
        eps,
    })
}
