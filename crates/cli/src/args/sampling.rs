//! How the next token is drawn. Names and defaults are llama.cpp's.

use super::{Seed, parse_float, parse_not_negative, parse_positive, parse_seed, parse_share};
use clap::Args;
use modelembed::{SamplerOrder, TokenId};

#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub struct SamplingArgs {
    /// Random seed; -1: another one each time
    #[arg(long, value_name = "SEED", default_value = "42", allow_negative_numbers = true, value_parser = parse_seed)]
    pub seed: Seed,
    /// The samplers that are used, in this order, with semicolons between them
    #[arg(long, value_name = "ORDER", default_value_t = SamplerOrder::DEFAULT, value_parser = parse_order)]
    pub samplers: SamplerOrder,
    /// Temperature; 0 always takes the likeliest token
    #[arg(long, alias = "temperature", value_name = "T", default_value_t = 0.8, value_parser = parse_not_negative)]
    pub temp: f32,
    /// Temperature from T - RANGE where the choice is clear to T + RANGE where it is not; 0: always
    /// T
    #[arg(long, value_name = "RANGE", default_value_t = 0.0, value_parser = parse_not_negative)]
    pub dynatemp_range: f32,
    /// Power of the entropy that decides where in that range
    #[arg(long, value_name = "E", default_value_t = 1.0, value_parser = parse_not_negative)]
    pub dynatemp_exp: f32,
    /// Draw from the K likeliest tokens only; 0: all
    #[arg(long, value_name = "K", default_value_t = 40)]
    pub top_k: u32,
    /// Draw from the likeliest tokens that make up this share of probability; 1: all
    #[arg(long, value_name = "P", default_value_t = 0.95, value_parser = parse_share)]
    pub top_p: f32,
    /// Leave out tokens below this share of the likeliest one's probability; 0: none
    #[arg(long, value_name = "P", default_value_t = 0.05, value_parser = parse_share)]
    pub min_p: f32,
    /// Draw from the tokens whose surprise is nearest to the average, which make up this share of
    /// probability; 1: all
    #[arg(long, alias = "typical-p", value_name = "P", default_value_t = 1.0, value_parser = parse_share)]
    pub typical: f32,
    /// Leave out tokens whose logits are more than N standard deviations below the greatest; 0 or
    /// less: none
    #[arg(long = "top-nsigma", alias = "top-n-sigma", value_name = "N", default_value_t = -1.0,
          allow_negative_numbers = true, value_parser = parse_float)]
    pub top_n_sigma: f32,
    /// How often all likely tokens but the least likely of them are left out; 0: never
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = parse_share)]
    pub xtc_probability: f32,
    /// Probability from which on a token is likely for -xtc-probability
    #[arg(long, value_name = "P", default_value_t = 0.1, value_parser = parse_share)]
    pub xtc_threshold: f32,
    /// How many of the last tokens the three penalties look at; -1: all
    #[arg(long, value_name = "N", default_value = "64", allow_negative_numbers = true, value_parser = parse_window)]
    pub repeat_last_n: Window,
    /// Penalty on tokens among these, by division; 1: none
    #[arg(long, value_name = "R", default_value_t = 1.0, value_parser = parse_positive)]
    pub repeat_penalty: f32,
    /// Taken off the logit of tokens among these; 0: nothing
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true, value_parser = parse_float)]
    pub presence_penalty: f32,
    /// Taken off the logit of tokens among these for each time; 0: nothing
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true, value_parser = parse_float)]
    pub frequency_penalty: f32,
    /// Taken off the logit of a token that goes on with a sequence which was there before (DRY); 0:
    /// nothing
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = parse_not_negative)]
    pub dry_multiplier: f32,
    /// Factor of that for each token by which the sequence is longer than allowed
    #[arg(long, value_name = "X", default_value_t = 1.75, value_parser = parse_from_one)]
    pub dry_base: f32,
    /// Tokens that a sequence may have without being one for DRY
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub dry_allowed_length: u32,
    /// How many of the last tokens DRY looks at; -1: all
    #[arg(long, value_name = "N", default_value = "64", allow_negative_numbers = true, value_parser = parse_window)]
    pub dry_penalty_last_n: Window,
    /// Text at which every sequence ends for DRY; may be given several times, and replaces the
    /// default (the end of a line, a colon, a quotation mark and an asterisk); none: no such text
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, value_parser = parse_breaker)]
    pub dry_sequence_breaker: Vec<String>,
    /// Mirostat 1 or 2, which steers the surprise, in place of all samplers but the temperature; 0:
    /// off
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub mirostat: u8,
    /// How fast Mirostat learns
    #[arg(long, value_name = "X", default_value_t = 0.1, value_parser = parse_not_negative)]
    pub mirostat_lr: f32,
    /// The surprise of a token that Mirostat aims at, in bits
    #[arg(long, value_name = "X", default_value_t = 5.0, value_parser = parse_not_negative)]
    pub mirostat_ent: f32,
    /// Add to a token's logit, before everything else: 15043+1, 15043-1; 15043-inf forbids it; may
    /// be given several times
    #[arg(long, value_name = "ID+BIAS", value_parser = parse_logit_bias)]
    pub logit_bias: Vec<(TokenId, f32)>,
    /// Forbid the tokens that end an answer
    #[arg(long)]
    pub ignore_eos: bool,
    /// Text that ends the answer, and is not printed; \n is the end of a line; may be given several
    /// times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, value_parser = parse_text)]
    pub stop: Vec<String>,
}

