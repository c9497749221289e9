//! The program as a person meets it: what is refused, with which exit code, and what is made.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Exit code of a command line that cannot be carried out.
const USAGE: i32 = 64;

fn scalediff(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_scalediff")).args(args).output().expect("the program starts")
}

/// A folder of this test's own, empty.
fn folder(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("a temporary folder");
    path
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Runs and expects one clear error with this exit code, containing `says`.
fn refuses(args: &[&str], code: i32, says: &str) {
    let output = scalediff(args);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(code), "{args:?}\n{text}");
    assert!(text.contains("error") && text.contains(says), "{args:?} should say {says:?}:\n{text}");
    assert!(!text.contains("panicked"), "{args:?}\n{text}");
}

/// `generate` with a prompt and these flags.
fn generate(flags: &[&str]) -> Output {
    scalediff(&[&["generate", "-p", "a red ball on sand under a day sky"], flags].concat())
}

fn refuses_to_generate(flags: &[&str], code: i32, says: &str) {
    refuses(&[&["generate", "-p", "a red ball"], flags].concat(), code, says);
}

#[test]
fn bad_command_lines_exit_64() {
    refuses(&["generate"], USAGE, "--prompt");
    refuses(&["generate", "-p", "x", "--colour"], USAGE, "--colour");
    refuses(&["paint"], USAGE, "paint");
    refuses_to_generate(&["--tier", "quantum"], USAGE, "plain");
    refuses_to_generate(&["-b", "0"], USAGE, "batch-count");
    refuses_to_generate(&["--sampling-method", "heun"], USAGE, "\"heun\"");
    refuses_to_generate(&["--scheduler", "beta"], USAGE, "karras");
    refuses_to_generate(&["--rng", "xorshift"], USAGE, "cuda");
    refuses_to_generate(&["-W", "big"], USAGE, "big");
    refuses_to_generate(&["-W", "-5"], USAGE, "'-5'");
    refuses_to_generate(&["--limits", "colour=3"], USAGE, "binding=SIZE");
    refuses_to_generate(&["--limits", "storage=1"], USAGE, "storage buffers");
}

#[test]
fn requests_out_of_range_exit_64_and_say_the_range() {
    for size in ["0", "100000", "4294967295"] {
        refuses_to_generate(&["-W", size], USAGE, "16384");
    }
    for ratio in ["0", "-1", "1.5", "nan", "inf"] {
        refuses_to_generate(&["--restart-ratio", ratio, "-o", "never.png"], USAGE, "restart");
    }
    for factor in ["0", "2", "nan"] {
        refuses_to_generate(&["--scale-factor", factor], USAGE, "scale factor");
    }
    for cutoff in ["0", "-0.1", "1.01", "nan", "inf"] {
        let flags = ["--filter", "fft-gaussian", "--filter-cutoff", cutoff];
        refuses_to_generate(&flags, USAGE, "filter cutoff");
    }
    refuses_to_generate(&["--filter-cutoff", "0.1"], USAGE, "--filter");
    refuses_to_generate(&["--filter", "fft-square"], USAGE, "fft-butterworth");
    for scale in ["nan", "-1", "1e9"] {
        refuses_to_generate(&["--cfg-scale", scale], USAGE, "guidance");
    }
    refuses_to_generate(&["--stages", "40"], USAGE, "stages");
    for range in [["0.6", "0.4"], ["-0.1", "1"], ["0", "1.1"], ["nan", "1"]] {
        let flags = ["--guidance-start", range[0], "--guidance-stop", range[1]];
        refuses_to_generate(&flags, USAGE, "between 0 and 1");
    }
    refuses_to_generate(&["--sampler", "ddim", "--scheduler", "karras"], USAGE, "Karras");
    for steps in ["0", "1001", "18446744073709551615"] {
        refuses_to_generate(&["--steps", steps], USAGE, "steps");
    }
    assert!(!Path::new("never.png").exists());
}

