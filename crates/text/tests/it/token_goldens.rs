//! Token ids against llama.cpp's, as `tools/token_goldens.py` recorded them.

use modelembed_text::{EncodeOptions, TokenId, Tokenizer};
use serde_json::Value;

use crate::common::{Meta, file, patched, tokenizer};

const PLAIN: EncodeOptions = EncodeOptions::PLAIN;
const SPECIAL: EncodeOptions = EncodeOptions::PLAIN.add_special(true).parse_special(true);
const MOST_SHOWN: usize = 12;

fn golden(name: &str) -> Option<Value> {
    let path = format!("{}/tests/goldens/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).ok()?;
    Some(serde_json::from_str(&text).expect("goldens are JSON"))
}

fn bytes(text: &Value) -> Vec<u8> {
    match text {
        Value::String(text) => text.clone().into_bytes(),
        other => {
            let hex = other["hex"].as_str().expect("bytes are written in hexadecimal");
            (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
        }
    }
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().expect("a list of ids").iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// Collects failures, so that one run shows all rows that fail.
#[derive(Default)]
struct Report {
    rows: usize,
    failures: Vec<String>,
}

impl Report {
    fn ids(&mut self, what: &str, tokenizer: &Tokenizer, text: &[u8], options: EncodeOptions, wanted: &Value) {
        self.rows += 1;
        let wanted = ids(wanted);
        let got = tokenizer.encode(text, options).map(|ids| ids.iter().map(|id| id.0).collect::<Vec<_>>());
        if got.as_ref() != Ok(&wanted) {
            let pieces = |ids: &[u32]| {
                let piece = |&id: &u32| String::from_utf8_lossy(tokenizer.token_bytes(TokenId(id))).into_owned();
                ids.iter().map(piece).collect::<Vec<_>>()
            };
            let got = got.map(|ids| pieces(&ids));
            let shown = String::from_utf8_lossy(text);
            self.failures.push(format!("{what} {shown:?} {options:?}\n  got  {got:?}\n  want {:?}", pieces(&wanted)));
        }
    }

    fn equal<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, got: T, wanted: T) {
        self.rows += 1;
        if got != wanted {
            self.failures.push(format!("{what}: got {got:?}, want {wanted:?}"));
        }
    }

    fn facts(&mut self, what: &str, tokenizer: &Tokenizer, facts: &Value) {
        let id = |id: Option<TokenId>| id.map_or(-1, |id| i64::from(id.0));
        self.equal(&format!("{what} size"), tokenizer.n_vocab() as i64, facts["n_vocab"].as_i64().unwrap());
        self.equal(&format!("{what} BOS"), id(tokenizer.bos()), facts["bos"].as_i64().unwrap());
        self.equal(&format!("{what} EOS"), id(tokenizer.eos()), facts["eos"].as_i64().unwrap());
        self.equal(&format!("{what} adds BOS"), tokenizer.adds_bos(), facts["add_bos"].as_bool().unwrap());
        self.equal(&format!("{what} adds EOS"), tokenizer.adds_eos(), facts["add_eos"].as_bool().unwrap());
        self.equal(&format!("{what} ends"), tokenizer.eog_tokens().map(|id| id.0).collect(), ids(&facts["eog"]));
        let control = (0..tokenizer.n_vocab() as u32).filter(|&id| tokenizer.is_control(TokenId(id))).count();
        self.equal(&format!("{what} control tokens"), control as u64, facts["control"].as_u64().unwrap());
    }

    fn finish(self) {
        let shown = self.failures.iter().take(MOST_SHOWN).cloned().collect::<Vec<_>>().join("\n");
        assert!(self.failures.is_empty(), "{} of {} rows differ:\n{shown}", self.failures.len(), self.rows);
        assert!(self.rows > 0);
    }
}

#[test]
fn ids_and_pieces_equal_those_of_llama_cpp() {
    let golden = golden("tokens.json").expect("tokens.json is committed");
    for model in golden["models"].as_array().unwrap() {
        let name = model["model"].as_str().unwrap();
        let Some(bytes_of_file) = file("MODELEMBED_MODELS", "models", name) else { continue };
        let flags = model["flags"].as_object().unwrap();
        let changes: Vec<_> =
            flags.iter().map(|(key, value)| (key.as_str(), Meta::Bool(value.as_bool().unwrap()))).collect();
        let tokenizer = tokenizer(patched(&bytes_of_file, &changes)).unwrap();
        assert_eq!(tokenizer.warnings(), &[] as &[String]);
        let mut report = Report::default();
        for case in model["cases"].as_array().unwrap() {
            let text = bytes(&case["text"]);
            report.ids(name, &tokenizer, &text, PLAIN, &case["ids"]);
            report.ids(name, &tokenizer, &text, SPECIAL, case.get("special").unwrap_or(&case["ids"]));
        }
        for row in model["pieces"].as_array().unwrap() {
            let id = TokenId(row[0].as_u64().unwrap() as u32);
            for (render_special, wanted) in [(true, &row[1]), (false, &row[2])] {
                let mut piece = Vec::new();
                tokenizer.piece(id, render_special, &mut piece);
                report.equal(&format!("{name} piece {id} {render_special}"), piece, bytes(wanted));
            }
        }
        report.facts(name, &tokenizer, &model["facts"]);
        report.finish();
    }
}

#[test]
fn every_pre_tokenizer_cuts_as_llama_cpp_does() {
    let golden = golden("pre_tokenizers.json").expect("pre_tokenizers.json is committed");
    let Some(model) = file("MODELEMBED_MODELS", "models", golden["model"].as_str().unwrap()) else { return };
    let texts: Vec<Vec<u8>> = golden["texts"].as_array().unwrap().iter().map(bytes).collect();
    let mut report = Report::default();
    for pre in golden["pre"].as_array().unwrap() {
        let name = pre["name"].as_str().unwrap();
        let tokenizer = tokenizer(patched(&model, &[("tokenizer.ggml.pre", Meta::str(name))])).unwrap();
        assert_eq!(tokenizer.warnings(), &[] as &[String], "{name}");
        for (text, wanted) in texts.iter().zip(pre["ids"].as_array().unwrap()) {
            report.ids(name, &tokenizer, text, PLAIN, wanted);
        }
    }
    report.finish();
}

#[test]
fn vocabularies_of_other_models() {
    let golden = golden("vocabularies.json").expect("vocabularies.json is committed");
    for vocabulary in golden["vocabularies"].as_array().unwrap() {
        let name = vocabulary["file"].as_str().unwrap();
        let Some(bytes_of_file) = file("MODELEMBED_VOCABULARIES", "models/vocabularies", name) else { return };
        let tokenizer = tokenizer(bytes_of_file).unwrap();
        let mut report = Report::default();
        for case in vocabulary["cases"].as_array().unwrap() {
            let text = bytes(&case[0]);
            report.ids(name, &tokenizer, &text, PLAIN, &case[1]);
            report.ids(name, &tokenizer, &text, SPECIAL, case.get(2).unwrap_or(&case[1]));
        }
        report.facts(name, &tokenizer, &vocabulary["facts"]);
        report.finish();
    }
}
