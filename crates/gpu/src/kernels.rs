//! The kernels' sources: put together from the files in `wgsl/` for each format and size.

use modelembed_gguf::TensorType;

use modelembed_terms::{Activation, CacheType};

use crate::backend::TOP_K;
use crate::cache::section_name;

/// How a kernel reaches a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Access {
    /// Weights, which no step writes.
    Read,
    /// All else: one buffer may be bound twice in a step.
    ReadWrite,
}
use Access::{Read, ReadWrite};

/// What a product's columns are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Input {
    /// Numbers.
    Float,
    /// Blocks of 8-bit integers.
    Int8,
    /// Half precision.
    Half,
}

impl Input {
    /// The sections of the sources that are for it: of the columns, and of the weights.
    fn sections(self) -> [&'static str; 2] {
        match self {
            Input::Float => ["float", "float"],
            Input::Int8 => ["int8", "int8"],
            Input::Half => ["half", "float"],
        }
    }
}

/// A kernel: everything that its text depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kernel {
    /// `lanes` threads a row.
    MatVec {
        ty: TensorType,
        input: Input,
        cols: u32,
        lanes: u32,
    },
    MatVecSubgroup {
        ty: TensorType,
        input: Input,
        cols: u32,
    },
    Quantize,
    Halve,
    Gemm {
        ty: TensorType,
        input: Input,
    },
    GemmMatrix {
        ty: TensorType,
        units: MatrixUnits,
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
    /// Over numbers, or over the pairs of a pass before.
    TopK {
        pairs: bool,
    },
    Gather,
}

/// How matrix units are used: multiplying halves, summing f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MatrixUnits {
    /// Rows and columns of a unit's matrices: 8 or 16.
    pub size: u32,
    /// Threads of a workgroup, which are at least four subgroups.
    pub threads: u32,
    /// Subgroups that these are at most.
    pub subgroups: u32,
}

impl MatrixUnits {
    /// Elements of the sum that meet at a time, with what keeps rows apart in workgroup memory.
    const PITCH: u32 = 40;

    /// Rows and columns of a workgroup's products.
    pub(crate) fn edge(self) -> u32 {
        4 * self.size
    }

