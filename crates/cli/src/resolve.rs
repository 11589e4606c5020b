//! What the command line means: defaults filled in, conflicts refused, standard input read, the
//! model found.

pub use crate::args::Format;
use crate::args::{self, Activations, LowArgs, Reasoning};
use crate::model_path::{self, Found};
use crate::own::Own;
use crate::sampling::Sampling;
use crate::tty;
use crate::usage::UsageError;
use anyhow::{Context, Result, bail};
use modelembed::{GpuLayers, TokenId};
use modelembed_server::Listen;
use modelembed_storage::{StreamReader, process};
use modelembed_text::chat::has_tag;
use std::ffi::OsStr;
use std::io::{IsTerminal, Read, stdin};
use std::path::PathBuf;

/// Where the model's bytes are to live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// In the page cache, mapped.
    Map,
    /// In one anonymous buffer.
    Buffer,
    /// In one allocation a tensor.
    File,
}

/// What every task needs to know.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The model file; with its sisters if it is one of a split model.
    pub model: PathBuf,
    /// How the model was found if it is not the one asked for.
    pub model_note: Option<String>,
    pub mode: Mode,
    pub ram_budget: modelembed::RamBudget,
    pub stream_reader: StreamReader,
    pub lock: modelembed::Lock,
    /// The model's own length where there is none.
    pub ctx_tokens: Option<usize>,
    /// The context size was asked for.
    pub ctx_is_explicit: bool,
    pub threads: Option<usize>,
    /// Activations are not quantised.
    pub exact: bool,
    pub cache_type: Option<modelembed::CacheType>,
    /// Where the time goes is measured.
    pub timing: bool,
    pub isa: Option<String>,
    /// As asked for, if only to have none; none without a word.
    pub gpu_layers: Option<GpuLayers>,
    /// Index or part of the name of the GPU.
    pub gpu_device: Option<String>,
    pub quiet: bool,
    pub verbose: bool,
    pub format: Format,
}

/// A run or chat.
#[derive(Debug)]
pub struct Talk {
    /// The prompt of a run; the first turn of a chat, if one was given.
    pub prompt: Option<String>,
    pub interactive: bool,
    /// At most this many tokens an answer.
    pub max_tokens: Option<usize>,
    pub system: Option<String>,
    pub template: Option<Template>,
    pub raw: bool,
    /// Tokens that are guessed ahead at most.
    pub lookup_tokens: usize,
    /// What is done with reasoning.
    pub reasoning: Reasoning,
    /// Texts of control tokens in messages are those tokens.
    pub reads_control_tokens: bool,
    /// What is gone on with, and written back.
    pub session: Option<PathBuf>,
    pub sampling: Sampling,
    /// Texts that end an answer.
    pub stop: Vec<String>,
}

/// A chat template that was asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Template {
    /// Jinja source, or the name of a built-in one.
    Typed(String),
    /// A file and its text, which may well hold no tag.
    File(PathBuf, String),
}

impl Template {
    /// The text by which a packed program finds the template without the file.
    fn packed(self) -> String {
        match self {
            Template::File(_, text) if !has_tag(&text) => format!("{{{{ '' }}}}{text}"),
            Template::Typed(text) | Template::File(_, text) => text,
        }
    }
}

/// What a benchmark does.
#[derive(Debug, Clone)]
pub struct Bench {
    pub prompt_tokens: usize,
    pub gen_tokens: usize,
    /// Tokens in the context before either.
    pub depth: usize,
    /// Lengths of prompts whose time to the first token is measured.
    pub short_prompts: Vec<usize>,
    /// Numbers of sequences that are decoded at once.
    pub sequences: Vec<usize>,
    /// Where the tokens come from; `None`: they look random.
    pub ids: Option<PathBuf>,
    /// Where they are written to.
    pub write_ids: Option<PathBuf>,
    /// Runs, of which the median counts.
    pub repeat: usize,
    /// Measure the machine's read bandwidth too.
    pub bandwidth: bool,
    /// Numbers of threads, one after the other; `None`: the setting's.
    pub threads: Vec<Option<usize>>,
}

