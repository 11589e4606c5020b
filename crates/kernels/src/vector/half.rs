//! Half precision (IEEE 754 binary16) without intrinsics and without branches, so that loops over
//! it become vector code (the `half` crate asks the CPU for F16C at each number).

/// Widens; exact for every input, NaN stays NaN.
#[inline(always)]
pub(crate) fn to_f32(h: u16) -> f32 {
    // Exponent and fraction moved to f32's place give the value times 2^-112; the product is exact,
    // subnormals included. Infinity and NaN come out as 2^16 and above, and get the largest
    // exponent.
    let magnitude = u32::from(h & 0x7fff) << 13;
    let scaled = f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23);
    let bits = if magnitude >= 0x7c00 << 13 { magnitude | 0x7f80_0000 } else { scaled.to_bits() };
    f32::from_bits(bits | u32::from(h & 0x8000) << 16)
}

/// Rounds to nearest even; overflow gives infinity, NaN stays (quiet) NaN.
#[inline(always)]
pub(crate) fn from_f32(x: f32) -> u16 {
    let sign = (x.to_bits() >> 16 & 0x8000) as u16;
    let magnitude = x.to_bits() & 0x7fff_ffff;
    let half = if magnitude >= 0x4780_0000 {
        // 65536 and above, infinity, NaN (with its leading fraction bits, and quiet).
        if magnitude > 0x7f80_0000 { 0x7e00 | (magnitude >> 13 & 0x1ff) as u16 } else { 0x7c00 }
    } else if magnitude < 0x3880_0000 {
        // Below 2^-14 the result is a multiple of 2^-24: 0.5 has exactly that spacing, so an
        // addition rounds.
        ((f32::from_bits(magnitude) + 0.5).to_bits() - 0.5f32.to_bits()) as u16
    } else {
        // Rebias by -112; add just below half of the last place, plus one if the last kept bit is
        // odd.
        let odd = magnitude >> 13 & 1;
        ((magnitude - (112 << 23) + 0xfff + odd) >> 13) as u16
    };
    sign | half
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_survives_a_round_trip() {
        for h in 0..=u16::MAX {
            let x = to_f32(h);
            if x.is_nan() {
                assert!(h & 0x7fff > 0x7c00, "{h:#06x} became NaN");
                assert!(to_f32(from_f32(x)).is_nan(), "{h:#06x} lost its NaN");
            } else {
                assert_eq!(from_f32(x), h, "{h:#06x} -> {x}");
            }
        }
    }

    #[test]
    fn values_are_those_of_binary16() {
        for (h, x) in [
            (0x0001, 2f32.powi(-24)),
            (0x03ff, 1023.0 * 2f32.powi(-24)),
            (0x0400, 2f32.powi(-14)),
            (0x3c00, 1.0),
            (0x3555, 0.333_251_95),
            (0x7bff, 65504.0),
            (0x7c00, f32::INFINITY),
            (0xfc00, f32::NEG_INFINITY),
            (0x8000, -0.0),
        ] {
            assert_eq!(to_f32(h).to_bits(), x.to_bits(), "{h:#06x}");
        }
    }

    #[test]
    fn rounds_midpoints_to_even_and_their_neighbours_to_the_nearest() {
        for h in 0..0x7bffu16 {
            let (a, b) = (to_f32(h), to_f32(h + 1));
            let middle = (a + b) * 0.5; // exact in f32
            let even = if h % 2 == 0 { h } else { h + 1 };
            assert_eq!(from_f32(middle), even, "middle after {h:#06x}");
            assert_eq!(from_f32(middle.next_down()), h, "below the middle after {h:#06x}");
            assert_eq!(from_f32(-middle.next_up()), (h + 1) | 0x8000, "above the middle after {h:#06x}");
        }
        assert_eq!(from_f32(65519.996), 0x7bff);
        assert_eq!(from_f32(65520.0), 0x7c00);
        assert_eq!(from_f32(2f32.powi(-25)), 0, "half of the least subnormal is a tie with zero");
        assert_eq!(from_f32(2f32.powi(-25).next_up()), 1);
        assert_eq!(from_f32(f32::MIN_POSITIVE), 0);
    }
}