#[test]
fn missing_files_and_devices_are_named() {
    refuses_to_generate(&["-o", "no/such/folder/a.png"], USAGE, "no/such/folder");
    refuses_to_generate(&["-o", env!("CARGO_TARGET_TMPDIR")], USAGE, "is a folder");
    refuses_to_generate(&["-m", "no-such-model"], 1, "no-such-model");
    refuses_to_generate(&["-m", "Cargo.toml"], 1, "model folder");
    refuses_to_generate(&["--device", "abacus"], 1, "abacus");
    refuses_to_generate(&["--device", "99"], 1, "scalediff devices");
    let empty = folder("empty-model");
    refuses_to_generate(&["-m", &empty.to_string_lossy()], 1, "model_index.json");
}

#[test]
fn latents_of_the_rest_of_a_batch_keep_their_seeds() {
    let root = folder("batch");
    let at = |name: &str| root.join(name).to_str().unwrap().to_owned();
    let (picture, kept) = (at("a.png"), at("a.safetensors"));
    let small = ["-W", "128", "-H", "128", "--steps", "2", "-s", "5", "--stages", "0"];
    let batch = ["-b", "2", "-o", &picture];
    let output = generate(&[&small[..], &batch, &["--save-latent", &kept]].concat());
    assert!(output.status.success(), "{}", text(&output));
    let pictures = || [1, 2].map(|i| std::fs::read(at(&format!("a-00{i}.png"))).unwrap());
    let whole = pictures();
    // The first is lost: it is made anew, the second from its file.
    std::fs::remove_file(at("a-001.safetensors")).unwrap();
    let output = scalediff(&[&["generate", "--resume", &kept][..], &batch].concat());
    assert!(output.status.success(), "{}", text(&output));
    assert!(pictures() == whole, "other pictures");
}

#[test]
fn places_for_latents_are_checked_before_the_work() {
    let root = folder("places");
    let at = |name: &str| root.join(name).to_str().unwrap().to_owned();
    std::fs::create_dir(at("l-002.safetensors")).unwrap();
    let (picture, kept) = (at("a.png"), at("l.safetensors"));
    refuses_to_generate(&["-b", "2", "-o", &picture, "--save-latent", &kept], USAGE, "is a folder");
    let same = at("l-002.safetensors/../a.png");
    refuses_to_generate(&["-o", &picture, "--save-latent", &same], USAGE, "both the picture and");
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 1, "nothing was made");
}

#[test]
fn bench_names_its_cases_and_says_what_it_cannot_compare_with() {
    let output = scalediff(&["bench", "attention/sdxl", "--list"]);
    let ids = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && ids.contains("attention/sdxl_4096_npa_640"), "{ids}");
    assert!(ids.lines().all(|id| id.starts_with("attention/sdxl")), "{ids}");
    refuses(&["bench", "no_such_case"], USAGE, "no_such_case");
    refuses(&["bench", "--seconds", "0"], USAGE, "above 0");
    refuses(&["bench", "--max-seconds", "soon"], USAGE, "above 0");
    refuses(&["bench", "--against", "/no/such/folder"], 1, "cannot read /no/such/folder");
    refuses(&["bench", "--against", "tests"], USAGE, "holds no shader");
    refuses(&["bench", "--compare", "/no/such/file"], 1, "cannot read /no/such/file");
    let folder = folder("bench");
    refuses(&["bench", "--json", folder.to_str().unwrap()], 1, "cannot write");
    let other = folder.join("other.jsonl");
    std::fs::write(&other, "{}\nnot json\n").unwrap();
    refuses(&["bench", "--compare", other.to_str().unwrap()], USAGE, "line 2");
}