/// A model to write.
#[derive(Debug)]
pub struct SyntheticModel {
    /// SHAPE:FORMAT
    pub spec: String,
    pub layers: Option<usize>,
    pub out: PathBuf,
}

/// What is compared.
#[derive(Debug)]
pub struct Compare {
    pub prompt: String,
    pub gen_tokens: u32,
    /// No runs with a cold page cache.
    pub warm_only: bool,
    /// Where a picture goes.
    pub svg: Option<PathBuf>,
}

/// What `pack` makes.
#[derive(Debug)]
pub struct Pack {
    pub output: PathBuf,
    pub force: bool,
    /// Options of the new program.
    pub flags: Vec<String>,
}

/// What `unpack` makes.
#[derive(Debug)]
pub struct Unpack {
    pub output: PathBuf,
    pub force: bool,
}

/// What is scored.
#[derive(Debug)]
pub enum Scored {
    Text(Vec<u8>),
    Ids(Vec<TokenId>),
}

/// How requests are served.
#[derive(Debug)]
pub struct Serve {
    /// As typed.
    pub args: args::ServeArgs,
    pub listen: Listen,
    /// One of which a request must have.
    pub keys: Vec<String>,
    pub template: Option<Template>,
    pub sampling: Sampling,
    /// As asked for; the model's own bounds it.
    pub ctx_tokens: Option<usize>,
}

/// What is to be done.
#[derive(Debug)]
pub enum Task {
    Talk(Talk),
    Tokenize {
        text: Vec<u8>,
        special: bool,
    },
    /// What running the model will be like, with what is to be said where that is known.
    DryRun(Option<Talk>),
    Inspect(args::InspectArgs),
    Score {
        input: Scored,
        /// Where all logits go.
        logits: Option<PathBuf>,
    },
    Serve(Box<Serve>),
    Bench(Bench),
    Status,
    Warm {
        layers: Option<String>,
        force: bool,
    },
    Evict {
        layers: Option<String>,
    },
    Verify {
        with_tensors: bool,
    },
    Compare(Compare),
    Pack(Pack),
    Unpack(Unpack),
    Synthetic(SyntheticModel),
    Completions(clap_complete::Shell),
    /// Show the GPUs that there are.
    Devices(Format),
}

/// The context size of a run that was given none.
const DEFAULT_CTX_TOKENS: usize = 2048;
/// The prompt of a run that was given none.
const DEFAULT_PROMPT: &str = "Hello! How can I help you today?";

