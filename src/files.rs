//! Files that are written whole or not at all.

use std::fs;
use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};

/// Writes a file whole or not at all: to a new file beside `path`, which is then renamed.
///
/// # Errors
/// A place that cannot be written, or a full disk; what was at `path` is then still there.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    try_replace(path, Some(bytes))
}

/// Finds out whether [`replace`] could write to `path`, without touching what is there.
///
/// # Errors
/// A place that cannot be written, or something there that is not a plain file.
pub fn check_place(path: &Path) -> Result<()> {
    let shown = path.display();
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return Err(Error::usage(format!("the folder {} does not exist", folder.display()))
            .with_hint("create it, or choose another file"));
    }
    if path.is_dir() || path.file_name().is_none() {
        return Err(Error::usage(format!("{shown} is a folder")).with_hint("give a file name"));
    }
    if path.exists() && !path.is_file() {
        return Err(Error::usage(format!("{shown} exists and is not a plain file"))
            .with_hint("give another file name"));
    }
    try_replace(path, None)
}

/// Without `bytes` it only tries.
fn try_replace(path: &Path, bytes: Option<&[u8]>) -> Result<()> {
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
            .with_hint("check that the folder has room and may be written, or choose another file")
    })
}
