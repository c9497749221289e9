//! The T5 tokenizer: SentencePiece's unigram model.
//!
//! Characters are normalised by the map inside the model, words split at whitespace, each word gets a `▁` in front
//! and is cut into the pieces of the highest total score. The result equals that of transformers' `T5Tokenizer`,
//! which differs from SentencePiece itself in rare places: the text between two special tokens starts a new word,
//! a character map is asked for whole graphemes first, and special tokens in a prompt are themselves.

use serde::Deserialize;
use serde_json::Value;
use tokenizers::models::unigram::Unigram;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::{AddedToken, Tokenizer};

use super::config::{AddedTokens, Folder, NumberedToken, Role, Settings, bad, text_of};
use super::spiece::{PieceKind, SentencePieces};
use super::{Encoded, charsmap, content};
use crate::error::{Error, Result};
use crate::weights::ModelFiles;

/// Special tokens by their role in the config, with T5's own text.
const ROLES: [Role; 7] = [
    ("bos_token", None),
    ("eos_token", Some("</s>")),
    ("unk_token", Some("<unk>")),
    ("sep_token", None),
    ("pad_token", Some("<pad>")),
    ("cls_token", None),
    ("mask_token", None),
];
/// Sentinels `<extra_id_N>` that T5 keeps behind its pieces, where the config does not say.
const EXTRA_IDS: u64 = 100;
const MAX_EXTRA_IDS: u64 = 10_000;
/// Pieces are a few letters; a chain of nodes of any length would be freed by recursion of that depth.
const MAX_PIECE_BYTES: usize = 512;
/// Longest prompt in tokens; T5 itself was trained on 512.
const MAX_LENGTH: u32 = 1 << 16;

/// A T5 tokenizer read from a model's tokenizer folder (`tokenizer_2` in FLUX).
#[derive(Debug)]
pub struct T5Tokenizer {
    tokenizer: Tokenizer,
    lowercase: bool,
    eos: u32,
    pad: u32,
}

impl T5Tokenizer {
    /// Reads `subfolder`: `tokenizer.json`, or else `spiece.model`; with it the optional `tokenizer_config.json`
    /// and `special_tokens_map.json`.
    ///
    /// # Errors
    /// When both are missing, the one that is there is malformed or not a unigram model, a special token is not in
    /// the vocabulary, or the config asks for a side other than right for padding or truncation.
    pub fn open(files: &ModelFiles, subfolder: &str) -> Result<Self> {
        let folder = Folder { files, subfolder };
        let mut settings = Settings::read(&folder, &ROLES)?;
        let listed = settings.listed.take();
        let (json, spiece) = (folder.path("tokenizer.json"), folder.path("spiece.model"));
        let (path, vocabulary) = if files.exists(&json) {
            let vocabulary = Vocabulary::from_json(files.read_json(&json)?, listed);
            (json, vocabulary)
        } else if files.exists(&spiece) {
            let extra = extra_ids(&folder, &settings)?;
            let file = files.read(&spiece)?;
            let vocabulary = SentencePieces::read(&file)
                .and_then(|model| Vocabulary::from_spiece(model, extra, listed));
            (spiece, vocabulary)
        } else {
            return Err(Error::model(format!(
                "{json}: no such file, nor a spiece.model beside it"
            ))
            .with_hint("copy one of them from the model's page"));
        };
        vocabulary.and_then(|v| Self::new(v, &settings)).map_err(|e| e.at(path))
    }

