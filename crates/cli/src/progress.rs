//! How far long work is: a bar on standard error where that is a terminal, gone before anything
//! else is written.

use crate::terminal::{self, Notes};
use crate::tty;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use modelembed::{EvalProgress, Model};
use std::fmt;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Work that is over before this has no bar.
const PATIENCE: Duration = Duration::from_millis(300);
/// How often a bar is drawn.
const STEP: Duration = Duration::from_millis(100);
/// Narrower terminals have no room for the name of the work.
const WIDE_COLS: u16 = 60;
/// Narrower ones have none for a bar.
const NARROW_COLS: u16 = 36;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    Tokens,
}

/// A bar with its figures: what is done of how much, how fast, and how long the rest takes.
pub struct Bar {
    /// None where nobody would see it.
    what: Option<&'static str>,
    unit: Unit,
    start: Instant,
    drawn: Option<Drawn>,
}

struct Drawn {
    bar: ProgressBar,
    cols: u16,
}

/// The bar that stands on the terminal, for whoever ends the program in the middle of the work.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

impl Bar {
    /// A bar for `what`, "reading the model" for example. Nothing is shown with `-quiet`, without a
    /// terminal, and on one that cannot move its cursor.
    pub fn new(what: &'static str, unit: Unit, notes: Notes) -> Bar {
        let what = Some(what).filter(|_| !notes.quiet && can_be_redrawn());
        Bar { what, unit, start: Instant::now(), drawn: None }
    }

    /// Whether somebody sees it.
    pub fn is_visible(&self) -> bool {
        self.what.is_some()
    }

    /// Shows how far the work is, unless it has only begun.
    pub fn show(&mut self, done: u64, total: u64) {
        let Some(what) = self.what else { return };
        if self.drawn.is_none() {
            if self.start.elapsed() < PATIENCE || done >= total {
                return;
            }
            // Without it a bar stays where a signal ends the program.
            let _ = tty::watch_signals();
            terminal::begin_line();
            let target = ProgressDrawTarget::stderr_with_hz((1000 / STEP.as_millis()) as u8);
            let bar = ProgressBar::with_draw_target(Some(total), target).with_elapsed(self.start.elapsed());
            *lock() = Some(bar.clone());
            terminal::bar_is_shown(true);
            self.drawn = Some(Drawn { bar, cols: 0 });
        }
        let Some(drawn) = &mut self.drawn else { return };
        let cols = terminal_size::terminal_size_of(std::io::stderr()).map_or(80, |(cols, _)| cols.0);
        if cols != drawn.cols {
            drawn.cols = cols;
            drawn.bar.set_style(style(what, self.unit, cols));
        }
        drawn.bar.set_position(done);
        drawn.bar.set_length(total);
    }

