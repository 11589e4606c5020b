//! The modelembed command: flags to engine calls to text. The only crate that prints or exits.
#![forbid(unsafe_code)]

mod args;
mod chat;
mod commands;
mod experts;
mod interrupt;
mod measure;
mod model_path;
mod npy;
mod own;
mod progress;
mod report;
mod resolve;
mod run;
mod sampling;
mod session_file;
mod setup;
mod terminal;
mod timing;
mod tty;
mod usage;

use modelembed_packed::PackedError;
use modelembed_storage::{CountingAllocator, StorageError, hint_in_report, report_lost_pages};
use own::Own;
use resolve::Task;
use std::process::ExitCode;
use usage::UsageError;

/// Counts what the heap holds, for the statistics.
#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// The exit code after a mapped file lost pages or was written to: what `sysexits.h` calls an input
/// or output error.
const LOST_PAGES_EXIT_CODE: i32 = 74;

fn main() -> ExitCode {
    hint_in_report(&(b" (with -memory it is read once and not needed afterwards)" as &[u8]));
    report_lost_pages(LOST_PAGES_EXIT_CODE);
    let own = Own::find();
    let flags = own.as_ref().ok().and_then(Option::as_ref).map(Own::flags).unwrap_or_default();
    let low = match args::parse_with(flags, std::env::args_os()) {
        Ok(low) => low,
        Err(refusal) if refusal.exit_code == 0 => return finish(print(&refusal.text)),
        Err(refusal) => {
            terminal::eprint_line(refusal.text.trim_end());
            return ExitCode::from(refusal.exit_code);
        }
    };
    finish(own.map_err(Into::into).and_then(|own| work(low, own.as_ref())))
}

fn work(low: args::LowArgs, own: Option<&Own>) -> anyhow::Result<ExitCode> {
    match resolve::resolve(low, own)? {
        (Task::Talk(talk), Some(setting)) if talk.interactive => chat::chat(&setting, talk),
        (Task::Talk(talk), Some(setting)) => run::run(&setting, talk),
        (Task::Tokenize { text, special }, Some(setting)) => commands::tokenize::tokenize(&setting, &text, special),
        (Task::DryRun(talk), Some(setting)) => commands::plan::dry_run(&setting, talk.as_ref()),
        (Task::Inspect(inspect), Some(setting)) => commands::inspect::inspect(&setting, &inspect),
        (Task::Score { input, logits }, Some(setting)) => commands::score::score(&setting, &input, logits.as_deref()),
        (Task::Devices(format), _) => print(&commands::devices(format)),
        (Task::Status, Some(setting)) => commands::status::status(&setting),
        (Task::Warm { layers, force }, Some(setting)) => commands::warm::warm(&setting, layers.as_deref(), force),
        (Task::Evict { layers }, Some(setting)) => commands::warm::evict(&setting, layers.as_deref()),
        (Task::Verify { with_tensors }, Some(setting)) => commands::verify::verify(&setting, with_tensors),
        (Task::Compare(compare), Some(setting)) => commands::compare::compare(&setting, &compare),
        (Task::Pack(pack), Some(setting)) => commands::pack::pack(&setting, pack),
        (Task::Unpack(unpack), Some(setting)) => commands::pack::unpack(&setting, unpack),
        (Task::Serve(serve), Some(setting)) => commands::serve::serve(&setting, *serve),
        (Task::Bench(bench), Some(setting)) => commands::bench::bench(setting, &bench),
        (Task::Synthetic(model), Some(setting)) => commands::synthetic::synthetic(&setting, &model),
        (Task::Completions(shell), _) => print(&String::from_utf8_lossy(&args::completions(shell))),
        (_, None) => anyhow::bail!("this task needs a model"),
    }
}

fn print(text: &str) -> anyhow::Result<ExitCode> {
    terminal::Answer::new().piece(text)?;
    Ok(ExitCode::SUCCESS)
}

/// Exit codes: 0, 1 for what failed, 2 for a command line that makes no sense, 74 for a file that
/// changed while it was mapped, 130 for Ctrl-C; a reader that went away is no failure.
fn finish(result: anyhow::Result<ExitCode>) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(error) if terminal::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::eprint_line(&format!("error: {}", in_words(&error)));
            ExitCode::from(match () {
                () if error.is::<UsageError>() => 2,
                () if was_cancelled(&error) => interrupt::EXIT_CODE,
                () if error.is::<setup::FileChanged>() => LOST_PAGES_EXIT_CODE as u8,
                () => 1,
            })
        }
    }
}

/// An error with its causes, each of them once (some messages hold their cause already), and what
/// to do about it.
fn in_words(error: &anyhow::Error) -> String {
    format!("{}{}", causes(error), report::way_out_of_any(error))
}

fn causes(error: &anyhow::Error) -> String {
    error.chain().map(|cause| cause.to_string()).fold(String::new(), |told, cause| match told {
        told if told.is_empty() => cause,
        told if told.contains(&cause) => told,
        told => format!("{told}: {cause}"),
    })
}

/// Whether Ctrl-C ended the work.
fn was_cancelled(error: &anyhow::Error) -> bool {
    use modelembed::Error;
    matches!(error.downcast_ref::<Error>(), Some(Error::Cancelled | Error::Storage(StorageError::Cancelled)))
        || matches!(error.downcast_ref::<PackedError>(), Some(PackedError::Cancelled))
}
