//! The CLIP tokenizer: a prompt becomes 77 token ids.
//!
//! Lower case, NFC, whitespace collapsed; split into contractions, runs of letters, single digits and runs of
//! anything else; then byte-level BPE whose last piece of a word carries `</w>`. The result equals that of
//! transformers' `CLIPTokenizer`.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use serde_json::Value;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::replace::{Replace, ReplacePattern};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::normalizers::utils::{Lowercase, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::SplitDelimiterBehavior;
use tokenizers::{AddedToken, Tokenizer};

use super::config::{AddedTokens, Folder, NumberedToken, Role, Settings, bad, text_of};
use super::{Encoded, content};
use crate::error::{Error, Result};
use crate::weights::ModelFiles;

/// CLIP's context length, in tokens, where the config does not say.
const DEFAULT_LENGTH: usize = 77;
/// A config may say 10³⁰ for "unknown"; anything above this is read as that.
const MAX_LENGTH: u64 = 4096;

/// Pieces of a prompt that BPE sees as words.
const WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// Special tokens by their role in the config, with CLIP's own text where it has one.
const ROLES: [Role; 7] = [
    ("bos_token", Some("<|startoftext|>")),
    ("eos_token", Some("<|endoftext|>")),
    ("unk_token", Some("<|endoftext|>")),
    ("sep_token", None),
    ("pad_token", Some("<|endoftext|>")),
    ("cls_token", None),
    ("mask_token", None),
];

/// A CLIP tokenizer read from a model's `tokenizer` folder.
#[derive(Debug)]
pub struct ClipTokenizer {
    tokenizer: Tokenizer,
    length: usize,
    bos: u32,
    eos: u32,
    pad: u32,
}

impl ClipTokenizer {
    /// Reads `subfolder`: `tokenizer.json`, or `vocab.json` and `merges.txt`; with them the optional
    /// `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`.
    ///
    /// # Errors
    /// When a file is missing or malformed, the model is not BPE, a special token is not in the vocabulary,
    /// or the config asks for a side other than right for padding or truncation.
    pub fn open(files: &ModelFiles, subfolder: &str) -> Result<Self> {
        let folder = Folder { files, subfolder };
        let mut settings = Settings::read(&folder, &ROLES)?;
        let length = length(&folder, &settings)?;
        let mut vocabulary = Vocabulary::read(&folder, settings.listed.take())?;
        let special = settings.special_tokens(&vocabulary.added);
        let merges = std::mem::take(&mut vocabulary.merges);
        let ids: Vocab = vocabulary.ids.iter().map(|(text, id)| (text.clone(), *id)).collect();
        let text = |role: &str| text_of(&special, role);
        let broken = |e: tokenizers::Error| Error::model(format!("{subfolder}: {e}"));

        let model = BPE::builder()
            .vocab_and_merges(ids, merges)
            .unk_token(text("unk_token").to_owned())
            .continuing_subword_prefix(String::new())
            .end_of_word_suffix("</w>".to_owned())
            .build()
            .map_err(broken)?;
        let spaces = Replace::new(ReplacePattern::Regex(r"\s+".to_owned()), " ").map_err(broken)?;
        let words = Split::new(
            SplitPattern::Regex(WORDS.to_owned()),
            SplitDelimiterBehavior::Removed,
            true,
        );
        let mut tokenizer = Tokenizer::new(model);
        tokenizer
            .with_normalizer(Some(Normalizers::new(vec![
                NFC.into(),
                spaces.into(),
                Lowercase.into(),
            ])))
            .map_err(broken)?;
        tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(vec![
            words.map_err(broken)?.into(),
            ByteLevel::new(false, true, true).into(),
        ])));

        let id = |role: &'static str| {
            let token = text(role);
            vocabulary.id(token).ok_or_else(|| {
                Error::model(format!(
                    "{subfolder}: {role} {token:?} is not in the vocabulary of {} tokens",
                    vocabulary.ids.len()
                ))
            })
        };
        let (bos, eos, pad) = (id("bos_token")?, id("eos_token")?, id("pad_token")?);
        id("unk_token")?;
        settings
            .add_tokens(&mut tokenizer, &vocabulary.added, &special)
            .map_err(|e| e.at(subfolder))?;
        Ok(Self { tokenizer, length, bos, eos, pad })
    }

    /// How many ids a prompt becomes: 77 for CLIP.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The ids of `text`: start, at most `length - 2` tokens, end, then padding to `length`.
    ///
    /// # Errors
    /// When `text` is longer than 1 MiB.
    pub fn encode(&self, text: &str) -> Result<Encoded> {
        let content = content(&self.tokenizer, text)?;
        let room = self.length.saturating_sub(2);
        let mut ids = Vec::with_capacity(self.length);
        ids.push(self.bos);
        ids.extend(content.iter().take(room));
        ids.push(self.eos);
        ids.resize(self.length, self.pad);
        Ok(Encoded { ids, cut: content.len().saturating_sub(room) })
    }
}

