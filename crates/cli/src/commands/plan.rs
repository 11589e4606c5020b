//! What running a model here will be like, for `inspect` and `-dry-run`: nothing of the model is
//! loaded.

use crate::resolve::{Format, Setting, Talk};
use crate::setup;
use crate::terminal::Answer;
use anyhow::Result;
use modelembed::{
    ContextNeed, DevicePlan, DeviceShare, Forecast, HIT_RATES, ModelFiles, Plan, ReadBandwidth, Verdict,
    available_threads,
};
use modelembed_storage::DiskSpeed;
use modelembed_text::Tokenizer;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Prints the forecast for a run with these settings, and with this prompt where it is known. Exit
/// code 1 if the model cannot run so.
pub fn dry_run(setting: &Setting, talk: Option<&Talk>) -> Result<ExitCode> {
    if let Some(note) = &setting.model_note {
        setting.notes().line(note);
    }
    setup::warn_of_unused_device(setting);
    let files = ModelFiles::open(&setting.model)?;
    let need = match talk {
        Some(talk) => {
            let tokenizer = Tokenizer::from_gguf(files.gguf(), files.header().clone())?;
            setup::need(talk, files.gguf(), &tokenizer)
        }
        None => None,
    };
    let forecast = forecast(setting, &files, need)?;
    let text = match setting.format {
        Format::Json => format!("{}\n", json_of(&forecast)),
        Format::Text => format!("{forecast}\n"),
    };
    Answer::new().piece(&text)?;
    Ok(if forecast.verdict() == Verdict::Impossible { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Plans, and measures how fast memory and disk are: that takes about a second.
///
/// # Errors
/// Whatever keeps the model from running.
pub fn forecast(setting: &Setting, files: &ModelFiles, need: Option<ContextNeed>) -> Result<Forecast> {
    let DevicePlan { mut plan, devices, warnings } = files.plan_devices_for(&setting.load_options(), need)?;
    for warning in &warnings {
        setting.notes().warning(warning);
    }
    let threads = setting.threads.unwrap_or_else(available_threads);
    plan.memory_bytes_per_second = ReadBandwidth::measure(threads).map(|found| found.bytes_per_second);
    // The largest file says most about the disk.
    let largest = files.storages().max_by_key(|storage| storage.len());
    plan.disk_bytes_per_second = largest.and_then(DiskSpeed::probe).map(|found| found.bytes_per_second);
    let cached_bytes = files.storages().map(|storage| Some(storage.residency(0..storage.len())?.resident_bytes)).sum();
    Ok(Forecast { plan, devices, mode: setting.mode.load_mode(), cached_bytes })
}

/// What is known of experts that do not all fit.
fn experts(plan: &Plan) -> Value {
    let at = |rate: f64| {
        json!({
            "hit_rate": rate,
            "missed_bytes_per_token": plan.missed_bytes(rate),
            "tokens_per_second": plan.tokens_per_second_at(rate),
        })
    };
    json!({
        "count": plan.experts.map(|experts| experts.n_items),
        "used_per_token": plan.experts.map(|experts| experts.n_used),
        "bytes": plan.experts.map(|experts| experts.all_bytes),
        "used_bytes_per_token": plan.experts.map(|experts| experts.used_bytes),
        "slot_bytes": plan.slot_bytes,
        "dense_bytes": plan.dense_bytes(),
        "speeds": HIT_RATES.map(at),
    })
}

/// The forecast for programs.
pub fn json_of(forecast: &Forecast) -> Value {
    let verdict = match forecast.verdict() {
        Verdict::Fits => "fits",
        Verdict::Streams => "streams",
        Verdict::Impossible => "impossible",
        Verdict::Unplanned => "unplanned",
    };
    let plan = &forecast.plan;
    let device = |share: &DeviceShare| {
        json!({
            "device": share.device,
            "backend": share.backend,
            "first_layer": share.layers.start,
            "n_layers": share.layers.len(),
            "has_head": share.has_head,
            "weight_bytes": share.weight_bytes,
            "kv_bytes": share.kv_bytes,
        })
    };
    json!({
        "verdict": verdict,
        "weight_bytes": plan.weight_bytes,
        "other_bytes": plan.other_bytes,
        "budget_bytes": plan.budget_bytes,
        "streamed_bytes_per_token": plan.streamed_per_token(),
        "experts": plan.keeps_experts().then(|| experts(plan)),
        "cached_bytes": forecast.cached_bytes,
        "first_read_bytes": forecast.first_read_bytes(),
        "first_read_seconds": forecast.first_read_seconds(),
        "most_tokens_per_second": forecast.tokens_per_second(),
        "memory_bytes_per_second": plan.memory_bytes_per_second,
        "disk_bytes_per_second": plan.disk_bytes_per_second,
        "devices": forecast.devices.iter().map(device).collect::<Vec<_>>(),
    })
}
