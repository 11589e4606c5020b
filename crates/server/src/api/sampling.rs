//! What requests of both kinds say about how they are answered.

use std::hash::{BuildHasher, Hasher, RandomState};

use modelembed::{SamplerOptions, TokenId};
use modelembed_serve::Request;
use serde_json::Value;

use super::fields::{Fields, whole};
use crate::error::ApiError;

/// Every choice that waits keeps its own.
const MOST_BIASES: usize = 4096;
const MOST_BIASES_WANTED: &str = "biases of at most 4096 tokens";
/// Answers to one prompt at most.
pub(crate) const MOST_CHOICES: i64 = 8;
/// Alternatives that are told of a token at most.
pub(crate) const MOST_TOP: i64 = 20;
/// Stop texts at most.
const MOST_STOPS: usize = 16;
/// Bytes of a stop text at most: as much is held back of an answer.
const MOST_STOP_BYTES: usize = 1024;
/// Bytes of a salt at most.
const MOST_SALT_BYTES: usize = 256;

/// What a request says apart from its prompt.
#[derive(Clone, Debug)]
pub(crate) struct Common {
    /// Without the prompt.
    pub request: Request,
    /// Answers that are wanted.
    pub n: usize,
    pub stream: bool,
    /// Whether a stream ends with the numbers of tokens.
    pub stream_usage: bool,
    /// What of the request has no effect.
    pub warnings: Vec<String>,
}

impl Common {
    /// Reads the fields that chats and completions share.
    pub fn read(fields: Fields<'_>, defaults: &SamplerOptions, n_vocab: usize) -> Result<Common, ApiError> {
        let mut request = Request::new(Vec::new());
        request.sampling = sampling(fields, defaults)?;
        request.logit_bias = logit_bias(fields, n_vocab)?;
        request.max_tokens = match fields.count("max_completion_tokens")? {
            None => fields.count("max_tokens")?,
            n => n,
        };
        request.min_tokens = fields.count("min_tokens")?.unwrap_or(0);
        request.ignore_eos = fields.bool("ignore_eos")?.unwrap_or(false);
        request.stop = stop(fields)?;
        request.stop_tokens = stop_tokens(fields, n_vocab)?;
        request.salt = match fields.str("cache_salt")? {
            Some(salt) if salt.len() > MOST_SALT_BYTES => {
                return Err(fields.error("cache_salt", &format!("a text of at most {MOST_SALT_BYTES} bytes")));
            }
            salt => salt.filter(|salt| !salt.is_empty()).map(str::to_owned),
        };
        let options = fields.object("stream_options")?;
        let stream_usage = match options {
            Some(options) => Fields::of(options, "stream_options").bool("include_usage")?,
            None => None,
        };
        Ok(Common {
            request,
            n: fields.whole("n", 1, MOST_CHOICES)?.unwrap_or(1) as usize,
            stream: fields.bool("stream")?.unwrap_or(false),
            stream_usage: stream_usage.unwrap_or(false),
            warnings: Vec::new(),
        })
    }

    /// The request of the choice of this number: each draws by a seed of its own.
    pub fn choice(&self, prompt: Vec<TokenId>, number: usize) -> Request {
        let mut request = self.request.clone();
        request.prompt = prompt;
        request.sampling.seed = request.sampling.seed.wrapping_add(number as u64);
        request
    }
}

