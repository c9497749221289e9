//! The header of a safetensors file.

use safetensors::tensor::Metadata;

use crate::error::{Error, Result};

/// The format's own limit on a header (100 MB); a larger length means the file is something else.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Reads and checks a safetensors header: where the data starts, and what it holds.
///
/// After this every tensor's range lies inside the file and the ranges do not overlap.
pub(super) fn read_header(bytes: &[u8]) -> Result<(usize, Metadata)> {
    if bytes.starts_with(b"version https://git-lfs") {
        return Err(Error::model("this is a Git LFS pointer, not the file itself")
            .with_hint("fetch the real files with git lfs pull, or download them again"));
    }
    let cut = |need: u64| {
        Error::model(format!("the file has {} bytes, its header needs {need}", bytes.len()))
            .with_hint("the download is probably incomplete: fetch the file again")
    };
    let length = bytes.first_chunk().ok_or_else(|| cut(8))?;
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES {
        return Err(Error::model(format!(
            "not a safetensors file: its header would have {length} bytes, expected at most {MAX_HEADER_BYTES}"
        )));
    }
    let start = 8 + length as usize;
    let text = bytes.get(8..start).ok_or_else(|| cut(start as u64))?;
    // Deserialising also checks that ranges follow each other without gaps and fit dtype and shape.
    let header: Metadata = serde_json::from_slice(text)
        .map_err(|e| Error::model(format!("malformed safetensors header: {e}")))?;
    match start.checked_add(header.data_len()) {
        Some(end) if end == bytes.len() => Ok((start, header)),
        Some(end) if end > bytes.len() => Err(cut(end as u64)),
        Some(end) => Err(Error::model(format!(
            "malformed safetensors file: {} bytes after the last tensor",
            bytes.len() - end
        ))),
        None => Err(Error::model("malformed safetensors header: its tensors exceed any file")),
    }
}
