//! Reads a SentencePiece model (`spiece.model`), a protobuf message.
//!
//! Only what a unigram tokenizer needs is kept; fields are numbered as in SentencePiece's
//! `sentencepiece_model.proto`. Text and bytes are slices of the file until they are taken, so a length that the
//! file only claims allocates nothing.

use crate::error::{Error, Result};

/// `ModelProto`, as far as a unigram tokenizer needs it.
#[derive(Debug)]
pub(super) struct SentencePieces {
    /// In the order of their ids.
    pub pieces: Vec<Piece>,
    /// Spell characters that no piece covers as bytes.
    pub byte_fallback: bool,
    /// The normaliser's character map, see `charsmap`; may be empty.
    pub charsmap: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Piece {
    pub text: String,
    /// Log probability.
    pub score: f32,
    pub kind: PieceKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PieceKind {
    /// Normal, unused and byte pieces.
    Ordinary,
    Unknown,
    /// Padding, end of sequence and the like.
    Control,
    UserDefined,
}

/// `TrainerSpec.model_type`, by number.
const MODEL_TYPES: [&str; 5] = ["0", "unigram", "bpe", "word", "char"];
const UNIGRAM: u64 = 1;

impl SentencePieces {
    /// # Errors
    /// When `file` is not such a message, is cut short, or is of another kind than T5's: not unigram, without
    /// whitespace collapsed, or without a space before the first word.
    pub fn read(file: &[u8]) -> Result<Self> {
        let mut model = Self { pieces: Vec::new(), byte_fallback: false, charsmap: Vec::new() };
        for field in Fields(file) {
            match field? {
                (1, Value::Bytes(piece)) => {
                    let id = model.pieces.len();
                    let piece = Piece::read(piece).map_err(|e| e.at(format_args!("piece {id}")))?;
                    model.pieces.push(piece);
                }
                (2, Value::Bytes(spec)) => {
                    model.trainer(spec).map_err(|e| e.at("trainer_spec"))?;
                }
                (3, Value::Bytes(spec)) => {
                    model.normalizer(spec).map_err(|e| e.at("normalizer_spec"))?;
                }
                (number @ 1..=3, value) => return Err(value.misfit(number)),
                _ => {}
            }
        }
        Ok(model)
    }

    fn trainer(&mut self, spec: &[u8]) -> Result<()> {
        for field in Fields(spec) {
            match field? {
                (3, Value::Varint(UNIGRAM)) => {}
                (3, Value::Varint(kind)) => {
                    let name = usize::try_from(kind).ok().and_then(|k| MODEL_TYPES.get(k));
                    let name = name.map_or_else(|| kind.to_string(), ToString::to_string);
                    return Err(Error::model(format!(
                        "model_type is {name}, expected unigram, the only one supported"
                    )));
                }
                (24, Value::Varint(suffix)) if suffix != 0 => {
                    return Err(Error::model("treat_whitespace_as_suffix is true, expected false"));
                }
                (35, Value::Varint(value)) => self.byte_fallback = value != 0,
                (number @ (3 | 24 | 35), value) if !matches!(value, Value::Varint(_)) => {
                    return Err(value.misfit(number));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn normalizer(&mut self, spec: &[u8]) -> Result<()> {
        const MUST: [&str; 3] =
            ["add_dummy_prefix", "remove_extra_whitespaces", "escape_whitespaces"];
        for field in Fields(spec) {
            match field? {
                (2, Value::Bytes(charsmap)) => self.charsmap = charsmap.to_vec(),
                (number @ 3..=5, Value::Varint(0)) => {
                    let key = MUST[number as usize - 3];
                    return Err(Error::model(format!("{key} is false, expected true")));
                }
                (3..=5, Value::Varint(_)) => {}
                (number @ 2..=5, value) => return Err(value.misfit(number)),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Piece {
    fn read(message: &[u8]) -> Result<Self> {
        let mut piece = Self { text: String::new(), score: 0.0, kind: PieceKind::Ordinary };
        for field in Fields(message) {
            match field? {
                (1, Value::Bytes(text)) => {
                    let text = std::str::from_utf8(text);
                    piece.text = text.map_err(|e| Error::model(e.to_string()))?.to_owned();
                }
                (2, Value::Fixed32(bits)) => piece.score = f32::from_le_bytes(bits),
                (3, Value::Varint(kind)) => {
                    piece.kind = match kind {
                        2 => PieceKind::Unknown,
                        3 => PieceKind::Control,
                        4 => PieceKind::UserDefined,
                        _ => PieceKind::Ordinary,
                    };
                }
                (number @ 1..=3, value) => return Err(value.misfit(number)),
                _ => {}
            }
        }
        Ok(piece)
    }
}

/// A field's value by its wire type.
enum Value<'a> {
    Varint(u64),
    Fixed64,
    Bytes(&'a [u8]),
    Fixed32([u8; 4]),
}

impl Value<'_> {
    fn misfit(&self, number: u64) -> Error {
        let found = match self {
            Self::Varint(_) => "a varint",
            Self::Fixed64 => "64 bits",
            Self::Bytes(_) => "bytes",
            Self::Fixed32(_) => "32 bits",
        };
        Error::model(format!("field {number} is {found}, which is not its type"))
    }
}

/// The fields of a message, in the order of the file; ends after the first error.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<(u64, Value<'a>)> {
        let tag = self.varint()?;
        let number = tag >> 3;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Value::Fixed64
            }
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => {
                let bytes = self.take(4)?;
                Value::Fixed32(bytes.first_chunk().copied().unwrap_or_default())
            }
            other => {
                return Err(Error::model(format!("field {number} has wire type {other}")));
            }
        };
        Ok((number, value))
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8]> {
        let cut = usize::try_from(length).ok().and_then(|n| self.0.split_at_checked(n));
        let (taken, rest) = cut.ok_or_else(|| {
            Error::model(format!("cut short: {length} bytes expected, {} left", self.0.len()))
        })?;
        self.0 = rest;
        Ok(taken)
    }

    /// Seven bits a byte, the lowest first; the high bit says that more follow.
    fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let Some((byte, rest)) = self.0.split_first() else {
                return Err(Error::model("cut short inside a varint"));
            };
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Error::model("a varint of more than 10 bytes"))
    }
}