#[cfg(feature = "embedded")]
#[test]
fn bench_cascade_times_every_step_of_every_stage() {
    let file = folder("bench_cascade").join("times.jsonl");
    let small =
        ["-W", "128", "-H", "128", "--stages", "1", "--steps", "5", "--restart-ratio", "0.6"];
    let rest = ["--attention", "full", "--json", file.to_str().unwrap()];
    let output = scalediff(&[&["bench", "cascade"], &small[..], &rest[..]].concat());
    assert!(output.status.success(), "{}", text(&output));
    let json: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(json["attention"], "full");
    let stages = json["stages"].as_array().unwrap();
    // The first step of a stage also compiles, and is left out.
    let steps: Vec<usize> = stages.iter().map(|s| s["steps"].as_array().unwrap().len()).collect();
    assert_eq!(steps, [4, 2]);
    let total: f64 = stages.iter().map(|s| s["sampling"].as_f64().unwrap()).sum();
    assert!(
        stages
            .iter()
            .all(|s| s["step"].as_f64().unwrap() > 0.0 && s["decoding"].as_f64().unwrap() > 0.0)
    );
    assert!(stages[0]["encoding"] == 0.0 && stages[1]["encoding"].as_f64().unwrap() > 0.0);
    assert!(total < json["seconds"].as_f64().unwrap());
    refuses(&["bench", "cascade", "-m", "/no/such/model"], 1, "/no/such/model");
}

#[cfg(feature = "embedded")]
#[test]
fn bench_startup_times_a_process_twice() {
    let output =
        scalediff(&["bench", "startup", "--json", "-W", "64", "-H", "64", "--cfg-scale", "1"]);
    assert!(output.status.success(), "{}", text(&output));
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let caches: Vec<String> = lines
        .lines()
        .map(|line| {
            let json: serde_json::Value = serde_json::from_str(line).unwrap();
            let seconds: Vec<f64> = serde_json::from_value(json["seconds"].clone()).unwrap();
            assert!(seconds.len() == 5 && seconds[0] > 0.0 && seconds.is_sorted(), "{line}");
            json["cache"].as_str().unwrap().to_string()
        })
        .collect();
    assert_eq!(caches, ["empty", "filled"]);
    refuses(&["bench", "startup", "-m", "/no/such/model"], USAGE, "timed run");
}

#[test]
fn tune_keeps_what_it_measured_and_later_runs_read_it() {
    let root = folder("tune");
    let file = root.join("tiles.json");
    let named = file.to_str().unwrap();
    // So short that few cases are tried.
    let output =
        scalediff(&["tune", "--seconds", "0.01", "--max-seconds", "0.01", "--tuning", named]);
    assert!(output.status.success(), "{}", text(&output));
    let json: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(json["devices"].as_array().unwrap().len(), 1);
    assert!(json["devices"][0]["device"].as_str().unwrap().contains("Vulkan"), "{json}");
    let list = scalediff(&["plan", "--tuning", named]);
    assert!(list.status.success(), "{}", text(&list));

    refuses_to_generate(&["--tuning", root.join("none.json").to_str().unwrap()], 1, "none.json");
    std::fs::write(&file, "tiles").unwrap();
    refuses_to_generate(&["--tuning", named], USAGE, "no tuning file");
    refuses(&["tune", "--tuning", named], USAGE, "no tuning file");
    refuses(&["tune", "--tuning", "/no/such/folder/tiles.json"], USAGE, "does not exist");
    refuses(&["tune", "--seconds", "0"], USAGE, "seconds");
    refuses(&["tune", "--precision", "f32"], USAGE, "--precision");

    // The default file only brings a warning.
    let default = root.join("scalediff/tuning.json");
    std::fs::create_dir(default.parent().unwrap()).unwrap();
    std::fs::write(&default, "tiles").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_scalediff"))
        .args(["plan", "-W", "256", "-H", "256"])
        .env("XDG_CACHE_HOME", &root)
        .output()
        .unwrap();
    let warned = text(&output).contains("measured tiles are not used");
    assert!(output.status.success() && (warned || !cfg!(target_os = "linux")), "{}", text(&output));
}

#[test]
fn devices_lists_at_least_one() {
    let output = scalediff(&["devices"]);
    assert!(output.status.success() && text(&output).contains("tiers: plain"), "{}", text(&output));
}

