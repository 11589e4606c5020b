//! What the system is told of mapped pages.

/// How pages will be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Advice {
    /// In no special way: the system reads ahead around each page that is touched.
    Normal,
    /// From front to back: the system reads ahead more, and gives up what lies behind sooner.
    Sequential,
    /// Here and there: the system reads nothing ahead. Makes reading in bulk several times slower.
    Random,
    /// Not soon: the system gives these pages up before others.
    Cold,
    /// Not any more by this process: they leave its page tables and resident set, and stay in the
    /// page cache.
    Release,
}
