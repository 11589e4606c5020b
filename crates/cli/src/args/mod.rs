//! What was typed. What it means is decided in `resolve`.

mod expand;
mod packed;
mod sampling;
mod serve;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use modelembed::{GpuLayers, Lock, RamBudget};
use modelembed_gguf::escaped;
pub use sampling::{SamplingArgs, Window};
pub use serve::{LogFormat, ServeArgs};
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
    /// Model file [default: models/tinyllama-1.1b-chat-v1.0.Q4_K_M.gguf, or the only model in
    /// models/]
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
    /// Memory that a mapped model may use: a size like 600M or 4G, auto (what the machine and its
    /// control groups leave) or off. What does not fit is read from the disk for every token
    #[arg(long, global = true, value_name = "SIZE", default_value = "auto", value_parser = parse_ram_budget)]
    pub ram_budget: RamBudget,
    /// How that is read: io_uring (Linux), several threads, or auto: io_uring where the system
    /// allows it
    #[arg(long, global = true, value_name = "KIND", value_enum, default_value_t = StreamIo::Auto)]
    pub stream_io: StreamIo,
    /// Lock the weights in memory, layer by layer, as far as the system allows; at most a size like
    /// 2G of them. With `require` a model that cannot be locked as a whole does not run
    #[arg(long, global = true, value_name = "SIZE", num_args = 0..=1, require_equals = true, default_missing_value = "on",
          default_value = "off", value_parser = parse_lock)]
    pub mlock: Lock,
    /// Context size in tokens; 0: as many as the model was trained for [default: 2048]
    #[arg(long, global = true, value_name = "N")]
    pub ctx: Option<u32>,
    /// Layers on the GPU, the last ones first; more than the model has: the output head too; or
    /// all, or auto [default: 0]
    #[arg(long, global = true, value_name = "LAYERS", value_parser = gpu_layers)]
    pub ngl: Option<GpuLayers>,
    /// The GPU: its number, or a part of its name; "list" shows what there is [default: the best
    /// that is no software]
    #[arg(long, global = true, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub device: Option<String>,
    /// Worker threads [default: the physical cores that this process may use]; `bench` takes a
    /// list: 1,2
    #[arg(long, global = true, value_name = "N", value_parser = parse_threads)]
    pub threads: Option<Numbers>,
    /// Number format of activations: q8 is fast, f32 exact
    #[arg(long, global = true, value_name = "KIND", value_enum, default_value_t = Activations::Q8)]
    pub activations: Activations,
    /// Number format of the KV cache [default: i16, or f32 with -activations f32]; i16 is as exact
    /// as f16 and faster at prompts, q8_0 takes half the memory
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

fn gpu_layers(typed: &str) -> Result<GpuLayers, String> {
    match typed {
        "all" => Ok(GpuLayers::All),
        "auto" => Ok(GpuLayers::Auto),
        number => {
            number.parse().map(GpuLayers::Count).map_err(|_| "wanted a number of layers, all or auto".to_string())
        }
    }
}

/// Options of a run or chat: what is said and how answers are drawn.
#[derive(Debug, Args)]
#[command(next_help_heading = "Prompt and answer")]
pub struct RunArgs {
    /// Initial prompt; `-p -`, or a pipe and no -p, reads standard input [default: "Hello! How can
    /// I help you today?"]
    #[arg(long = "p", value_name = "PROMPT", allow_hyphen_values = true)]
    pub prompt: Option<OsString>,
    /// The prompt is the text of this file, without its last line end
    #[arg(long = "f", value_name = "FILE")]
    pub prompt_file: Option<PathBuf>,
    /// Interactive chat; an explicit -p is its first turn
    #[arg(long = "i")]
    pub interactive: bool,
    /// Print what running the model here will be like, and do not load it
    #[arg(long)]
    pub dry_run: bool,
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
    /// Guess up to N tokens ahead from what the context holds, and check them together: repetitive
    /// text comes faster, and is the same; 0: none
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=7))]
    pub lookup: u8,
    /// What to do with a model's reasoning: show it (dimmed on a terminal), hide it, or ask the
    /// model's template for none
    #[arg(long, value_enum, value_name = "HOW", default_value_t = Reasoning::Show)]
    pub reasoning: Reasoning,
    /// Let texts of control tokens in what is said in a chat be those tokens
    #[arg(long)]
    pub control_tokens: bool,
    /// Go on with what this file holds, if it is there, and write it back: the conversation, or
    /// with -raw the text, and what was computed for it
    #[arg(long, value_name = "FILE")]
    pub session: Option<PathBuf>,
    /// Print where the time went, job by job
    #[arg(long, help_heading = "Output")]
    pub timing: bool,
    #[command(flatten)]
    pub sampling: SamplingArgs,
}

/// `-seed` where it is not given.
pub const DEFAULT_SEED: u64 = 42;

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

/// `-reasoning`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Reasoning {
    // As it comes.
    Show,
    // The answer alone.
    Hide,
    // The template is told that none is wanted.
    Off,
}

