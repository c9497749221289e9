//! SentencePiece's character map: the normaliser that a model carries as bytes.
//!
//! The bytes are a size (u32), a double-array trie of that many bytes (u32 units, each a byte's state) and the
//! replacements, ended by NUL. The reader in the `tokenizers` crate follows its links unchecked, so they are all
//! checked here, once.

use tokenizers::normalizers::precompiled::Precompiled;

use crate::error::{Error, Result};

/// The normaliser of a character map.
///
/// # Errors
/// When the trie is cut short, a link leads out of it, or a replacement lies outside the text or inside a character.
pub(super) fn normalizer(charsmap: &[u8]) -> Result<Precompiled> {
    check(charsmap).ok_or_else(|| {
        Error::model("the precompiled character map is broken: an offset leads out")
    })?;
    Precompiled::from(charsmap).map_err(|e| Error::model(format!("{e}")))
}

fn check(charsmap: &[u8]) -> Option<()> {
    let (size, rest) = charsmap.split_first_chunk::<4>()?;
    let size = usize::try_from(u32::from_le_bytes(*size)).ok()?;
    let (trie, texts) = rest.split_at_checked(size / 4 * 4)?;
    let texts = std::str::from_utf8(texts).ok()?;
    let words = trie.chunks_exact(4).map(|word| word.try_into().unwrap_or_default());
    let units: Vec<u32> = words.map(u32::from_le_bytes).collect();

    let offset = |unit: u32| ((unit >> 10) as usize) << ((unit & (1 << 9)) >> 6);
    let mut seen = vec![false; units.len()];
    let mut states = vec![offset(*units.first()?)];
    while let Some(state) = states.pop() {
        // Any byte may come next, so all 256 neighbours of a state must exist.
        if state | 0xff >= units.len() {
            return None;
        }
        if std::mem::replace(&mut seen[state], true) {
            continue;
        }
        for byte in 1..=0xff {
            let at = state ^ byte;
            let unit = units[at];
            if (unit & (1 << 31 | 0xff)) as usize != byte {
                continue;
            }
            let next = at ^ offset(unit);
            let is_leaf = unit >> 8 & 1 == 1;
            let text = || units.get(next).map(|value| (value & !(1 << 31)) as usize);
            if is_leaf && !texts.is_char_boundary(text()?) {
                return None;
            }
            states.push(next);
        }
    }
    Some(())
}

/// The bytes of standard base64, as a `tokenizer.json` keeps the map.
pub(super) fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 3);
    let (mut bits, mut held) = (0u32, 0);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    Some(bytes)
}
