//! The modelembed command: flags to engine calls to text. The only crate that prints or exits.
#![forbid(unsafe_code)]

mod args;
mod chat;
mod commands;
mod interrupt;
mod measure;
mod model_path;
mod report;
mod resolve;
mod run;
mod setup;
mod terminal;
mod timing;

use modelembed::storage::CountingAllocator;
use resolve::{Task, UsageError};
use std::process::ExitCode;

/// Counts what the heap holds, for the statistics.
#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn main() -> ExitCode {
    let low = match args::parse(std::env::args_os()) {
        Ok(low) => low,
        Err(refusal) if refusal.exit_code == 0 => return finish(print(&refusal.text)),
        Err(refusal) => {
            terminal::eprint_line(refusal.text.trim_end());
            return ExitCode::from(refusal.exit_code);
        }
    };
    finish(work(low))
}

fn work(low: args::LowArgs) -> anyhow::Result<ExitCode> {
    match resolve::resolve(low)? {
        (Task::Talk(talk), Some(setting)) if talk.interactive => chat::chat(&setting, talk),
        (Task::Talk(talk), Some(setting)) => run::run(&setting, talk),
        (Task::Tokenize { text, special }, Some(setting)) => commands::tokenize::tokenize(&setting, &text, special),
        (Task::Inspect, Some(setting)) => commands::inspect::inspect(&setting),
        (Task::Score { text }, Some(setting)) => commands::score::score(&setting, &text),
        (Task::Bench(bench), Some(setting)) => commands::bench::bench(&setting, bench),
        (Task::Completions(shell), _) => print(&String::from_utf8_lossy(&args::completions(shell))),
        (_, None) => anyhow::bail!("this task needs a model"),
    }
}

fn print(text: &str) -> anyhow::Result<ExitCode> {
    terminal::Answer::new().piece(text)?;
    Ok(ExitCode::SUCCESS)
}

/// Exit codes: 0, 1 for what failed, 2 for a command line that makes no sense; a reader that went away is no failure.
fn finish(result: anyhow::Result<ExitCode>) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(error) if terminal::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::eprint_line(&format!("error: {error:#}"));
            ExitCode::from(if error.is::<UsageError>() { 2 } else { 1 })
        }
    }
}
