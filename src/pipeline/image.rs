//! Pictures as bytes, and PNG files.

use std::fs;
use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};

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
        replace_file(path, Some(&bytes))
    }

    /// Finds out whether [`Image::save_png`] could write to `path`, without touching what is there.
    ///
    /// # Errors
    /// A place that cannot be written, or something there that is not a plain file.
    pub fn check_place(path: &Path) -> Result<()> {
        if path.exists() && !path.is_file() {
            return Err(Error::usage(format!("{} exists and is not a plain file", path.display()))
                .with_hint("give a file name with -o"));
        }
        replace_file(path, None)
    }
}

/// Writes a new file beside `path` and renames it there; without `bytes` it only tries.
fn replace_file(path: &Path, bytes: Option<&[u8]>) -> Result<()> {
    // A link is followed: its target is replaced, not the link.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let part = path.with_file_name(format!(".scalediff-{}.part", std::process::id()));
    let write = || -> std::io::Result<()> {
        let mut file = fs::File::create(&part)?;
        match bytes {
            None => fs::remove_file(&part),
            Some(bytes) => {
                file.write_all(bytes)?;
                file.sync_all()?;
                fs::rename(&part, &path)
            }
        }
    };
    write().map_err(|e| {
        let _ = fs::remove_file(&part);
        Error::io(format!("cannot write {}", path.display()), e)
            .with_hint("check that the folder exists and has room, or choose another file with -o")
    })
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
