//! `serve`

use super::{RamBudget, SamplingArgs, parse_ram_budget};
use clap::{Args, ValueEnum};
use std::net::IpAddr;
use std::path::PathBuf;

/// `serve`: who may ask, how much is done at once, and how tokens are drawn where a request says
/// nothing.
#[derive(Debug, Args)]
#[command(next_help_heading = "Server")]
pub struct ServeArgs {
    /// The address to listen on; one that other machines reach wants -api-key-file
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", value_parser = parse_host)]
    pub host: IpAddr,
    /// The port; 0: a free one
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    pub port: u16,
    /// Listen on a socket in the file system instead, which only this user may open
    #[arg(long, value_name = "PATH", conflicts_with_all = ["host", "port"])]
    pub socket: Option<PathBuf>,
    /// Keys, one of which every request must have: a file with one a line
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// Name of this machine that requests may be sent to, besides localhost; may be given several
    /// times
    #[arg(long, value_name = "NAME")]
    pub allow_host: Vec<String>,
    /// Origin of web pages that may send requests, such as http://localhost:3000; may be given
    /// several times
    #[arg(long, value_name = "ORIGIN", value_parser = parse_origin)]
    pub allow_origin: Vec<String>,
    /// Let whoever has no key read /metrics
    #[arg(long)]
    pub open_metrics: bool,
    /// The name under which the model is listed [default: that of its file]
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub name: Option<String>,
    /// Answers that are written at the same time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub sequences: u16,
    /// Requests that may wait
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub queue: u32,
    /// Memory for keys and values, those that are kept for later requests included: a size like 4G,
    /// or auto: half of what the machine and the model leave, at most 8G
    #[arg(long, value_name = "SIZE", default_value = "auto", value_parser = parse_ram_budget)]
    pub kv_bytes: RamBudget,
    /// How long a step may last, in milliseconds, for the sake of a prompt while others wait for
    /// their next token
    #[arg(long, value_name = "MS", default_value_t = 150, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub step_ms: u64,
    /// After so many seconds of silence a stream gives a sign of life
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub heartbeat: u64,
    /// How many seconds answers may go on once the server is told to end
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub drain: u64,
    /// Chat template instead of the model's own: a built-in one's name, a file, or Jinja text
    #[arg(long, value_name = "TEMPLATE", allow_hyphen_values = true)]
    pub template: Option<String>,
    /// Let texts of control tokens in messages be those tokens
    #[arg(long)]
    pub control_tokens: bool,
    /// Lines about requests on standard error: as text, as JSON, or none
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log: LogFormat,
    #[command(flatten)]
    pub sampling: SamplingArgs,
}

/// `-log`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    // For people.
    Text,
    // For programs, an object a line.
    Json,
    // Nothing.
    Off,
}

fn parse_host(text: &str) -> Result<IpAddr, String> {
    if text == "localhost" {
        return Ok(IpAddr::from([127, 0, 0, 1]));
    }
    let address = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    address.parse().map_err(|_| "wanted an IP address such as 127.0.0.1, 0.0.0.0 or ::1, or localhost".to_string())
}

/// An origin as browsers write it.
fn parse_origin(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("http://").or(text.strip_prefix("https://"));
    match rest {
        Some(host) if !host.is_empty() && !host.contains(['/', '*', ' ']) => Ok(text.to_ascii_lowercase()),
        _ => Err("wanted an origin such as http://localhost:3000, without a path".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_origins() {
        for text in ["127.0.0.1", "localhost", "::1", "[::1]", "0.0.0.0"] {
            assert!(parse_host(text).is_ok(), "{text}");
        }
        for text in ["", "example.org", "127.0.0.1:80", "1.2.3"] {
            assert!(parse_host(text).is_err(), "{text}");
        }
        assert_eq!(parse_origin("HTTP://x").ok(), None);
        assert_eq!(parse_origin("https://Box:3000").as_deref(), Ok("https://box:3000"));
        for text in ["", "*", "localhost:3000", "http://", "http://x/", "http://*", "null"] {
            assert!(parse_origin(text).is_err(), "{text}");
        }
    }
}