/// `-repeat-last-n`, `-dry-penalty-last-n`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// So many.
    Last(usize),
    /// All of them.
    All,
}

fn parse_window(text: &str) -> Result<Window, String> {
    if text == "-1" {
        return Ok(Window::All);
    }
    let number = text.parse::<u32>().map_err(|_| "wanted a whole number from 0, or -1 for all".to_string())?;
    Ok(Window::Last(number as usize))
}

fn parse_order(text: &str) -> Result<SamplerOrder, String> {
    text.parse().map_err(|error: modelembed::InvalidSamplerOrder| error.to_string())
}

fn parse_from_one(text: &str) -> Result<f32, String> {
    let x = parse_float(text)?;
    if x >= 1.0 { Ok(x) } else { Err("wanted a number from 1".to_string()) }
}

fn parse_logit_bias(text: &str) -> Result<(TokenId, f32), String> {
    let refusal = || "wanted ID+BIAS or ID-BIAS, such as 15043+1, 15043-0.5 or 15043-inf".to_string();
    let sign = text.find(['+', '-']).ok_or_else(refusal)?;
    let (id, bias) = text.split_at(sign);
    let id = id.parse().map_err(|_| refusal())?;
    // What follows the sign is a number without one.
    let is_number = bias[1..].starts_with(|c: char| c.is_ascii_digit() || c == '.') || bias == "-inf";
    match bias.parse::<f32>() {
        Ok(x) if is_number && (x.is_finite() || bias == "-inf") => Ok((TokenId(id), x)),
        _ => Err(refusal()),
    }
}

/// A text that is looked for, in which a backslash with n, r, t, a quotation mark or another
/// backslash stands for one character.
fn parse_text(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let meant = rest.clone().next().filter(|_| c == '\\').and_then(|next| match next {
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            '\\' | '"' | '\'' => Some(next),
            _ => None,
        });
        if meant.is_some() {
            rest.next();
        }
        out.push(meant.unwrap_or(c));
    }
    if out.is_empty() { Err("wanted a text that is not empty".to_string()) } else { Ok(out) }
}

fn parse_breaker(text: &str) -> Result<String, String> {
    const MOST: usize = modelembed::DryBreakers::MOST_BYTES;
    let text = parse_text(text)?;
    if text.len() <= MOST { Ok(text) } else { Err(format!("it has {} bytes, wanted at most {MOST}", text.len())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn biases_windows_and_texts() {
        let bias = |text: &str| parse_logit_bias(text).ok().map(|(id, bias)| (id.0, bias));
        let rows = [
            ("15043+1", Some((15043, 1.0))),
            ("15043-0.5", Some((15043, -0.5))),
            ("7+.5", Some((7, 0.5))),
            ("7-1e-3", Some((7, -1e-3))),
            ("7-inf", Some((7, f32::NEG_INFINITY))),
            ("7+inf", None),
            ("7+nan", None),
            ("7", None),
            ("+1", None),
            ("-1+2", None),
            ("7+-1", None),
            ("7=1", None),
            ("a+1", None),
            ("7+", None),
            ("7+1e99", None),
            ("99999999999+1", None),
            ("", None),
            ("7é+1", None),
        ];
        let failed: Vec<_> = rows.iter().filter(|(text, wanted)| bias(text) != *wanted).collect();
        assert!(failed.is_empty(), "{failed:?}");
        for (text, wanted) in [("0", Ok(Window::Last(0))), ("-1", Ok(Window::All)), ("64", Ok(Window::Last(64)))] {
            assert_eq!(parse_window(text), wanted);
        }
        assert!(["-2", "x", "", "1.5", "99999999999"].iter().all(|text| parse_window(text).is_err()));
        for (text, wanted) in
            [(r"a\nb", "a\nb"), (r"\\n", r"\n"), (r"\t\r\q\", "\t\r\\q\\"), ("é", "é"), (r#"\""#, "\"")]
        {
            assert_eq!(parse_text(text).as_deref(), Ok(wanted));
        }
        assert!(parse_text("").is_err());
        assert!(parse_breaker(&"x".repeat(40)).is_ok() && parse_breaker(&"x".repeat(41)).is_err());
    }
}
