//! Where a model's files come from, and safetensors checkpoints read from them.
//!
//! Files are memory-mapped, so opening a checkpoint costs its header alone and a tensor's bytes are paged in
//! when they are first read. Only the safetensors format is read: pickles can run code and are refused.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::ops::{Deref, Range};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use memmap2::Mmap;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::header::read_header;
use super::rows::Rows;
use crate::error::{Error, Result};

pub use safetensors::Dtype;

/// No config, tokenizer or index is near this size; it bounds what a hostile file can make us parse.
const MAX_JSON_BYTES: usize = 64 << 20;

/// A model in `diffusers` layout: a folder on disk, or files compiled into the program.
#[derive(Debug, Clone)]
pub enum ModelFiles {
    /// A folder holding `model_index.json` and one subfolder per component.
    Folder(PathBuf),
    /// Compiled in.
    Embedded {
        /// The model's name.
        name: &'static str,
        /// `(relative path with forward slashes, contents)` of every file.
        files: &'static [(&'static str, &'static [u8])],
    },
}

impl ModelFiles {
    /// Opens a model folder.
    ///
    /// # Errors
    /// When `path` does not exist or is not a folder.
    pub fn open(path: &Path) -> Result<Self> {
        let shown = path.display();
        let kind = std::fs::metadata(path)
            .map_err(|e| Error::io(format!("cannot open the model folder {shown}"), e))?;
        if !kind.is_dir() {
            return Err(Error::model(format!("{shown} is a file, expected a model folder"))
                .with_hint("give the folder that holds model_index.json"));
        }
        Ok(Self::Folder(path.to_owned()))
    }

    /// The model's name for messages and metadata: the folder's last component, never its full path.
    pub fn name(&self) -> String {
        match self {
            Self::Folder(path) => {
                let absolute = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                let last = absolute.file_name().map(|n| n.to_string_lossy().into_owned());
                last.unwrap_or_else(|| "model".to_owned())
            }
            Self::Embedded { name, .. } => (*name).to_owned(),
        }
    }

    /// Whether there is a file at `rel` (forward slashes, inside the model).
    pub fn exists(&self, rel: &str) -> bool {
        match self {
            Self::Folder(root) => is_inside(rel) && root.join(rel).is_file(),
            Self::Embedded { files, .. } => files.iter().any(|(name, _)| *name == rel),
        }
    }

    /// The contents of the file at `rel`.
    ///
    /// # Errors
    /// When the file is missing, leaves the model folder, is not a regular file or cannot be mapped.
    pub fn read(&self, rel: &str) -> Result<Bytes> {
        let missing =
            || Error::model(format!("{rel}: no such file in the model {:?}", self.name()));
        match self {
            Self::Folder(root) => {
                if !is_inside(rel) {
                    return Err(Error::model(format!("{rel:?} is not a path inside the model")));
                }
                let path = root.join(rel);
                if path.exists() { read_file(&path, rel) } else { Err(missing()) }
            }
            Self::Embedded { files, .. } => files
                .iter()
                .find(|(name, _)| *name == rel)
                .map(|(_, data)| Bytes(Repr::Static(data)))
                .ok_or_else(missing),
        }
    }

    /// The JSON file at `rel` as a `T`.
    ///
    /// # Errors
    /// As [`ModelFiles::read`], and when the file is not JSON of `T`'s shape: the message names the file,
    /// the line and what is wrong.
    pub fn read_json<T: DeserializeOwned>(&self, rel: &str) -> Result<T> {
        let bytes = self.read(rel)?;
        if bytes.len() > MAX_JSON_BYTES {
            return Err(Error::model(format!(
                "{rel}: {} bytes of JSON, expected at most {MAX_JSON_BYTES}",
                bytes.len()
            )));
        }
        serde_json::from_slice(&super::json::standard(&bytes))
            .map_err(|e| Error::model(format!("{rel}: {e}")))
    }
}

/// Whether `rel` is made of plain names only, so that joining it to a folder stays inside.
fn is_inside(rel: &str) -> bool {
    !rel.is_empty() && Path::new(rel).components().all(|c| matches!(c, Component::Normal(_)))
}

fn read_file(path: &Path, rel: &str) -> Result<Bytes> {
    // A pipe or a device would block or never end, so ask before opening.
    match std::fs::metadata(path) {
        Ok(kind) if kind.is_file() => map_file(path, rel),
        Ok(_) => Err(Error::model(format!("{rel}: not a regular file"))),
        Err(e) => Err(Error::io(format!("{rel}: cannot be read"), e)),
    }
}

