use crate::adapter_info::AdapterInfo;

const LOOKED: &str = "looked for a GPU through Vulkan, Metal and Direct3D 12";

/// Why something could not be done on a GPU.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no adapter.
    #[error("{} and found none: no driver, or none that this program can load", LOOKED)]
    NoAdapter,
    /// There is only software, which is taken where it is named.
    #[error(
        "{} and found only software on the CPU, which is slower than CPU layers and is taken only by its name:{}",
        LOOKED,
        list(found)
    )]
    OnlySoftware {
        /// All adapters.
        found: Vec<AdapterInfo>,
    },
    /// There is none of this number or name.
    #[error("{} and found none that \"{name}\" names:{}", LOOKED, list(found))]
    NotNamed {
        /// What was asked for: a place in the list, or a part of a name.
        name: String,
        /// All adapters.
        found: Vec<AdapterInfo>,
    },
    /// The adapter would not be opened.
    #[error("cannot open {adapter}: {problem}")]
    Open {
        /// Its name.
        adapter: String,
        /// What the driver says.
        problem: String,
    },
    /// The adapter lacks what kernels need.
    #[error("cannot use {adapter}: its {limit} is {has}, and kernels need {wanted}")]
    Lacks {
        /// Its name.
        adapter: String,
        /// What it has too little of.
        limit: &'static str,
        /// How much it has.
        has: u64,
        /// How much is needed.
        wanted: u64,
    },
    /// The device has no memory left.
    #[error("the GPU is out of memory: {}", of_memory(*wanted_bytes, what))]
    OutOfMemory {
        /// What the memory was for, or what was done as it ran out.
        what: String,
        /// Bytes asked for; 0 where the driver does not say for what it lacks them.
        wanted_bytes: u64,
    },
    /// A buffer is larger than the adapter allows.
    #[error("{what} takes {wanted_bytes} bytes, but the adapter's {limit} is {limit_bytes} bytes")]
    Limit {
        /// What was to be stored or bound.
        what: String,
        /// Bytes that it takes.
        wanted_bytes: u64,
        /// Name of the limit.
        limit: &'static str,
        /// Its value.
        limit_bytes: u64,
    },
    /// The device is gone: unplugged, reset by its driver or taken by another program.
    #[error("the GPU was lost: {reason}")]
    Lost {
        /// What the driver says, or what was done to it.
        reason: String,
    },
    /// The driver or the graphics library refused a step.
    #[error("the GPU refused a step: {}", of_step(step.as_deref(), reason))]
    Refused {
        /// What was to be done, where that is known.
        step: Option<String>,
        /// What the driver or the library says.
        reason: String,
    },
    /// There is no kernel for such weights or such a size.
    #[error("no GPU kernel for {what}")]
    Unsupported {
        /// What there is none for.
        what: String,
    },
}

fn list(found: &[AdapterInfo]) -> String {
    found.iter().map(|adapter| format!("\n  {adapter}")).collect()
}

fn of_step(step: Option<&str>, reason: &str) -> String {
    step.map_or_else(|| reason.to_owned(), |step| format!("{step}: {reason}"))
}

fn of_memory(wanted_bytes: u64, what: &str) -> String {
    match wanted_bytes {
        0 => format!("it had none left when {what}"),
        _ => format!("{wanted_bytes} bytes wanted for {what}"),
    }
}

impl Error {
    pub(crate) fn refused(reason: impl ToString) -> Error {
        Error::Refused { step: None, reason: reason.to_string() }
    }

    pub(crate) fn unsupported(what: String) -> Error {
        Error::Unsupported { what }
    }
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
