//! What a load mode costs: the figures of one run of `compare`.

use crate::resolve::Mode;
use serde_json::Value;

/// A mode with one state of the page cache.
pub struct Row {
    pub mode: Mode,
    pub is_cold: bool,
    /// The figures, or why it did not run.
    pub result: Result<Figures, String>,
}

/// What a child said about itself. `None` where its system does not tell.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    pub load_ms: f64,
    pub first_token_ms: f64,
    pub allocated_bytes: Option<u64>,
    pub private_bytes: Option<u64>,
    pub shared_bytes: Option<u64>,
    pub resident_bytes: Option<u64>,
    pub minor_faults: Option<u64>,
    pub major_faults: Option<u64>,
    pub tokens_per_second: f64,
    pub response: String,
    /// All that it said.
    pub statistics: Value,
}

impl Figures {
    pub fn of(object: &Value) -> Option<Figures> {
        let statistics = &object["statistics"];
        let bytes = |key: &str| statistics[key].as_u64();
        Some(Figures {
            load_ms: statistics["load_ms"].as_f64()?,
            first_token_ms: statistics["first_token_ms"].as_f64()?,
            allocated_bytes: bytes("allocated_bytes"),
            private_bytes: bytes("private_bytes"),
            shared_bytes: bytes("shared_bytes"),
            resident_bytes: bytes("process_resident_bytes"),
            minor_faults: bytes("minor_faults"),
            major_faults: bytes("major_faults"),
            tokens_per_second: statistics["decode_tokens_per_second"].as_f64()?,
            response: object["response"].as_str()?.to_string(),
            statistics: statistics.clone(),
        })
    }
}

impl Mode {
    /// In the table.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Map => "map",
            Mode::Buffer => "buffer",
            Mode::File => "file",
        }
    }
}