fn map_file(path: &Path, rel: &str) -> Result<Bytes> {
    let cannot = |e| Error::io(format!("{rel}: cannot be read"), e);
    let file = File::open(path).map_err(cannot)?;
    if file.metadata().map_err(cannot)?.len() == 0 {
        return Ok(Bytes(Repr::Static(&[])));
    }
    // SAFETY: the bytes are only ever read, as plain `u8`. A file changed by someone else while it is mapped
    // shows changed bytes, and one cut short ends the process with a signal: the usual bargain of mapped weights.
    let map = unsafe { Mmap::map(&file) }.map_err(cannot)?;
    Ok(Bytes(Repr::Mapped(Arc::new(map))))
}

/// A file's contents: mapped or compiled in. Cloning is cheap and keeps the mapping alive.
#[derive(Debug, Clone)]
pub struct Bytes(Repr);

#[derive(Debug, Clone)]
enum Repr {
    Mapped(Arc<Mmap>),
    Static(&'static [u8]),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Mapped(map) => map,
            Repr::Static(data) => data,
        }
    }
}

/// A tensor as it stands in the file: row-major, little endian, at any alignment.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    /// Element type in the file.
    pub dtype: Dtype,
    /// Shape, outermost axis first; empty for a scalar.
    pub shape: &'a [usize],
    /// `product(shape)` elements.
    pub data: &'a [u8],
}

/// One component's tensors, from one safetensors file or from shards listed by an index.
#[derive(Debug, Default)]
pub struct Checkpoint {
    place: String,
    files: Vec<Bytes>,
    tensors: BTreeMap<String, Entry>,
    texts: HashMap<String, String>,
}

#[derive(Debug)]
struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    range: Range<usize>,
}

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Opens `subfolder/STEM.safetensors`, its shards, or the `fp16` variant of either, in this order.
    ///
    /// `stem` is `diffusion_pytorch_model` (denoiser, VAE) or `model` (text encoders); an empty `subfolder`
    /// is the model folder itself.
    ///
    /// # Errors
    /// When there is no such file (or only pickles), a header is malformed, a file is longer or shorter than
    /// its header says, an index names a file outside the folder or a tensor its shard lacks, or two shards
    /// hold the same name.
    pub fn open(files: &ModelFiles, subfolder: &str, stem: &str) -> Result<Self> {
        let at = |name: &str| join(subfolder, name);
        let singles = [format!("{stem}.safetensors"), format!("{stem}.fp16.safetensors")];
        let indices: [&[String]; 2] = [
            &[format!("{stem}.safetensors.index.json")],
            &[
                format!("{stem}.safetensors.index.fp16.json"),
                format!("{stem}.fp16.safetensors.index.json"),
            ],
        ];
        let mut checkpoint = Self {
            place: if subfolder.is_empty() { files.name() } else { subfolder.to_owned() },
            ..Self::default()
        };
        for (single, indices) in singles.iter().zip(indices) {
            if files.exists(&at(single)) {
                checkpoint.add_file(files, &at(single))?;
                return Ok(checkpoint);
            }
            if let Some(index) = indices.iter().find(|name| files.exists(&at(name))) {
                checkpoint.add_shards(files, subfolder, &at(index))?;
                return Ok(checkpoint);
            }
        }
        Err(no_checkpoint(files, subfolder, stem))
    }

    fn add_shards(&mut self, files: &ModelFiles, subfolder: &str, index: &str) -> Result<()> {
        let map = files.read_json::<ShardIndex>(index)?.weight_map;
        let shards: BTreeSet<&String> = map.values().collect();
        for shard in shards {
            if !is_plain_name(shard) {
                return Err(Error::model(format!(
                    "{index}: shard {shard:?} is not a plain file name"
                )));
            }
            self.add_file(files, &join(subfolder, shard)).map_err(|e| e.at(index))?;
        }
        if let Some((name, shard)) = map.iter().find(|(name, _)| !self.tensors.contains_key(*name))
        {
            return Err(Error::model(format!(
                "{index}: tensor {name:?} is listed in {shard} but not there"
            )));
        }
        Ok(())
    }

    /// Opens one safetensors file, wherever it lies.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn open_file(path: &Path) -> Result<Self> {
        let place = path.display().to_string();
        let bytes = read_file(path, &place)?;
        let mut checkpoint = Self { place: place.clone(), ..Self::default() };
        checkpoint.add_bytes(bytes, &place)?;
        Ok(checkpoint)
    }

    /// The texts in the headers.
    pub fn texts(&self) -> &HashMap<String, String> {
        &self.texts
    }

    fn add_file(&mut self, files: &ModelFiles, rel: &str) -> Result<()> {
        self.add_bytes(files.read(rel)?, rel)
    }

    fn add_bytes(&mut self, bytes: Bytes, rel: &str) -> Result<()> {
        let (start, header) = read_header(&bytes).map_err(|e| e.at(rel))?;
        for (name, info) in header.tensors() {
            let (from, to) = info.data_offsets;
            let entry = Entry {
                file: self.files.len(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                range: start + from..start + to,
            };
            if self.tensors.insert(name.clone(), entry).is_some() {
                return Err(Error::model(format!(
                    "{rel}: tensor {name:?} stands in another shard too"
                )));
            }
        }
        self.texts.extend(header.metadata().clone().unwrap_or_default());
        self.files.push(bytes);
        Ok(())
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The tensor called `name`, as it stands in the file.
    pub fn get(&self, name: &str) -> Option<TensorView<'_>> {
        let entry = self.tensors.get(name)?;
        let data = self.files.get(entry.file)?.get(entry.range.clone())?;
        Some(TensorView { dtype: entry.dtype, shape: &entry.shape, data })
    }

    /// The rows of the matrix called `name`, to be read one by one.
    pub(super) fn rows(&self, name: &str, width: u32) -> Option<Rows> {
        let entry = self.tensors.get(name)?;
        let bytes = self.files.get(entry.file)?.clone();
        Some(Rows::new(bytes, entry.range.clone(), entry.dtype, width))
    }

    /// The values of the tensor called `name`, row-major.
    ///
    /// # Errors
    /// When there is no such tensor, or its dtype is none of F32, F16, BF16, F64.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>> {
        let view = self
            .get(name)
            .ok_or_else(|| Error::model(format!("{}: no tensor {name:?}", self.place)))?;
        view.to_f32().map_err(|e| e.at(format_args!("{}: {name}", self.place)))
    }
}