/// A case file of `torch_randn` with these values.
fn write_case(path: &Path, values: [f32; 3], component: &str, rng: &str) {
    let case = format!(
        r#"{{"component": "{component}", "params": {{"seed": 104, "shape": [3], "rng": "{rng}"}}, "tolerance": {{"rel": 4e-6}}}}"#
    );
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let view =
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![3], &bytes).unwrap();
    let metadata = HashMap::from([("case".to_string(), case)]);
    safetensors::serialize_to_file([("out.x", view)], Some(metadata), path).unwrap();
}

#[test]
fn verify_tells_right_from_wrong_from_unreadable() {
    let root = folder("verify");
    let cases = root.join("cases");
    std::fs::create_dir(&cases).unwrap();
    let root = root.to_string_lossy().into_owned();
    let verify = |code: i32, says: &str| {
        let output = scalediff(&["verify", &root]);
        assert_eq!(output.status.code(), Some(code), "{}", text(&output));
        assert!(text(&output).contains(says), "{}", text(&output));
    };
    verify(2, "holds no .safetensors");
    let right = scalediff::sampling::TorchRng::new(104).randn(3);
    write_case(&cases.join("a.safetensors"), [right[0], right[1], right[2]], "torch_randn", "cpu");
    let cuda = scalediff::sampling::Philox::new(104).randn(3);
    write_case(&cases.join("d.safetensors"), [cuda[0], cuda[1], cuda[2]], "torch_randn", "cuda");
    verify(0, "2 cases passed");
    write_case(&cases.join("b.safetensors"), [right[0], right[1], 0.5], "torch_randn", "cpu");
    verify(1, "FAIL");
    write_case(&cases.join("c.safetensors"), [0.0; 3], "crystal_ball", "cpu");
    verify(2, "crystal_ball");
    std::fs::write(cases.join("c.safetensors"), b"not a tensor").unwrap();
    verify(2, "c.safetensors");
}

#[test]
fn the_same_seed_makes_the_same_bytes_at_any_size() {
    let root = folder("seeds");
    let make = |name: &str, flags: &[&str]| {
        let path = root.join(name).to_string_lossy().into_owned();
        let output = generate(&[&["-o", &path, "--steps", "3"], flags].concat());
        assert!(output.status.success(), "{}", text(&output));
        std::fs::read(path).expect("the picture was written")
    };
    let size = ["-W", "100", "-H", "52", "--stages", "1"];
    let first = make("a.png", &[&size[..], &["-s", "5", "--save-stages"]].concat());
    assert_eq!(first, make("b.png", &[&size[..], &["-s", "5"]].concat()));
    assert_ne!(first, make("c.png", &[&size[..], &["-s", "6"]].concat()));
    assert_ne!(first, make("d.png", &[&size[..], &["-s", "5", "--attention", "full"]].concat()));
    let masked = [&size[..], &["-s", "5", "--filter", "fft-gaussian"]].concat();
    assert_ne!(first, make("filter.png", &masked));
    let euler_a =
        [&size[..], &["-s", "5", "--sampler", "Euler a", "--guidance-stop", "0.5"]].concat();
    assert_eq!(make("g.png", &euler_a), make("h.png", &euler_a));
    let named =
        [&size[..], &["-s", "5", "--rng", "cuda", "--sampling-method", "DPM++ 2M Karras"]].concat();
    let spelled = ["-s", "5", "--rng", "cuda", "--sampler", "dpm++2m", "--scheduler", "karras"];
    assert_eq!(make("i.png", &named), make("j.png", &[&size[..], &spelled].concat()));
    make("e.png", &[&size[..], &["-s", "5", "--jitter", "--cfg-scale", "1"]].concat());
    make("f.png", &["-W", "1", "-H", "7", "--no-lfm", "--no-sg"]);
    let many = root.join("m-%02d.png").to_string_lossy().into_owned();
    let flags = ["-o", &many, "--steps", "3", "-s", "5", "-b", "2"];
    assert!(generate(&[&flags[..], &size].concat()).status.success());
    assert_eq!(std::fs::read(root.join("m-01.png")).unwrap(), first);
    assert_eq!(
        std::fs::read(root.join("m-02.png")).unwrap(),
        make("n.png", &[&size[..], &["-s", "6"]].concat())
    );
    let picture = image::load_from_memory(&first).expect("a PNG");
    assert_eq!((picture.width(), picture.height()), (100, 52));
    assert!(root.join("a-stage0.png").exists() && root.join("a-stage1.png").exists());
    let leftover = std::fs::read_dir(&root)
        .unwrap()
        .any(|e| e.unwrap().file_name().to_string_lossy().ends_with(".part"));
    assert!(!leftover, "no half-written file stays");
}