/// Resolves everything but the setting of `completions`, which has none. `own` is the running
/// program if it holds a model: then that is the default one.
pub fn resolve(mut low: LowArgs, own: Option<&Own>) -> Result<(Task, Option<Setting>)> {
    if let Some(args::Command::Completions(completions)) = low.command {
        return Ok((Task::Completions(completions.shell), None));
    }
    if low.common.device.as_deref() == Some("list") {
        return Ok((Task::Devices(low.common.format), None));
    }
    let mode = mode(low.common.mmap, low.common.memory)?;
    if low.command.is_none() {
        // A program with a model chats when it is started from a terminal without a question.
        low.run.interactive |= own.is_some() && !has_prompt(&low.run) && !low.run.raw && stdin().is_terminal();
        refuse_contradictions(&low.run)?;
    }
    let threads = low.common.threads.map_or_else(Vec::new, |list| list.0);
    let is_bench = matches!(low.command, Some(args::Command::Bench(_)));
    if threads.len() > 1 && !is_bench {
        return Err(UsageError("-threads takes a list only in bench".to_string()).into());
    }
    // A synthetic model needs another one for its vocabulary only.
    let vocab = if let Some(args::Command::Bench(bench)) = &low.command { bench.vocab.as_deref() } else { None };
    let found = match (vocab.or(low.common.model.as_deref()), own) {
        (None, Some(own)) => Found { path: own.path.clone(), note: None },
        (named, _) => model_path::find(named)?,
    };
    let setting = Setting {
        model: found.path,
        model_note: found.note,
        mode,
        ram_budget: low.common.ram_budget,
        stream_reader: match low.common.stream_io {
            args::StreamIo::Auto => StreamReader::Auto,
            args::StreamIo::Ring => StreamReader::Ring,
            args::StreamIo::Threads => StreamReader::Threads,
        },
        lock: low.common.mlock,
        ctx_tokens: Some(low.common.ctx.map_or(DEFAULT_CTX_TOKENS, |n| n as usize)).filter(|n| *n > 0),
        ctx_is_explicit: low.common.ctx.is_some(),
        threads: threads.first().copied(),
        exact: low.common.activations == Activations::F32,
        cache_type: low.common.cache_type.map(|ty| match ty {
            args::CacheType::I16 => modelembed::CacheType::I16,
            args::CacheType::F16 => modelembed::CacheType::F16,
            args::CacheType::Q8 => modelembed::CacheType::Q8,
            args::CacheType::F32 => modelembed::CacheType::F32,
        }),
        timing: low.run.timing,
        isa: low.common.isa,
        gpu_layers: low.common.ngl,
        gpu_device: low.common.device,
        quiet: low.common.quiet,
        verbose: low.common.verbose,
        format: low.common.format,
    };
    let task = match low.command {
        None if low.run.dry_run => Task::DryRun(if waits_for_input(&low.run) { None } else { Some(talk(low.run)?) }),
        None => Task::Talk(talk(low.run)?),
        Some(args::Command::Tokenize(tokenize)) => {
            Task::Tokenize { text: text_of(&tokenize.prompt)?, special: !tokenize.no_special }
        }
        Some(args::Command::Inspect(inspect)) => Task::Inspect(inspect),
        Some(args::Command::Score(score)) => Task::Score {
            input: match (score.ids, score.prompt) {
                (Some(ids), _) => Scored::Ids(ids_of(&text_of(&ids)?)?),
                (None, text) => Scored::Text(text_of(&text.unwrap_or_default())?),
            },
            logits: score.logits,
        },
        Some(args::Command::Serve(serve)) => Task::Serve(Box::new(serve_of(*serve, low.common.ctx)?)),
        Some(args::Command::Status) => Task::Status,
        Some(args::Command::Warm(warm)) => Task::Warm { layers: warm.layers, force: warm.force },
        Some(args::Command::Evict(evict)) => Task::Evict { layers: evict.layers },
        Some(args::Command::Verify(verify)) => Task::Verify { with_tensors: verify.tensors },
        Some(args::Command::Compare(compare)) => Task::Compare(Compare {
            prompt: compare.prompt,
            gen_tokens: compare.gen_tokens,
            warm_only: compare.warm_only,
            svg: compare.svg,
        }),
        Some(args::Command::Pack(pack)) => Task::Pack(pack_of(*pack)?),
        Some(args::Command::Unpack(unpack)) => Task::Unpack(Unpack { output: unpack.output, force: unpack.force }),
        Some(args::Command::Bench(bench)) => bench_task(bench, &threads)?,
        Some(args::Command::Completions(completions)) => Task::Completions(completions.shell),
    };
    Ok((task, Some(setting)))
}

/// The environment's variable with a key.
const KEY_VARIABLE: &str = "MODELEMBED_API_KEY";

