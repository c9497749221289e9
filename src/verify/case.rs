//! One case file.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::pipeline::Precision;

/// What f16 storage may err, whatever the case says of f32.
const F16_REL: f64 = 0.005;
/// The same for a whole cascade, where errors add up.
const F16_PIPELINE_REL: f64 = 0.01;

/// A tensor of a case: f32 values, or whole numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct CaseTensor {
    pub shape: Vec<usize>,
    pub values: Values,
}

/// The values of a [`CaseTensor`].
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    F32(Vec<f32>),
    I64(Vec<i64>),
}

/// A case, read.
#[derive(Debug)]
pub struct Case {
    pub component: String,
    params: Value,
    rel: f64,
    inputs: BTreeMap<String, CaseTensor>,
    outputs: BTreeMap<String, CaseTensor>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    component: String,
    params: Value,
    tolerance: Tolerance,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tolerance {
    rel: f64,
}

/// One output against what was recorded.
#[derive(Debug, Clone)]
pub struct Comparison {
    pub output: String,
    /// |got - want| / |want| (L2); infinite for a wrong shape or a NaN; for whole numbers the share that differs.
    pub error: f64,
    pub tolerance: f64,
}

impl Comparison {
    /// Whether the error is within tolerance.
    pub fn passed(&self) -> bool {
        self.error <= self.tolerance
    }
}

impl Values {
    fn len(&self) -> usize {
        match self {
            Values::F32(values) => values.len(),
            Values::I64(values) => values.len(),
        }
    }
}

impl Case {
    /// # Errors
    /// A file that is no case.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path)
            .map_err(|e| Error::io(format!("cannot read {}", path.display()), e))?;
        Self::parse(&bytes).map_err(|e| e.at(path.display()))
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let broken =
            |e: safetensors::SafeTensorError| Error::model("not a safetensors file").with_source(e);
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(broken)?;
        let tensors = SafeTensors::deserialize(bytes).map_err(broken)?;
        let header = metadata
            .metadata()
            .as_ref()
            .and_then(|m| m.get("case"))
            .ok_or_else(|| Error::model("the metadata has no key \"case\""))?;
        let header: Header = serde_json::from_str(header)
            .map_err(|e| Error::model("the metadata key \"case\" cannot be read").with_source(e))?;
        let (mut inputs, mut outputs) = (BTreeMap::new(), BTreeMap::new());
        for (name, view) in tensors.tensors() {
            let values = match view.dtype() {
                Dtype::F32 => Values::F32(
                    view.data()
                        .chunks_exact(4)
                        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                        .collect(),
                ),
                Dtype::I64 => Values::I64(
                    view.data()
                        .chunks_exact(8)
                        .map(|b| {
                            i64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]])
                        })
                        .collect(),
                ),
                other => {
                    return Err(Error::model(format!(
                        "tensor {name} is {other:?}, expected F32 or I64"
                    )));
                }
            };
            let tensor = CaseTensor { shape: view.shape().to_vec(), values };
            if let Some(name) = name.strip_prefix("in.") {
                inputs.insert(name.to_string(), tensor);
            } else if let Some(name) = name.strip_prefix("out.") {
                outputs.insert(name.to_string(), tensor);
            } else {
                return Err(Error::model(format!("tensor {name} is neither in.* nor out.*")));
            }
        }
        if outputs.is_empty() {
            return Err(Error::model("the case has no output"));
        }
        Ok(Self {
            component: header.component,
            params: header.params,
            rel: header.tolerance.rel,
            inputs,
            outputs,
        })
    }

    /// The parameters; unknown keys are an error.
    pub fn params<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_value(self.params.clone()).map_err(|e| {
            Error::model(format!("params of {} cannot be read", self.component)).with_source(e)
        })
    }

    /// An input of f32 values with its shape of `N` dimensions.
    pub fn input<const N: usize>(&self, name: &str) -> Result<([usize; N], &[f32])> {
        let tensor = self
            .inputs
            .get(name)
            .ok_or_else(|| Error::model(format!("input {name} is missing")))?;
        let shape = <[usize; N]>::try_from(tensor.shape.as_slice()).map_err(|_| {
            Error::model(format!(
                "input {name} has shape {:?}, expected {N} dimensions",
                tensor.shape
            ))
        })?;
        match &tensor.values {
            Values::F32(values) if !values.is_empty() => Ok((shape, values)),
            _ => Err(Error::model(format!("input {name} is empty or not F32"))),
        }
    }

    /// An input of token ids, `[rows, length]`.
    pub fn ids(&self, name: &str) -> Result<Vec<Vec<u32>>> {
        let tensor = self
            .inputs
            .get(name)
            .ok_or_else(|| Error::model(format!("input {name} is missing")))?;
        let (Values::I64(values), [_, length]) = (&tensor.values, tensor.shape.as_slice()) else {
            return Err(Error::model(format!("input {name} is not I64 with two dimensions")));
        };
        if values.is_empty() {
            return Err(Error::model(format!("input {name} is empty")));
        }
        let row = |row: &[i64]| {
            row.iter()
                .map(|v| {
                    u32::try_from(*v)
                        .map_err(|_| Error::model(format!("input {name} has the id {v}")))
                })
                .collect()
        };
        values.chunks_exact(*length).map(row).collect()
    }

    /// Whether an output is recorded.
    pub fn wants(&self, name: &str) -> bool {
        self.outputs.contains_key(name)
    }

    /// Names of the recorded outputs.
    pub fn wanted(&self) -> impl Iterator<Item = &str> {
        self.outputs.keys().map(String::as_str)
    }

    /// What the outputs may err at a precision.
    pub fn tolerance(&self, precision: Precision) -> f64 {
        match precision {
            Precision::F32 => self.rel,
            Precision::F16 if self.component == "pipeline" => self.rel.max(F16_PIPELINE_REL),
            Precision::F16 => self.rel.max(F16_REL),
        }
    }

    /// Compares what was computed with every recorded output.
    ///
    /// # Errors
    /// A recorded output that nothing computed: a case must not pass because a part was skipped.
    pub fn compare(
        &self,
        got: BTreeMap<String, CaseTensor>,
        tolerance: f64,
    ) -> Result<Vec<Comparison>> {
        self.outputs
            .iter()
            .map(|(name, want)| {
                let got = got.get(name).ok_or_else(|| {
                    Error::model(format!("{} has no output {name}", self.component))
                })?;
                Ok(Comparison { output: name.clone(), error: distance(got, want), tolerance })
            })
            .collect()
    }
}

/// Relative L2 distance in f64; infinite where the shape differs or a value is not finite.
fn distance(got: &CaseTensor, want: &CaseTensor) -> f64 {
    if got.shape != want.shape || got.values.len() != want.values.len() {
        return f64::INFINITY;
    }
    match (&got.values, &want.values) {
        (Values::I64(a), Values::I64(b)) => {
            a.iter().zip(b).filter(|(a, b)| a != b).count() as f64 / a.len().max(1) as f64
        }
        (Values::F32(a), Values::F32(b)) => {
            if a.iter().any(|v| !v.is_finite()) {
                return f64::INFINITY;
            }
            let (mut difference, mut norm) = (0.0f64, 0.0f64);
            for (a, b) in a.iter().zip(b) {
                difference += (f64::from(*a) - f64::from(*b)).powi(2);
                norm += f64::from(*b).powi(2);
            }
            if norm == 0.0 {
                if difference == 0.0 { 0.0 } else { f64::INFINITY }
            } else {
                (difference / norm).sqrt()
            }
        }
        _ => f64::INFINITY,
    }
}
