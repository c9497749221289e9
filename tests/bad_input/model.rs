//! Model folders: those of the embedded models, with one thing wrong.

use std::fs;
use std::path::{Path, PathBuf};

use scalediff::gpu::Caps;
use scalediff::pipeline::{Model, flux_ids, plan, tokenize};
use scalediff::sampling::SamplerChoice;
use scalediff::weights::{Checkpoint, ModelFiles};
use scalediff::{
    Engine, Error, ErrorKind, Event, GpuOptions, LoadOptions, Pipeline, Precision, Request, Result,
    embedded,
};
use serde_json::{Map, Value, json};

use crate::{Judge, folder};

const CONFIGS: [&str; 11] = [
    "model_index.json",
    "scalediff.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder_2/config.json",
    "unet/config.json",
    "transformer/config.json",
    "vae/config.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer_2/tokenizer_config.json",
    "tokenizer/special_tokens_map.json",
];

/// An embedded model on disk.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str, model: ModelFiles) -> Self {
        let ModelFiles::Embedded { files, .. } = model else { panic!("embedded") };
        let root = folder(name);
        for (rel, bytes) in files {
            let path = root.join(rel);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        Self(root)
    }

    fn path(&self, rel: &str) -> PathBuf {
        self.0.join(rel)
    }

    fn files(&self) -> ModelFiles {
        ModelFiles::open(&self.0).unwrap()
    }

    /// With `rel` changed by `change`, meanwhile.
    fn with<T>(
        &self,
        rel: &str,
        change: impl FnOnce(&Path),
        run: impl FnOnce(&ModelFiles) -> T,
    ) -> T {
        let (path, aside) = (self.path(rel), self.0.join("aside"));
        let moved = fs::rename(&path, &aside).is_ok();
        change(&path);
        let result = run(&self.files());
        if path.is_dir() {
            fs::remove_dir_all(&path).unwrap();
        }
        let _ = fs::remove_file(&path);
        if moved {
            fs::rename(&aside, &path).unwrap();
        }
        result
    }

    /// With `rel` holding other bytes, meanwhile.
    fn holding<T>(&self, rel: &str, bytes: &[u8], run: impl FnOnce(&ModelFiles) -> T) -> T {
        self.with(rel, |path| fs::write(path, bytes).unwrap(), run)
    }
}