/// `-stream-io`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StreamIo {
    // The first of the two that the system allows.
    Auto,
    // One thread with many reads under way.
    #[value(name = "io_uring")]
    Ring,
    // One thread for each read under way.
    Threads,
}

/// `-cache-type`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CacheType {
    // 16-bit integers with a scale.
    I16,
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
    Inspect(InspectArgs),
    /// Print the log-probability of every token of a text, one JSON object a line
    Score(ScoreArgs),
    /// Answer many users at once over HTTP, as OpenAI's interface has it
    Serve(Box<ServeArgs>),
    /// Measure speed
    Bench(BenchArgs),
    /// Show which part of a model is in memory, and which processes map it
    Status,
    /// Read a model, or some of its layers, into memory ahead of use
    Warm(WarmArgs),
    /// Make the system forget a model's pages
    Evict(EvictArgs),
    /// Hash a model's files and look for values that are no numbers
    Verify(VerifyArgs),
    /// Measure each load mode in a process of its own, with a cold and a warm page cache
    Compare(CompareArgs),
    /// Write one executable that holds this program and a model
    Pack(Box<PackArgs>),
    /// Write the model that a program holds to a file
    Unpack(UnpackArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

/// `pack`: every option that is not its own becomes a default of the new program.
#[derive(Debug, Args)]
pub struct PackArgs {
    /// The executable to write
    #[arg(long = "o", value_name = "FILE")]
    pub output: PathBuf,
    /// Replace a file of that name
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub run: RunArgs,
    /// The options for the new program, as `--name=value`
    #[arg(skip)]
    pub flags: Vec<String>,
}

/// `unpack`
#[derive(Debug, Args)]
pub struct UnpackArgs {
    /// The file to write, or a folder; a folder for a model of several files
    #[arg(long = "o", value_name = "PATH")]
    pub output: PathBuf,
    /// Replace files
    #[arg(long)]
    pub force: bool,
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

/// `inspect`
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Also what running the model here will be like, from a second's measuring of disk and memory
    #[arg(long)]
    pub plan: bool,
    /// Only what the model is, and the steps that compute it: layers that are alike once
    #[arg(long, conflicts_with = "plan")]
    pub program: bool,
}

/// `compare`
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// The text that every run completes
    #[arg(long = "p", value_name = "PROMPT", default_value = "Once upon a time", allow_hyphen_values = true)]
    pub prompt: String,
    /// Number of tokens generated
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..))]
    pub gen_tokens: u32,
    /// Leave the page cache as it is
    #[arg(long)]
    pub warm_only: bool,
    /// Draw the comparison into this file
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

/// `score`
#[derive(Debug, Args)]
pub struct ScoreArgs {
    /// The text; `-` reads standard input byte for byte
    #[arg(
        long = "p",
        value_name = "TEXT",
        allow_hyphen_values = true,
        required_unless_present = "ids",
        conflicts_with = "ids"
    )]
    pub prompt: Option<OsString>,
    /// Token ids instead of a text, as they are, with commas or blanks between them; `-` reads
    /// standard input
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    pub ids: Option<OsString>,
    /// Write all logits of every token into this file, as NumPy reads it: float32, (tokens,
    /// vocabulary)
    #[arg(long, value_name = "FILE.npy")]
    pub logits: Option<PathBuf>,
}

/// `bench`
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Length of the prompt; 0 leaves it out
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub prompt_tokens: u32,
    /// Number of tokens generated; 0 leaves it out
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub gen_tokens: u32,
    /// Tokens that are in the context before the prompt, and before the tokens generated
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub depth: u32,
    /// Also the time to the first token of prompts of these lengths: 1,2,4,8,16,32
    #[arg(long, value_name = "LIST", value_parser = parse_numbers)]
    pub short_prompts: Option<Numbers>,
    /// Also decoding so many sequences at once: 1,2,4,8,16
    #[arg(long, value_name = "LIST", value_parser = parse_numbers)]
    pub sequences: Option<Numbers>,
    /// Runs, of which the median is reported
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeat: u32,
    /// Take the tokens from a file of ids, so that another program can decode the same
    #[arg(long, value_name = "FILE")]
    pub ids: Option<PathBuf>,
    /// Write the ids that are evaluated to a file
    #[arg(long, value_name = "FILE")]
    pub write_ids: Option<PathBuf>,
    /// Leave out how fast the machine reads memory
    #[arg(long)]
    pub no_bandwidth: bool,
    /// Write a model of a named shape and format with random weights instead: llama-1.1b:q4_k_m
    #[arg(long, value_name = "SHAPE:FORMAT", requires = "out")]
    pub synthetic: Option<String>,
    /// Only so many of the shape's layers
    #[arg(long, value_name = "N", requires = "synthetic")]
    pub layers: Option<usize>,
    /// Where to write it
    #[arg(long, value_name = "FILE", requires = "synthetic")]
    pub out: Option<PathBuf>,
    /// The model whose vocabulary it gets [default: the one of -model]
    #[arg(long, value_name = "FILE", requires = "synthetic")]
    pub vocab: Option<PathBuf>,
}

