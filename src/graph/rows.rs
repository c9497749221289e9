//! Rows of values as they are stored.

use crate::tensor::DType;

/// Pads rows to whole vec4s and converts; f16 values are clamped to ±65504.
pub(super) fn encode_rows(values: &[f32], channels: u32, dtype: DType) -> Vec<u8> {
    let channels = channels as usize;
    let stride = channels.next_multiple_of(4);
    let rows = values.len() / channels.max(1);
    let mut out = vec![0u8; rows * stride * dtype.bytes() as usize];
    for (row, source) in values.chunks_exact(channels.max(1)).enumerate() {
        for (c, v) in source.iter().enumerate() {
            let i = row * stride + c;
            match dtype {
                DType::F32 => out[4 * i..4 * i + 4].copy_from_slice(&v.to_le_bytes()),
                DType::F16 => {
                    let half = half::f16::from_f32(v.clamp(-65504.0, 65504.0));
                    out[2 * i..2 * i + 2].copy_from_slice(&half.to_le_bytes());
                }
            }
        }
    }
    out
}

/// The inverse of [`encode_rows`].
pub(super) fn decode_rows(bytes: &[u8], channels: u32, dtype: DType) -> Vec<f32> {
    let channels = channels as usize;
    let stride = channels.next_multiple_of(4);
    let row_bytes = stride * dtype.bytes() as usize;
    let mut out = Vec::with_capacity(bytes.len() / row_bytes.max(1) * channels);
    for row in bytes.chunks_exact(row_bytes.max(1)) {
        match dtype {
            DType::F32 => out.extend(
                row.chunks_exact(4)
                    .take(channels)
                    .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            ),
            DType::F16 => out.extend(
                row.chunks_exact(2)
                    .take(channels)
                    .map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()),
            ),
        }
    }
    out
}
