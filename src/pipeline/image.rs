//! Pictures as bytes, and PNG files.

use std::path::Path;

use super::metadata::Metadata;
use super::png;
use crate::error::Result;
use crate::files;

/// An 8-bit RGB picture, rows from the top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// `height × width × 3` bytes.
    pub rgb: Vec<u8>,
}

impl Image {
    /// From decoder output `[height, width, 3]` in about -1…1: clamped and rounded.
    pub fn from_decoded(values: &[f32], width: u32, height: u32) -> Self {
        let byte = |v: &f32| ((v * 0.5 + 0.5).clamp(0.0, 1.0) * 255.0).round() as u8;
        Self { width, height, rgb: values.iter().map(byte).collect() }
    }

    /// Writes a PNG, whole or not at all, with its [`Metadata`] where given.
    ///
    /// # Errors
    /// A place that cannot be written, or a full disk.
    pub fn save_png(&self, path: &Path, metadata: Option<&Metadata>) -> Result<()> {
        files::replace(path, &self.encode_png(metadata)?)
    }

    /// As the bytes of a PNG file.
    ///
    /// # Errors
    /// More pixels than the format allows.
    pub fn encode_png(&self, metadata: Option<&Metadata>) -> Result<Vec<u8>> {
        let texts = metadata.map(Metadata::texts).transpose()?.unwrap_or_default();
        png::encode(self, &texts)
    }
}

#[cfg(test)]
mod tests {
    use super::Image;

    #[test]
    fn values_are_clamped_and_rounded() {
        let image = Image::from_decoded(&[-2.0, -1.0, 0.0, 1.0, 3.0, 0.5], 2, 1);
        assert_eq!(image.rgb, [0, 0, 128, 255, 255, 191]);
    }
}
