//! The WGSL files, compiled in. A test holds this list equal to the folder.

macro_rules! sources {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../../shaders/", $path)))),*]
    };
}

/// Every file below `shaders/`, as (path, text).
pub const SOURCES: &[(&str, &str)] = sources![
    "attention/flash.wgsl",
    "attention/rotary.wgsl",
    "attention/window_mean.wgsl",
    "bench/coop_peak.wgsl",
    "bench/copy.wgsl",
    "bench/fma_peak.wgsl",
    "check/matrix_units.wgsl",
    "conv/conv2d.wgsl",
    "fft/fft.wgsl",
    "gemm/matmul.wgsl",
    "lib/affine/modulation.wgsl",
    "lib/affine/weight.wgsl",
    "lib/affine/weight_bias.wgsl",
    "lib/attend/columns.wgsl",
    "lib/attend/coop.wgsl",
    "lib/attend/coop_wide.wgsl",
    "lib/attend/lanes.wgsl",
    "lib/attend/tile.wgsl",
    "lib/attend/wide.wgsl",
    "lib/bias/none.wgsl",
    "lib/bias/relative.wgsl",
    "lib/carry/first.wgsl",
    "lib/carry/last.wgsl",
    "lib/carry/middle.wgsl",
    "lib/carry/none.wgsl",
    "lib/cells/scalar.wgsl",
    "lib/cells/vec4.wgsl",
    "lib/elem/f16.wgsl",
    "lib/elem/f32.wgsl",
    "lib/elem/octets.wgsl",
    "lib/elem/texels.wgsl",
    "lib/elem/texels_wide.wgsl",
    "lib/elem/packed.wgsl",
    "lib/elem/pairs.wgsl",
    "lib/elem/wide.wgsl",
    "lib/elem/words.wgsl",
    "lib/epilogue.wgsl",
    "lib/grid.wgsl",
    "lib/half.wgsl",
    "lib/half_range.wgsl",
    "lib/join.wgsl",
    "lib/mma/coop.wgsl",
    "lib/mma/direct.wgsl",
    "lib/mma/lanes.wgsl",
    "lib/mma/tile.wgsl",
    "lib/operand_octets.wgsl",
    "lib/operand_pairs.wgsl",
    "lib/operands.wgsl",
    "lib/probabilities.wgsl",
    "lib/quotient.wgsl",
    "lib/reduce/lanes.wgsl",
    "lib/reduce/serial.wgsl",
    "lib/reduce/shared.wgsl",
    "lib/reduce/subgroup.wgsl",
    "lib/side/16.wgsl",
    "lib/side/8.wgsl",
    "lib/softmax.wgsl",
    "lib/table/none.wgsl",
    "lib/table/turn.wgsl",
    "lib/text/joint.wgsl",
    "lib/text/none.wgsl",
    "lib/text/turned.wgsl",
    "lib/text/windowed.wgsl",
    "lib/texels.wgsl",
    "lib/turn.wgsl",
    "lib/windows.wgsl",
    "norm/group_norm_stats.wgsl",
    "norm/group_norm_merge.wgsl",
    "norm/group_norm_apply.wgsl",
    "norm/layer_norm.wgsl",
    "point/silu.wgsl",
    "latent/average_windows.wgsl",
    "latent/gather_windows.wgsl",
    "latent/lift.wgsl",
    "latent/model_input.wgsl",
    "latent/patchify.wgsl",
    "latent/predict_x0.wgsl",
    "latent/resample.wgsl",
];

/// The text of one file below `shaders/`.
pub fn source(path: &str) -> Option<&'static str> {
    SOURCES.iter().find(|(p, _)| *p == path).map(|(_, text)| *text)
}

/// A number that changes with any shader, in hexadecimal: FNV-1a, 64 bits, of all paths and texts.
pub fn fingerprint() -> String {
    let bytes = SOURCES.iter().flat_map(|(path, text)| path.bytes().chain(text.bytes()));
    let hash = bytes
        .fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}
