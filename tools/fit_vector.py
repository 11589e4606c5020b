#!/usr/bin/env python3
"""Prints the polynomial coefficients of crates/kernels/src/vector/exp.rs (needs numpy).

Remez exchange for exp(r) = 1 + r + r^2 * q(r) on |r| <= ln 2 / 2, and tanh(y) = y + y^3 * p(y^2) on |y| <= 0.625, both for the
least maximum relative error.
"""
import numpy as np


def remez(f, weight, a, b, degree, rounds=50):
    """Coefficients (lowest first) of the polynomial p that minimises max |weight * (p - f)| on a..b, and that maximum."""
    k = np.arange(degree + 2)
    x = ((a + b) / 2 + (b - a) / 2 * np.cos(np.pi * k / (degree + 1)))[::-1]
    grid = np.linspace(a, b, 200001)
    for _ in range(rounds):
        system = np.hstack([np.vander(x, degree + 1, increasing=True), ((-1.0) ** k / weight(x))[:, None]])
        c = np.linalg.solve(system, f(x))[:-1]
        error = weight(grid) * (np.polyval(c[::-1], grid) - f(grid))
        cuts = np.concatenate([[0], np.flatnonzero(np.diff(np.sign(error))) + 1, [len(grid)]])
        peaks = [lo + np.argmax(abs(error[lo:hi])) for lo, hi in zip(cuts[:-1], cuts[1:])]
        if len(peaks) != degree + 2:
            break
        x = grid[peaks]
    return c, abs(error).max()


def exp_rest(r):
    """(exp(r) - 1 - r) / r^2, by its series near zero."""
    r = np.asarray(r, dtype=np.longdouble)
    near = abs(r) < 1e-2
    series = sum(r**n / np.prod(np.arange(1, n + 3), dtype=np.longdouble) for n in range(6))
    return np.where(near, series, (np.expm1(r) - r) / np.where(near, 1, r * r)).astype(float)


def tanh_rest(z):
    """(tanh(y) - y) / y^3 in z = y^2, by its series near zero."""
    z = np.asarray(z, dtype=np.longdouble)
    y, near = np.sqrt(z), z < 1e-3
    series = -np.longdouble(1) / 3 + z * 2 / 15 - z**2 * 17 / 315 + z**3 * 62 / 2835 - z**4 * 1382 / 155925
    return np.where(near, series, (np.tanh(y) - y) / np.where(near, 1, y * z)).astype(float)


half = np.log(2) / 2 * 1.0001
fits = {
    "exp": remez(exp_rest, lambda r: r * r * np.exp(-r), -half, half, 4),
    "tanh": remez(tanh_rest, lambda z: z * np.sqrt(z) / np.tanh(np.sqrt(z)), 1e-9, 0.625**2, 4),
}
for name, (coefficients, error) in fits.items():
    print(name, [float(np.float32(c)) for c in coefficients], f"relative error {error:.2g}")
