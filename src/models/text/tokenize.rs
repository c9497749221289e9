//! The CLIP tokenizer: a prompt becomes 77 token ids.
//!
//! Lower case, NFC, whitespace collapsed; split into contractions, runs of letters, single digits and runs of
//! anything else; then byte-level BPE whose last piece of a word carries `</w>`. The result equals that of
//! transformers' `CLIPTokenizer`, which is also why a `tokenizer.json` is read for its vocabulary, merges and
//! added tokens alone: transformers builds the rest in code, as here.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use serde_json::{Map, Value};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::replace::{Replace, ReplacePattern};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::normalizers::utils::{Lowercase, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::SplitDelimiterBehavior;
use tokenizers::{AddedToken, Tokenizer};

use crate::error::{Error, Result};
use crate::weights::ModelFiles;

/// CLIP's context length, in tokens, where the config does not say.
const DEFAULT_LENGTH: usize = 77;
/// A config may say 10³⁰ for "unknown"; anything above this is read as that.
const MAX_LENGTH: u64 = 4096;
/// Longest prompt that is tokenized, in bytes; 75 tokens hold far less.
const MAX_PROMPT_BYTES: usize = 1 << 20;

/// Pieces of a prompt that BPE sees as words.
const WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// Special tokens by their role in the config, with CLIP's own text where it has one.
const ROLES: [(&str, Option<&str>); 7] = [
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

/// A tokenized prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Exactly [`ClipTokenizer::length`] ids: start, the prompt's tokens, end, padding.
    pub ids: Vec<u32>,
    /// How many tokens at the prompt's end did not fit and were dropped.
    pub cut: usize,
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
        let settings = Settings::read(&folder)?;
        let mut vocabulary = Vocabulary::read(&folder)?;
        let special = settings.special_tokens(&vocabulary);
        let merges = std::mem::take(&mut vocabulary.merges);
        let ids: Vocab = vocabulary.ids.iter().map(|(text, id)| (text.clone(), *id)).collect();
        let text = |role: &str| {
            special.iter().find(|(r, _)| *r == role).map_or("", |(_, token)| &token.content)
        };
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

        let id = |role: &str| {
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
        add_tokens(&mut tokenizer, &vocabulary, &settings.extra, &special)
            .map_err(|e| e.at(subfolder))?;
        Ok(Self { tokenizer, length: settings.length, bos, eos, pad })
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
        if text.len() > MAX_PROMPT_BYTES {
            return Err(Error::usage(format!(
                "the prompt has {} bytes, expected at most {MAX_PROMPT_BYTES}",
                text.len()
            )));
        }
        let tokens = self
            .tokenizer
            .encode_fast(text, false)
            .map_err(|e| Error::model(format!("cannot tokenize the prompt: {e}")))?;
        let content = tokens.get_ids();
        let room = self.length.saturating_sub(2);
        let mut ids = Vec::with_capacity(self.length);
        ids.push(self.bos);
        ids.extend(content.iter().take(room));
        ids.push(self.eos);
        ids.resize(self.length, self.pad);
        Ok(Encoded { ids, cut: content.len().saturating_sub(room) })
    }
}

/// Makes added tokens stand on their own wherever they occur in a prompt.
fn add_tokens(
    tokenizer: &mut Tokenizer,
    vocabulary: &Vocabulary,
    extra: &[AddedToken],
    special: &[(&str, AddedToken)],
) -> Result<()> {
    let mut tokens: Vec<AddedToken> = vocabulary.added.values().cloned().collect();
    for token in special.iter().map(|(_, token)| token).chain(extra) {
        if !tokens.iter().any(|t| t.content == token.content) {
            tokens.push(token.clone());
        }
    }
    for token in &mut tokens {
        token.special |= special.iter().any(|(_, s)| s.content == token.content);
    }
    tokenizer.add_tokens(tokens).map_err(|e| Error::model(format!("added tokens: {e}")))?;
    match vocabulary.added.iter().find(|(id, t)| tokenizer.token_to_id(&t.content) != Some(**id)) {
        Some((id, token)) => Err(Error::model(format!(
            "added token {:?} has id {id} in the config, expected {:?}",
            token.content,
            tokenizer.token_to_id(&token.content)
        ))),
        None => Ok(()),
    }
}

/// A tokenizer folder inside a model.
struct Folder<'a> {
    files: &'a ModelFiles,
    subfolder: &'a str,
}

impl Folder<'_> {
    fn path(&self, name: &str) -> String {
        if self.subfolder.is_empty() {
            name.to_owned()
        } else {
            format!("{}/{name}", self.subfolder)
        }
    }

    fn optional<T: serde::de::DeserializeOwned + Default>(&self, name: &str) -> Result<T> {
        let path = self.path(name);
        if self.files.exists(&path) { self.files.read_json(&path) } else { Ok(T::default()) }
    }
}

