//! What was typed. What it means is decided in `resolve`.

mod expand;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;

/// The command line, option by option, before any of it is interpreted.
#[derive(Debug, Parser)]
#[command(
    name = "modelembed",
    version,
    about = "Runs a GGUF language model straight from a memory map.",
    long_about = None,
    after_help = "Options take one dash or two, and their value after a blank or an equals sign: -n 64, -n=64, -mmap=false.\n\
                  The answer goes to standard output, everything else to standard error.",
    args_override_self = true,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true,
    disable_help_flag = true,
    max_term_width = 110
)]
pub struct LowArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(flatten)]
    pub run: RunArgs,
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Options that every sub-command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub struct CommonArgs {
    /// Model file [default: models/tinyllama-1.1b-chat-v1.0.Q4_K_M.gguf, or the only model in models/]
    #[arg(long, global = true, value_name = "PATH")]
    pub model: Option<PathBuf>,
    /// Map the file [default: true]; -mmap=false reads it the standard way, tensor by tensor
    #[arg(long, global = true, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = clap::builder::BoolishValueParser::new())]
    pub mmap: Option<bool>,
    /// Read the whole file into one memory buffer
    #[arg(long, global = true, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = clap::builder::BoolishValueParser::new())]
    pub memory: Option<bool>,
    /// Context size in tokens [default: 2048]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub ctx: Option<u32>,
    /// Layers on the GPU (this build has no GPU support: only 0)
    #[arg(long, global = true, value_name = "LAYERS", default_value_t = 0)]
    pub ngl: i64,
    /// Worker threads [default: the physical cores that this process may use]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Number format of activations: q8 is fast, f32 exact
    #[arg(long, global = true, value_name = "KIND", value_enum, default_value_t = Activations::Q8)]
    pub activations: Activations,
    /// Number format of the KV cache [default: f16, or f32 with -activations f32]; q8_0 takes half the memory of f16
    #[arg(long, global = true, value_name = "TYPE", value_enum)]
    pub cache_type: Option<CacheType>,
    /// Instruction set of the kernels [default: the best that the CPU has]
    #[arg(long, global = true, value_name = "NAME")]
    pub isa: Option<String>,
    /// Print this help
    #[arg(short, long, global = true, action = clap::ArgAction::HelpShort, help_heading = "Output")]
    help: Option<bool>,
    /// Print nothing but the answer and errors
    #[arg(long, global = true, help_heading = "Output")]
    pub quiet: bool,
    /// Tell what was decided automatically
    #[arg(long, global = true, help_heading = "Output")]
    pub verbose: bool,
    /// Format of standard output
    #[arg(long, global = true, value_name = "FORMAT", value_enum, help_heading = "Output", default_value_t = Format::Text)]
    pub format: Format,
}

/// Options of a run or chat: what is said and how answers are drawn.
#[derive(Debug, Args)]
#[command(next_help_heading = "Prompt and answer")]
pub struct RunArgs {
    /// Initial prompt; `-p -`, or a pipe and no -p, reads standard input [default: "Hello! How can I help you today?"]
    #[arg(long = "p", value_name = "PROMPT", allow_hyphen_values = true)]
    pub prompt: Option<OsString>,
    /// Interactive chat; an explicit -p is its first turn
    #[arg(long = "i")]
    pub interactive: bool,
    /// Number of tokens to predict; -1: until the answer or the context ends
    #[arg(long = "n", value_name = "TOKENS", default_value_t = 512, value_parser = clap::value_parser!(i64).range(-1..),
          allow_negative_numbers = true)]
    pub n_predict: i64,
    /// System message
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub system: Option<String>,
    /// Chat template instead of the model's own: a built-in one's name, a file, or Jinja text
    #[arg(long, value_name = "TEMPLATE", allow_hyphen_values = true)]
    pub template: Option<String>,
    /// No chat template: complete the prompt's text
    #[arg(long)]
    pub raw: bool,
    /// Guess up to N tokens ahead from what the context holds, and check them together: repetitive text comes faster, and is
    /// the same; 0: none
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=7))]
    pub lookup: u8,
    /// Print where the time went, job by job
    #[arg(long, help_heading = "Output")]
    pub timing: bool,
    #[command(flatten)]
    pub sampling: SamplingArgs,
}

/// How the next token is drawn.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub struct SamplingArgs {
    /// Random seed; -1: another one each time
    #[arg(long, value_name = "SEED", default_value = "42", allow_negative_numbers = true, value_parser = parse_seed)]
    pub seed: Seed,
    /// Temperature; 0 always takes the likeliest token
    #[arg(long, value_name = "T", default_value_t = 0.8, value_parser = parse_not_negative)]
    pub temp: f32,
    /// Draw from the K likeliest tokens only; 0: all
    #[arg(long, value_name = "K", default_value_t = 40)]
    pub top_k: u32,
    /// Draw from the likeliest tokens that make up this share of probability; 1: all
    #[arg(long, value_name = "P", default_value_t = 0.95, value_parser = parse_share)]
    pub top_p: f32,
    /// Leave out tokens below this share of the likeliest one's probability; 0: none
    #[arg(long, value_name = "P", default_value_t = 0.05, value_parser = parse_share)]
    pub min_p: f32,
    /// Penalty on tokens among the last 64; 1: none
    #[arg(long, value_name = "R", default_value_t = 1.0, value_parser = parse_positive)]
    pub repeat_penalty: f32,
}

