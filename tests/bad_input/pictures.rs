//! PNG files of strangers.

use std::io::Cursor;
use std::path::Path;

use proptest::prelude::*;
use scalediff::pipeline::png;
use scalediff::{Image, Metadata, Result};

use crate::{Judge, folder};

/// A chunk with a right checksum.
fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let body = [&kind[..], data].concat();
    let mut crc = u32::MAX;
    for byte in &body {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    [&(data.len() as u32).to_be_bytes(), &body[..], &(!crc).to_be_bytes()].concat()
}

/// A zlib stream of stored blocks.
fn stored(data: &[u8]) -> Vec<u8> {
    let mut out = vec![0x78, 0x01];
    let blocks = data.chunks(0xffff).count().max(1);
    for i in 0..blocks {
        let block = data.chunks(0xffff).nth(i).unwrap_or(&[]);
        let length = block.len() as u16;
        out.push(u8::from(i + 1 == blocks));
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend(block);
    }
    let (mut a, mut b) = (1u32, 0u32);
    for byte in data {
        a = (a + u32::from(*byte)) % 65521;
        b = (b + a) % 65521;
    }
    out.extend((b << 16 | a).to_be_bytes());
    out
}

/// A zlib stream of `mib` MiB of one byte in about a thousandth of that.
fn bomb(mib: usize) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..mib {
        std::io::Write::write_all(&mut encoder, &[b'a'; 1 << 20]).unwrap();
    }
    encoder.finish().unwrap()
}

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