fn serve_of(mut serve: args::ServeArgs, ctx: Option<u32>) -> Result<Serve> {
    let listen = match serve.socket.take() {
        Some(path) => Listen::Unix(path),
        None => Listen::Tcp((serve.host, serve.port).into()),
    };
    let mut keys = Vec::new();
    if let Some(path) = &serve.api_key_file {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read the keys {}", path.display()))?;
        keys.extend(text.lines().map(str::trim).filter(|key| !key.is_empty()).map(str::to_owned));
        // A server that was to ask for keys does not run without any.
        anyhow::ensure!(!keys.is_empty(), "the file of keys {} holds none, wanted one a line", path.display());
    }
    keys.extend(std::env::var(KEY_VARIABLE).ok().filter(|key| !key.is_empty()));
    // Requests say these for themselves.
    let sampling = &serve.sampling;
    let of_requests = [
        ("-stop", !sampling.stop.is_empty()),
        ("-logit-bias", !sampling.logit_bias.is_empty()),
        ("-ignore-eos", sampling.ignore_eos),
        ("-dry-sequence-breaker", !sampling.dry_sequence_breaker.is_empty()),
        ("-seed", sampling.seed != args::Seed::Fixed(args::DEFAULT_SEED)),
    ];
    if let Some((option, _)) = of_requests.iter().find(|(_, is_given)| *is_given) {
        return Err(UsageError(format!("{option} is for each request to say, not for serve")).into());
    }
    Ok(Serve {
        listen,
        keys,
        template: serve.template.take().map(template_of).transpose()?,
        sampling: Sampling::of(&serve.sampling),
        ctx_tokens: ctx.map(|n| n as usize).filter(|&n| n > 0),
        args: serve,
    })
}

fn bench_task(bench: args::BenchArgs, threads: &[usize]) -> Result<Task> {
    if let (Some(spec), Some(out)) = (bench.synthetic, bench.out) {
        return Ok(Task::Synthetic(SyntheticModel { spec, layers: bench.layers, out }));
    }
    let short_prompts = bench.short_prompts.map_or_else(Vec::new, |list| list.0);
    let sequences = bench.sequences.map_or_else(Vec::new, |list| list.0);
    if !sequences.is_empty() && bench.gen_tokens == 0 {
        return Err(UsageError("-sequences decodes, but -gen-tokens 0 leaves nothing to decode".to_string()).into());
    }
    if bench.prompt_tokens == 0 && bench.gen_tokens == 0 && short_prompts.is_empty() {
        return Err(UsageError("-prompt-tokens 0 and -gen-tokens 0 leave nothing to measure".to_string()).into());
    }
    Ok(Task::Bench(Bench {
        prompt_tokens: bench.prompt_tokens as usize,
        gen_tokens: bench.gen_tokens as usize,
        depth: bench.depth as usize,
        short_prompts,
        sequences,
        ids: bench.ids,
        write_ids: bench.write_ids,
        repeat: bench.repeat as usize,
        bandwidth: !bench.no_bandwidth,
        threads: if threads.is_empty() { vec![None] } else { threads.iter().copied().map(Some).collect() },
    }))
}

/// `-memory` alone chooses the buffer; an explicit `-mmap` beside it is a contradiction.
fn mode(mmap: Option<bool>, memory: Option<bool>) -> Result<Mode> {
    match (mmap, memory.unwrap_or(false)) {
        (Some(true), true) => {
            let message = "-mmap and -memory exclude one another: -mmap maps the file, -memory reads it into a buffer";
            Err(UsageError(message.to_string()).into())
        }
        (_, true) => Ok(Mode::Buffer),
        (Some(false), false) => Ok(Mode::File),
        (_, false) => Ok(Mode::Map),
    }
}

fn refuse_contradictions(run: &args::RunArgs) -> Result<()> {
    let contradictions = [
        (run.prompt.is_some() && run.prompt_file.is_some(), "-p and -f exclude one another: both give the prompt"),
        (run.raw && run.interactive, "-raw completes a text: it excludes -i"),
        (run.raw && run.system.is_some(), "-raw uses no chat template: it excludes -system"),
        (run.raw && run.template.is_some(), "-raw uses no chat template: it excludes -template"),
        (
            run.interactive && run.prompt.as_deref() == Some(OsStr::new("-")),
            "-i reads the turns from standard input: it excludes -p -",
        ),
    ];
    match contradictions.iter().find(|(holds, _)| *holds) {
        Some((_, message)) => Err(UsageError(message.to_string()).into()),
        None => Ok(()),
    }
}

