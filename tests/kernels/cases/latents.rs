//! The cases of steps on latents: samplers, low-passes, windows.

use scalediff::bench::call::Call::{self, *};
use scalediff::scalediff::Mask;

use super::{Case, case};

/// One or two roundings.
pub const POINT: f64 = 1e-6;
/// Sums of up to 127 products a pass, of random sign, with roots rounded once.
const FOURIER: f64 = 2e-6;

const fn masked(x: [u32; 4], mask: Mask, cutoff: f64, minus: bool, base: bool) -> Call {
    Masked { x, mask, cutoff, minus, base }
}

const fn gather(x: [u32; 4], window: [u32; 2], apart: bool, part: [u32; 2]) -> Call {
    GatherWindows { x, window, apart, part }
}

const fn average(x: [u32; 4], window: [u32; 2], apart: bool, part: [u32; 2], before: bool) -> Call {
    AverageWindows { x, window, apart, part, before }
}

pub const LATENTS: &[Case] = &[
    // Inputs and clean predictions.
    case("alone", POINT, ModelInput { x: [1, 9, 7, 4], branches: 1 }),
    case("two_branches", POINT, ModelInput { x: [1, 9, 7, 4], branches: 2 }),
    case("sixteen_channels", POINT, ModelInput { x: [2, 9, 7, 16], branches: 2 }),
    case("odd_channels", POINT, ModelInput { x: [1, 9, 7, 3], branches: 2 }),
    case("unguided", POINT, PredictX0 { x: [1, 9, 7, 4], guided: false, apart: false }),
    // Guidance takes a difference times 5.5.
    case("guided", 4e-6, PredictX0 { x: [1, 9, 7, 4], guided: true, apart: false }),
    case("guided_odd", 4e-6, PredictX0 { x: [2, 9, 7, 6], guided: true, apart: false }),
    case("guided_apart", 4e-6, PredictX0 { x: [2, 9, 7, 6], guided: true, apart: true }),
    case("euler", POINT, Lift { x: [1, 9, 7, 4], low: [1, 1], terms: [true, true, false, false] }),
    case(
        "third_term",
        POINT,
        Lift { x: [1, 9, 7, 4], low: [1, 1], terms: [true, true, true, false] },
    ),
    case(
        "low_pass",
        3e-6,
        Lift { x: [2, 16, 24, 4], low: [2, 3], terms: [false, false, false, true] },
    ),
    case(
        "mixing",
        3e-6,
        Lift { x: [1, 32, 40, 4], low: [4, 5], terms: [true, false, false, true] },
    ),
    case(
        "euler_guided_odd",
        3e-6,
        Lift { x: [2, 19, 23, 6], low: [4, 5], terms: [true, true, false, true] },
    ),
    case(
        "all_terms_odd",
        3e-6,
        Lift { x: [2, 19, 23, 6], low: [4, 5], terms: [true, true, true, true] },
    ),
    case(
        "low_of_one_pixel",
        3e-6,
        Lift { x: [1, 9, 7, 3], low: [1, 1], terms: [true, true, false, true] },
    ),
    case(
        "low_of_full_size",
        3e-6,
        Lift { x: [1, 9, 7, 4], low: [9, 7], terms: [false, true, false, true] },
    ),
    case(
        "many_rows",
        3e-6,
        Lift { x: [1, 80, 70, 4], low: [10, 8], terms: [true, true, false, true] },
    ),
    // Weights are f32 roundings of f64 ones: a few ulp of sums of up to 16 × 16 taps.
    case("bicubic_doubling", 2e-6, Bicubic { x: [1, 16, 12, 4], out: [32, 24] }),
    case("bicubic_odd", 2e-6, Bicubic { x: [2, 9, 7, 3], out: [20, 11] }),
    case("bicubic_from_one_pixel", 2e-6, Bicubic { x: [1, 1, 2, 6], out: [2, 4] }),
    case("bicubic_many_rows", 2e-6, Bicubic { x: [1, 40, 35, 4], out: [80, 70] }),
    case(
        "reduce_by_8",
        2e-6,
        Reduce { x: [1, 32, 48, 4], factor: 0.125, minus: false, base: false },
    ),
    case(
        "reduce_by_4_minus",
        2e-6,
        Reduce { x: [2, 32, 20, 4], factor: 0.25, minus: true, base: false },
    ),
    case(
        "reduce_odd_base",
        2e-6,
        Reduce { x: [2, 19, 23, 6], factor: 0.25, minus: false, base: true },
    ),
    case(
        "reduce_to_one_pixel",
        2e-6,
        Reduce { x: [1, 5, 7, 3], factor: 0.125, minus: false, base: true },
    ),
    case(
        "reduce_many_rows",
        2e-6,
        Reduce { x: [1, 120, 104, 4], factor: 0.5, minus: true, base: true },
    ),
    // Transforms: a radix alone, squares of one, primes, odd sides, lines of one value, many items.
    case("one_value", FOURIER, Fft { x: [1, 1, 1, 2], inverse: false }),
    case("row", FOURIER, Fft { x: [1, 1, 1000, 2], inverse: false }),
    case("column", FOURIER, Fft { x: [1, 77, 1, 4], inverse: true }),
    case("side_6", FOURIER, Fft { x: [2, 6, 6, 4], inverse: false }),
    case("side_34", FOURIER, Fft { x: [1, 34, 34, 4], inverse: false }),
    case("side_104", FOURIER, Fft { x: [1, 104, 104, 2], inverse: true }),
    case("sides_254_130", FOURIER, Fft { x: [1, 254, 130, 2], inverse: false }),
    case("side_127", FOURIER, Fft { x: [1, 3, 127, 6], inverse: true }),
    case("odd_sides", FOURIER, Fft { x: [2, 35, 27, 16], inverse: false }),
    case("eight_wide", FOURIER, Fft { x: [1, 512, 8, 4], inverse: false }),
    case("many_items", FOURIER, Fft { x: [9, 32, 24, 4], inverse: true }),
    case("ideal", FOURIER, masked([1, 32, 48, 4], Mask::Ideal, 0.0625, false, false)),
    case("gaussian", FOURIER, masked([2, 34, 26, 4], Mask::Gaussian, 0.1, true, false)),
    case("butterworth", FOURIER, masked([1, 20, 26, 16], Mask::Butterworth, 0.0625, false, true)),
    case("three_channels", FOURIER, masked([2, 15, 22, 3], Mask::Gaussian, 0.05, true, true)),
    case("one_channel", FOURIER, masked([1, 9, 7, 1], Mask::Ideal, 0.2, false, false)),
    case("five_channels", FOURIER, masked([1, 8, 6, 5], Mask::Butterworth, 0.3, true, true)),
    case("one_pixel", FOURIER, masked([1, 1, 1, 4], Mask::Ideal, 0.1, true, true)),
    case("one_line", FOURIER, masked([1, 1, 38, 4], Mask::Gaussian, 0.1, true, true)),
    case("items_masked", FOURIER, masked([7, 40, 36, 4], Mask::Butterworth, 0.1, true, true)),
    // Windows: copies keep every bit; averages of up to nine values.
    case("doubled", POINT, gather([2, 16, 16, 4], [8, 8], false, [0, 9])),
    case("of_a_group", POINT, gather([2, 32, 48, 4], [8, 8], false, [30, 41])),
    case("clamped_odd", POINT, gather([1, 19, 23, 6], [9, 5], false, [2, 19])),
    case("apart_odd", POINT, gather([2, 19, 23, 6], [9, 5], true, [3, 11])),
    case("apart_odd", POINT, average([2, 19, 23, 6], [9, 5], true, [3, 11], true)),
    case("of_one_pixel", POINT, gather([1, 5, 3, 3], [1, 1], false, [0, 15])),
    case("whole_picture", POINT, gather([2, 9, 7, 4], [9, 7], false, [0, 1])),
    case("many_rows", POINT, gather([1, 48, 48, 4], [8, 8], false, [5, 110])),
    case("doubled", POINT, average([2, 16, 16, 4], [8, 8], false, [0, 9], false)),
    case("of_a_group", POINT, average([2, 32, 48, 4], [8, 8], false, [30, 41], true)),
    case("clamped_odd", POINT, average([1, 19, 23, 6], [9, 5], false, [2, 19], true)),
    case("of_one_pixel", POINT, average([1, 5, 3, 3], [1, 1], false, [0, 15], false)),
    case("whole_picture", POINT, average([2, 9, 7, 4], [9, 7], false, [0, 1], false)),
    case("many_rows", POINT, average([1, 80, 64, 4], [8, 8], false, [3, 40], true)),
];