    /// Takes the bar away.
    pub fn end(&mut self) {
        self.start = Instant::now();
        if let Some(drawn) = self.drawn.take() {
            drawn.bar.finish_and_clear();
            *lock() = None;
            terminal::bar_is_shown(false);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.end();
    }
}

/// Takes the bar away that stands on the terminal, whoever's it is: the program ends.
pub fn wipe() {
    if let Some(bar) = lock().take() {
        bar.finish_and_clear();
    }
}

/// Takes the bar off the terminal until it is drawn again: the program stops.
pub fn hide() {
    if lock().is_some() {
        let _ = std::io::stderr().write_all(b"\r\x1b[2K");
    }
}

fn lock() -> std::sync::MutexGuard<'static, Option<ProgressBar>> {
    SHOWN.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn can_be_redrawn() -> bool {
    std::io::stderr().is_terminal() && !terminal::is_dumb()
}

/// What fits into a line of so many columns.
fn style(what: &'static str, unit: Unit, cols: u16) -> ProgressStyle {
    let template = match cols {
        WIDE_COLS.. => format!("{what} {{wide_bar}} {{done}}  {{speed}}  {{left}}"),
        NARROW_COLS.. => "{wide_bar} {done} {speed} {left}".to_string(),
        _ => "{percent}%".to_string(),
    };
    let is_wide = cols >= WIDE_COLS;
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style
        .progress_chars(if terminal::speaks_utf8() { "█▉▊▋▌▍▎▏ " } else { "#- " })
        .with_key("done", move |state: &ProgressState, out: &mut dyn fmt::Write| {
            let _ = out.write_str(&amount(unit, state.pos(), state.len().unwrap_or(0)));
        })
        .with_key("speed", move |state: &ProgressState, out: &mut dyn fmt::Write| {
            let _ = out.write_str(&speed(unit, pace(state), is_wide));
        })
        .with_key("left", move |state: &ProgressState, out: &mut dyn fmt::Write| {
            let _ = out.write_str(&left(state.len().unwrap_or(0).saturating_sub(state.pos()), pace(state)));
        })
}

const MB: f64 = 1024.0 * 1024.0;

/// `377/636 MB`, `512/2000 tokens`
fn amount(unit: Unit, done: u64, total: u64) -> String {
    match unit {
        Unit::Tokens => format!("{done}/{total} tokens"),
        Unit::Bytes if total as f64 >= 10_000.0 * MB => {
            format!("{:.1}/{:.1} GB", done as f64 / MB / 1024.0, total as f64 / MB / 1024.0)
        }
        Unit::Bytes => format!("{:.0}/{:.0} MB", done as f64 / MB, total as f64 / MB),
    }
}

/// `512 MB/s`, `138 tokens/s`, or `138/s` where there is little room.
fn speed(unit: Unit, per_second: f64, is_wide: bool) -> String {
    match unit {
        Unit::Tokens if is_wide => format!("{per_second:.0} tokens/s"),
        Unit::Tokens => format!("{per_second:.0}/s"),
        Unit::Bytes => format!("{:.0} MB/s", per_second / MB),
    }
}

/// Since the work began: what has only just begun comes in leaps, which a shorter look would show.
fn pace(state: &ProgressState) -> f64 {
    state.pos() as f64 / state.elapsed().as_secs_f64().max(1e-3)
}

/// `12 s left`, `3 min left`
fn left(todo: u64, per_second: f64) -> String {
    match todo as f64 / per_second {
        seconds @ ..120.0 => format!("{seconds:.0} s left"),
        seconds @ ..7200.0 => format!("{:.0} min left", seconds / 60.0),
        seconds @ ..360_000.0 => format!("{:.0} h left", seconds / 3600.0),
        _ => "? left".to_string(),
    }
}

/// Shows what is waited for between a question and the first piece of its answer: the model's pages
/// as long as they come, then the prompt's evaluation.
pub struct Waiting {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Waiting {
    /// Starts a thread that looks how far both are, where there is a terminal to show it.
    pub fn start(model: &Arc<Model>, progress: &Arc<EvalProgress>, notes: Notes) -> Waiting {
        let stop = Arc::new(AtomicBool::new(false));
        let mut reading = Bar::new("reading the model", Unit::Bytes, notes);
        let mut evaluating = Bar::new("evaluating the prompt", Unit::Tokens, notes);
        if !reading.is_visible() {
            return Waiting { stop, thread: None };
        }
        let (model, progress, stopped) = (Arc::clone(model), Arc::clone(progress), Arc::clone(&stop));
        let show = move || {
            // Of the question before.
            let before = progress.tokens();
            let mut has_begun = false;
            while !stopped.load(Ordering::Relaxed) {
                let read = model.prefetch_progress().filter(|p| p.done_bytes < p.total_bytes);
                let tokens = progress.tokens();
                has_begun |= tokens != before;
                match (read, tokens) {
                    (Some(p), _) => {
                        evaluating.end();
                        reading.show(p.done_bytes, p.total_bytes);
                    }
                    (None, (done, total)) if has_begun && total > 1 && done < total => {
                        reading.end();
                        evaluating.show(done as u64, total as u64);
                    }
                    (None, _) => {
                        reading.end();
                        evaluating.end();
                    }
                }
                std::thread::park_timeout(STEP);
            }
        };
        Waiting { stop, thread: std::thread::Builder::new().name("progress".into()).spawn(show).ok() }
    }

    /// Takes the line away, before something else is written.
    pub fn end(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.stop.store(true, Ordering::Relaxed);
            thread.thread().unpark();
            // It has nothing to say that would matter.
            let _ = thread.join();
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        let mb = MB as u64;
        let rows = [
            (amount(Unit::Bytes, 377 * mb, 636 * mb), "377/636 MB"),
            (amount(Unit::Bytes, 512 * mb, 10_240 * mb), "0.5/10.0 GB"),
            (amount(Unit::Tokens, 512, 2000), "512/2000 tokens"),
            (speed(Unit::Bytes, 512.4 * MB, false), "512 MB/s"),
            (speed(Unit::Tokens, 138.2, true), "138 tokens/s"),
            (speed(Unit::Tokens, 138.2, false), "138/s"),
            (speed(Unit::Tokens, 0.4, false), "0/s"),
            (left(119, 1.0), "119 s left"),
            (left(1200, 10.0), "2 min left"),
            (left(720, 0.1), "2 h left"),
            (left(1, 0.0), "? left"),
            (left(0, 0.0), "? left"),
        ];
        let failed: Vec<_> = rows.iter().filter(|(text, wanted)| text != wanted).collect();
        assert!(failed.is_empty(), "{failed:?}");
    }
}
