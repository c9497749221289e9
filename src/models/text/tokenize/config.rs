//! What the small config files beside a vocabulary say: special tokens, added tokens, sides.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};
use tokenizers::{AddedToken, Tokenizer};

use crate::error::{Error, Result};
use crate::weights::ModelFiles;

/// Tokens that are matched in the prompt before it is split into words, by id.
pub(super) type AddedTokens = BTreeMap<u32, AddedToken>;

/// A tokenizer folder inside a model.
pub(super) struct Folder<'a> {
    pub files: &'a ModelFiles,
    pub subfolder: &'a str,
}

impl Folder<'_> {
    pub fn path(&self, name: &str) -> String {
        if self.subfolder.is_empty() {
            name.to_owned()
        } else {
            format!("{}/{name}", self.subfolder)
        }
    }

    pub fn optional<T: serde::de::DeserializeOwned + Default>(&self, name: &str) -> Result<T> {
        let path = self.path(name);
        if self.files.exists(&path) { self.files.read_json(&path) } else { Ok(T::default()) }
    }
}

/// An entry of `added_tokens` in a `tokenizer.json`.
#[derive(Deserialize)]
pub(super) struct NumberedToken {
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

impl From<NumberedToken> for (u32, AddedToken) {
    fn from(token: NumberedToken) -> Self {
        (token.id, token.token.into())
    }
}

/// A special token's name in the config, and its text where the config does not say.
pub(super) type Role = (&'static str, Option<&'static str>);

/// `tokenizer_config.json` and the older files that say the same.
pub(super) struct Settings {
    /// `tokenizer_config.json`, joined by `special_tokens_map.json` where the former does not list its tokens.
    pub config: Map<String, Value>,
    /// The tokens that the config lists with their ids, where it does.
    pub listed: Option<AddedTokens>,
    roles: Vec<(&'static str, AddedToken)>,
    extra: Vec<AddedToken>,
}

impl Settings {
    pub fn read(folder: &Folder, roles: &[Role]) -> Result<Self> {
        let mut config: Map<String, Value> = folder.optional("tokenizer_config.json")?;
        for key in ["padding_side", "truncation_side"] {
            if let Some(value) = config.get(key).filter(|v| v.as_str() != Some("right")) {
                return Err(bad(folder, key, value, "\"right\""));
            }
        }
        let listed = match config.get("added_tokens_decoder").filter(|v| !v.is_null()) {
            Some(listed) => {
                let tokens: BTreeMap<u32, TokenJson> =
                    Deserialize::deserialize(listed).map_err(|e| {
                        Error::model(format!("added_tokens_decoder: {e}"))
                            .at(folder.path("tokenizer_config.json"))
                    })?;
                Some(tokens.into_iter().map(|(id, token)| (id, token.into())).collect())
            }
            // Where the config lists its added tokens, transformers does not look at the older file.
            None => {
                config.append(&mut folder.optional("special_tokens_map.json")?);
                None
            }
        };
        let mut extra = Vec::new();
        for key in ["extra_special_tokens", "additional_special_tokens"] {
            let Some(value @ Value::Array(list)) = config.get(key) else { continue };
            for token in list {
                let token = added_token(token);
                extra.push(token.ok_or_else(|| bad(folder, key, value, "a list of tokens"))?);
            }
        }
        let mut found = Vec::new();
        for (role, default) in roles {
            match (config.get(*role).filter(|v| !v.is_null()), default) {
                (Some(value), _) => {
                    let token = added_token(value);
                    found.push((*role, token.ok_or_else(|| bad(folder, role, value, "a token"))?));
                }
                (None, Some(text)) => found.push((*role, AddedToken::from(*text, true))),
                (None, None) => {}
            }
        }
        Ok(Self { config, listed, roles: found, extra })
    }

    /// Every role's token, with the rules of the added token of the same text where there is one.
    pub fn special_tokens(&self, added: &AddedTokens) -> Vec<(&'static str, AddedToken)> {
        let token = |(role, token): &(&'static str, AddedToken)| {
            let known = added.values().find(|t| t.content == token.content);
            (*role, known.unwrap_or(token).clone())
        };
        self.roles.iter().map(token).collect()
    }

    /// Makes the added and the special tokens stand on their own wherever they occur in a prompt.
    pub fn add_tokens(
        &self,
        tokenizer: &mut Tokenizer,
        added: &AddedTokens,
        special: &[(&str, AddedToken)],
    ) -> Result<()> {
        let mut tokens: Vec<AddedToken> = added.values().cloned().collect();
        for token in special.iter().map(|(_, token)| token).chain(&self.extra) {
            if !tokens.iter().any(|t| t.content == token.content) {
                tokens.push(token.clone());
            }
        }
        for token in &mut tokens {
            token.special |= special.iter().any(|(_, s)| s.content == token.content);
        }
        tokenizer.add_tokens(tokens).map_err(|e| Error::model(format!("added tokens: {e}")))?;
        match added.iter().find(|(id, t)| tokenizer.token_to_id(&t.content) != Some(**id)) {
            Some((id, token)) => Err(Error::model(format!(
                "added token {:?} has id {id} in the config, expected {:?}",
                token.content,
                tokenizer.token_to_id(&token.content)
            ))),
            None => Ok(()),
        }
    }
}

/// The error for a key of `tokenizer_config.json` whose value does not fit.
pub(super) fn bad(folder: &Folder, key: &str, value: &Value, expected: &str) -> Error {
    let short: String = value.to_string().chars().take(80).collect();
    let path = folder.path("tokenizer_config.json");
    Error::model(format!("{path}: {key} is {short}, expected {expected}"))
}

/// The text of the token that plays `role`.
pub(super) fn text_of<'a>(special: &'a [(&'static str, AddedToken)], role: &str) -> &'a str {
    special.iter().find(|(r, _)| *r == role).map_or("", |(_, token)| &token.content)
}

/// A token in a config: its text, which makes it special, or an object with its matching rules.
fn added_token(value: &Value) -> Option<AddedToken> {
    match value {
        Value::String(text) => Some(AddedToken::from(text.clone(), true)),
        object => TokenJson::deserialize(object).ok().map(Into::into),
    }
}