fn pack_of(pack: args::PackArgs) -> Result<Pack> {
    if has_prompt(&pack.run) || pack.run.interactive {
        let message =
            "-p, -f and -i are not for packing: a packed program chats on a terminal, and answers a pipe or its own -p";
        return Err(UsageError(message.to_string()).into());
    }
    refuse_contradictions(&pack.run)?;
    let mut flags = pack.flags;
    // The text of a file, not its name: the new program is to need no other file.
    for flag in &mut flags {
        if let Some(template) = flag.strip_prefix("--template=") {
            *flag = format!("--template={}", template_of(template.to_string())?.packed());
        }
    }
    Ok(Pack { output: pack.output, force: pack.force, flags })
}

fn talk(run: args::RunArgs) -> Result<Talk> {
    let typed = match (run.prompt.as_deref(), run.prompt_file.as_deref()) {
        (Some(prompt), _) if prompt == "-" => Some(said(line_of(read_stdin()?))?),
        // As it was typed, line ends and all.
        (Some(prompt), _) => Some(text(prompt.as_encoded_bytes().to_vec())),
        (None, Some(path)) => {
            let bytes = std::fs::read(path).with_context(|| format!("cannot read the prompt {}", path.display()))?;
            Some(line_of(bytes))
        }
        // In a chat a pipe holds the turns.
        (None, None) if run.interactive => None,
        (None, None) => Some(piped_prompt()?.unwrap_or_else(|| DEFAULT_PROMPT.to_string())),
    };
    Ok(Talk {
        prompt: typed,
        interactive: run.interactive,
        max_tokens: usize::try_from(run.n_predict).ok(),
        system: run.system,
        template: run.template.map(template_of).transpose()?,
        raw: run.raw,
        lookup_tokens: usize::from(run.lookup),
        reasoning: run.reasoning,
        reads_control_tokens: run.control_tokens,
        session: run.session,
        sampling: Sampling::of(&run.sampling),
        stop: run.sampling.stop,
    })
}

/// The bytes of a text argument; `-` stands for standard input, byte for byte.
fn text_of(argument: &OsStr) -> Result<Vec<u8>> {
    if argument == "-" { read_stdin() } else { Ok(argument.as_encoded_bytes().to_vec()) }
}

/// The ids of a list, with commas, blanks or line ends between them and maybe in square brackets.
fn ids_of(list: &[u8]) -> Result<Vec<TokenId>> {
    let list = String::from_utf8_lossy(list);
    let inner = list.trim();
    let inner = inner.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(inner);
    let words = inner.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty());
    let id = |word: &str| {
        let refusal = || format!("-ids: {word:?} is no token id, wanted whole numbers with commas between them");
        word.parse().map(TokenId).map_err(|_| UsageError(refusal()))
    };
    let ids = words.map(id).collect::<Result<Vec<_>, _>>()?;
    if ids.is_empty() {
        return Err(UsageError("-ids: the list is empty, wanted token ids with commas between them".into()).into());
    }
    Ok(ids)
}

fn read_stdin() -> Result<Vec<u8>> {
    if stdin().is_terminal() {
        return tty::read_to_end().context("cannot read from the terminal");
    }
    let mut text = Vec::new();
    stdin().lock().read_to_end(&mut text).context("cannot read standard input")?;
    Ok(text)
}

fn has_prompt(run: &args::RunArgs) -> bool {
    run.prompt.is_some() || run.prompt_file.is_some()
}

/// Whether the prompt is still to come through standard input, or is the first of many.
fn waits_for_input(run: &args::RunArgs) -> bool {
    let is_stdin = run.prompt.as_deref() == Some(OsStr::new("-"));
    run.interactive || is_stdin || (!has_prompt(run) && !stdin().is_terminal() && process::stdin_is_pipe_or_file())
}

/// Unicode.
fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

