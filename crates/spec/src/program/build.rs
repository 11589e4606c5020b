//! Building a program: blocks ask for tensors by name and append steps.

use std::collections::HashMap;
use std::ops::Range;

use super::{CacheShape, Linear, Norm, Part, Pending, Program, RecordShape, RopeTensors, Segment, Step};
use crate::error::{Error, Result};
use crate::model::{ModelSpec, Need, NormSpec};
use crate::want::{Directory, Role, TensorId, Want};

/// A program under construction.
pub(crate) struct Builder<'a> {
    pub(crate) spec: &'a ModelSpec,
    directory: Directory<'a>,
    tensors: Vec<Want>,
    unread: Vec<String>,
    by_name: HashMap<String, TensorId>,
    segments: Vec<Segment>,
    /// Steps that the first segment begins with.
    pub(crate) first_steps: Vec<Step>,
    /// Before the first segment is begun.
    embed: Vec<Step>,
    caches: Vec<CacheShape>,
    records: Vec<RecordShape>,
    /// What the next join adds to the residual stream.
    pub(crate) pending: Option<Pending>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(spec: &'a ModelSpec, directory: Directory<'a>) -> Builder<'a> {
        Builder {
            spec,
            directory,
            tensors: Vec::new(),
            unread: Vec::new(),
            by_name: HashMap::new(),
            segments: Vec::new(),
            first_steps: Vec::new(),
            embed: Vec::new(),
            caches: Vec::new(),
            records: Vec::new(),
            pending: None,
        }
    }

    pub(super) fn finish(self, rope_factors: Vec<RopeTensors>) -> Program {
        Program {
            n_vocab: self.directory.n_vocab(),
            n_layer: self.spec.layers.len(),
            n_nextn: self.spec.n_nextn,
            arch: self.spec.arch.name,
            segments: self.segments,
            embed: self.embed,
            tensors: self.tensors,
            unread: self.unread,
            caches: self.caches,
            records: self.records,
            rope_factors,
        }
    }

    /// The table of tokens: always the first tensor.
    pub(super) fn token_embedding(&mut self) -> Result<TensorId> {
        let (n_embd, n_vocab) = (self.spec.n_embd as u64, self.directory.n_vocab() as u64);
        let (name, wanted) = ("token_embd.weight", vec![n_embd, n_vocab.max(1)]);
        if self.directory.has_shape(name) && n_vocab == 0 {
            return Err(Error::TensorShape { name: name.to_owned(), seen: vec![n_embd, 0], wanted });
        }
        self.required(name, &wanted, Role::Embedding, None)
    }

    /// Begins a segment: steps that follow belong to it.
    pub(crate) fn segment(&mut self, part: Part) {
        self.segments.push(Segment { part, steps: std::mem::take(&mut self.first_steps) });
    }

    /// Appends a step.
    pub(crate) fn step(&mut self, step: Step) {
        match self.segments.last_mut() {
            Some(segment) => segment.steps.push(step),
            None => self.embed.push(step),
        }
    }

    /// A place in the cache of keys and values; its number.
    pub(crate) fn cache(&mut self, shape: CacheShape) -> usize {
        self.caches.push(shape);
        self.caches.len() - 1
    }

    /// The place of a layer's keys and values.
    pub(crate) fn cache_of(&self, il: usize) -> Option<(usize, CacheShape)> {
        self.caches.iter().copied().enumerate().find(|(_, cache)| cache.layer == il)
    }

    /// A place among the recurrent states; its number.
    pub(crate) fn record(&mut self, shape: RecordShape) -> usize {
        self.records.push(shape);
        self.records.len() - 1
    }

    /// A part of a model that has no steps.
    pub(crate) fn not_run(&self, part: &'static str) -> Error {
        Error::NotRun { arch: self.spec.arch.name, part }
    }

    /// Tokens of the vocabulary.
    pub(crate) fn n_vocab(&self) -> usize {
        self.directory.n_vocab()
    }

    /// Whether an optional tensor is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.directory.has(name)
    }

    /// Rows of a matrix in the file; `None` where it is not there, and in planned files.
    pub(crate) fn rows_of(&self, name: &str) -> Option<usize> {
        match self.directory {
            Directory::Of(by_name) => by_name.get(name).map(|info| info.dims.iter().skip(1).product::<u64>() as usize),
            Directory::Planned(_) => None,
        }
    }

    /// A tensor of a layer that a file may hold though nothing reads it.
    pub(crate) fn leave_unread(&mut self, il: usize, part: &str) {
        self.unread.push(format!("blk.{il}.{part}"));
    }

    /// A tensor that must be there.
    pub(crate) fn required(&mut self, name: &str, dims: &[u64], role: Role, layer: Option<usize>) -> Result<TensorId> {
        match self.find(name, dims, role, layer, true)? {
            Some(id) => Ok(id),
            None => Err(Error::MissingTensor { name: name.to_owned(), arch: self.spec.arch.name }),
        }
    }

    /// A tensor that may be there.
    pub(crate) fn optional(
        &mut self,
        name: &str,
        dims: &[u64],
        role: Role,
        layer: Option<usize>,
    ) -> Result<Option<TensorId>> {
        self.find(name, dims, role, layer, false)
    }

    /// A tensor as it is needed.
    pub(crate) fn needed(
        &mut self,
        need: Need,
        name: &str,
        dims: &[u64],
        role: Role,
        layer: Option<usize>,
    ) -> Result<Option<TensorId>> {
        match need {
            Need::Always => self.required(name, dims, role, layer).map(Some),
            Need::Maybe => self.optional(name, dims, role, layer),
            Need::Never => Ok(None),
        }
    }

    fn find(
        &mut self,
        name: &str,
        wanted: &[u64],
        role: Role,
        layer: Option<usize>,
        must: bool,
    ) -> Result<Option<TensorId>> {
        if let Some(id) = self.by_name.get(name) {
            return Ok(Some(*id));
        }
        match self.directory {
            Directory::Of(by_name) => {
                let Some(info) = by_name.get(name) else { return Ok(None) };
                let seen: &[u64] = &info.dims;
                // Trailing dimensions of 1 change nothing: a vector may be written as (k, 1).
                let of = |dims: &[u64], i: usize| dims.get(i).copied().unwrap_or(1);
                if (0..seen.len().max(wanted.len())).any(|i| of(seen, i) != of(wanted, i)) {
                    let (seen, wanted) = (seen.to_vec(), wanted.to_vec());
                    return Err(Error::TensorShape { name: name.to_owned(), seen, wanted });
                }
            }
            Directory::Planned(planned) if !must && !(planned.has)(name) => return Ok(None),
            Directory::Planned(_) => {}
        }
        let id = TensorId(self.tensors.len() as u32);
        self.tensors.push(Want { name: name.to_owned(), dims: wanted.to_vec(), role, layer });
        self.by_name.insert(name.to_owned(), id);
        Ok(Some(id))
    }

    /// A matrix of a layer and its bias.
    pub(crate) fn linear(
        &mut self,
        il: usize,
        part: &str,
        (rows, k): (usize, usize),
        role: Role,
        bias: Need,
    ) -> Result<Linear> {
        let dims = [k as u64, rows as u64];
        let w = self.required(&format!("blk.{il}.{part}.weight"), &dims, role, Some(il))?;
        let bias = self.needed(bias, &format!("blk.{il}.{part}.bias"), &dims[1..], Role::Bias, Some(il))?;
        Ok(Linear { w, rows: 0..rows, k, bias })
    }

    /// A matrix of one row of a layer.
    pub(crate) fn row(&mut self, il: usize, part: &str, k: usize) -> Result<Linear> {
        let w = self.required(&format!("blk.{il}.{part}.weight"), &[k as u64], Role::Router, Some(il))?;
        Ok(Linear { w, rows: 0..1, k, bias: None })
    }

    /// The bias of a matrix that belongs to no layer.
    pub(crate) fn needed_bias(&mut self, name: &str, rows: usize, need: Need) -> Result<Option<TensorId>> {
        self.needed(need, name, &[rows as u64], Role::Bias, None)
    }

    /// The tensors of a norm over `len` elements, of a layer or of the model.
    pub(crate) fn norm(&mut self, norm: &NormSpec, layer: Option<usize>, len: usize) -> Result<Norm> {
        let NormSpec { kind, eps, name, bias, is_bare, instead } = *norm;
        let Some(name) = name else { return Ok(Norm { kind, eps, weight: None, bias: None }) };
        let suffix = if is_bare { "" } else { ".weight" };
        let full = |name, suffix| match layer {
            Some(il) => format!("blk.{il}.{name}{suffix}"),
            None => format!("{name}{suffix}"),
        };
        let name = instead.filter(|_| !self.has(&full(name, suffix))).unwrap_or(name);
        let dims = [len as u64];
        let weight = Some(self.required(&full(name, suffix), &dims, Role::Norm, layer)?);
        let bias = self.needed(bias, &full(name, ".bias"), &dims, Role::Bias, layer)?;
        Ok(Norm { kind, eps, weight, bias })
    }

    /// Some rows of a matrix of which others are used elsewhere. Its bias is not split.
    pub(crate) fn part_of(linear: &Linear, rows: Range<usize>) -> Linear {
        Linear { w: linear.w, rows, k: linear.k, bias: linear.bias }
    }
}

impl Directory<'_> {
    /// Whether a file holds a tensor.
    fn has_shape(&self, name: &str) -> bool {
        matches!(self, Directory::Of(by_name) if by_name.contains_key(name))
    }
}
