//! What a model is, and the short program that it compiles into.
//!
//! [`ModelSpec::from_gguf`] reads the metadata, by one small file an architecture, into plain data;
//! every width is a layer's own. [`Program::new`] turns it into segments of coarse steps over the
//! tensors of a directory. Nothing here computes: executors walk over the steps.
#![forbid(unsafe_code)]

mod arch;
mod blocks;
mod error;
mod keys;
mod model;
mod print;
mod program;
mod unread;
mod want;

pub use arch::{ARCHITECTURES, Architecture};
pub use blocks::MAX_STREAMS;
pub use error::{Error, Result};
pub use model::*;
pub use program::{
    Attend, CacheShape, ChannelScan, Conv, ExpertLinear, Experts, GateNorm, HeadRope, HeadShape, Input, JoinBranch,
    JoinHeads, Linear, MixOwn, Norm, Part, Pending, Program, RecordShape, Register, Regroup, RopeTensors, Route, Scan,
    ScanRule, ScanShape, Segment, ShortConv, Step, StreamStep, Streams,
};
pub use want::{Directory, Planned, Role, TensorId, Want};
