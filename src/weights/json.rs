//! JSON as Python writes it.

use std::borrow::Cow;

/// Python's `json` writes `NaN`, `Infinity` and `-Infinity` for floats that JSON has no word for (diffusers'
/// `lambda_min_clipped`, say). Here they become `null`, which configs take for "not given".
pub(super) fn standard(bytes: &[u8]) -> Cow<'_, [u8]> {
    const WORDS: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];
    let mut out = Vec::new();
    // `done` bytes are in `out`; inside a string nothing is a word.
    let (mut done, mut at, mut in_string) = (0, 0, false);
    while at < bytes.len() {
        let rest = &bytes[at..];
        match (bytes[at], WORDS.iter().find(|word| rest.starts_with(word))) {
            (b'\\', _) if in_string => at += 2,
            (b'"', _) => {
                in_string = !in_string;
                at += 1;
            }
            (_, Some(word)) if !in_string => {
                out.extend_from_slice(&bytes[done..at]);
                out.extend_from_slice(b"null");
                at += word.len();
                done = at;
            }
            _ => at += 1,
        }
    }
    if done == 0 {
        return Cow::Borrowed(bytes);
    }
    out.extend_from_slice(&bytes[done..]);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::standard;

    #[test]
    fn only_bare_words_become_null() {
        let text = br#"{"a": -Infinity, "-Infinity NaN \" NaN": [NaN,Infinity]}"#;
        let want = br#"{"a": null, "-Infinity NaN \" NaN": [null,null]}"#;
        assert_eq!(&*standard(text), want);
        for same in [&b"{}"[..], b"\"\\", b"\"NaN", b""] {
            assert_eq!(&*standard(same), same);
        }
    }
}
