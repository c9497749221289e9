//! `scalediff metadata`.

use super::args::MetadataArgs;
use crate::error::{Error, Result};
use crate::pipeline::png;

/// Prints every text of a PNG file under its keyword.
pub fn run(args: &MetadataArgs) -> Result<()> {
    let texts = png::read_texts(&args.file)?;
    if texts.is_empty() {
        return Err(Error::model(format!("{} holds no text", args.file.display()))
            .with_hint("programs that edit or send pictures often remove it"));
    }
    for (keyword, text) in texts {
        outln!("[{}]\n{}\n", shown(&keyword), shown(&text));
    }
    Ok(())
}

/// Without characters that steer terminals.
fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}
