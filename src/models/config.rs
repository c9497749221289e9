//! Reading `config.json`: typed fields, and keys that must have the value we implement.

use serde_json::Value;

use crate::error::{Error, Result};

/// One component's `config.json`.
#[derive(Debug)]
pub struct Config {
    file: String,
    values: Value,
}

impl Config {
    /// `file` names it in errors.
    pub fn new(file: impl Into<String>, values: Value) -> Self {
        Self { file: file.into(), values }
    }

    /// An error at this file.
    pub fn error(&self, message: impl Into<String>) -> Error {
        Error::model(message).at(&self.file)
    }

    /// The value of a key; absent and null are the same.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key).filter(|v| !v.is_null())
    }

    /// A whole number in 1..=65536 (every dimension of a network lies there).
    pub fn dim(&self, key: &str) -> Result<u32> {
        self.dim_opt(key)?.ok_or_else(|| self.error(format!("{key} is missing")))
    }

    /// A number of layers: a whole number in 0..=1000.
    pub fn layers(&self, key: &str) -> Result<u32> {
        let value = self.get(key).ok_or_else(|| self.error(format!("{key} is missing")))?;
        let layers = value.as_u64().and_then(|v| u32::try_from(v).ok()).filter(|v| *v <= 1000);
        layers.ok_or_else(|| {
            self.error(format!("{key} is {value}, expected a whole number from 0 to 1000"))
        })
    }

    /// Channels of all heads together, at most 65536.
    pub fn heads(&self, count: u32, dim: u32) -> Result<u32> {
        count.checked_mul(dim).filter(|width| *width <= 65536).ok_or_else(|| {
            self.error(format!("{count} heads of {dim} channels, expected at most 65536 in all"))
        })
    }

    /// Like [`Config::dim`], for a key that may be absent.
    pub fn dim_opt(&self, key: &str) -> Result<Option<u32>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        self.as_dim(key, value).map(Some)
    }

    fn as_dim(&self, key: &str, value: &Value) -> Result<u32> {
        value
            .as_u64()
            .and_then(|v| u32::try_from(v).ok())
            .filter(|v| (1..=65536).contains(v))
            .ok_or_else(|| {
                self.error(format!("{key} is {value}, expected a whole number from 1 to 65536"))
            })
    }

    /// A list of dimensions, or one that holds for all `len` entries.
    pub fn dims(&self, key: &str, len: usize) -> Result<Vec<u32>> {
        let value = self.get(key).ok_or_else(|| self.error(format!("{key} is missing")))?;
        match value {
            Value::Array(items) if items.len() == len => {
                items.iter().map(|v| self.as_dim(key, v)).collect()
            }
            Value::Array(items) => {
                Err(self.error(format!("{key} has {} entries, expected {len}", items.len())))
            }
            one => Ok(vec![self.as_dim(key, one)?; len]),
        }
    }

    /// A list of dimensions of any length from 1 to 8.
    pub fn dim_list(&self, key: &str) -> Result<Vec<u32>> {
        let len = self.get(key).and_then(Value::as_array).map_or(0, Vec::len);
        if !(1..=8).contains(&len) {
            return Err(self.error(format!("{key} needs a list of 1 to 8 numbers")));
        }
        self.dims(key, len)
    }

    /// A list of names.
    pub fn names(&self, key: &str) -> Result<Vec<&str>> {
        let names =
            self.get(key).and_then(Value::as_array).map(|v| v.iter().map(Value::as_str).collect());
        names.flatten().ok_or_else(|| self.error(format!("{key} needs a list of names")))
    }

    /// A number above 0, or `default` where the key is absent.
    pub fn positive(&self, key: &str, default: f64) -> Result<f32> {
        let value = self.number(key, default)? as f32;
        if value > 0.0 {
            return Ok(value);
        }
        Err(self.error(format!("{key} is {value}, expected a number above 0")))
    }

    /// A finite number, or `default` where the key is absent.
    pub fn number(&self, key: &str, default: f64) -> Result<f64> {
        match self.get(key) {
            None => Ok(default),
            Some(v) => v
                .as_f64()
                .filter(|v| (*v as f32).is_finite())
                .ok_or_else(|| self.error(format!("{key} is {v}, expected a number"))),
        }
    }

    /// A flag, or `default` where the key is absent.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(v) => v
                .as_bool()
                .ok_or_else(|| self.error(format!("{key} is {v}, expected true or false"))),
        }
    }

    /// A name, or `default` where the key is absent.
    pub fn name<'a>(&'a self, key: &str, default: &'a str) -> Result<&'a str> {
        match self.get(key) {
            None => Ok(default),
            Some(v) => {
                v.as_str().ok_or_else(|| self.error(format!("{key} is {v}, expected a name")))
            }
        }
    }

    /// Refuses a known key at a value that changes the network in a way we do not implement.
    /// `allowed` are JSON values; absent and null are always allowed.
    pub fn require(&self, key: &str, allowed: &[Value]) -> Result<()> {
        match self.get(key) {
            Some(v) if !allowed.contains(v) => {
                let list: Vec<String> = allowed.iter().map(Value::to_string).collect();
                Err(self.error(format!("{key} is {v}, which is not supported")).with_hint(format!(
                    "supported: {}",
                    if list.is_empty() { "null".into() } else { list.join(", ") }
                )))
            }
            _ => Ok(()),
        }
    }
}