    fn new(vocabulary: Vocabulary, settings: &Settings) -> Result<Self> {
        vocabulary.check()?;
        let special = settings.special_tokens(&vocabulary.added);
        let id = |role| {
            let text = text_of(&special, role);
            vocabulary.id(text).ok_or_else(|| {
                let count = vocabulary.pieces.len();
                Error::model(format!("{role} {text:?} is not in the vocabulary of {count} pieces"))
            })
        };
        let lowercase = vocabulary.lowercase;
        let (eos, pad) = (id("eos_token")?, id("pad_token")?);
        id("unk_token")?;

        let broken = |e: tokenizers::Error| Error::model(e.to_string());
        let normalizer = vocabulary.charsmap.as_deref().map(charsmap::normalizer).transpose()?;
        let model =
            Unigram::from(vocabulary.pieces, Some(vocabulary.unknown), vocabulary.byte_fallback);
        let mut tokenizer = Tokenizer::new(model.map_err(broken)?);
        tokenizer.with_normalizer(normalizer).map_err(broken)?;
        tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(vec![
            WhitespaceSplit.into(),
            Metaspace::new('▁', PrependScheme::Always, true).into(),
        ])));
        settings.add_tokens(&mut tokenizer, &vocabulary.added, &special)?;
        Ok(Self { tokenizer, lowercase, eos, pad })
    }

    /// The ids of `text`: at most `length - 1` tokens, `</s>`, then padding to `length`.
    ///
    /// # Errors
    /// When `text` is longer than 1 MiB, or `length` is 0 or above 65,536.
    pub fn encode(&self, text: &str, length: u32) -> Result<Encoded> {
        if !(1..=MAX_LENGTH).contains(&length) {
            return Err(Error::usage(format!(
                "a prompt of {length} T5 tokens, expected 1 to {MAX_LENGTH}"
            )));
        }
        let mut ids = if self.lowercase {
            content(&self.tokenizer, &text.to_lowercase())?
        } else {
            content(&self.tokenizer, text)?
        };
        let room = length as usize - 1;
        let cut = ids.len().saturating_sub(room);
        ids.truncate(room);
        ids.push(self.eos);
        ids.resize(length as usize, self.pad);
        Ok(Encoded { ids, cut })
    }
}

/// How many sentinels a `spiece.model` without any gets.
fn extra_ids(folder: &Folder, settings: &Settings) -> Result<u64> {
    match settings.config.get("extra_ids") {
        None | Some(Value::Null) => Ok(EXTRA_IDS),
        Some(value) => value
            .as_u64()
            .filter(|n| *n <= MAX_EXTRA_IDS)
            .ok_or_else(|| bad(folder, "extra_ids", value, "0 to 10000")),
    }
}

/// Pieces with their scores, and what belongs to them.
struct Vocabulary {
    pieces: Vec<(String, f64)>,
    unknown: usize,
    byte_fallback: bool,
    charsmap: Option<Vec<u8>>,
    /// T5 itself keeps capitals.
    lowercase: bool,
    added: AddedTokens,
}

#[derive(Deserialize)]
struct TokenizerJson {
    model: Value,
    normalizer: Option<Value>,
    #[serde(default)]
    added_tokens: Vec<NumberedToken>,
}

#[derive(Deserialize)]
struct UnigramJson {
    unk_id: Option<usize>,
    vocab: Vec<(String, f64)>,
    #[serde(default)]
    byte_fallback: bool,
}