/// A prompt out of a file or a pipe: Unicode, and without the line end that `echo` and editors add.
fn line_of(bytes: Vec<u8>) -> String {
    let mut text = text(bytes);
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

/// What standard input was to hold: whatever was to write it said nothing, perhaps because it
/// failed.
fn said(text: String) -> Result<String> {
    anyhow::ensure!(!text.is_empty(), "no prompt on standard input");
    Ok(text)
}

/// What a pipe or a redirected file says; a terminal or a device such as /dev/null says nothing.
fn piped_prompt() -> Result<Option<String>> {
    if stdin().is_terminal() || !process::stdin_is_pipe_or_file() {
        return Ok(None);
    }
    said(line_of(read_stdin()?)).map(Some)
}

/// `-template`: the text of a file if there is one, else what was typed.
fn template_of(template: String) -> Result<Template> {
    let path = std::path::Path::new(&template);
    // "Be brief. Answer." is a mistake, but none in a file's name.
    let has_extension = path
        .extension()
        .and_then(OsStr::to_str)
        .is_some_and(|extension| !extension.is_empty() && extension.chars().all(char::is_alphanumeric));
    if has_tag(&template) || !(path.is_file() || template.contains('/') || has_extension) {
        return Ok(Template::Typed(template));
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read the chat template {template:?}"))?;
    if text.trim().is_empty() {
        bail!("the chat template {template:?} is empty");
    }
    Ok(Template::File(path.to_path_buf(), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_modes_follow_the_two_switches() {
        let rows = [
            (None, None, Some(Mode::Map)),
            (Some(true), None, Some(Mode::Map)),
            (Some(false), None, Some(Mode::File)),
            (None, Some(true), Some(Mode::Buffer)),
            (Some(false), Some(true), Some(Mode::Buffer)),
            (Some(true), Some(false), Some(Mode::Map)),
            (Some(false), Some(false), Some(Mode::File)),
            (Some(true), Some(true), None),
        ];
        let failed: Vec<_> = rows.iter().filter(|&&(mmap, memory, wanted)| mode(mmap, memory).ok() != wanted).collect();
        assert!(failed.is_empty(), "{failed:?}");
        let error = mode(Some(true), Some(true)).unwrap_err();
        assert!(error.is::<UsageError>() && error.to_string().contains("-mmap and -memory"));
    }

    #[test]
    fn one_line_end_is_taken_off_a_prompt() {
        let rows: [(&[u8], &str); 5] =
            [(b"a\n", "a"), (b"a\r\n", "a"), (b"a\n\n", "a\n"), (b"a", "a"), (b"\xff", "\u{fffd}")];
        let failed: Vec<_> = rows.iter().filter(|(bytes, wanted)| line_of(bytes.to_vec()) != *wanted).collect();
        assert!(failed.is_empty(), "{failed:?}");
    }

    #[test]
    fn ids_are_a_list_of_whole_numbers() {
        let ids = |list: &str| ids_of(list.as_bytes()).map(|ids| ids.iter().map(|id| id.0).collect::<Vec<_>>());
        for list in ["1,2,30", "1 2 30", "[1, 2, 30]", "1\n2\n30\n", " 1,,2 ,30, "] {
            assert_eq!(ids(list).unwrap(), [1, 2, 30], "{list:?}");
        }
        for (list, wanted) in [("", "empty"), ("[]", "empty"), ("1,-2", "\"-2\""), ("1;2", "\"1;2\""), ("1.5", "1.5")] {
            let error = ids(list).unwrap_err();
            assert!(error.is::<UsageError>() && error.to_string().contains(wanted), "{list:?}: {error}");
        }
    }

    #[test]
    fn a_template_is_text_a_name_or_a_file() {
        let typed = |text: &str| Template::Typed(text.to_string());
        for text in ["chatml", "{{ a/b.c }}", "{# a/b #}"] {
            assert_eq!(template_of(text.into()).unwrap(), typed(text));
        }
        let error = template_of("no/such.jinja".into()).unwrap_err().to_string();
        assert!(error.contains("no/such.jinja"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("template");
        for (text, packed) in [("{{ 1 }}", "{{ 1 }}"), ("\nno tag", "{{ '' }}\nno tag"), ("", ""), (" \n", "")] {
            std::fs::write(&file, text).unwrap();
            let template = template_of(file.to_str().unwrap().into());
            if packed.is_empty() {
                assert!(template.unwrap_err().to_string().ends_with("is empty"));
                continue;
            }
            let template = template.unwrap();
            assert_eq!(template, Template::File(file.clone(), text.to_string()));
            assert_eq!(template.packed(), packed);
        }
    }
}