fn header(width: u32, height: u32) -> Vec<u8> {
    chunk(b"IHDR", &[&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat())
}

/// A PNG of one pixel with chunks before its pixels and after them.
fn picture(before: &[u8], after: &[u8]) -> Vec<u8> {
    let pixels = chunk(b"IDAT", &stored(&[0, 1, 2, 3]));
    [SIGNATURE, &header(1, 1), before, &pixels, after, &chunk(b"IEND", b"")].concat()
}

fn read(bytes: &[u8]) -> Result<Vec<png::Text>> {
    png::texts(Cursor::new(bytes))
}

#[test]
fn pictures_of_strangers() {
    let mut judge = Judge::default();
    let text =
        |keyword: &str, text: &[u8]| chunk(b"tEXt", &[keyword.as_bytes(), b"\0", text].concat());
    let compressed = |data: &[u8]| chunk(b"zTXt", &[b"parameters\0\0", data].concat());
    let unicode = |flags: [u8; 2], data: &[u8]| {
        chunk(b"iTXt", &[b"parameters\0", &flags[..], b"\0\0", data].concat())
    };

    let right = [
        ("no text", picture(b"", b"")),
        ("text before", picture(&text("parameters", b"x"), b"")),
        ("text after", picture(b"", &text("parameters", b"x"))),
        ("compressed", picture(&compressed(&stored(b"x")), b"")),
        ("Unicode", picture(&unicode([0, 0], "球".as_bytes()), b"")),
        ("Unicode, compressed", picture(&unicode([1, 0], &stored("球".as_bytes())), b"")),
        ("an unknown chunk", picture(&chunk(b"abCd", &[0; 99]), b"")),
    ];
    for (what, bytes) in &right {
        judge.right(what, || {
            let texts = read(bytes)?;
            assert_eq!(texts.len(), usize::from(!["no text", "an unknown chunk"].contains(what)));
            Ok(())
        });
    }
    let kilo = text("k", &[b'x'; 1000]).repeat(20_000);
    let bombs = compressed(&bomb(1)).repeat(64);
    let odd = [
        ("nothing", Vec::new()),
        ("the signature alone", SIGNATURE.to_vec()),
        ("another format", b"GIF89a and more".to_vec()),
        ("a JPEG", b"\xff\xd8\xff\xe0\0\x10JFIF\0".to_vec()),
        ("no pixels", [SIGNATURE, &header(1, 1), &chunk(b"IEND", b"")].concat()),
        ("no end", [SIGNATURE, &header(1, 1), &chunk(b"IDAT", &stored(&[0; 4]))].concat()),
        ("text first", [SIGNATURE, &text("parameters", b"x"), &header(1, 1)].concat()),
        ("two headers", [SIGNATURE, &header(1, 1), &header(2, 2)].concat()),
        ("a side of 0", [SIGNATURE, &header(0, 1), &chunk(b"IDAT", b"")].concat()),
        ("sides of 2^31", [SIGNATURE, &header(1 << 31, 1 << 31), &chunk(b"IDAT", b"")].concat()),
        (
            "sides of 2^31 - 1",
            [SIGNATURE, &header(i32::MAX as u32, i32::MAX as u32), &chunk(b"IDAT", b"")].concat(),
        ),
        ("a chunk of 2^32 - 1", [SIGNATURE, &header(1, 1), &[0xff; 4], b"tEXt"].concat()),
        (
            "a chunk of 2^31 - 1",
            [SIGNATURE, &header(1, 1), &i32::MAX.to_be_bytes(), b"tEXtk\0"].concat(),
        ),
        ("text of 2 MiB", picture(&text("parameters", &vec![b'x'; 2 << 20]), b"")),
        ("text of 20 MiB", picture(&text("parameters", &vec![b'x'; 20 << 20]), b"")),
        ("20000 texts", picture(&kilo, b"")),
        ("a bomb of 2 MiB", picture(&compressed(&bomb(2)), b"")),
        ("a bomb of 256 MiB", picture(&compressed(&bomb(256)), b"")),
        ("a bomb of 256 MiB in Unicode", picture(&unicode([1, 0], &bomb(256)), b"")),
        ("64 bombs of 1 MiB", picture(&bombs, b"")),
        (
            "a bomb of pixels",
            [
                SIGNATURE,
                &header(1 << 14, 1 << 14),
                &chunk(b"IDAT", &bomb(256)),
                &chunk(b"IEND", b""),
            ]
            .concat(),
        ),
        ("a bomb of colours", picture(&chunk(b"iCCP", &[b"p\0\0", &bomb(256)[..]].concat()), b"")),
        ("no keyword", picture(&chunk(b"tEXt", b"\0x"), b"")),
        ("no separator", picture(&chunk(b"tEXt", b"parameters"), b"")),
        ("a keyword of 80", picture(&text(&"k".repeat(80), b"x"), b"")),
        ("an empty text chunk", picture(&chunk(b"tEXt", b""), b"")),
        ("an empty Unicode chunk", picture(&chunk(b"iTXt", b""), b"")),
        ("Unicode without its fields", picture(&chunk(b"iTXt", b"k\0\0"), b"")),
        ("Unicode of another method", picture(&unicode([1, 9], b"x"), b"")),
        ("Unicode of another flag", picture(&unicode([7, 0], b"x"), b"")),
        ("broken UTF-8", picture(&unicode([0, 0], b"\xff\xfe\x80"), b"")),
        ("broken UTF-8, compressed", picture(&unicode([1, 0], &stored(b"\xff\x80")), b"")),
        ("broken compression", picture(&compressed(b"not a stream"), b"")),
        ("compression cut short", picture(&compressed(&stored(b"xyz")[..6]), b"")),
        ("compression of another method", picture(&chunk(b"zTXt", b"k\0\x09x"), b"")),
    ];
    for (what, bytes) in &odd {
        judge.any(what, || read(bytes));
    }
    let whole = picture(&text("parameters", b"x"), b"");
    for end in 0..whole.len() {
        judge.any(&format!("cut at {end}"), || read(&whole[..end]));
    }
    judge.verdict("pictures", 120);
}

#[test]
fn places_that_are_no_pictures() {
    let root = folder("pictures");
    let mut judge = Judge::default();
    for (what, path, says) in [
        ("a folder", root.as_path(), "not a plain file"),
        ("nothing", Path::new("no/such/file.png"), "cannot read"),
        ("a device", Path::new("/dev/zero"), "not a plain file"),
        ("a text file", Path::new("Cargo.toml"), "not a PNG"),
    ] {
        judge.refused(what, says, || Metadata::read_png(path));
    }
    let bare = root.join("bare.png");
    std::fs::write(&bare, picture(b"", b"")).unwrap();
    judge.refused("no metadata", "holds no metadata", || Metadata::read_png(&bare));
    std::fs::write(&bare, picture(&chunk(b"tEXt", b"parameters\0x"), b"")).unwrap();
    judge.refused("another program's", "another program", || Metadata::read_png(&bare));
    std::fs::write(&bare, picture(&chunk(b"tEXt", b"scalediff\0x"), b"")).unwrap();
    judge.refused("broken metadata", "bare.png", || Metadata::read_png(&bare));
    judge.verdict("places", 7);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Any bytes after the signature, any damage to a good file: never a panic.
    #[test]
    fn any_bytes_as_a_picture(
        noise in proptest::collection::vec(any::<u8>(), 0..300),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
        kind in proptest::sample::select(vec![*b"tEXt", *b"zTXt", *b"iTXt", *b"IDAT", *b"iCCP", *b"acTL"]),
    ) {
        let _ = read(&[SIGNATURE, &noise].concat());
        let _ = read(&picture(&chunk(&kind, &noise), b""));
        let image = Image { width: 1, height: 1, rgb: vec![0; 3] };
        let mut bytes = image.encode_png(None).unwrap();
        bytes.splice(33..33, chunk(b"tEXt", b"parameters\0some text"));
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let _ = read(&bytes);
    }
}
