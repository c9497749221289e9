//! What a run makes: a picture as floats, as bytes, or on the device.

use super::image::Image;
use crate::gpu::DeviceTensor;
use crate::scalediff::StageResult;

/// A finished picture as the decoder made it, cropped to the size asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// `[height, width, 3]`, red, green, blue, rows from the top: about -1…1, neither clamped nor rounded.
    pub values: Vec<f32>,
}

impl Picture {
    /// The picture of one stage.
    pub fn of(stage: &StageResult) -> Self {
        let (x, y) = corner(stage);
        let (width, height) = stage.cropped;
        let row = |r: u32| {
            let start = ((y + r) as usize * stage.width as usize + x as usize) * 3;
            &stage.image[start..start + width as usize * 3]
        };
        Self { width, height, values: (0..height).flat_map(row).copied().collect() }
    }

    /// As 8-bit RGB: clamped and rounded.
    pub fn image(&self) -> Image {
        Image::from_decoded(&self.values, self.width, self.height)
    }
}

/// Left and top of the centred part that was asked for.
fn corner(stage: &StageResult) -> (u32, u32) {
    ((stage.width - stage.cropped.0) / 2, (stage.height - stage.cropped.1) / 2)
}

/// A finished picture in the device's memory: a rectangle of a larger one.
///
/// `tensor` holds `shape.height × shape.width` pixels, rows from the top, each a `vec4<f32>` of red, green, blue
/// (about -1…1, neither clamped nor rounded) and 0. In WGSL, with its one band bound as `array<vec4<f32>>`, the
/// pixel (x, y) of the picture is element `(top + y) * shape.width + left + x`.
#[derive(Debug, Clone)]
pub struct DevicePicture {
    /// The larger picture.
    pub tensor: DeviceTensor,
    /// First column of the picture.
    pub left: u32,
    /// First row of the picture.
    pub top: u32,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

impl DevicePicture {
    pub(super) fn of(stage: &StageResult, tensor: DeviceTensor) -> Self {
        let (left, top) = corner(stage);
        let (width, height) = stage.cropped;
        Self { tensor, left, top, width, height }
    }
}

#[cfg(test)]
mod tests {
    use super::Picture;
    use crate::scalediff::{Latents, StageResult};

    #[test]
    fn the_centre_is_cut_out() {
        let latents = Latents { height: 0, width: 0, channels: 4, values: Vec::new() };
        let image: Vec<f32> = (0u8..5 * 4).flat_map(|i| [f32::from(i); 3]).collect();
        let stage = StageResult {
            stage: 0,
            stages: 0,
            latents,
            image,
            width: 5,
            height: 4,
            cropped: (3, 2),
        };
        let want: Vec<f32> = [6., 7., 8., 11., 12., 13.].into_iter().flat_map(|i| [i; 3]).collect();
        let cut = Picture::of(&stage);
        assert_eq!((cut.width, cut.height, cut.values), (3, 2, want));
    }
}