/// The context length that the config gives, in tokens.
fn length(folder: &Folder, settings: &Settings) -> Result<usize> {
    match settings.config.get("model_max_length") {
        None | Some(Value::Null) => Ok(DEFAULT_LENGTH),
        Some(value) => match (value.as_u64(), value.as_f64()) {
            (Some(length @ 3..=MAX_LENGTH), _) => Ok(length as usize),
            (_, Some(unknown)) if unknown > MAX_LENGTH as f64 => Ok(DEFAULT_LENGTH),
            _ => Err(bad(folder, "model_max_length", value, "3 or more")),
        },
    }
}

/// Words, merges and added tokens.
struct Vocabulary {
    ids: HashMap<String, u32>,
    merges: Vec<(String, String)>,
    added: AddedTokens,
}

#[derive(Deserialize)]
struct TokenizerJson {
    model: BpeJson,
    #[serde(default)]
    added_tokens: Vec<NumberedToken>,
}

#[derive(Deserialize)]
struct BpeJson {
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: HashMap<String, u32>,
    merges: Vec<MergeJson>,
}

/// Old files write a merge as `"a b"`, new ones as `["a", "b"]`.
#[derive(Deserialize)]
#[serde(untagged)]
enum MergeJson {
    Line(String),
    Pair(String, String),
}

impl Vocabulary {
    fn read(folder: &Folder, listed: Option<AddedTokens>) -> Result<Self> {
        let all_listed = listed.is_some();
        let mut added = listed.unwrap_or_default();
        if !all_listed {
            // Ordinary words of older fine-tunes; special ones are marked so when they are added.
            let legacy: BTreeMap<String, u32> = folder.optional("added_tokens.json")?;
            added.extend(legacy.into_iter().map(|(t, id)| (id, AddedToken::from(t, false))));
        }

        let json = folder.path("tokenizer.json");
        let (ids, merges) = if folder.files.exists(&json) {
            let file: TokenizerJson = folder.files.read_json(&json)?;
            if let Some(kind) = file.model.kind.filter(|kind| kind != "BPE") {
                return Err(Error::model(format!(
                    "{json}: model.type is {kind:?}, expected \"BPE\""
                )));
            }
            if !all_listed {
                added.extend(file.added_tokens.into_iter().map(<(u32, AddedToken)>::from));
            }
            let pair = |merge| match merge {
                MergeJson::Pair(a, b) => Ok((a, b)),
                MergeJson::Line(line) => split_merge(&line).map_err(|e| e.at(&json)),
            };
            (file.model.vocab, file.model.merges.into_iter().map(pair).collect::<Result<_>>()?)
        } else {
            let ids = folder.files.read_json(&folder.path("vocab.json"))?;
            (ids, read_merges(folder)?)
        };
        Ok(Self { ids, merges, added })
    }

    fn id(&self, token: &str) -> Option<u32> {
        let added = || self.added.iter().find(|(_, t)| t.content == token).map(|(id, _)| *id);
        self.ids.get(token).copied().or_else(added)
    }
}

/// `merges.txt`: a version line, then one pair a line.
fn read_merges(folder: &Folder) -> Result<Vec<(String, String)>> {
    let path = folder.path("merges.txt");
    let bytes = folder.files.read(&path)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|e| Error::model(format!("{path}: not UTF-8 text: {e}")))?;
    let lines = text.lines().enumerate();
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with("#version"))
        .map(|(i, line)| split_merge(line).map_err(|e| e.at(format_args!("{path}:{}", i + 1))))
        .collect()
}

fn split_merge(line: &str) -> Result<(String, String)> {
    match line.split_once(' ') {
        Some((a, b)) if !b.contains(' ') => Ok((a.to_owned(), b.to_owned())),
        _ => Err(Error::model(format!("merge {line:?}, expected two parts and one space"))),
    }
}