/// Everything that reads a model folder, but for the device.
fn read(files: &ModelFiles) -> Result<()> {
    let model = Model::of_shapes(Caps::FLOOR.limits, files.clone(), Precision::F16);
    model.scheduler(SamplerChoice::default())?.schedule(20)?;
    plan(files, Precision::F16, &Caps::FLOOR, &Request::default())?;
    let denoiser = if files.exists("unet/config.json") { "unet" } else { "transformer" };
    if denoiser == "unet" {
        tokenize(files, "a red ball on sand")?;
    } else {
        flux_ids(files, "a red ball on sand", 32)?;
    }
    for (folder, stem) in [
        ("text_encoder", "model"),
        ("text_encoder_2", "model"),
        (denoiser, "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
    ] {
        let checkpoint = Checkpoint::open(files, folder, stem)?;
        for name in checkpoint.names() {
            checkpoint.read_f32(name)?;
        }
    }
    Ok(())
}

#[test]
fn files_that_are_not_what_they_should_be() {
    wrong_files("files", embedded::tiny_sdxl());
}

#[test]
fn files_of_a_transformer_that_are_not_what_they_should_be() {
    wrong_files("flux-files", embedded::tiny_flux());
}

fn wrong_files(name: &str, model: ModelFiles) {
    let folder = Folder::new(name, model.clone());
    let mut judge = Judge::default();
    judge.right("the model itself", || read(&folder.files()));
    let ModelFiles::Embedded { files, .. } = model else { panic!("embedded") };
    for (rel, bytes) in files {
        let noise: Vec<u8> =
            (0..5000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let half = &bytes[..bytes.len() / 2];
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n";
        let deep = "[".repeat(200_000);
        let contents: [(&str, &[u8]); 8] = [
            ("empty", b""),
            ("cut in half", half),
            ("noise", &noise),
            ("a Git LFS pointer", pointer),
            ("null", b"null"),
            ("a list", b"[]"),
            ("nested deeply", deep.as_bytes()),
            ("UTF-16", b"\xff\xfe{\0}\0"),
        ];
        for (how, contents) in contents {
            let what = format!("{rel}: {how}");
            folder.holding(rel, contents, |files| judge.any(&what, || read(files)));
        }
        folder.with(rel, |_| (), |files| judge.any(&format!("{rel}: missing"), || read(files)));
        let made = |path: &Path| fs::create_dir(path).unwrap();
        folder.with(rel, made, |files| judge.any(&format!("{rel}: a folder"), || read(files)));
        #[cfg(unix)]
        {
            let made = |path: &Path| {
                assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
            };
            folder.with(rel, made, |files| judge.any(&format!("{rel}: a pipe"), || read(files)));
            let made = |path: &Path| std::os::unix::fs::symlink(path, path).unwrap();
            folder.with(rel, made, |files| judge.any(&format!("{rel}: a loop"), || read(files)));
        }
    }
    judge.verdict("files", 200);
}

/// `json` with one value changed, at any depth of objects; with what was done.
fn mutations(json: &Value) -> Vec<(String, Value)> {
    let values = [
        None,
        Some(Value::Null),
        Some(json!(0)),
        Some(json!(-1)),
        Some(json!(3)),
        Some(json!(1_000_000_000_000_000_000_u64)),
        Some(json!(1e300)),
        Some(json!("text")),
        Some(json!([])),
        Some(json!([[1]])),
        Some(json!({})),
        Some(json!(true)),
    ];
    let object: &Map<String, Value> = json.as_object().expect("an object");
    let mut out = Vec::new();
    for key in object.keys() {
        for value in &values {
            let mut changed = object.clone();
            match value {
                None => drop(changed.remove(key)),
                Some(value) => drop(changed.insert(key.clone(), value.clone())),
            }
            let what = value.as_ref().map_or("gone".into(), Value::to_string);
            out.push((format!("{key} is {what}"), Value::Object(changed)));
        }
    }
    out
}

#[test]
fn configs_with_one_wrong_value() {
    wrong_configs("configs", embedded::tiny_sdxl());
}

#[test]
fn configs_of_a_transformer_with_one_wrong_value() {
    wrong_configs("flux-configs", embedded::tiny_flux());
}

fn wrong_configs(name: &str, model: ModelFiles) {
    let folder = Folder::new(name, model.clone());
    let mut judge = Judge::default();
    let mut readable = Vec::new();
    for rel in CONFIGS.into_iter().filter(|rel| model.exists(rel)) {
        let config: Value = serde_json::from_slice(&fs::read(folder.path(rel)).unwrap()).unwrap();
        for (what, changed) in mutations(&config) {
            let (what, before) = (format!("{rel}: {what}"), judge.accepted);
            let bytes = changed.to_string().into_bytes();
            folder.holding(rel, &bytes, |files| judge.any(&what, || read(files)));
            if judge.accepted > before && changed != config {
                readable.push((rel, what, bytes));
            }
        }
    }
    // What can be read may still not fit the weights: that shows when a device takes them.
    let engine = Engine::open(GpuOptions::default()).unwrap();
    for (rel, what, bytes) in readable.iter().step_by(7) {
        folder.holding(rel, bytes, |files| {
            judge.any(&format!("{what}, loaded"), || load(&engine, files))
        });
    }
    judge.verdict("configs", 600);
}

/// Loads everything that a picture needs first, and stops when sampling begins.
fn load(engine: &Engine, files: &ModelFiles) -> Result<()> {
    let mut pipeline = Pipeline::load(engine, files, LoadOptions::default())?;
    let request =
        Request { prompt: "x".into(), width: Some(64), height: Some(64), ..Request::default() };
    let outcome = pipeline.generate(&request, &mut |event: Event| match event {
        Event::Stage { .. } => Err(Error::cancelled()),
        _ => Ok(()),
    });
    match outcome {
        Err(error) if error.kind() != ErrorKind::Cancelled => Err(error),
        _ => Ok(()),
    }
}

/// A safetensors file of a header and some data.
fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

#[test]
fn checkpoints_with_a_broken_header() {
    let folder = Folder::new("headers", embedded::tiny_sdxl());
    let mut judge = Judge::default();
    let rel = "vae/diffusion_pytorch_model.safetensors";
    let tensor = |text: &str| safetensors(&format!(r#"{{"a":{text}}}"#), &[0; 16]);
    let good = tensor(r#"{"dtype":"F32","shape":[4],"data_offsets":[0,16]}"#);
    let many: String = (0..100_000)
        .map(|i| format!(r#""t{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}},"#))
        .collect();
    let mut cases: Vec<(&str, Vec<u8>)> = vec![
        ("seven bytes", vec![1; 7]),
        ("a length of 2^64 - 1", vec![0xff; 64]),
        ("a length of 99 MB", [&99_000_000u64.to_le_bytes()[..], b"{}"].concat()),
        ("a length beyond the file", [&100u64.to_le_bytes()[..], b"{}"].concat()),
        ("no JSON", safetensors("hello", b"")),
        ("not UTF-8", [&2u64.to_le_bytes()[..], b"\xff\xfe"].concat()),
        ("a list", safetensors("[]", b"")),
        ("bytes after the end", [&good[..], &[0; 3]].concat()),
        ("cut short", good[..good.len() - 1].to_vec()),
        ("100000 tensors of nothing", safetensors(&format!("{{{}\"z\":{{}}}}", many), b"")),
        ("a zip (a pickle)", b"PK\x03\x04 and more of an archive than a header".to_vec()),
    ];
    for (what, text) in [
        ("another dtype", r#"{"dtype":"F99","shape":[4],"data_offsets":[0,16]}"#),
        ("no dtype", r#"{"shape":[4],"data_offsets":[0,16]}"#),
        ("integers", r#"{"dtype":"I32","shape":[4],"data_offsets":[0,16]}"#),
        ("too few bytes", r#"{"dtype":"F32","shape":[5],"data_offsets":[0,16]}"#),
        ("offsets backwards", r#"{"dtype":"F32","shape":[4],"data_offsets":[16,0]}"#),
        ("offsets beyond", r#"{"dtype":"F32","shape":[4],"data_offsets":[16,32]}"#),
        (
            "offsets near 2^64",
            r#"{"dtype":"F32","shape":[4],"data_offsets":[18446744073709551600,18446744073709551615]}"#,
        ),
        ("a negative offset", r#"{"dtype":"F32","shape":[4],"data_offsets":[-16,0]}"#),
        (
            "a huge shape",
            r#"{"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,16]}"#,
        ),
        (
            "a shape that wraps to 4",
            r#"{"dtype":"F32","shape":[4611686018427387905,4],"data_offsets":[0,16]}"#,
        ),
        ("a negative shape", r#"{"dtype":"F32","shape":[-4],"data_offsets":[0,16]}"#),
        ("a gap", r#"{"dtype":"F32","shape":[2],"data_offsets":[8,16]}"#),
        (
            "an overlap",
            r#"{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}"#,
        ),
        (
            "texts that are no texts",
            r#"{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"__metadata__":{"a":1}"#,
        ),
    ] {
        cases.push((what, tensor(text)));
    }
    for (what, bytes) in cases {
        folder.holding(rel, &bytes, |files| {
            judge.refused(what, "vae", || {
                let checkpoint = Checkpoint::open(files, "vae", "diffusion_pytorch_model")?;
                checkpoint.read_f32("a").map(|_| ())
            });
        });
    }
    judge.verdict("headers", 25);
}

#[test]
fn shards_that_are_not_in_the_folder() {
    let folder = Folder::new("shards", embedded::tiny_sdxl());
    let mut judge = Judge::default();
    fs::remove_file(folder.path("vae/diffusion_pytorch_model.safetensors")).unwrap();
    let part = safetensors(r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#, &[0; 16]);
    for place in [
        "vae/part.safetensors",
        "vae/twin.safetensors",
        "outside.safetensors",
        "vae/sub/part.safetensors",
    ] {
        fs::create_dir_all(folder.path("vae/sub")).unwrap();
        fs::write(folder.path(place), &part).unwrap();
    }
    let open =
        |files: &ModelFiles| Checkpoint::open(files, "vae", "diffusion_pytorch_model").map(|_| ());
    let index = "vae/diffusion_pytorch_model.safetensors.index.json";
    let with = |shard: &str| json!({ "weight_map": { "a": shard } }).to_string();
    folder.holding(index, with("part.safetensors").as_bytes(), |files| {
        judge.right("a shard in its place", || open(files));
    });
    let absolute = folder.path("outside.safetensors").to_string_lossy().into_owned();
    for shard in [
        "../outside.safetensors",
        "..",
        ".",
        "",
        "/etc/passwd",
        &absolute,
        "sub/part.safetensors",
        "sub\\part.safetensors",
        "..\\outside.safetensors",
        "C:part.safetensors",
        "C:\\part.safetensors",
        "\\\\host\\share\\part.safetensors",
        "//host/part.safetensors",
        "part.safetensors\0",
        "./part.safetensors",
        "missing.safetensors",
        "sub",
        "file:///etc/passwd",
        "~/part.safetensors",
        &"x".repeat(100_000),
    ] {
        folder.holding(index, with(shard).as_bytes(), |files| {
            judge.refused(&format!("shard {shard:.40}"), "index.json", || open(files));
        });
    }
    for (what, text) in [
        (
            "a tensor that is not there",
            json!({ "weight_map": { "b": "part.safetensors" } }).to_string(),
        ),
        (
            "two shards with one tensor",
            json!({ "weight_map": { "a": "part.safetensors", "b": "twin.safetensors" } })
                .to_string(),
        ),
        ("no map", "{}".to_owned()),
        ("a list", json!({ "weight_map": ["part.safetensors"] }).to_string()),
        ("a number", json!({ "weight_map": { "a": 3 } }).to_string()),
        ("no JSON", "weights".to_owned()),
    ] {
        folder.holding(index, text.as_bytes(), |files| {
            judge.refused(what, "index.json", || open(files))
        });
    }
    for pickle in ["diffusion_pytorch_model.bin", "diffusion_pytorch_model.ckpt"] {
        let rel = format!("vae/{pickle}");
        folder.holding(&rel, b"\x80\x02", |files| judge.refused(pickle, "pickle", || open(files)));
    }
    judge.verdict("shards", 28);
}
