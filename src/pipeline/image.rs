//! Pictures as bytes, and PNG files.

use std::fs;
use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};

/// An 8-bit RGB picture, rows from the top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    pub width: u32,
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

    /// The centre, no larger than `width × height`.
    #[must_use]
    pub fn centred(&self, width: u32, height: u32) -> Self {
        let (width, height) = (width.min(self.width), height.min(self.height));
        let (x, y) = ((self.width - width) / 2, (self.height - height) / 2);
        let row = |r: u32| {
            let start = ((y + r) * self.width + x) as usize * 3;
            &self.rgb[start..start + width as usize * 3]
        };
        Self { width, height, rgb: (0..height).flat_map(row).copied().collect() }
    }

    /// Writes a PNG, whole or not at all: to a file beside `path`, then renamed.
    pub fn save_png(&self, path: &Path) -> Result<()> {
        let mut bytes = Vec::new();
        let encoder = image::codecs::png::PngEncoder::new(&mut bytes);
        image::ImageEncoder::write_image(
            encoder,
            &self.rgb,
            self.width,
            self.height,
            image::ExtendedColorType::Rgb8,
        )
        .map_err(|e| Error::internal("the picture cannot be encoded as PNG").with_source(e))?;

        let failed = |e| {
            Error::io(format!("cannot write {}", path.display()), e).with_hint(
                "check that the folder exists and has room, or choose another file with -o",
            )
        };
        let name = path.file_name().ok_or_else(|| {
            Error::usage(format!("{} names no file", path.display()))
                .with_hint("give a file name with -o")
        })?;
        let mut part = name.to_os_string();
        part.push(format!(".{}.part", std::process::id()));
        let part = path.with_file_name(part);
        let write = || -> std::io::Result<()> {
            let mut file = fs::File::create(&part)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&part, path)
        };
        write().map_err(|e| {
            let _ = fs::remove_file(&part);
            failed(e)
        })
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

    #[test]
    fn the_centre_is_cut_out() {
        let rgb: Vec<u8> = (0..5 * 4).flat_map(|i| [i; 3]).collect();
        let cut = Image { width: 5, height: 4, rgb }.centred(3, 2);
        let want: Vec<u8> = [6, 7, 8, 11, 12, 13].into_iter().flat_map(|i| [i; 3]).collect();
        assert_eq!((cut.width, cut.height, cut.rgb), (3, 2, want));
    }
}
