//! Model files and safetensors checkpoints, good and mangled.

use std::collections::BTreeMap;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView, serialize};
use scalediff::error::{ErrorKind, Result};
use scalediff::sampling::TorchRng;
use scalediff::weights::{Checkpoint, ModelFiles, to_f16};
use serde_json::{Value, json};

use super::Scratch;

const STEM: &str = "diffusion_pytorch_model";
const SINGLE: &str = "unet/diffusion_pytorch_model.safetensors";
const HALF: &str = "unet/diffusion_pytorch_model.fp16.safetensors";
const INDEX: &str = "unet/diffusion_pytorch_model.safetensors.index.json";

impl Scratch {
    fn checkpoint(&self) -> Result<Checkpoint> {
        Checkpoint::open(&self.files(), "unet", STEM)
    }

    /// The message of the error that opening the checkpoint gives.
    fn complaint(&self) -> String {
        let error = self.checkpoint().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Model);
        error.to_string()
    }
}

/// A safetensors file of one-dimensional tensors.
fn tensors(list: &[(&str, Dtype, &[u8])]) -> Vec<u8> {
    let views = list.iter().map(|(name, dtype, data)| {
        let shape = vec![data.len() * 8 / dtype.bitsize()];
        (name.to_string(), TensorView::new(*dtype, shape, data).unwrap())
    });
    serialize(views.collect::<BTreeMap<_, _>>(), None).unwrap()
}

/// A file with this header and `data_bytes` zeros after it.
fn raw(header: &str, data_bytes: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.bytes());
    file.resize(file.len() + data_bytes, 0);
    file
}

#[test]
fn every_float_type_reads_as_f32_at_any_alignment() {
    let values = [1.0_f32, -2.5, 65504.0, 0.0];
    let bytes = |f: &dyn Fn(f32) -> Vec<u8>| values.iter().flat_map(|v| f(*v)).collect::<Vec<u8>>();
    let list = [
        ("a", Dtype::F32, bytes(&|v| v.to_le_bytes().to_vec())),
        ("b", Dtype::F16, bytes(&|v| f16::from_f32(v).to_le_bytes().to_vec())),
        ("c", Dtype::F64, bytes(&|v| f64::from(v).to_le_bytes().to_vec())),
        ("d", Dtype::BF16, bytes(&|v| bf16::from_f32(v).to_le_bytes().to_vec())),
    ];
    // An odd header length puts every tensor at an odd address of the mapping.
    let mut header = "{".to_owned();
    let mut data: Vec<u8> = Vec::new();
    for (name, dtype, bytes) in &list {
        let (from, to) = (data.len(), data.len() + bytes.len());
        header += &format!(
            "\"{name}\":{{\"dtype\":\"{dtype}\",\"shape\":[2,2],\"data_offsets\":[{from},{to}]}},"
        );
        data.extend(bytes);
    }
    header.pop();
    header.push('}');
    header += if header.len().is_multiple_of(2) { " " } else { "" };
    let mut file = raw(&header, 0);
    file.extend(data);
    let scratch = Scratch::new("dtypes");
    let checkpoint = scratch.write(SINGLE, file).checkpoint().unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    assert_eq!(checkpoint.get("b").unwrap().shape, [2, 2]);
    for name in ["a", "b", "c"] {
        assert_eq!(checkpoint.read_f32(name).unwrap(), values, "{name}");
    }
    assert_eq!(checkpoint.read_f32("d").unwrap(), [1.0, -2.5, 65536.0, 0.0]);
    assert!(checkpoint.get("e").is_none());
    assert!(checkpoint.read_f32("e").unwrap_err().to_string().contains("unet: no tensor \"e\""));
}

#[test]
fn other_dtypes_are_refused_by_name() {
    let scratch = Scratch::new("int");
    let file = tensors(&[("ids", Dtype::I64, &[0; 16]), ("q", Dtype::F8_E4M3, &[0; 3])]);
    let checkpoint = scratch.write(SINGLE, file).checkpoint().unwrap();
    for (name, dtype) in [("ids", "I64"), ("q", "F8_E4M3")] {
        let message = checkpoint.read_f32(name).unwrap_err().to_string();
        assert_eq!(
            message,
            format!("unet: {name}: dtype is {dtype}, expected F32, F16, BF16 or F64")
        );
    }
}

