//! The parts of a model that people name: the embedding, each layer, the experts of each, the head.

use crate::usage::UsageError;
use anyhow::{Result, ensure};
use modelembed::ModelFiles;
use modelembed_gguf::TensorInfo;
use modelembed_storage::Storage;
use std::ops::Range;

/// Some tensors that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub name: PartName,
    /// File and byte range of each tensor, in the order in which they lie there.
    pub ranges: Vec<(usize, Range<u64>)>,
}

/// In the order in which a token needs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartName {
    Embedding,
    /// A layer, without its experts.
    Layer(usize),
    /// The experts of a layer of a mixture, of which a token uses a few.
    Experts(usize),
    /// The last norm, the output head and whatever else no layer has.
    Head,
}

impl std::fmt::Display for PartName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PartName::Embedding => f.pad("embedding"),
            PartName::Layer(n) => f.pad(&format!("layer {n}")),
            PartName::Experts(n) => f.pad(&format!("experts {n}")),
            PartName::Head => f.pad("head"),
        }
    }
}

impl PartName {
    /// Ascends in the order in which a token needs parts.
    fn order(self) -> (usize, bool) {
        match self {
            PartName::Embedding => (0, false),
            PartName::Layer(n) => (n.saturating_add(1), false),
            PartName::Experts(n) => (n.saturating_add(1), true),
            PartName::Head => (usize::MAX, true),
        }
    }

    fn of(tensor: &str) -> PartName {
        let layer = tensor.strip_prefix("blk.").and_then(|rest| rest.split_once('.')).and_then(|(n, _)| n.parse().ok());
        match layer {
            Some(n) if tensor.contains("_exps.") => PartName::Experts(n),
            Some(n) => PartName::Layer(n),
            None if tensor.starts_with("token_embd") => PartName::Embedding,
            None => PartName::Head,
        }
    }
}

impl Part {
    pub fn n_bytes(&self) -> u64 {
        self.ranges.iter().map(|(_, range)| range.end - range.start).sum()
    }

    /// The ranges of bytes `from..to` of the part, as if its tensors lay one after the other.
    pub fn slice(&self, from: u64, to: u64) -> Vec<(usize, Range<u64>)> {
        let mut at = 0;
        let mut slices = Vec::new();
        for (file, range) in &self.ranges {
            let len = range.end - range.start;
            let (first, last) = (from.clamp(at, at + len) - at, to.clamp(at, at + len) - at);
            if first < last {
                slices.push((*file, range.start + first..range.start + last));
            }
            at += len;
        }
        slices
    }
}

/// All parts of a model.
pub fn parts<'a>(tensors: impl Iterator<Item = &'a TensorInfo>) -> Vec<Part> {
    let mut parts = std::collections::BTreeMap::<(usize, bool), (PartName, Vec<(usize, Range<u64>)>)>::new();
    for tensor in tensors {
        let range = tensor.offset..tensor.offset + tensor.n_bytes;
        let name = PartName::of(&tensor.name);
        parts.entry(name.order()).or_insert((name, Vec::new())).1.push((usize::from(tensor.shard), range));
    }
    let sorted = |mut ranges: Vec<(usize, Range<u64>)>| {
        ranges.sort_by_key(|(file, range)| (*file, range.start));
        ranges
    };
    parts.into_values().map(|(name, ranges)| Part { name, ranges: sorted(ranges) }).collect()
}

/// The parts that `-layers` names: `3`, `0..8` (without the last), `embedding`, `head`, of a mixture
/// also `experts`, those of all layers, and `dense`, everything else; several with commas; all of
/// them without it.
pub fn chosen(all: Vec<Part>, layers: Option<&str>) -> Result<Vec<Part>> {
    let Some(words) = layers else { return Ok(all) };
    let n_layers = all.iter().filter(|part| matches!(part.name, PartName::Layer(_))).count();
    let mut wanted = Vec::new();
    for word in words.split(',').map(str::trim) {
        let number = |text: &str| text.parse::<usize>().ok();
        let is_expert = |part: &Part| matches!(part.name, PartName::Experts(_));
        let with = |are_experts: bool| all.iter().filter(|p| is_expert(p) == are_experts).map(|p| p.name).collect();
        let has = |name: PartName| all.iter().any(|part| part.name == name);
        let layer = |n: usize| {
            let experts = has(PartName::Experts(n)).then_some(PartName::Experts(n));
            [Some(PartName::Layer(n)), experts].into_iter().flatten()
        };
        let names = match word {
            "embedding" => Some(vec![PartName::Embedding]),
            "head" => Some(vec![PartName::Head]),
            "dense" => Some(with(false)),
            "experts" => {
                ensure!(all.iter().any(is_expert), "-layers experts: the model has none, it is no mixture of experts");
                Some(with(true))
            }
            _ => match word.split_once("..") {
                None => number(word).map(|n| layer(n).collect()),
                Some((from, to)) => {
                    let from = if from.is_empty() { Some(0) } else { number(from) };
                    let to = if to.is_empty() { Some(n_layers) } else { number(to) };
                    // A range that ends far beyond the last layer must not cost memory before it is
                    // refused.
                    from.zip(to).map(|(from, to)| (from..to.min(n_layers + 1)).flat_map(layer).collect())
                }
            },
        };
        let names = names.filter(|names: &Vec<PartName>| !names.is_empty());
        wanted.extend(names.ok_or_else(|| {
            UsageError(format!(
                "-layers {word}: wanted a layer's number, a range such as 0..8, embedding, head, experts or dense"
            ))
        })?);
    }
    for name in &wanted {
        ensure!(
            all.iter().any(|part| part.name == *name),
            "-layers {words}: the model has no {name}; it has layers 0..{n_layers}, embedding and head"
        );
    }
    Ok(all.into_iter().filter(|part| wanted.contains(&part.name)).collect())
}

