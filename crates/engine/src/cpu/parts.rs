//! Stretches of columns: their order, and their norms.

use modelembed_pool::Blocks;
use modelembed_spec::{Norm, Register, Regroup, ScanShape};

use super::norm::BoundNorm;
use super::scratch::Scratch;
use super::{GRAIN_COLS, Pass};

impl Pass<'_> {
    /// Brings what stands group by group in the scan register into the order of its shape.
    pub(super) fn regroup(&mut self, step: &Regroup) {
        let (model, n, stride) = (self.model, self.n, step.shape.column_len());
        let Scratch { registers, workers, .. } = &mut *self.s;
        let workers = &*workers;
        let out = Blocks { data: &mut registers[Register::Scan as usize][..n * stride], block: stride };
        model.pool().run(n, GRAIN_COLS, out, |_, columns, worker| {
            let packed = &mut workers.get(worker).vector[..stride];
            for column in columns.chunks_exact_mut(stride) {
                packed.copy_from_slice(column);
                unpack(step, packed, column);
            }
        });
    }

    /// Norms the stretches of a register's columns, one behind the other.
    pub(super) fn norm_parts(&mut self, of: Register, parts: &[(usize, Norm)]) {
        let (model, n, kernels) = (self.model, self.n, self.model.kernels());
        let len: usize = parts.iter().map(|(len, _)| len).sum();
        let Scratch { registers, workers, .. } = &mut *self.s;
        let workers = &*workers;
        let out = Blocks { data: &mut registers[of as usize][..n * len], block: len };
        model.pool().run(n, GRAIN_COLS, out, |_, columns, worker| {
            let vector = &mut workers.get(worker).vector[..];
            for column in columns.chunks_exact_mut(len) {
                let mut rest = column;
                for (len, norm) in parts {
                    let (part, behind) = rest.split_at_mut(*len);
                    let normed = &mut vector[..*len];
                    BoundNorm::new(model, norm).apply(kernels, part, normed);
                    part.copy_from_slice(normed);
                    rest = behind;
                }
            }
        });
    }
}

/// One column in the order of its shape.
fn unpack(step: &Regroup, packed: &[f32], column: &mut [f32]) {
    let shape = &step.shape;
    let ScanShape { heads, groups, key_dim, value_dim, .. } = *shape;
    let (per_group, steps_at) = (heads / groups, shape.steps_at());
    for group in 0..groups {
        let numbers = &packed[steps_at + 2 * group * per_group..][..2 * per_group];
        let (strengths, steps) = numbers.split_at(per_group);
        let first = steps_at + group * per_group;
        column[first..][..per_group].copy_from_slice(steps);
        column[first + heads..][..per_group].copy_from_slice(strengths);
        if step.is_all {
            let (values, conv) = (per_group * value_dim, shape.inner_len());
            let from = &packed[group * 2 * (key_dim + values)..][..2 * (key_dim + values)];
            let places = [
                (conv + shape.queries_at() + group * key_dim, key_dim),
                (conv + shape.keys_at() + group * key_dim, key_dim),
                (conv + shape.values_at() + group * values, values),
                (group * values, values),
            ];
            let mut rest = from;
            for (at, len) in places {
                let (part, behind) = rest.split_at(len);
                column[at..at + len].copy_from_slice(part);
                rest = behind;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use modelembed_spec::ScanRule;

    use super::*;

    #[test]
    fn a_column_in_groups_gets_the_order_of_its_shape() {
        let shape = ScanShape { rule: ScanRule::Delta, heads: 4, groups: 2, key_dim: 1, value_dim: 1, is_tiled: false };
        // Of each group a query, a key, two values and two gates; then two strengths and two steps.
        let of_group = |first: f32| (0..6).map(move |i| first + i as f32);
        let packed: Vec<f32> = of_group(10.0).chain(of_group(20.0)).chain((0..8).map(|i| i as f32)).collect();
        let mut column = packed.clone();
        unpack(&Regroup { shape, is_all: true }, &packed, &mut column);
        let gates = [14.0, 15.0, 24.0, 25.0];
        let conv = [10.0, 20.0, 11.0, 21.0, 12.0, 13.0, 22.0, 23.0];
        let (steps, strengths) = ([2.0, 3.0, 6.0, 7.0], [0.0, 1.0, 4.0, 5.0]);
        assert_eq!(column, [&gates[..], &conv, &steps, &strengths].concat());
        let mut column = packed.clone();
        unpack(&Regroup { shape, is_all: false }, &packed, &mut column);
        assert_eq!(column, [&packed[..12], &steps, &strengths].concat());
    }
}