impl Vocabulary {
    fn from_json(file: TokenizerJson, listed: Option<AddedTokens>) -> Result<Self> {
        if let Some(kind) = file.model.get("type").filter(|kind| *kind != "Unigram") {
            return Err(Error::model(format!("model.type is {kind}, expected \"Unigram\"")));
        }
        let model = UnigramJson::deserialize(file.model)
            .map_err(|e| Error::model(format!("model: {e}")))?;
        let unknown = model
            .unk_id
            .ok_or_else(|| Error::model("model.unk_id is missing, expected the unknown piece's"))?;
        let added = listed.unwrap_or_else(|| {
            file.added_tokens.into_iter().map(<(u32, AddedToken)>::from).collect()
        });
        let normalizers = normalizers(file.normalizer.as_ref());
        // Whitespace is split off later, whatever a normaliser makes of it.
        let known = ["Precompiled", "Lowercase", "Strip", "Replace"];
        if let Some(other) =
            normalizers.iter().map(|part| kind(part)).find(|kind| !known.contains(kind))
        {
            return Err(Error::model(format!("normalizer: {other:?} is not supported"))
                .with_hint(format!("supported: {}", known.join(", "))));
        }
        let map = normalizers.iter().find(|part| kind(part) == "Precompiled");
        let map = map.and_then(|part| part["precompiled_charsmap"].as_str());
        let charsmap = map.filter(|text| !text.is_empty()).map(|text| {
            charsmap::base64(text)
                .ok_or_else(|| Error::model("normalizer: precompiled_charsmap is not base64"))
        });
        Ok(Self {
            pieces: model.vocab,
            unknown,
            byte_fallback: model.byte_fallback,
            charsmap: charsmap.transpose()?,
            lowercase: normalizers.iter().any(|part| kind(part) == "Lowercase"),
            added,
        })
    }

    /// The pieces, then `extra` sentinels in falling order if the file has none, as T5 numbers them.
    fn from_spiece(model: SentencePieces, extra: u64, listed: Option<AddedTokens>) -> Result<Self> {
        let unknown = model
            .pieces
            .iter()
            .position(|p| p.kind == PieceKind::Unknown)
            .ok_or_else(|| Error::model("none of the pieces is the unknown one"))?;
        let mut added = AddedTokens::new();
        let mut pieces = Vec::with_capacity(model.pieces.len());
        for (id, piece) in (0..).zip(model.pieces) {
            if matches!(piece.kind, PieceKind::Control | PieceKind::UserDefined) {
                let special = piece.kind == PieceKind::Control;
                let token = AddedToken::from(piece.text.clone(), special).normalized(false);
                added.insert(id, token);
            }
            pieces.push((piece.text, f64::from(piece.score)));
        }
        if !pieces.iter().any(|(text, _)| text.starts_with("<extra_id_")) {
            for n in (0..extra).rev() {
                let text = format!("<extra_id_{n}>");
                added.insert(pieces.len() as u32, AddedToken::from(text.clone(), true));
                pieces.push((text, 0.0));
            }
        }
        Ok(Self {
            pieces,
            unknown,
            byte_fallback: model.byte_fallback,
            charsmap: Some(model.charsmap).filter(|map| !map.is_empty()),
            lowercase: false,
            // A config that lists added tokens lists all of them.
            added: listed.unwrap_or(added),
        })
    }

    fn check(&self) -> Result<()> {
        let count = self.pieces.len();
        if self.unknown >= count {
            let id = self.unknown;
            return Err(Error::model(format!("the unknown piece is {id} of {count} pieces")));
        }
        for (id, (text, score)) in self.pieces.iter().enumerate() {
            if text.len() > MAX_PIECE_BYTES {
                return Err(Error::model(format!(
                    "piece {id} has {} bytes, expected at most {MAX_PIECE_BYTES}",
                    text.len()
                )));
            }
            if !score.is_finite() {
                return Err(Error::model(format!("piece {id} has the score {score}")));
            }
        }
        Ok(())
    }

    fn id(&self, token: &str) -> Option<u32> {
        let piece = self.pieces.iter().position(|(text, _)| text == token);
        let added = || self.added.iter().find(|(_, t)| t.content == token).map(|(id, _)| *id);
        piece.map(|id| id as u32).or_else(added)
    }
}

fn kind(normalizer: &Value) -> &str {
    normalizer["type"].as_str().unwrap_or_default()
}

/// The normalisers, alone or in a sequence.
fn normalizers(value: Option<&Value>) -> Vec<&Value> {
    match value.filter(|value| !value.is_null()) {
        None => Vec::new(),
        Some(value) => match value.get("normalizers").and_then(Value::as_array) {
            Some(parts) => parts.iter().collect(),
            None => vec![value],
        },
    }
}