    /// Bytes that a workgroup shares.
    pub(crate) fn workgroup_bytes(self) -> u32 {
        2 * self.edge() * Self::PITCH * 2 + self.subgroups * self.size * self.size * 4
    }
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

/// Whether weights of this type can be multiplied with blocks of 8-bit integers: those that are
/// such integers and scales.
pub fn supports_int8(ty: TensorType) -> bool {
    supports(ty) && !matches!(ty, TensorType::F32 | TensorType::F16 | TensorType::BF16)
}

/// Whether weights of this type can be multiplied with columns in half precision: those within its
/// range, which is wide enough for scales that are halves and small integers.
pub fn supports_half(ty: TensorType) -> bool {
    supports(ty) && !matches!(ty, TensorType::F32 | TensorType::BF16)
}

/// The section `name` of a file whose sections begin with `//# name`, with what stands before the
/// first and after a `//#` alone.
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
            Kernel::MatVec { .. } | Kernel::MatVecSubgroup { .. } | Kernel::Gemm { .. } | Kernel::GemmMatrix { .. } => {
                &[Read, Read, ReadWrite, ReadWrite]
            }
            Kernel::RmsNorm => &[Read, ReadWrite, ReadWrite],
            Kernel::Add
            | Kernel::ActMul(_)
            | Kernel::Rope
            | Kernel::Store(_)
            | Kernel::ArgMax
            | Kernel::TopK { .. }
            | Kernel::Quantize
            | Kernel::Halve => &[ReadWrite, ReadWrite],
            Kernel::Attend { .. } => &[ReadWrite; 4],
            Kernel::Shift(_) | Kernel::Gather => &[ReadWrite; 3],
        }
    }

    /// The WGSL text.
    pub(crate) fn source(self) -> String {
        let matmul = |ty: TensorType, input: Input, preamble: String, body: &str| {
            let [columns, weights] = input.sections();
            let columns = section(include_str!("wgsl/matmul.wgsl"), columns);
            let weights = section(include_str!("wgsl/weights.wgsl"), weights);
            let format = section(include_str!("wgsl/formats.wgsl"), ty.name());
            format!("{preamble}{columns}\n{weights}\n{format}\n{body}")
        };
        let elementwise = |name: &str| section(include_str!("wgsl/elementwise.wgsl"), name);
        let over_cache = |ty: CacheType, parts: &[&str], body: &str| {
            parts.iter().map(|part| section(part, section_name(ty))).collect::<String>() + body
        };
        let kv = include_str!("wgsl/kv.wgsl");
        let kv_put = include_str!("wgsl/kv_put.wgsl");
        match self {
            Kernel::MatVec { ty, input, cols, lanes } => matmul(
                ty,
                input,
                format!("const COLS = {cols}u;\nconst LANES = {lanes}u;\n"),
                include_str!("wgsl/matvec.wgsl"),
            ),
            Kernel::MatVecSubgroup { ty, input, cols } => {
                matmul(ty, input, format!("const COLS = {cols}u;\n"), include_str!("wgsl/matvec_subgroup.wgsl"))
            }
            Kernel::Gemm { ty, input } => {
                let tile = include_str!("wgsl/tile.wgsl");
                let (preamble, body) = match input {
                    Input::Float => (tile.to_owned(), include_str!("wgsl/gemm.wgsl").to_owned()),
                    Input::Int8 => (tile.to_owned(), include_str!("wgsl/gemm_int8.wgsl").to_owned()),
                    Input::Half => {
                        let body = [include_str!("wgsl/halves.wgsl"), include_str!("wgsl/gemm_f16.wgsl")];
                        (format!("enable f16;\n{tile}"), body.concat())
                    }
                };
                matmul(ty, input, preamble, &body)
            }
            Kernel::GemmMatrix { ty, units: MatrixUnits { size, threads, subgroups } } => {
                let preamble = format!(
                    "enable f16;\nenable wgpu_cooperative_matrix;\n\
                     const SIZE = {size}u;\nconst THREADS = {threads}u;\nconst SLOTS = {subgroups}u;\n\
                     alias Rows = coop_mat{size}x{size}<f16, A>;\nalias Cols = coop_mat{size}x{size}<f16, B>;\n\
                     alias Sums = coop_mat{size}x{size}<f32, C>;\n"
                );
                let body = [include_str!("wgsl/halves.wgsl"), include_str!("wgsl/gemm_matrix.wgsl")];
                matmul(ty, Input::Half, preamble, &body.concat())
            }
            Kernel::RmsNorm => include_str!("wgsl/rms_norm.wgsl").to_owned(),
            Kernel::Add => elementwise("add"),
            Kernel::ActMul(Activation::Silu) => elementwise("silu_mul"),
            Kernel::ActMul(Activation::Gelu) => elementwise("gelu_mul"),
            Kernel::Rope => include_str!("wgsl/rope.wgsl").to_owned(),
            Kernel::Store(ty) => over_cache(ty, &[kv, kv_put], include_str!("wgsl/store.wgsl")),
            Kernel::Attend { ty, pairs } => {
                format!("const PAIRS = {pairs}u;\n{}", over_cache(ty, &[kv], include_str!("wgsl/attend.wgsl")))
            }
            Kernel::Shift(ty) => over_cache(ty, &[kv, kv_put], include_str!("wgsl/shift.wgsl")),
            Kernel::ArgMax => include_str!("wgsl/argmax.wgsl").to_owned(),
            Kernel::TopK { pairs } => {
                format!("const PAIRS = {pairs};\nconst KEPT = {TOP_K}u;\n{}", include_str!("wgsl/topk.wgsl"))
            }
            Kernel::Quantize => include_str!("wgsl/quantize.wgsl").to_owned(),
            Kernel::Halve => include_str!("wgsl/halve.wgsl").to_owned(),
            Kernel::Gather => include_str!("wgsl/gather.wgsl").to_owned(),
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
            Kernel::TopK { pairs: false },
            Kernel::TopK { pairs: true },
            Kernel::Gather,
            Kernel::Quantize,
            Kernel::Halve,
        ];
        for ty in TYPES {
            let inputs = [Some(Input::Float), supports_int8(ty).then_some(Input::Int8)];
            for input in inputs.into_iter().flatten() {
                out.extend([
                    Kernel::Gemm { ty, input },
                    Kernel::MatVec { ty, input, cols: 1, lanes: 16 },
                    Kernel::MatVec { ty, input, cols: MATVEC_COLS, lanes: 1 },
                    Kernel::MatVecSubgroup { ty, input, cols: 1 },
                    Kernel::MatVecSubgroup { ty, input, cols: MATVEC_COLS },
                ]);
            }
        }
        for ty in TYPES.into_iter().filter(|&ty| supports_half(ty)) {
            out.push(Kernel::Gemm { ty, input: Input::Half });
            for (size, threads, subgroups) in [(8, 32, 4), (16, 256, 8)] {
                out.push(Kernel::GemmMatrix { ty, units: MatrixUnits { size, threads, subgroups } });
            }
        }
        for ty in [CacheType::F16, CacheType::Q8, CacheType::F32] {
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
    /// It needs arithmetic in half precision.
    pub uses_f16: bool,
    /// It needs matrix units, which Direct3D has no language for.
    pub uses_matrix: bool,
}

/// The text of every kernel, in each format.
pub fn all_sources() -> Vec<Source> {
    let source = |kernel: Kernel| Source {
        name: format!("{kernel:?}"),
        text: kernel.source(),
        uses_subgroups: matches!(kernel, Kernel::MatVecSubgroup { .. } | Kernel::GemmMatrix { .. }),
        uses_f16: matches!(kernel, Kernel::Gemm { input: Input::Half, .. } | Kernel::GemmMatrix { .. }),
        uses_matrix: matches!(kernel, Kernel::GemmMatrix { .. }),
    };
    Kernel::all().into_iter().map(source).collect()
}
