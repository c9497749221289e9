//! Files that are written whole or not at all.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

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

/// Whether two names are of the same file, which need not exist.
pub fn is_same(a: &Path, b: &Path) -> bool {
    let whole = |path: &Path| {
        fs::canonicalize(path).or_else(|_| {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let folder = fs::canonicalize(folder.unwrap_or(Path::new(".")))?;
            io::Result::Ok(folder.join(path.file_name().unwrap_or_default()))
        })
    };
    a == b || matches!((whole(a), whole(b)), (Ok(a), Ok(b)) if a == b)
}

/// Without `bytes` it only tries.
fn try_replace(path: &Path, bytes: Option<&[u8]>) -> Result<()> {
    // A link is followed: its target is replaced, not the link.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let write = |mut file: File, part: &Path| match bytes {
        None => fs::remove_file(part),
        Some(bytes) => {
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(part, &path)
        }
    };
    let written = new_beside(&path)
        .and_then(|(file, part)| write(file, &part).inspect_err(|_| _ = fs::remove_file(&part)));
    written.map_err(|e| {
        Error::io(format!("cannot write {}", path.display()), e)
            .with_hint("check that the folder has room and may be written, or choose another file")
    })
}

/// A new file in the folder of `path`, of a name that no other writer has: of this process by the number, of
/// others since it must not exist (a run that was killed may have left one).
fn new_beside(path: &Path) -> io::Result<(File, PathBuf)> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let part = path.with_file_name(format!(".scalediff-{}-{number}.part", std::process::id()));
        match File::create_new(&part) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            file => return Ok((file?, part)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_of_one_process_do_not_meet() {
        let folder = std::env::temp_dir().join(format!("scalediff-files-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        std::thread::scope(|scope| {
            for id in 0..8u8 {
                let path = folder.join(id.to_string());
                scope.spawn(move || {
                    for _ in 0..25 {
                        check_place(&path).unwrap();
                        replace(&path, &[id; 4096]).unwrap();
                        assert_eq!(fs::read(&path).unwrap(), [id; 4096]);
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 8, "leftovers");
        fs::remove_dir_all(&folder).unwrap();
    }
}