fn sampling(fields: Fields<'_>, defaults: &SamplerOptions) -> Result<SamplerOptions, ApiError> {
    let mut options = *defaults;
    let share = |name: &str| -> Result<Option<f32>, ApiError> {
        let share = fields.number(name)?;
        if share.is_some_and(|x| !(0.0..=1.0).contains(&x)) {
            return Err(fields.error(name, "a number from 0 to 1"));
        }
        Ok(share)
    };
    if let Some(temp) = fields.number("temperature")? {
        if temp < 0.0 {
            return Err(fields.error("temperature", "a number from 0"));
        }
        options.temp = temp;
    }
    // -1 stands for all, as 0 does.
    if let Some(k) = fields.whole("top_k", -1, i64::from(i32::MAX))? {
        options.top_k = usize::try_from(k).unwrap_or(0);
    }
    options.top_p = share("top_p")?.unwrap_or(options.top_p);
    options.min_p = share("min_p")?.unwrap_or(options.min_p);
    options.typical_p = share("typical_p")?.unwrap_or(options.typical_p);
    for name in ["repetition_penalty", "repeat_penalty"] {
        if let Some(penalty) = fields.number(name)? {
            if penalty <= 0.0 {
                return Err(fields.error(name, "a number above 0"));
            }
            options.repeat_penalty = penalty;
        }
    }
    if let Some(n) = fields.whole("repeat_last_n", -1, i64::from(i32::MAX))? {
        options.repeat_last_n = usize::try_from(n).unwrap_or(usize::MAX);
    }
    options.presence_penalty = fields.number("presence_penalty")?.unwrap_or(options.presence_penalty);
    options.frequency_penalty = fields.number("frequency_penalty")?.unwrap_or(options.frequency_penalty);
    // A seed of -1, as none, stands for another one each time.
    let seed = match fields.value("seed") {
        None => None,
        Some(value) => match value.as_u64() {
            Some(seed) => Some(seed),
            None => match whole(value) {
                Some(-1) => None,
                Some(seed) => Some(seed as u64),
                None => return Err(fields.error("seed", "a whole number")),
            },
        },
    };
    options.seed = seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
    options.validate().map_err(|error| ApiError::invalid(error.option, error.to_string()))?;
    Ok(options)
}

/// Biases as OpenAI writes them, a map from ids as texts, or as llama-server does, a list of pairs,
/// where `false` forbids a token.
fn logit_bias(fields: Fields<'_>, n_vocab: usize) -> Result<Vec<(TokenId, f32)>, ApiError> {
    const WANTED: &str = "a map from token ids to numbers";
    let wanted_id = format!("{WANTED}, with ids below {n_vocab}");
    let id = |id: Option<i64>| {
        let id = id.and_then(|id| u32::try_from(id).ok()).filter(|&id| (id as usize) < n_vocab);
        id.map(TokenId).ok_or_else(|| fields.error("logit_bias", &wanted_id))
    };
    let bias = |value: &Value| match value {
        Value::Bool(false) => Ok(f32::NEG_INFINITY),
        value => {
            let bias = value.as_f64().map(|x| x as f32).filter(|x| x.is_finite());
            bias.ok_or_else(|| fields.error("logit_bias", WANTED))
        }
    };
    let too_many = |n: usize| n > MOST_BIASES;
    match fields.value("logit_bias") {
        None => Ok(Vec::new()),
        Some(Value::Object(map)) if too_many(map.len()) => Err(fields.error("logit_bias", MOST_BIASES_WANTED)),
        Some(Value::Array(pairs)) if too_many(pairs.len()) => Err(fields.error("logit_bias", MOST_BIASES_WANTED)),
        Some(Value::Object(map)) => map.iter().map(|(key, value)| Ok((id(key.parse().ok())?, bias(value)?))).collect(),
        Some(Value::Array(pairs)) => {
            let pair = |pair: &Value| match pair.as_array().map(Vec::as_slice) {
                Some([first, second]) => Ok((id(whole(first))?, bias(second)?)),
                _ => Err(fields.error("logit_bias", WANTED)),
            };
            pairs.iter().map(pair).collect()
        }
        Some(_) => Err(fields.error("logit_bias", WANTED)),
    }
}

fn stop(fields: Fields<'_>) -> Result<Vec<String>, ApiError> {
    let wanted = format!("a text, or a list of at most {MOST_STOPS} texts, each of at most {MOST_STOP_BYTES} bytes");
    let error = || fields.error("stop", &wanted);
    let stops: Vec<&str> = match fields.value("stop") {
        None => Vec::new(),
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(texts)) => {
            texts.iter().map(|text| text.as_str().ok_or_else(error)).collect::<Result<_, _>>()?
        }
        Some(_) => return Err(error()),
    };
    if stops.len() > MOST_STOPS || stops.iter().any(|stop| stop.len() > MOST_STOP_BYTES) {
        return Err(error());
    }
    // An empty text would end every answer.
    Ok(stops.into_iter().filter(|stop| !stop.is_empty()).map(str::to_owned).collect())
}

