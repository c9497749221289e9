//! The PNG format: pixels out, text in and out.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek};
use std::path::Path;

use png::text_metadata::{ITXtChunk, TEXtChunk, ZTXtChunk};

use super::image::Image;
use crate::error::{Error, Result};

/// The longest text that is read, in bytes of UTF-8 after decompression.
const MAX_TEXT_BYTES: usize = 1 << 20;
/// Bounds what all chunks of a file together can make us allocate.
const MAX_CHUNK_BYTES: usize = 8 << 20;

/// A keyword and its text.
pub type Text = (String, String);

/// An RGB picture with texts: `tEXt` where Latin-1 holds a text, else `iTXt`. Zero characters, which PNG
/// does not allow, are left out.
pub(super) fn encode(image: &Image, texts: &[Text]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, image.width, image.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    encoder.set_filter(png::Filter::Adaptive);
    let write = || -> Result<(), png::EncodingError> {
        for (keyword, text) in texts {
            let text = text.replace('\0', "");
            if text.chars().all(|c| u32::from(c) < 256) {
                encoder.add_text_chunk(keyword.clone(), text)?;
            } else {
                encoder.add_itxt_chunk(keyword.clone(), text)?;
            }
        }
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&image.rgb)?;
        writer.finish()
    };
    write().map_err(|e| Error::internal("the picture cannot be encoded as PNG").with_source(e))?;
    Ok(bytes)
}

/// All texts of a PNG file.
///
/// # Errors
/// A file that cannot be read, is no PNG, or holds more than 1 MiB in one text or 8 MiB in all.
pub fn read_texts(path: &Path) -> Result<Vec<Text>> {
    let shown = path.display();
    let cannot = |e| Error::io(format!("cannot read {shown}"), e);
    // A pipe or a device would block or never end, so ask before opening.
    if !std::fs::metadata(path).map_err(cannot)?.is_file() {
        return Err(Error::usage(format!("{shown} is not a plain file")));
    }
    texts(BufReader::new(File::open(path).map_err(cannot)?)).map_err(|e| e.at(shown))
}

/// All texts of a PNG, those before the pixels and those after.
///
/// # Errors
/// As [`read_texts`].
pub fn texts(png: impl BufRead + Seek) -> Result<Vec<Text>> {
    let broken = |e: png::DecodingError| Error::model("not a PNG that can be read").with_source(e);
    let limits = png::Limits { bytes: MAX_CHUNK_BYTES };
    let mut decoder = png::Decoder::new_with_limits(png, limits);
    decoder.set_ignore_iccp_chunk(true);
    let mut reader = decoder.read_info().map_err(broken)?;
    reader.finish().map_err(broken)?;

    let info = reader.info();
    let long = |keyword: &str| {
        Error::model(format!(
            "the text {keyword:?} is broken or longer than {MAX_TEXT_BYTES} bytes"
        ))
    };
    let plain = |c: &TEXtChunk| Ok((c.keyword.clone(), c.text.clone()));
    let latin = |c: &ZTXtChunk| {
        let mut c = c.clone();
        c.decompress_text_with_limit(MAX_TEXT_BYTES)
            .map_err(|e| long(&c.keyword).with_source(e))?;
        Ok((c.keyword.clone(), c.get_text().map_err(broken)?))
    };
    let unicode = |c: &ITXtChunk| {
        let mut c = c.clone();
        c.decompress_text_with_limit(MAX_TEXT_BYTES)
            .map_err(|e| long(&c.keyword).with_source(e))?;
        Ok((c.keyword.clone(), c.get_text().map_err(broken)?))
    };
    let all = info.uncompressed_latin1_text.iter().map(plain);
    let all = all.chain(info.compressed_latin1_text.iter().map(latin));
    let mut found = Vec::new();
    for text in all.chain(info.utf8_text.iter().map(unicode)) {
        let (keyword, text) = text?;
        if text.len() > MAX_TEXT_BYTES {
            return Err(long(&keyword));
        }
        // Compressed texts could otherwise add up.
        if found.iter().map(|(_, t): &Text| t.len()).sum::<usize>() + text.len() > MAX_CHUNK_BYTES {
            return Err(Error::model(format!("more than {MAX_CHUNK_BYTES} bytes of text")));
        }
        found.push((keyword, text));
    }
    Ok(found)
}