/// `-seed`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seed {
    /// This one.
    Fixed(u64),
    /// A new one each run.
    Random,
}

/// `-activations`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Activations {
    // 8-bit blocks.
    Q8,
    // Not quantised.
    F32,
}

/// `-cache-type`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CacheType {
    // Half precision.
    F16,
    // Blocks of 32 8-bit integers.
    #[value(name = "q8_0")]
    Q8,
    // As computed.
    F32,
}

/// `-format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    // For people.
    Text,
    // For programs.
    Json,
}

/// Everything other than a run or a chat.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the token ids and pieces of a text
    Tokenize(TokenizeArgs),
    /// Print a model file's metadata, tensors and sizes
    Inspect,
    /// Print the log-probability of every token of a text, one JSON object a line
    Score(ScoreArgs),
    /// Measure speed
    Bench(BenchArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

/// `tokenize`
#[derive(Debug, Args)]
pub struct TokenizeArgs {
    /// The text; `-` reads standard input byte for byte
    #[arg(long = "p", value_name = "TEXT", allow_hyphen_values = true)]
    pub prompt: OsString,
    /// Add no BOS or EOS, and read the text of special tokens as plain text
    #[arg(long)]
    pub no_special: bool,
}

/// `score`
#[derive(Debug, Args)]
pub struct ScoreArgs {
    /// The text; `-` reads standard input byte for byte
    #[arg(long = "p", value_name = "TEXT", allow_hyphen_values = true)]
    pub prompt: OsString,
}

/// `bench`
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Length of the prompt
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    pub prompt_tokens: u32,
    /// Number of tokens generated
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub gen_tokens: u32,
    /// Runs, of which the median is reported
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeat: u32,
}

/// `completions`
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}

fn parse_seed(text: &str) -> Result<Seed, String> {
    if text == "-1" {
        return Ok(Seed::Random);
    }
    text.parse().map(Seed::Fixed).map_err(|_| "wanted a whole number from 0, or -1".to_string())
}

fn parse_float(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(x) if x.is_finite() => Ok(x),
        _ => Err("wanted a number".to_string()),
    }
}

fn parse_not_negative(text: &str) -> Result<f32, String> {
    let x = parse_float(text)?;
    if x >= 0.0 { Ok(x) } else { Err("wanted a number that is not negative".to_string()) }
}

fn parse_positive(text: &str) -> Result<f32, String> {
    let x = parse_float(text)?;
    if x > 0.0 { Ok(x) } else { Err("wanted a number above 0".to_string()) }
}

fn parse_share(text: &str) -> Result<f32, String> {
    let x = parse_float(text)?;
    if (0.0..=1.0).contains(&x) { Ok(x) } else { Err("wanted a number from 0 to 1".to_string()) }
}

/// A command line that cannot be used, or the help or version that was asked for.
#[derive(Debug)]
pub struct Refusal {
    /// What to print.
    pub text: String,
    /// 0 for help and version, 2 for mistakes.
    pub exit_code: u8,
}

/// Parses the arguments, the program's name first.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<LowArgs, Refusal> {
    let mut command = LowArgs::command();
    command.build();
    let args = expand::expand(&command, args);
    let matches = command.try_get_matches_from_mut(args).map_err(refusal)?;
    if let Some((name, _)) = matches.subcommand() {
        // Silently ignoring `-n` in `-n 5 inspect` would mislead.
        let ours = LowArgs::command();
        let ignored = ours.get_arguments().find(|arg| {
            !arg.is_global_set()
                && matches.value_source(arg.get_id().as_str()) == Some(clap::parser::ValueSource::CommandLine)
        });
        if let Some(long) = ignored.and_then(|arg| arg.get_long()) {
            let message = format!("the option '--{long}' does not belong before the command '{name}'\n");
            return Err(refusal(command.error(ErrorKind::ArgumentConflict, message)));
        }
    }
    LowArgs::from_arg_matches(&matches).map_err(refusal)
}

/// clap writes long options with two dashes; this program's are written with one.
fn refusal(error: clap::Error) -> Refusal {
    let rendered = error.render().to_string();
    let mut text = String::with_capacity(rendered.len());
    let mut previous = ' ';
    let mut rest = rendered.chars().peekable();
    while let Some(c) = rest.next() {
        let starts_option = c == '-' && rest.peek() == Some(&'-') && !previous.is_alphanumeric();
        if !starts_option {
            text.push(c);
        }
        previous = c;
        if starts_option {
            text.push('-');
            rest.next();
        }
    }
    Refusal { text, exit_code: if error.use_stderr() { 2 } else { 0 } }
}

/// The completion script for a shell.
pub fn completions(shell: clap_complete::Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut LowArgs::command(), "modelembed", &mut script);
    script
}

#[cfg(test)]
mod tests;