#[test]
fn a_picture_is_made_again_from_its_metadata() {
    let root = folder("metadata");
    let path = |name: &str| root.join(name).to_string_lossy().into_owned();
    let run = |args: &[&str]| {
        let output = scalediff(args);
        assert!(output.status.success(), "{args:?}\n{}", text(&output));
        text(&output)
    };
    let read = |name: &str| std::fs::read(root.join(name)).expect("the picture was written");
    let (a, b, c, d, plain) =
        (path("a.png"), path("b.png"), path("c.png"), path("d.png"), path("plain.png"));
    let odd = ["-W", "100", "-H", "52", "--stages", "1", "--steps", "3", "--cfg-scale", "3.3"];
    let how = ["-n", "", "--filter", "fft-gaussian", "--jitter", "--precision", "f32"];
    let made = ["generate", "-p", "a red ball on sand: 球", "-o", &a, "--save-stages"];
    run(&[&made[..], &odd, &how].concat());
    run(&["generate", "--config-from-metadata", &a, "-o", &b]);
    assert_eq!(read("a.png"), read("b.png"), "the same bytes, random seed included");

    // The picture of a stage says how to make that one.
    let stage = path("a-stage0.png");
    run(&["generate", "--config-from-metadata", &stage, "-o", &c]);
    assert_eq!(read("a-stage0.png"), read("c.png"));

    // A flag counts more than the file.
    run(&["generate", "--config-from-metadata", &a, "-o", &d, "--filter", "resample"]);
    assert_ne!(read("a.png"), read("d.png"));
    let shown = run(&["metadata", &d]);
    assert!(shown.contains("[parameters]") && shown.contains("RNG: CPU"), "{shown}");
    assert!(shown.contains("\"filter\":null") && shown.contains("\"steps\":3"), "{shown}");
    assert!(!shown.contains(env!("CARGO_TARGET_TMPDIR")), "names, no paths: {shown}");

    let bare = ["generate", "--config-from-metadata", &a, "-o", &plain, "--disable-image-metadata"];
    run(&bare);
    refuses(&["metadata", &plain], 1, "no text");
    refuses(&["generate", "--config-from-metadata", &plain], 1, "no metadata");
    refuses(&["metadata", "Cargo.toml"], 1, "not a PNG");
    refuses(&["metadata", env!("CARGO_TARGET_TMPDIR")], USAGE, "not a plain file");
    refuses(&["metadata", "no-such.png"], 1, "no-such.png");
}

#[test]
fn a_huge_prompt_of_every_script_is_cut_with_a_warning() {
    let root = folder("prompt");
    let path = root.join("p.png").to_string_lossy().into_owned();
    let prompt: String =
        "a red 球 \u{1F600} \u{10FFFF} ' <|endoftext|> ".chars().cycle().take(60_000).collect();
    let output = scalediff(&[
        "generate",
        "-p",
        &prompt,
        "-n",
        "",
        "-W",
        "64",
        "-H",
        "64",
        "--steps",
        "1",
        "--restart-ratio",
        "1",
        "-o",
        &path,
    ]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("too long"));
}
