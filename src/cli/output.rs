//! Names of the files that are written.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files;

/// One name per picture, or per other file of one: `a.png` for one, `a-001.png`, `a-002.png` … for more. A `%d` or `%03d` in the
/// name is where the number goes, for one picture too.
pub fn names(output: &Path, count: u32) -> Vec<PathBuf> {
    let name = output.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    if let Some((before, width, after)) = pattern(&name) {
        let numbered = |i| output.with_file_name(format!("{before}{i:0width$}{after}"));
        return (1..=count).map(numbered).collect();
    }
    match count {
        1 => vec![output.to_path_buf()],
        _ => (1..=count).map(|i| with_suffix(output, &format!("-{i:03}"))).collect(),
    }
}

/// `picture.png` to `picture-stage0.png`.
pub fn stage_name(output: &Path, stage: u32) -> PathBuf {
    with_suffix(output, &format!("-stage{stage}"))
}

fn with_suffix(output: &Path, suffix: &str) -> PathBuf {
    let stem = output.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned());
    let extension = output.extension().map_or("png".into(), |e| e.to_string_lossy());
    output.with_file_name(format!("{stem}{suffix}.{extension}"))
}

/// What stands before a `%d` or `%03d`, how many digits it asks for (at most 9), and what stands after it.
fn pattern(name: &str) -> Option<(&str, usize, &str)> {
    name.match_indices('%').find_map(|(at, _)| {
        let digits = name[at + 1..].find(|c: char| !c.is_ascii_digit())?;
        let after = name[at + 1 + digits..].strip_prefix('d')?;
        let width = match &name[at + 1..at + 1 + digits] {
            "" => 1,
            digits => digits.parse().ok().filter(|width| *width <= 9)?,
        };
        Some((&name[..at], width, after))
    })
}

/// Refuses a place that cannot be written before the work, not after it.
pub fn check(output: &Path) -> Result<()> {
    if output.extension().is_some_and(|e| !e.eq_ignore_ascii_case("png")) {
        return Err(Error::usage(format!("{}: only PNG can be written", output.display()))
            .with_hint("give a name that ends in .png"));
    }
    files::check_place(output)
}

#[cfg(test)]
mod tests {
    use super::{names, stage_name};
    use std::path::Path;

    fn shown(output: &str, count: u32) -> Vec<String> {
        names(Path::new(output), count).iter().map(|p| p.display().to_string()).collect()
    }

    #[test]
    fn many_pictures_are_numbered() {
        assert_eq!(shown("a/b.png", 1), ["a/b.png"]);
        assert_eq!(shown("a/b.png", 2), ["a/b-001.png", "a/b-002.png"]);
        assert_eq!(shown("a/%02d-b.png", 2), ["a/01-b.png", "a/02-b.png"]);
        assert_eq!(shown("a.safetensors", 2), ["a-001.safetensors", "a-002.safetensors"]);
        assert_eq!(shown("%d.png", 1), ["1.png"]);
        assert_eq!(shown("100%.png", 1), ["100%.png"]);
        assert_eq!(shown("%99999999999d.png", 1), ["%99999999999d.png"]);
        assert_eq!(stage_name(Path::new("a/b.png"), 2), Path::new("a/b-stage2.png"));
    }
}