impl TensorView<'_> {
    /// The values as `f32`, row-major; F64 is rounded.
    ///
    /// # Errors
    /// When the dtype is none of F32, F16, BF16, F64.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        Ok(match self.dtype {
            Dtype::F32 => collect(self.data, f32::from_le_bytes),
            Dtype::F64 => collect(self.data, |b| f64::from_le_bytes(b) as f32),
            Dtype::F16 => collect(self.data, f16::from_le_bytes).to_f32_vec(),
            Dtype::BF16 => collect(self.data, bf16::from_le_bytes).to_f32_vec(),
            other => {
                return Err(Error::model(format!(
                    "dtype is {other}, expected F32, F16, BF16 or F64"
                ))
                .with_hint("save the checkpoint in half precision without quantisation"));
            }
        })
    }
}

/// Elements of `N` bytes each, copied out one by one: mapped data may stand at any alignment.
fn collect<const N: usize, T>(data: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    let element = |chunk: &[u8]| {
        let mut bytes = [0; N];
        bytes.copy_from_slice(chunk);
        read(bytes)
    };
    data.chunks_exact(N).map(element).collect()
}

fn join(subfolder: &str, name: &str) -> String {
    if subfolder.is_empty() { name.to_owned() } else { format!("{subfolder}/{name}") }
}

/// Whether `name` is one file name on every platform: no separators, drives, `.` or `..`.
fn is_plain_name(name: &str) -> bool {
    !name.contains(['/', '\\', ':', '\0']) && !matches!(name, "" | "." | "..")
}

/// The error for a component without a safetensors checkpoint.
fn no_checkpoint(files: &ModelFiles, subfolder: &str, stem: &str) -> Error {
    let pickles = ["bin", "fp16.bin", "bin.index.json", "ckpt", "pt", "pth"]
        .map(|extension| format!("{stem}.{extension}"));
    let stock = ["pytorch_model.bin", "pytorch_model.fp16.bin", "pytorch_model.bin.index.json"];
    let place = if subfolder.is_empty() { files.name() } else { subfolder.to_owned() };
    let found = pickles.iter().map(String::as_str).chain(stock);
    match found.map(|name| join(subfolder, name)).find(|rel| files.exists(rel)) {
        Some(pickle) => Error::model(format!(
            "{place}: {pickle} is a pickle, which can run code and is never read"
        ))
        .with_hint("convert it to safetensors, or download the model's safetensors files"),
        None => Error::model(format!("{place}: no {stem}.safetensors in the model"))
            .with_hint("check that the download is complete and in diffusers layout"),
    }
}