#[test]
fn the_plain_file_comes_before_shards_and_these_before_fp16() {
    let one = |v: f32| tensors(&[("w", Dtype::F32, &v.to_le_bytes())]);
    let scratch = Scratch::new("order");
    let first = |s: &Scratch| s.checkpoint().unwrap().read_f32("w").unwrap()[0];
    scratch.write("unet/b.safetensors", one(4.0));
    scratch.write(
        "unet/diffusion_pytorch_model.fp16.safetensors.index.json",
        r#"{"weight_map": {"w": "b.safetensors"}}"#,
    );
    assert_eq!(first(&scratch), 4.0);
    scratch.write("unet/a.safetensors", one(3.0));
    scratch.write(
        "unet/diffusion_pytorch_model.safetensors.index.fp16.json",
        r#"{"weight_map": {"w": "a.safetensors"}}"#,
    );
    assert_eq!(first(&scratch), 3.0);
    assert_eq!(first(scratch.write(HALF, one(2.0))), 2.0);
    assert_eq!(first(scratch.write(INDEX, r#"{"weight_map": {"w": "b.safetensors"}}"#)), 4.0);
    assert_eq!(first(scratch.write(SINGLE, one(1.0))), 1.0);
}

#[test]
fn shards_must_agree_with_their_index() {
    let scratch = Scratch::new("shards");
    let index = |map: Value| json!({ "weight_map": map }).to_string();
    scratch.write("unet/1.safetensors", tensors(&[("a", Dtype::F32, &[0; 4])]));
    scratch.write("unet/2.safetensors", tensors(&[("b", Dtype::F16, &[0; 4])]));
    scratch.write("evil.safetensors", tensors(&[("c", Dtype::F32, &[0; 4])]));
    scratch.write(INDEX, index(json!({"a": "1.safetensors", "b": "2.safetensors"})));
    assert_eq!(scratch.checkpoint().unwrap().names().collect::<Vec<_>>(), ["a", "b"]);
    for shard in ["../evil.safetensors", "/evil.safetensors", "x/y", "..", "", "x\\y", "c:y", "a\0"]
    {
        scratch.write(INDEX, index(json!({ "a": shard })));
        assert!(scratch.complaint().contains("is not a plain file name"), "{shard:?}");
    }
    scratch.write(INDEX, index(json!({"a": "1.safetensors", "b": "3.safetensors"})));
    assert!(scratch.complaint().contains("unet/3.safetensors: no such file"));
    scratch.write(INDEX, index(json!({"a": "1.safetensors", "b": "1.safetensors"})));
    assert!(scratch.complaint().contains("tensor \"b\" is listed in 1.safetensors but not there"));
    scratch.write("unet/3.safetensors", tensors(&[("a", Dtype::F32, &[0; 4])]));
    scratch.write(
        INDEX,
        index(json!({"a": "1.safetensors", "b": "2.safetensors", "c": "3.safetensors"})),
    );
    assert!(scratch.complaint().contains("tensor \"a\" stands in another shard too"));
    scratch.write(INDEX, "{\"weight_map\": 3}");
    assert!(scratch.complaint().contains("index.json: invalid type"));
}

#[test]
fn malformed_headers_are_errors() {
    let scratch = Scratch::new("headers");
    let says = |file: &[u8], what: &str| {
        let got = scratch.write(SINGLE, file).complaint();
        assert!(got.starts_with(SINGLE) && got.contains(what), "{got} lacks {what}");
    };
    let one = |dtype: &str, shape: &str, offsets: &str| {
        format!("{{\"w\":{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":{offsets}}}}}")
    };
    says(b"", "has 0 bytes, its header needs 8");
    says(b"1234567", "has 7 bytes");
    says(b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer");
    says(b"PK\x03\x04 a zip file, as torch.save writes", "not a safetensors file");
    says(&u64::MAX.to_le_bytes(), "not a safetensors file");
    says(&100_u64.to_le_bytes(), "its header needs 108");
    says(&raw("{\"w\":1}", 0), "malformed safetensors header");
    says(&raw("\u{0}\u{1}", 0), "malformed safetensors header");
    says(&raw(&"[".repeat(100_000), 0), "malformed safetensors header");
    says(&raw(&one("F32", "[1]", "[0,4]"), 0), "has 62 bytes, its header needs 66");
    says(&raw(&one("F32", "[1]", "[0,4]"), 9), "5 bytes after the last tensor");
    says(&raw(&one("F32", "[2]", "[0,4]"), 4), "malformed safetensors header");
    says(&raw(&one("F32", "[1]", "[4,0]"), 4), "malformed safetensors header");
    says(&raw(&one("F32", "[-1]", "[0,4]"), 4), "malformed safetensors header");
    says(&raw(&one("F32", "[4294967296,4294967296]", "[0,4]"), 4), "malformed safetensors header");
    says(&raw(&one("X9", "[1]", "[0,4]"), 4), "malformed safetensors header");
    // Eight tensors of 2^61 - 1 bytes: their sum and the header's length together exceed 64 bits.
    let size = (1_u64 << 61) - 1;
    let many = (0..8).map(|i| {
        let (from, to) = (i * size, (i + 1) * size);
        format!("\"{i}\":{{\"dtype\":\"U8\",\"shape\":[{size}],\"data_offsets\":[{from},{to}]}}")
    });
    let many = format!("{{{}}}", many.collect::<Vec<_>>().join(","));
    says(&raw(&many, 0), "its tensors exceed any file");
    let overlap = "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\
                    \"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}";
    says(&raw(overlap, 12), "malformed safetensors header");
}

#[test]
fn no_mangled_checkpoint_panics() {
    let scratch = Scratch::new("mangled");
    let good = tensors(&[("a", Dtype::F32, &[1; 8]), ("b", Dtype::F16, &[2; 6])]);
    let mut rng = TorchRng::new(7);
    for _ in 0..400 {
        let mut file = good.clone();
        for _ in 0..=rng.uniform_u32(3) {
            let at = rng.uniform_u32(file.len() as u32 - 1) as usize;
            file[at] = rng.next_u32() as u8;
        }
        file.truncate(good.len() - rng.uniform_u32(1) as usize * rng.uniform_u32(20) as usize);
        if let Ok(checkpoint) = scratch.write(SINGLE, file).checkpoint() {
            for name in checkpoint.names() {
                let _ = checkpoint.read_f32(name);
            }
        }
    }
}

#[test]
fn pickles_are_named_and_never_read() {
    let scratch = Scratch::new("pickle");
    scratch.write("unet/config.json", "{}");
    assert!(scratch.complaint().contains("no diffusion_pytorch_model.safetensors"));
    scratch.write("unet/diffusion_pytorch_model.bin", "\u{80}");
    let error = scratch.checkpoint().unwrap_err();
    assert!(error.to_string().contains("unet/diffusion_pytorch_model.bin is a pickle"));
    assert!(error.hint().unwrap().contains("safetensors"));
}

#[test]
fn files_stay_inside_the_model_and_errors_name_them() {
    let scratch = Scratch::new("files");
    scratch.write("m/config.json", "{\"a\":\n 1,}").write("secret.json", "1");
    let files = ModelFiles::open(&scratch.0.join("m")).unwrap();
    assert_eq!(files.name(), "m");
    assert!(files.exists("config.json") && !files.exists("../secret.json"));
    assert!(files.read("../secret.json").is_err() && files.read("").is_err());
    assert!(files.read("/etc/hostname").is_err());
    let error = files.read_json::<Value>("config.json").unwrap_err().to_string();
    assert_eq!(error, "config.json: trailing comma at line 2 column 4");
    assert!(ModelFiles::open(&scratch.0.join("none")).is_err());
    assert!(ModelFiles::open(&scratch.0.join("secret.json")).is_err());
    let embedded = ModelFiles::Embedded { name: "it", files: &[("unet/config.json", b"[1, 2]")] };
    assert_eq!(embedded.read_json::<Vec<u8>>("unet/config.json").unwrap(), [1, 2]);
    assert!(embedded.exists("unet/config.json") && embedded.read("config.json").is_err());
}

#[test]
fn f16_conversion_counts_what_is_lost() {
    let values = [1.0, 65504.0, 65505.0, -1e9, f32::INFINITY, f32::NAN, 0.0, 6.1e-5, -1e-7, 1e-30];
    let (half, lost) = to_f16(&values);
    assert_eq!((lost.above_max, lost.subnormal), (3, 3));
    assert_eq!(half[1], f16::MAX);
    assert!(half[5].is_nan());
}
