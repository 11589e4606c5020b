//! What is known of a GPU.

use std::fmt;

/// What kind of device an adapter is, the preferred first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdapterKind {
    /// A card with memory of its own.
    Discrete,
    /// Part of the processor.
    Integrated,
    /// A part of a device that a virtual machine was given.
    Virtual,
    /// The driver does not say.
    Other,
    /// A program on the CPU that acts like a device.
    Software,
}

/// An adapter, as a user may want to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterInfo {
    /// Place in [`adapters`](crate::adapters)' list.
    pub index: usize,
    /// The driver's name for the device.
    pub name: String,
    /// The interface that it is reached by: Vulkan, Metal, Dx12.
    pub backend: String,
    /// What it is.
    pub kind: AdapterKind,
}

impl AdapterKind {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            AdapterKind::Discrete => "discrete",
            AdapterKind::Integrated => "integrated",
            AdapterKind::Virtual => "virtual",
            AdapterKind::Other => "unknown kind",
            AdapterKind::Software => "software",
        }
    }
}

impl fmt::Display for AdapterInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({}, {})", self.index, self.name, self.backend, self.kind.name())
    }
}
