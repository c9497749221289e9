//! The command line: `cargo bench -- [FILTER] [--json FILE] [--tier T] [--device D] [--type f32|f16]
//! [--seconds S] [--limits L]`.

use scalediff::error::{Error, Result};
use scalediff::gpu::GpuOptions;
use scalediff::tensor::DType;

pub struct Args {
    /// Part of `kernel/case`.
    pub filter: String,
    pub json: Option<String>,
    pub gpu: GpuOptions,
    pub dtype: DType,
    /// Time to spend on each case.
    pub seconds: f64,
}

impl Args {
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut args = Args {
            filter: String::new(),
            json: None,
            gpu: GpuOptions::default(),
            dtype: DType::F16,
            seconds: 1.0,
        };
        while let Some(word) = words.next() {
            let mut value =
                || words.next().ok_or_else(|| Error::usage(format!("{word} needs a value")));
            match word.as_str() {
                // What cargo passes itself.
                "--bench" => {}
                "--json" => args.json = Some(value()?),
                "--tier" => args.gpu.tier = Some(value()?.parse()?),
                "--device" => args.gpu.device = Some(value()?),
                "--limits" => args.gpu.limits = Some(value()?),
                "--type" => {
                    args.dtype = match value()?.as_str() {
                        "f32" => DType::F32,
                        "f16" => DType::F16,
                        other => return Err(Error::usage(format!("unknown type {other:?}"))),
                    }
                }
                "--seconds" => {
                    let text = value()?;
                    args.seconds = text
                        .parse()
                        .map_err(|_| Error::usage(format!("--seconds: {text:?} is no number")))?;
                }
                other if other.starts_with('-') => {
                    return Err(Error::usage(format!("unknown option {other}")).with_hint(
                        "options are [FILTER] --json --tier --device --limits --type --seconds",
                    ));
                }
                filter => args.filter = filter.to_string(),
            }
        }
        Ok(args)
    }
}
