//! Instruction sets, and which of them this CPU has.

/// A set of CPU instructions that a table of kernels is compiled for.
///
/// Those of one architecture are ordered by preference: of what a CPU has, the last is the fastest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// Plain Rust, for every CPU: the definition of all results.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C (Intel since 2013, AMD since 2017).
    Avx2,
    /// The same with AVX-VNNI (Intel's client CPUs since Alder Lake, AMD since Zen 5).
    AvxVnni,
    /// x86-64 with AVX-512 F, BW, DQ, VL, VNNI, VBMI and with GFNI (Intel since Ice Lake, AMD since
    /// Zen 4).
    Avx512,
    /// 64-bit Arm: NEON (Advanced SIMD), which all of them have.
    Neon,
    /// 64-bit Arm with the dot-product instructions (Cortex since 2018, Apple since the M1).
    Dotprod,
    /// The same with the 8-bit matrix instructions (Neoverse since the V1, Cortex since 2021, Apple
    /// since the M2).
    I8mm,
}

impl Isa {
    const NAMES: [(Isa, &'static str); 7] = [
        (Isa::Scalar, "scalar"),
        (Isa::Avx2, "avx2"),
        (Isa::AvxVnni, "avxvnni"),
        (Isa::Avx512, "avx512"),
        (Isa::Neon, "neon"),
        (Isa::Dotprod, "dotprod"),
        (Isa::I8mm, "i8mm"),
    ];

    /// Every instruction set that the crate knows, whatever this CPU has.
    pub fn known() -> impl Iterator<Item = Isa> {
        Self::NAMES.iter().map(|&(isa, _)| isa)
    }

    /// The lower-case name that [`Isa::from_name`] reads.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|&&(isa, _)| isa == self).map_or("unknown", |&(_, name)| name)
    }

    /// The instruction set with this name, in any case.
    pub fn from_name(name: &str) -> Option<Isa> {
        Self::NAMES.iter().find(|(_, n)| n.eq_ignore_ascii_case(name)).map(|&(isa, _)| isa)
    }

    /// Whether this CPU (and operating system) can run it. The standard library caches the answer.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => Isa::Avx2.is_available() && is_x86_feature_detected!("avxvnni"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                Isa::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
                    && is_x86_feature_detected!("avx512vbmi")
                    && is_x86_feature_detected!("gfni")
            }
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            Isa::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            Isa::Dotprod => Isa::Neon.is_available() && std::arch::is_aarch64_feature_detected!("dotprod"),
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            Isa::I8mm => Isa::Dotprod.is_available() && std::arch::is_aarch64_feature_detected!("i8mm"),
            // Those of other architectures.
            #[allow(unreachable_patterns, reason = "not on every architecture")]
            _ => false,
        }
    }
}

impl std::fmt::Display for Isa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::Isa;

    #[test]
    fn names_read_back() {
        for isa in Isa::known() {
            assert_eq!(Isa::from_name(&isa.name().to_uppercase()), Some(isa));
        }
        assert_eq!(Isa::from_name("sse9"), None);
    }
}
