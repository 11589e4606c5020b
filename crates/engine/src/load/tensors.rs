//! A model's program, and where its tensors lie in the files.

use std::collections::HashMap;

use modelembed_gguf::{Gguf, TensorInfo, TensorType};
use modelembed_kernels::Kernels;
use modelembed_spec::{Directory, ModelSpec, Pooling, Program, TensorId, Visible, Want};

use crate::error::{Error, Result};

/// Where a matrix lies and what it is. A vector is a matrix of one row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tensor {
    /// Which file of a split model, from 0.
    pub(crate) shard: usize,
    /// First byte in that file.
    pub(crate) offset: u64,
    /// Length in bytes: `rows` rows of `k` elements.
    pub(crate) n_bytes: u64,
    /// How elements are stored.
    pub(crate) ty: TensorType,
    /// Rows.
    pub(crate) rows: usize,
    /// Elements of a row.
    pub(crate) k: usize,
}

/// The tensors of a program, by their ids.
pub(crate) struct Tensors(Vec<Tensor>);

/// A model as data, its steps, and where their tensors are.
pub(crate) struct Compiled {
    pub(crate) spec: ModelSpec,
    pub(crate) program: Program,
    pub(crate) tensors: Tensors,
}

impl Compiled {
    /// Reads a model's metadata and compiles it over the tensors of a directory.
    ///
    /// # Errors
    /// Metadata that describe no model that is known, a missing tensor, a wrong shape, a type that
    /// cannot be computed with, or a tensor left over.
    pub(crate) fn new<'a>(
        gguf: &Gguf,
        header: &[u8],
        directory: impl Iterator<Item = &'a TensorInfo> + Clone,
    ) -> Result<Compiled> {
        let spec = ModelSpec::from_gguf(gguf, header)?;
        let by_name: HashMap<&str, &TensorInfo> = directory.clone().map(|t| (t.name.as_str(), t)).collect();
        let program = Program::new(&spec, Directory::Of(&by_name))?;
        check_steps(&spec, &program)?;
        let tensors = program.tensors().iter().map(|want| locate(want, by_name[want.name.as_str()]));
        let tensors = Tensors(tensors.collect::<Result<Vec<_>>>()?);
        program.check_leftovers(directory)?;
        Ok(Compiled { spec, program, tensors })
    }

    /// Every tensor in the order in which a token needs them.
    pub(crate) fn in_use_order(&self) -> Vec<Tensor> {
        self.tensors.of(self.program.in_use_order())
    }

    /// Bytes of the tables of which a token reads a row each.
    pub(crate) fn table_bytes(&self) -> u64 {
        self.program.tables().map(|id| self.tensors.get(id).n_bytes).sum()
    }

    /// Bytes that one token reads: every matrix once, but of experts those that it uses, and of
    /// tables one row.
    pub(crate) fn bytes_per_token(&self) -> u64 {
        let shares = self.program.expert_shares();
        let read = |id: TensorId| {
            let n_bytes = self.tensors.get(id).n_bytes;
            shares.get(&id).map_or(n_bytes, |&(used, n)| n_bytes / n as u64 * used as u64)
        };
        let row = |id: TensorId| self.tensors.get(id).n_bytes / self.tensors.get(id).rows.max(1) as u64;
        let whole = self.program.in_use_order().into_iter().filter(|id| !self.program.is_looked_up(*id));
        whole.map(read).sum::<u64>() + self.program.tables().map(row).sum::<u64>()
    }
}

impl Tensors {
    /// A tensor's place.
    pub(crate) fn get(&self, id: TensorId) -> &Tensor {
        &self.0[id.index()]
    }

    /// Every tensor's place, in the order of ids.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Tensor> {
        self.0.iter()
    }

    /// The places of some tensors.
    pub(crate) fn of(&self, ids: impl IntoIterator<Item = TensorId>) -> Vec<Tensor> {
        ids.into_iter().map(|id| *self.get(id)).collect()
    }
}

/// Refuses steps that no executor has.
fn check_steps(spec: &ModelSpec, program: &Program) -> Result<()> {
    let not_run = |part| Err(modelembed_spec::Error::NotRun { arch: spec.arch.name, part }.into());
    if spec.output.pooling == Pooling::Rank {
        let key = format!("{}.pooling_type", spec.arch.name);
        let problem = "is 4, a score for ranking, which is not computed; wanted 0 to 3".to_owned();
        return Err(modelembed_spec::Error::Metadata { key, problem }.into());
    }
    for cache in program.caches() {
        if matches!(cache.visible, Visible::All | Visible::Around(_)) {
            return not_run("attention to later positions");
        }
    }
    Ok(())
}

/// A wanted tensor's place, if it has a type that can be computed with.
fn locate(want: &Want, info: &TensorInfo) -> Result<Tensor> {
    let refuse = |wanted: String| Error::TensorType { name: want.name.clone(), seen: info.ty, wanted };
    if want.role.is_matrix() {
        if !Kernels::supports(info.ty) {
            let known = TensorType::all().filter(|&t| Kernels::supports(t)).map(|t| t.name());
            return Err(refuse(format!("computable types are {}", known.collect::<Vec<_>>().join(" "))));
        }
    } else if info.ty != TensorType::F32 {
        return Err(refuse("vectors (norms, biases) must be F32".to_owned()));
    }
    Ok(Tensor {
        shard: usize::from(info.shard),
        offset: info.offset,
        n_bytes: info.n_bytes,
        ty: info.ty,
        rows: want.rows(),
        k: want.k(),
    })
}
