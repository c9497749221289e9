//! Files to resume from.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use proptest::prelude::*;
use scalediff::pipeline::StageSize;
use scalediff::sampling::Sampler;
use scalediff::scalediff::Latents;
use scalediff::weights::TensorFile;
use scalediff::{Metadata, Precision, Reached, Request, Result};

use crate::{Judge, folder};

fn metadata() -> Metadata {
    Metadata {
        version: "0".into(),
        model: "m".into(),
        precision: Precision::F16,
        device: "d".into(),
        sampler: Sampler::Euler,
        karras: false,
        stages: vec![StageSize { width: 16, height: 8, steps: 2 }],
        request: Request { prompt: "a 球".into(), ..Request::default() },
    }
}

/// Reads a file as a run does that goes on from it.
fn read(path: &Path) -> Result<Option<(u32, Latents)>> {
    match Reached::read(path)? {
        Some(reached) => {
            reached.check(&metadata())?;
            reached.last()
        }
        None => Ok(None),
    }
}

#[test]
fn files_to_resume_from() {
    let root = folder("latents");
    let path = root.join("a.safetensors");
    let mut judge = Judge::default();
    judge.right("no file", || read(&path));
    judge.refused("a folder", "not a regular file", || read(&root));
    judge.refused("a device", "not a regular file", || read(Path::new("/dev/zero")));
    judge.refused("a text file", "safetensors", || read(Path::new("Cargo.toml")));

    let json = metadata().to_json().unwrap();
    let file = |texts: &[(&str, &str)], tensors: &[(&str, Vec<usize>)]| TensorFile {
        texts: texts.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<HashMap<_, _>>(),
        tensors: tensors
            .iter()
            .map(|(name, shape)| {
                let values = vec![0.5; shape.iter().product()];
                (name.to_string(), (shape.clone(), values))
            })
            .collect::<BTreeMap<_, _>>(),
    };
    let ours = [("scalediff", json.as_str())];
    let mut judged = |what: &str, says: Option<&str>, file: &TensorFile| {
        file.write(&path).unwrap();
        match says {
            Some(says) => judge.refused(what, says, || read(&path)),
            None => judge.right(what, || read(&path)),
        }
    };
    judged("a stage", None, &file(&ours, &[("latents.0", vec![1, 4, 1, 2])]));
    judged("no stage yet", None, &file(&ours, &[]));
    judged("other tensors", None, &file(&ours, &[("latents.99", vec![1]), ("latents.x", vec![0])]));
    judged(
        "no request",
        Some("no latents of scalediff"),
        &file(&[], &[("latents.0", vec![1, 4, 1, 2])]),
    );
    judged("another's texts", Some("no latents of scalediff"), &file(&[("format", "pt")], &[]));
    judged("a broken request", Some("metadata"), &file(&[("scalediff", "{")], &[]));
    for shape in [
        vec![],
        vec![0],
        vec![8],
        vec![4, 1, 2],
        vec![2, 4, 1, 2],
        vec![1, 1, 4, 1, 2],
        vec![0, 4, 1, 2],
    ] {
        judged(
            &format!("shape {shape:?}"),
            Some("expected [1, channels"),
            &file(&ours, &[("latents.2", shape)]),
        );
    }
    for shape in [vec![1, 0, 1, 2], vec![1, 4, 0, 0], vec![1, usize::from(u16::MAX), 0, 9]] {
        judged(&format!("shape {shape:?}"), None, &file(&ours, &[("latents.0", shape)]));
    }
    let others = [
        Request { steps: Some(3), ..metadata().request },
        Request { prompt: "x".repeat(100_000), ..metadata().request },
        Request { seed: 1, jitter: Some(true), ..metadata().request },
    ];
    for request in others {
        let json = Metadata { request, ..metadata() }.to_json().unwrap();
        judged("another request", Some("another request"), &file(&[("scalediff", &json)], &[]));
    }
    for other in [
        Metadata { model: "n".into(), ..metadata() },
        Metadata { precision: Precision::F32, ..metadata() },
        Metadata { sampler: Sampler::Ddim, ..metadata() },
    ] {
        let json = other.to_json().unwrap();
        judged("another run", Some("another request"), &file(&[("scalediff", &json)], &[]));
    }
    let good = file(&ours, &[("latents.0", vec![1, 4, 1, 2])]);
    good.write(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for end in (0..bytes.len()).step_by(17) {
        std::fs::write(&path, &bytes[..end]).unwrap();
        judge.any(&format!("cut at {end}"), || read(&path));
    }
    judge.verdict("latents", 60);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Any damage to a good file: an error, or what it holds, never a panic.
    #[test]
    fn any_damage_to_a_file(
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
        header in any::<bool>(),
    ) {
        let path = folder_of_fuzz();
        let mut reached = Reached::new(metadata());
        reached.add(0, &Latents { height: 1, width: 2, channels: 4, values: vec![0.25; 8] });
        reached.write(&path).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let within = if header { 24 } else { bytes.len() };
        for (at, value) in damage {
            bytes[at.index(within)] = value;
        }
        std::fs::write(&path, &bytes).unwrap();
        let _ = read(&path);
    }
}

fn folder_of_fuzz() -> std::path::PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bad-fuzz");
    std::fs::create_dir_all(&root).unwrap();
    root.join("a.safetensors")
}
