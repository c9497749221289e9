//! From the size that is asked for to the size that is generated.

use crate::error::{Error, Result};

/// The largest side of a picture.
const MAX_SIDE: u32 = 16_384;
/// The most doublings.
pub const MAX_STAGES: u32 = 6;

/// Base size and number of doublings that lead to a picture of at least `width × height`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizePlan {
    /// What is asked for; the last picture is cropped to it, centred.
    pub width: u32,
    pub height: u32,
    /// Pixels of the first stage.
    pub base_width: u32,
    pub base_height: u32,
    /// Doublings after the first stage.
    pub stages: u32,
}

impl SizePlan {
    /// `native` is the side the model was trained at and `unit` what its sides are multiples of, in
    /// pixels. Without `stages` the base comes as near to the training area as doubling allows.
    ///
    /// # Errors
    /// A side of 0, or beyond 16384.
    pub fn new(
        width: u32,
        height: u32,
        native: u32,
        unit: u32,
        stages: Option<u32>,
    ) -> Result<Self> {
        if width == 0 || height == 0 || width > MAX_SIDE || height > MAX_SIDE {
            return Err(Error::usage(format!("the size {width}×{height} is out of range"))
                .with_hint(format!("sides go from 1 to {MAX_SIDE} pixels")));
        }
        let ratio = (f64::from(width) * f64::from(height)).sqrt() / f64::from(native.max(1));
        let stages = stages.unwrap_or_else(|| ratio.log2().round().max(0.0) as u32);
        if stages > MAX_STAGES {
            return Err(Error::usage(format!("{stages} stages are too many"))
                .with_hint("each stage doubles the size; 2 make 4096 of 1024"));
        }
        let base = |side: u32| side.div_ceil(unit << stages) * unit;
        Ok(Self { width, height, base_width: base(width), base_height: base(height), stages })
    }

    /// Pixels of a stage, before the crop.
    pub fn stage_size(&self, stage: u32) -> (u32, u32) {
        (self.base_width << stage, self.base_height << stage)
    }

    /// What is asked for at a stage: the last is the size itself.
    pub fn cropped_size(&self, stage: u32) -> (u32, u32) {
        let shrink = self.stages - stage;
        (self.width.div_ceil(1 << shrink), self.height.div_ceil(1 << shrink))
    }
}

#[cfg(test)]
mod tests {
    use super::SizePlan;

    #[test]
    fn doublings_lead_from_the_training_size_to_the_picture() {
        let p = SizePlan::new(4096, 4096, 1024, 8, None).unwrap();
        assert_eq!((p.base_width, p.base_height, p.stages), (1024, 1024, 2));
        let p = SizePlan::new(1000, 700, 128, 8, None).unwrap();
        assert_eq!((p.base_width, p.base_height, p.stages), (128, 88, 3));
        assert_eq!(p.stage_size(3), (1024, 704));
        assert_eq!(p.cropped_size(3), (1000, 700));
        let p = SizePlan::new(64, 64, 1024, 8, None).unwrap();
        assert_eq!((p.base_width, p.stages), (64, 0));
        assert!(SizePlan::new(0, 5, 128, 8, None).is_err());
        assert!(SizePlan::new(100_000, 5, 128, 8, None).is_err());
        assert!(SizePlan::new(512, 512, 128, 8, Some(9)).is_err());
    }

    #[test]
    fn every_size_is_covered_by_its_last_stage() {
        for side in 1..700 {
            let p = SizePlan::new(side, 701 - side, 128, 8, None).unwrap();
            let (w, h) = p.stage_size(p.stages);
            assert!(w >= p.width && h >= p.height && w - p.width < 8 << p.stages);
            assert!(p.base_width.is_multiple_of(8) && h.is_multiple_of(8));
        }
    }
}
