//! The WGSL files: compiled in, or read from a folder by those who write kernels. A test holds the list equal to the folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};

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
    "lib/act.wgsl",
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
    "lib/silu.wgsl",
    "lib/softmax.wgsl",
    "lib/table/none.wgsl",
    "lib/table/turn.wgsl",
    "lib/text/joint.wgsl",
    "lib/text/none.wgsl",
    "lib/text/turned.wgsl",
    "lib/text/windowed.wgsl",
    "lib/texels.wgsl",
    "lib/turn.wgsl",
    "lib/welford.wgsl",
    "lib/windows.wgsl",
    "norm/group_norm_fused.wgsl",
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

/// Where kernels are composed from: the files that are compiled in, unless a folder has its own.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    own: Arc<BTreeMap<String, String>>,
}

impl Sources {
    /// The files below `folder`, which is laid out as `shaders/` is, in place of those compiled in. It may hold a part of them.
    ///
    /// # Errors
    /// A folder that cannot be read, or that holds no file of any kernel.
    pub fn with_folder(folder: &Path) -> Result<Self> {
        let mut own = BTreeMap::new();
        let mut folders = vec![folder.to_path_buf()];
        while let Some(inner) = folders.pop() {
            let unreadable = |e| Error::io(format!("cannot read {}", inner.display()), e);
            for entry in fs::read_dir(&inner).map_err(unreadable)? {
                let entry = entry.map_err(unreadable)?;
                let path = entry.path();
                if entry.file_type().map_err(unreadable)?.is_dir() {
                    folders.push(path);
                } else if let (Some("wgsl"), Ok(name)) =
                    (path.extension().and_then(|e| e.to_str()), path.strip_prefix(folder))
                {
                    let text = fs::read_to_string(&path)
                        .map_err(|e| Error::io(format!("cannot read {}", path.display()), e))?;
                    own.insert(name.to_string_lossy().replace('\\', "/"), text);
                }
            }
        }
        if !own.keys().any(|path| embedded(path).is_some()) {
            return Err(Error::usage(format!("{} holds no shader", folder.display()))
                .with_hint("name a copy of the shaders folder, or one with files in the same places, as gemm/matmul.wgsl"));
        }
        Ok(Self { own: Arc::new(own) })
    }

    /// The text of one file below `shaders/`.
    pub fn get(&self, path: &str) -> Option<&str> {
        self.own.get(path).map(String::as_str).or_else(|| embedded(path))
    }
}

fn embedded(path: &str) -> Option<&'static str> {
    SOURCES.iter().find(|(p, _)| *p == path).map(|(_, text)| *text)
}

/// A number that changes with any shader that is compiled in, in hexadecimal: FNV-1a, 64 bits, of all paths and texts.
pub fn fingerprint() -> String {
    let bytes = SOURCES.iter().flat_map(|(path, text)| path.bytes().chain(text.bytes()));
    let hash = bytes
        .fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_replaces_what_it_holds() {
        let folder = std::env::temp_dir().join(format!("scalediff-sources-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        assert!(Sources::with_folder(&folder).is_err(), "no folder");
        fs::create_dir_all(folder.join("gemm")).unwrap();
        fs::write(folder.join("gemm/notes.txt"), "").unwrap();
        assert!(Sources::with_folder(&folder).is_err(), "no shader in it");
        fs::write(folder.join("gemm/matmul.wgsl"), "// mine").unwrap();
        let sources = Sources::with_folder(&folder).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(sources.get("gemm/matmul.wgsl"), Some("// mine"));
        assert_eq!(sources.get("conv/conv2d.wgsl"), Sources::default().get("conv/conv2d.wgsl"));
        assert_eq!(sources.get("gemm/other.wgsl"), None);
    }
}