/// `warm`
#[derive(Debug, Args)]
pub struct WarmArgs {
    /// Only these: numbers, ranges such as 0..8 (without the last), embedding, head, experts, dense;
    /// several with commas
    #[arg(long, value_name = "LAYERS")]
    pub layers: Option<String>,
    /// Read even if it does not fit into the memory that is available
    #[arg(long)]
    pub force: bool,
}

/// `evict`
#[derive(Debug, Args)]
pub struct EvictArgs {
    /// Only these: numbers, ranges such as 0..8 (without the last), embedding, head, experts, dense;
    /// several with commas
    #[arg(long, value_name = "LAYERS")]
    pub layers: Option<String>,
}

/// `verify`
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Also print the hash of every tensor
    #[arg(long)]
    pub tensors: bool,
}
/// A list of numbers from 1, separated by commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbers(pub Vec<usize>);

/// `completions`
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// `on`, `off`, `require`, or bytes as for `-ram-budget`.
fn parse_lock(text: &str) -> Result<Lock, String> {
    match text {
        "on" | "true" => Ok(Lock::Allowed),
        "off" | "false" => Ok(Lock::No),
        "require" => Ok(Lock::Require),
        _ => match parse_ram_budget(text) {
            Ok(RamBudget::Bytes(bytes)) => Ok(Lock::Bytes(bytes)),
            _ => Err("wanted on, off, require, or a size like 600M or 4G".to_string()),
        },
    }
}

/// `auto`, `off`, or bytes with an optional K, M, G or T (of 1024).
fn parse_ram_budget(text: &str) -> Result<RamBudget, String> {
    match text {
        "auto" => return Ok(RamBudget::Auto),
        "off" => return Ok(RamBudget::Off),
        _ => {}
    }
    let refusal = || "wanted auto, off, or a size like 600M or 4G".to_string();
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[number.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return Err(refusal()),
    };
    let bytes = number.parse::<f64>().map_err(|_| refusal())? * (1u64 << shift) as f64;
    if bytes >= 1.0 && bytes < u64::MAX as f64 { Ok(RamBudget::Bytes(bytes as u64)) } else { Err(refusal()) }
}

fn parse_seed(text: &str) -> Result<Seed, String> {
    if text == "-1" {
        return Ok(Seed::Random);
    }
    text.parse().map(Seed::Fixed).map_err(|_| "wanted a whole number from 0, or -1".to_string())
}

/// Up to 64 whole numbers from 1 to `max`.
fn parse_list(text: &str, max: usize) -> Result<Numbers, String> {
    let numbers: Option<Vec<usize>> =
        text.split(',').map(|n| n.trim().parse().ok().filter(|n| (1..=max).contains(n))).collect();
    let numbers = numbers.filter(|list| list.len() <= 64);
    numbers
        .map(Numbers)
        .ok_or_else(|| format!("wanted a whole number from 1 to {max}, or several with commas between them"))
}

fn parse_threads(text: &str) -> Result<Numbers, String> {
    parse_list(text, 1024)
}

fn parse_numbers(text: &str) -> Result<Numbers, String> {
    parse_list(text, 1 << 24)
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

/// Parses the arguments, the program's name first, with `flags` before them that were packed into
/// the program.
pub fn parse_with(flags: &[String], args: impl IntoIterator<Item = OsString>) -> Result<LowArgs, Refusal> {
    let args: Vec<OsString> = args.into_iter().collect();
    // Alone first: a mistake is one in what was typed.
    let typed = matches(args.iter().cloned())?;
    let command = LowArgs::command();
    let kept = packed::applicable(flags, &command, &typed);
    if kept.is_empty() {
        return parse(args);
    }
    let (program, rest) = args.split_at(args.len().min(1));
    parse(program.iter().cloned().chain(kept.into_iter().map(OsString::from)).chain(rest.iter().cloned()))
}

/// Parses the arguments, the program's name first.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<LowArgs, Refusal> {
    let matches = matches(args)?;
    let mut low = LowArgs::from_arg_matches(&matches).map_err(refusal)?;
    if let (Some(Command::Pack(pack)), Some((_, of_pack))) = (&mut low.command, matches.subcommand()) {
        let mut command = LowArgs::command();
        command.build();
        pack.flags = packed::to_store(&command, of_pack)
            .map_err(|message| refusal(command.error(ErrorKind::InvalidUtf8, message)))?;
    }
    Ok(low)
}

fn matches(args: impl IntoIterator<Item = OsString>) -> Result<ArgMatches, Refusal> {
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
    Ok(matches)
}

/// clap writes long options with two dashes; this program's are written with one.
fn refusal(mut error: clap::Error) -> Refusal {
    // What was typed is quoted in the message, whose lines are clap's own.
    let quoted = |(kind, value): (ContextKind, &ContextValue)| match value {
        ContextValue::String(text) => Some((kind, ContextValue::String(escaped(text).into_owned()))),
        _ => None,
    };
    for (kind, value) in error.context().filter_map(quoted).collect::<Vec<_>>() {
        error.insert(kind, value);
    }
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
