//! Tokenizers and text encoders.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Outputs, one};
use crate::error::Result;
use crate::models::text::{ClipTokenizer, T5Tokenizer};
use crate::pipeline::{Model, encode_clip, encode_t5};
use crate::verify::Case;
use crate::verify::case::{CaseTensor, Values};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Subfolder {
    subfolder: String,
}

pub fn clip_text(model: &Model, case: &Case) -> Result<Outputs> {
    let params: Subfolder = case.params()?;
    let ids = case.ids("input_ids")?;
    let encoder = model.clip(&params.subfolder)?;
    let rows: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
    let states = encode_clip(model.engine()?, &encoder, &rows, &mut |_| Ok(()))?;
    let (batch, tokens, width) =
        (ids.len(), ids.first().map_or(0, Vec::len), encoder.net.config.width as usize);
    let all = |f: &dyn Fn(usize) -> Vec<f32>| (0..batch).flat_map(f).collect::<Vec<f32>>();
    let mut out =
        one("penultimate", vec![batch, tokens, width], all(&|i| states[i].penultimate.clone()));
    out.append(&mut one("pooled", vec![batch, width], all(&|i| states[i].pooled.clone())));
    if let Some(projection) = encoder.net.config.projection {
        let values = all(&|i| states[i].projected.clone().unwrap_or_default());
        out.append(&mut one("text_embeds", vec![batch, projection as usize], values));
    }
    Ok(out)
}

pub fn tokenize(model: &Model, case: &Case) -> Result<Outputs> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Params {
        subfolder: String,
        text: String,
        /// Of T5's tokenizer.
        length: Option<u32>,
    }
    let params: Params = case.params()?;
    let ids = match params.length {
        None => ClipTokenizer::open(&model.files, &params.subfolder)?.encode(&params.text)?.ids,
        Some(length) => {
            T5Tokenizer::open(&model.files, &params.subfolder)?.encode(&params.text, length)?.ids
        }
    };
    let values: Vec<i64> = ids.iter().map(|v| i64::from(*v)).collect();
    let tensor = CaseTensor { shape: vec![1, values.len()], values: Values::I64(values) };
    Ok(BTreeMap::from([("input_ids".to_string(), tensor)]))
}

pub fn t5_encoder(model: &Model, case: &Case) -> Result<Outputs> {
    let params: Subfolder = case.params()?;
    let ids = case.ids("input_ids")?;
    let encoder = model.t5(&params.subfolder)?;
    let rows: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
    let hidden = encode_t5(model.engine()?, &encoder, &rows, &mut |_| Ok(()))?;
    let (batch, width) = (rows.len(), encoder.net.config.width as usize);
    let tokens = rows.first().map_or(0, |row| row.len());
    Ok(one("hidden", vec![batch, tokens, width], hidden))
}
