//! The kernels' sources: put together from the files in `wgsl/` for each format and size.

use modelembed_gguf::TensorType;

use crate::backend::{Activation, CacheType};

/// How a kernel reaches a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Access {
    /// Weights, which no step writes.
    Read,
    /// All else: one buffer may be bound twice in a step.
    ReadWrite,
}
use Access::{Read, ReadWrite};

/// A kernel: everything that its text depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kernel {
    /// `lanes` threads a row.
    MatVec {
        ty: TensorType,
        cols: u32,
        lanes: u32,
    },
    MatVecSubgroup {
        ty: TensorType,
        cols: u32,
    },
    Gemm {
        ty: TensorType,
    },
    RmsNorm,
    Add,
    ActMul(Activation),
    Rope,
    Store(CacheType),
    /// `pairs` of the output a thread.
    Attend {
        ty: CacheType,
        pairs: u32,
    },
    Shift(CacheType),
    ArgMax,
}

/// Columns that one matrix-vector kernel takes at most.
pub(crate) const MATVEC_COLS: u32 = 4;

/// Weight types that kernels exist for.
const TYPES: [TensorType; 13] = [
    TensorType::F32,
    TensorType::F16,
    TensorType::BF16,
    TensorType::Q4_0,
    TensorType::Q4_1,
    TensorType::Q5_0,
    TensorType::Q5_1,
    TensorType::Q8_0,
    TensorType::Q2_K,
    TensorType::Q3_K,
    TensorType::Q4_K,
    TensorType::Q5_K,
    TensorType::Q6_K,
];

/// Whether weights of this type can be multiplied on a device.
pub fn supports(ty: TensorType) -> bool {
    TYPES.contains(&ty)
}

/// The section `name` of a file whose sections begin with `//# name`, with what stands before the first and after a `//#` alone.
fn section(file: &str, name: &str) -> String {
    let mut out = String::new();
    let mut inside = true;
    for line in file.lines() {
        match line.strip_prefix("//#") {
            Some(title) => inside = title.trim().is_empty() || title.trim() == name,
            None if inside => {
                out.push_str(line);
                out.push('\n');
            }
            None => {}
        }
    }
    out
}

impl Kernel {
    /// Bindings after the parameters.
    pub(crate) fn bindings(self) -> &'static [Access] {
        match self {
            Kernel::MatVec { .. } | Kernel::MatVecSubgroup { .. } | Kernel::Gemm { .. } => {
                &[Read, Read, ReadWrite, ReadWrite]
            }
            Kernel::RmsNorm => &[Read, ReadWrite, ReadWrite],
            Kernel::Add | Kernel::ActMul(_) | Kernel::Rope | Kernel::Store(_) | Kernel::ArgMax => {
                &[ReadWrite, ReadWrite]
            }
            Kernel::Attend { .. } => &[ReadWrite; 4],
            Kernel::Shift(_) => &[ReadWrite; 3],
        }
    }

    /// The WGSL text.
    pub(crate) fn source(self) -> String {
        let matmul = |ty: TensorType, constants: String, body: &str| {
            let parts = [include_str!("wgsl/matmul.wgsl"), include_str!("wgsl/weights.wgsl")];
            let format = section(include_str!("wgsl/formats.wgsl"), ty.name());
            format!("{constants}{}\n{}\n{format}\n{body}", parts[0], parts[1])
        };
        let elementwise = |name: &str| section(include_str!("wgsl/elementwise.wgsl"), name);
        let over_cache = |ty: CacheType, body: &str| {
            let name = match ty {
                CacheType::F16 => "f16",
                CacheType::F32 => "f32",
            };
            format!("{}\n{body}", section(include_str!("wgsl/kv.wgsl"), name))
        };
        match self {
            Kernel::MatVec { ty, cols, lanes } => matmul(
                ty,
                format!("const COLS = {cols}u;\nconst LANES = {lanes}u;\n"),
                include_str!("wgsl/matvec.wgsl"),
            ),
            Kernel::MatVecSubgroup { ty, cols } => {
                matmul(ty, format!("const COLS = {cols}u;\n"), include_str!("wgsl/matvec_subgroup.wgsl"))
            }
            Kernel::Gemm { ty } => matmul(ty, String::new(), include_str!("wgsl/gemm.wgsl")),
            Kernel::RmsNorm => include_str!("wgsl/rms_norm.wgsl").to_owned(),
            Kernel::Add => elementwise("add"),
            Kernel::ActMul(Activation::Silu) => elementwise("silu_mul"),
            Kernel::ActMul(Activation::Gelu) => elementwise("gelu_mul"),
            Kernel::Rope => include_str!("wgsl/rope.wgsl").to_owned(),
            Kernel::Store(ty) => over_cache(ty, include_str!("wgsl/store.wgsl")),
            Kernel::Attend { ty, pairs } => {
                format!("const PAIRS = {pairs}u;\n{}", over_cache(ty, include_str!("wgsl/attend.wgsl")))
            }
            Kernel::Shift(ty) => over_cache(ty, include_str!("wgsl/shift.wgsl")),
            Kernel::ArgMax => include_str!("wgsl/argmax.wgsl").to_owned(),
        }
    }

    /// One of each kind and format.
    fn all() -> Vec<Kernel> {
        let mut out = vec![
            Kernel::RmsNorm,
            Kernel::Add,
            Kernel::ActMul(Activation::Silu),
            Kernel::ActMul(Activation::Gelu),
            Kernel::Rope,
            Kernel::ArgMax,
        ];
        for ty in TYPES {
            out.extend([
                Kernel::MatVec { ty, cols: 1, lanes: 16 },
                Kernel::MatVec { ty, cols: MATVEC_COLS, lanes: 1 },
                Kernel::MatVecSubgroup { ty, cols: 1 },
                Kernel::MatVecSubgroup { ty, cols: MATVEC_COLS },
                Kernel::Gemm { ty },
            ]);
        }
        for ty in [CacheType::F16, CacheType::F32] {
            out.extend([Kernel::Store(ty), Kernel::Attend { ty, pairs: 2 }, Kernel::Shift(ty)]);
        }
        out
    }
}

/// A kernel's text, for whoever wants to translate it.
#[derive(Clone, Debug)]
pub struct Source {
    /// What it is.
    pub name: String,
    /// WGSL.
    pub text: String,
    /// It needs subgroups.
    pub uses_subgroups: bool,
}

/// The text of every kernel, in each format.
pub fn all_sources() -> Vec<Source> {
    let source = |kernel: Kernel| Source {
        name: format!("{kernel:?}"),
        text: kernel.source(),
        uses_subgroups: matches!(kernel, Kernel::MatVecSubgroup { .. }),
    };
    Kernel::all().into_iter().map(source).collect()
}
