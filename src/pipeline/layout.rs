//! Channels last, as the engine keeps values, and channels first, as files and torch do.

/// `[channels, pixels]` to `[pixels, channels]`.
pub fn channels_last(planes: &[f32], channels: usize) -> Vec<f32> {
    let pixels = planes.len() / channels.max(1);
    (0..pixels).flat_map(|p| (0..channels).map(move |c| planes[c * pixels + p])).collect()
}

/// `[pixels, channels]` to `[channels, pixels]`.
pub fn channels_first(rows: &[f32], channels: usize) -> Vec<f32> {
    let pixels = rows.len() / channels.max(1);
    (0..channels).flat_map(|c| (0..pixels).map(move |p| rows[p * channels + c])).collect()
}