/// Bytes of some ranges that are in memory. `None` where the system does not tell.
pub fn resident_bytes(files: &ModelFiles, ranges: &[(usize, Range<u64>)]) -> Option<u64> {
    let storages: Vec<&Storage> = files.storages().collect();
    ranges.iter().map(|(file, range)| Some(storages.get(*file)?.residency(range.clone())?.resident_bytes)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: PartName, ranges: &[(usize, Range<u64>)]) -> Part {
        Part { name, ranges: ranges.to_vec() }
    }

    #[test]
    fn tensors_belong_to_parts() {
        let rows = [
            ("token_embd.weight", PartName::Embedding),
            ("blk.0.attn_q.weight", PartName::Layer(0)),
            ("blk.12.ffn_norm.weight", PartName::Layer(12)),
            ("blk.3.ffn_gate_exps.weight", PartName::Experts(3)),
            ("blk.3.ffn_gate_shexp.weight", PartName::Layer(3)),
            ("output.weight", PartName::Head),
            ("output_norm.weight", PartName::Head),
            ("blk.x.y", PartName::Head),
        ];
        let failed: Vec<_> = rows.iter().filter(|(name, wanted)| PartName::of(name) != *wanted).collect();
        assert!(failed.is_empty(), "{failed:?}");
    }

    #[test]
    fn slices_cross_tensors() {
        let part = part(PartName::Layer(0), &[(0, 100..110), (1, 20..25), (1, 40..50)]);
        assert_eq!(part.n_bytes(), 25);
        assert_eq!(part.slice(0, 25), part.ranges);
        assert_eq!(part.slice(8, 16), [(0, 108..110), (1, 20..25), (1, 40..41)]);
        assert_eq!(part.slice(10, 10), []);
        assert_eq!(part.slice(24, 99), [(1, 49..50)]);
    }

    #[test]
    fn layers_are_chosen_by_number_range_and_name() {
        let all = || {
            let names =
                [PartName::Embedding, PartName::Layer(0), PartName::Layer(1), PartName::Layer(2), PartName::Head];
            names.map(|name| part(name, &[])).to_vec()
        };
        let names = |words: &str| {
            chosen(all(), Some(words))
                .map(|parts| parts.iter().map(|p| p.name.to_string()).collect::<Vec<_>>().join(","))
        };
        let rows = [
            ("1", "layer 1"),
            ("0..2", "layer 0,layer 1"),
            ("..", "layer 0,layer 1,layer 2"),
            ("1..", "layer 1,layer 2"),
            ("head,0,embedding", "embedding,layer 0,head"),
        ];
        for (words, wanted) in rows {
            assert_eq!(names(words).unwrap(), wanted, "{words}");
        }
        for words in ["3", "0..4", "2..1", "", "x", "0..99999999999999", "-1", "1..x"] {
            assert!(names(words).is_err(), "{words}");
        }
        assert_eq!(chosen(all(), None).unwrap().len(), 5);
        let mixture = || [all(), vec![part(PartName::Experts(1), &[]), part(PartName::Experts(2), &[])]].concat();
        let names = |words: &str| {
            let parts = chosen(mixture(), Some(words)).unwrap();
            parts.iter().map(|p| p.name.to_string()).collect::<Vec<_>>().join(",")
        };
        assert_eq!(names("experts"), "experts 1,experts 2");
        assert_eq!(names("dense"), "embedding,layer 0,layer 1,layer 2,head");
        assert_eq!(names("..2"), "layer 0,layer 1,experts 1");
        let refusal = chosen(all(), Some("experts")).unwrap_err().to_string();
        assert!(refusal.contains("no mixture"), "{refusal}");
    }
}
