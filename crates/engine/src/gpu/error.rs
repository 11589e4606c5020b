use modelembed_terms::CacheType;

/// Why layers cannot be computed on a GPU.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GpuError {
    /// Layers were wanted there, and this build lacks the feature `gpu`.
    #[error("layers were wanted on a GPU, but this build has no GPU support")]
    NotBuilt,

    /// A GPU has no room of this kind for a cache.
    #[error("a GPU cannot keep {} keys and values of heads of {head_dim} elements", cache_type.name())]
    Cache {
        /// What keys and values were to be stored in.
        cache_type: CacheType,
        /// Elements of a head.
        head_dim: usize,
    },

    /// No usable GPU, or one that could not do what was asked. Its variants tell a number or a name
    /// that no adapter has from a limit that is too small, memory that is used up and a device that
    /// was lost.
    #[cfg(feature = "gpu")]
    #[error(transparent)]
    Device(#[from] modelembed_gpu::Error),
}