/// Words, merges and added tokens.
struct Vocabulary {
    ids: HashMap<String, u32>,
    merges: Vec<(String, String)>,
    /// By id; these are matched in the prompt before it is split into words.
    added: BTreeMap<u32, AddedToken>,
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

#[derive(Deserialize)]
struct NumberedToken {
    id: u32,
    #[serde(flatten)]
    token: TokenJson,
}

#[derive(Deserialize)]
struct TokenJson {
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    normalized: Option<bool>,
    #[serde(default)]
    special: bool,
}

impl From<TokenJson> for AddedToken {
    fn from(json: TokenJson) -> Self {
        let normalized = json.normalized.unwrap_or(!json.special);
        Self::from(json.content, json.special)
            .single_word(json.single_word)
            .lstrip(json.lstrip)
            .rstrip(json.rstrip)
            .normalized(normalized)
    }
}

impl Vocabulary {
    fn read(folder: &Folder) -> Result<Self> {
        let config: Map<String, Value> = folder.optional("tokenizer_config.json")?;
        let listed = config.get("added_tokens_decoder").filter(|v| !v.is_null());
        let mut added: BTreeMap<u32, AddedToken> = BTreeMap::new();
        if let Some(listed) = listed {
            let tokens: BTreeMap<u32, TokenJson> =
                Deserialize::deserialize(listed).map_err(|e| {
                    Error::model(format!("added_tokens_decoder: {e}"))
                        .at(folder.path("tokenizer_config.json"))
                })?;
            added = tokens.into_iter().map(|(id, token)| (id, token.into())).collect();
        } else {
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
            if listed.is_none() {
                added.extend(file.added_tokens.into_iter().map(|t| (t.id, t.token.into())));
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

/// What the small config files say.
struct Settings {
    roles: Vec<(&'static str, AddedToken)>,
    extra: Vec<AddedToken>,
    length: usize,
}

impl Settings {
    fn read(folder: &Folder) -> Result<Self> {
        let path = folder.path("tokenizer_config.json");
        let mut config: Map<String, Value> = folder.optional("tokenizer_config.json")?;
        let bad = |key: &str, value: &Value, expected: &str| {
            let short: String = value.to_string().chars().take(80).collect();
            Error::model(format!("{path}: {key} is {short}, expected {expected}"))
        };
        for key in ["padding_side", "truncation_side"] {
            if let Some(value) = config.get(key).filter(|v| v.as_str() != Some("right")) {
                return Err(bad(key, value, "\"right\""));
            }
        }
        let length = match config.get("model_max_length") {
            None | Some(Value::Null) => DEFAULT_LENGTH,
            Some(value) => match (value.as_u64(), value.as_f64()) {
                (Some(length @ 3..=MAX_LENGTH), _) => length as usize,
                (_, Some(unknown)) if unknown > MAX_LENGTH as f64 => DEFAULT_LENGTH,
                _ => return Err(bad("model_max_length", value, "3 or more")),
            },
        };
        // Where the config lists its added tokens, transformers does not look at the older file.
        if config.get("added_tokens_decoder").is_none_or(Value::is_null) {
            config.append(&mut folder.optional("special_tokens_map.json")?);
        }
        let mut extra = Vec::new();
        for key in ["extra_special_tokens", "additional_special_tokens"] {
            let Some(value @ Value::Array(list)) = config.get(key) else { continue };
            for token in list {
                extra.push(added_token(token).ok_or_else(|| bad(key, value, "a list of tokens"))?);
            }
        }
        let mut roles = Vec::new();
        for (role, default) in ROLES {
            match (config.get(role).filter(|v| !v.is_null()), default) {
                (Some(value), _) => {
                    let token = added_token(value);
                    roles.push((role, token.ok_or_else(|| bad(role, value, "a token"))?));
                }
                (None, Some(text)) => roles.push((role, AddedToken::from(text, true))),
                (None, None) => {}
            }
        }
        Ok(Self { roles, extra, length })
    }

    /// Every role's token, with the rules of the added token of the same text where there is one.
    fn special_tokens(&self, vocabulary: &Vocabulary) -> Vec<(&'static str, AddedToken)> {
        let token = |(role, token): &(&'static str, AddedToken)| {
            let known = vocabulary.added.values().find(|t| t.content == token.content);
            (*role, known.unwrap_or(token).clone())
        };
        self.roles.iter().map(token).collect()
    }
}

/// A token in a config: its text, which makes it special, or an object with its matching rules.
fn added_token(value: &Value) -> Option<AddedToken> {
    match value {
        Value::String(text) => Some(AddedToken::from(text.clone(), true)),
        object => TokenJson::deserialize(object).ok().map(Into::into),
    }
}
