//! Which tiles are fastest on a device: measured once by `scalediff tune`, and kept in a file.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::caps::DeviceClass;
use super::device::AdapterFacts;
use crate::error::{Error, Result};
use crate::files;
use crate::shader;

/// The numbers of a tile as its engine reads them, the unused ones zero.
pub type Tile = [u8; 5];

/// Kinds of work that may take different tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TileKind {
    /// Matrix products of at least [`TileKind::LARGE`] outputs.
    Matmul,
    /// Smaller ones.
    MatmulSmall,
    /// Convolutions of at least [`TileKind::LARGE`] outputs.
    Conv2d,
    /// Smaller ones.
    Conv2dSmall,
    /// Attention with heads of at most 64 channels.
    Attention,
    /// Attention with heads of 65 to 128 channels; wider ones have one tile.
    AttentionWide,
}

impl TileKind {
    /// All of them, smaller ones before larger ones.
    pub const ALL: [TileKind; 6] = [
        TileKind::MatmulSmall,
        TileKind::Matmul,
        TileKind::Conv2dSmall,
        TileKind::Conv2d,
        TileKind::Attention,
        TileKind::AttentionWide,
    ];

    /// The kind of the same products with fewer outputs.
    pub fn smaller(self) -> Option<TileKind> {
        match self {
            TileKind::Matmul => Some(TileKind::MatmulSmall),
            TileKind::Conv2d => Some(TileKind::Conv2dSmall),
            _ => None,
        }
    }

    /// Outputs from which on a product fills any GPU whatever its tile.
    pub const LARGE: u64 = 4 << 20;
}

impl fmt::Display for TileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TileKind::MatmulSmall => "small products",
            TileKind::Matmul => "products",
            TileKind::Conv2dSmall => "small convolutions",
            TileKind::Conv2d => "convolutions",
            TileKind::Attention => "attention",
            TileKind::AttentionWide => "attention with wide heads",
        })
    }
}

/// The tile for each kind of work, where one was measured; elsewhere the kernels choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tiles([Option<Tile>; TileKind::ALL.len()]);

impl Tiles {
    /// The kernels choose all.
    pub const NONE: Tiles = Tiles([None; TileKind::ALL.len()]);

    /// The tile for one kind of work.
    pub fn get(&self, kind: TileKind) -> Option<Tile> {
        self.0[kind as usize]
    }

    /// The same but for one kind of work.
    #[must_use]
    pub fn with(mut self, kind: TileKind, tile: Option<Tile>) -> Self {
        self.0[kind as usize] = tile;
        self
    }
}

/// A file of measured tiles, for any number of devices.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Tuning {
    devices: Vec<Tuned>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Tuned {
    /// Name, backend, driver, tier, and whose kernels run.
    device: String,
    /// [`shader::fingerprint`] of the shaders that were measured.
    shaders: String,
    tiles: BTreeMap<TileKind, Tile>,
}

impl Tuned {
    fn is_for(&self, device: &str) -> bool {
        self.device == device && self.shaders == shader::fingerprint()
    }
}

fn key(facts: &AdapterFacts) -> String {
    let tier = facts.caps.tiers().last().map_or_else(String::new, ToString::to_string);
    let kernels = if facts.caps.class == DeviceClass::Cpu { "processors" } else { "GPUs" };
    let AdapterFacts { name, backend, driver, .. } = facts;
    format!("{name} ({backend}, {driver}), tier {tier}, kernels of {kernels}")
}

impl Tuning {
    /// Reads a file that [`Tuning::write`] wrote.
    ///
    /// # Errors
    /// A file that cannot be read, or is no such file.
    pub fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let text = std::fs::read(path)
            .map_err(|e| Error::io(format!("cannot read the tuning file {shown}"), e))?;
        serde_json::from_slice(&text).map_err(|e| {
            Error::usage(format!("{shown} is no tuning file"))
                .with_source(e)
                .with_hint("delete it, and measure again with: scalediff tune")
        })
    }

    /// Writes the file whole.
    ///
    /// # Errors
    /// As [`files::replace`].
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|e| Error::internal("a tuning file").with_source(e))?;
        files::replace(path, &text)
    }

    /// The tiles measured on this device with the shaders of this program.
    pub fn tiles(&self, facts: &AdapterFacts) -> Tiles {
        let device = key(facts);
        let found = self.devices.iter().find(|t| t.is_for(&device));
        found.map_or(Tiles::NONE, |t| {
            t.tiles.iter().fold(Tiles::NONE, |all, (kind, tile)| all.with(*kind, Some(*tile)))
        })
    }

    /// Puts `tiles` in place of what was known of this device, under any shaders.
    pub fn set(&mut self, facts: &AdapterFacts, tiles: Tiles) {
        let device = key(facts);
        self.devices.retain(|t| t.device != device);
        let measured = TileKind::ALL.into_iter().filter_map(|k| tiles.get(k).map(|t| (k, t)));
        self.devices.push(Tuned {
            device,
            shaders: shader::fingerprint(),
            tiles: measured.collect(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::Caps;
    use super::*;

    fn facts(driver: &str) -> AdapterFacts {
        let (name, backend) = ("a GPU".into(), "Vulkan".into());
        AdapterFacts { name, backend, driver: driver.into(), caps: Caps::FLOOR }
    }

    #[test]
    fn a_file_holds_the_tiles_of_each_device_and_driver() {
        let folder = std::env::temp_dir().join(format!("scalediff-tuning-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("tuning.json");
        let tiles = Tiles::NONE.with(TileKind::Conv2d, Some([2, 4, 4, 2, 8]));
        let mut tuning = Tuning::default();
        tuning.set(&facts("1"), Tiles::NONE.with(TileKind::Matmul, Some([1; 5])));
        tuning.set(&facts("1"), tiles);
        tuning.set(&facts("2"), Tiles::NONE);
        tuning.write(&path).unwrap();
        let read = Tuning::read(&path).unwrap();
        assert_eq!(read.devices.len(), 2);
        assert_eq!((read.tiles(&facts("1")), read.tiles(&facts("3"))), (tiles, Tiles::NONE));
        std::fs::write(&path, "{\"devices\": 3}").unwrap();
        let error = Tuning::read(&path).unwrap_err();
        assert!(error.to_string().contains("no tuning file"), "{error}");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn tiles_of_other_shaders_do_not_count() {
        let mut tuning = Tuning::default();
        tuning.set(&facts("1"), Tiles::NONE.with(TileKind::Matmul, Some([1; 5])));
        tuning.devices[0].shaders = "0".into();
        assert_eq!(tuning.tiles(&facts("1")), Tiles::NONE);
    }
}