fn stop_tokens(fields: Fields<'_>, n_vocab: usize) -> Result<Vec<TokenId>, ApiError> {
    let Some(ids) = fields.list("stop_token_ids")? else { return Ok(Vec::new()) };
    if ids.len() > n_vocab {
        return Err(fields.error("stop_token_ids", "at most as many ids as there are tokens"));
    }
    ids.iter()
        .map(|id| token_id(id, n_vocab))
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| fields.error("stop_token_ids", &format!("a list of token ids below {n_vocab}")))
}

/// A token of the vocabulary.
pub(crate) fn token_id(value: &Value, n_vocab: usize) -> Option<TokenId> {
    let id = whole(value).and_then(|id| u32::try_from(id).ok())?;
    ((id as usize) < n_vocab).then_some(TokenId(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(body: Value) -> Result<Common, ApiError> {
        Common::read(Fields::of_body(&body).unwrap(), &SamplerOptions::default(), 100)
    }

    #[test]
    fn what_clients_send_is_understood() {
        let common = read(json!({
            "temperature": 0, "top_p": 0, "top_k": -1, "max_tokens": 9, "max_completion_tokens": 7, "seed": -1,
            "stop": ["a", ""], "n": 2, "logit_bias": {"5": -100, "7": 1.5}, "stream_options": {"include_usage": true},
            "repeat_penalty": 1.1, "cache_salt": "me", "unknown": {"x": 1}, "user": "u", "presence_penalty": null,
        }))
        .unwrap();
        let request = common.choice(vec![TokenId(1)], 1);
        assert_eq!((request.sampling.temp, request.sampling.top_p, request.sampling.top_k), (0.0, 0.0, 0));
        assert_eq!((request.max_tokens, request.stop.clone(), common.n), (Some(7), vec!["a".to_owned()], 2));
        assert_eq!(request.logit_bias, [(TokenId(5), -100.0), (TokenId(7), 1.5)]);
        assert_eq!(request.sampling.seed, common.request.sampling.seed.wrapping_add(1));
        assert!(common.stream_usage && !common.stream);
        for all in [json!(null), json!(-1)] {
            assert_eq!(read(json!({ "max_tokens": all })).unwrap().request.max_tokens, None);
        }
        let pairs = read(json!({"logit_bias": [[3, false], [4, 2]]})).unwrap().request.logit_bias;
        assert_eq!(pairs, [(TokenId(3), f32::NEG_INFINITY), (TokenId(4), 2.0)]);
        assert_eq!(read(json!({"seed": 5})).unwrap().request.sampling.seed, 5);
    }

    #[test]
    fn what_cannot_be_is_named() {
        let rows = [
            (json!({"temperature": -1}), "temperature"),
            (json!({"logit_bias": vec![json!([1, 0]); 4097]}), "logit_bias"),
            (json!({"temperature": "hot"}), "temperature"),
            (json!({"temperature": 1e300}), "temperature"),
            (json!({"top_p": 1.5}), "top_p"),
            (json!({"min_p": -0.1}), "min_p"),
            (json!({"repeat_penalty": 0}), "repeat_penalty"),
            (json!({"n": 0}), "n"),
            (json!({"n": 9}), "n"),
            (json!({"max_tokens": -2}), "max_tokens"),
            (json!({"max_tokens": 1.5}), "max_tokens"),
            (json!({"logit_bias": {"100": 1}}), "logit_bias"),
            (json!({"logit_bias": {"x": 1}}), "logit_bias"),
            (json!({"logit_bias": {"1": "x"}}), "logit_bias"),
            (json!({"logit_bias": [[1]]}), "logit_bias"),
            (json!({"stop": 5}), "stop"),
            (json!({"stop": ["a", 5]}), "stop"),
            (json!({"stop": vec!["a"; 17]}), "stop"),
            (json!({"stop": "a".repeat(1025)}), "stop"),
            (json!({"seed": 1.5}), "seed"),
            (json!({"stream": "yes"}), "stream"),
            (json!({"stream_options": {"include_usage": 1}}), "stream_options.include_usage"),
            (json!({"cache_salt": "a".repeat(257)}), "cache_salt"),
            (json!({"stop_token_ids": [100]}), "stop_token_ids"),
        ];
        let failed: Vec<_> = rows
            .into_iter()
            .map(|(body, param)| (read(body).err().and_then(|error| error.param), param))
            .filter(|(seen, wanted)| seen.as_deref() != Some(*wanted))
            .collect();
        assert!(failed.is_empty(), "{failed:?}");
    }
}
