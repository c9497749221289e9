//! Runs that end before they are done: killed, stopped, or without room on the disk.
#![cfg(unix)]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_scalediff");
/// One doubling, with enough steps to be caught at.
const FLAGS: [&str; 10] =
    ["-p", "a blue tower on snow", "-W", "256", "-H", "256", "-s", "3", "--steps", "12"];

/// A folder of this test's own, empty.
fn folder(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("a temporary folder");
    path
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// `generate` to the end, in `folder`.
fn generate(folder: &Path, flags: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.arg("generate").args(flags).current_dir(folder).output().expect("the program starts")
}

/// What a child of [`start`] has said so far.
fn said(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("stderr.txt")).unwrap_or_default()
}

/// `generate`, until `reached` says so.
fn start(folder: &Path, flags: &[&str], reached: impl Fn() -> bool) -> Child {
    let mut command = Command::new(PROGRAM);
    let stderr = File::create(folder.join("stderr.txt")).expect("a file");
    command.arg("generate").args(FLAGS).args(flags).current_dir(folder).stderr(stderr);
    let mut child = command.spawn().expect("the program starts");
    let start = Instant::now();
    while !reached() {
        assert_eq!(child.try_wait().expect("a state"), None, "it ended before it could be stopped");
        assert!(start.elapsed() < Duration::from_secs(120), "it never came so far");
        sleep(Duration::from_millis(5));
    }
    child
}

#[test]
fn a_killed_run_goes_on_to_the_same_bytes() {
    let root = folder("killed");
    let output = generate(&root, &[&FLAGS[..], &["-o", "whole.png"]].concat());
    assert!(output.status.success(), "{}", text(&output));
    let whole = std::fs::read(root.join("whole.png")).unwrap();

    let has = |file: &str, tensor: &str| {
        let bytes = std::fs::read(root.join(file)).unwrap_or_default();
        bytes.windows(tensor.len()).any(|w| w == tensor.as_bytes())
    };
    // Before the base is sampled; while it is decoded; within the next stage; while the last is decoded.
    type Reached<'a> = Box<dyn Fn() -> bool + 'a>;
    let phases: [(&str, Reached); 4] = [
        ("base", Box::new(|| said(&root).contains("seed 3"))),
        ("between", Box::new(|| has("between.safetensors", "latents.0"))),
        ("stage", Box::new(|| has("stage.safetensors", "picture.0"))),
        ("decode", Box::new(|| has("decode.safetensors", "latents.1"))),
    ];
    for (phase, reached) in &phases {
        let (file, picture) = (format!("{phase}.safetensors"), format!("{phase}.png"));
        // On a busy machine the moment may be missed: then once more.
        let caught = (0..6).any(|_| {
            let mut child = start(&root, &["--resume", &file, "-o", &picture], reached);
            child.kill().expect("it is killed");
            child.wait().expect("it ended");
            let after_base = *phase != "base";
            if !root.join(&picture).exists() && root.join(&file).exists() == after_base {
                return true;
            }
            let _ = std::fs::remove_file(root.join(&picture));
            let _ = std::fs::remove_file(root.join(&file));
            false
        });
        assert!(caught, "{phase}: never caught");
        // All flags may be left out where the file has them.
        let flags = if *phase == "base" { &FLAGS[..] } else { &[] };
        let output = generate(&root, &[flags, &["--resume", &file, "-o", &picture]].concat());
        assert!(output.status.success(), "{phase}: {}", text(&output));
        assert!(std::fs::read(root.join(&picture)).unwrap() == whole, "{phase}: other bytes");
        assert!(has(&file, "latents.0") && has(&file, "latents.1") && has(&file, "picture.0"));
    }

    let output = generate(&root, &["--resume", "stage.safetensors", "--steps", "5", "-o", "x.png"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(text(&output).contains("steps is 12 there, 5 here"), "{}", text(&output));
    let output = generate(&root, &["--resume", "absent.safetensors"]);
    assert_eq!(output.status.code(), Some(64), "no prompt: {}", text(&output));
}

#[test]
fn ctrl_c_keeps_what_is_reached_and_exits_130() {
    let root = folder("stopped");
    let kept = root.join("kept.safetensors");
    let flags = ["--save-latent", "kept.safetensors", "-o", "a.png"];
    let mut child = start(&root, &flags, || {
        std::fs::read(&kept).is_ok_and(|b| b.windows(9).any(|w| w == b"picture.0"))
    });
    let interrupt = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(interrupt.expect("kill").success());
    let status = child.wait().expect("it ended");
    let said = said(&root);
    assert_eq!(status.code(), Some(130), "{said}");
    assert!(said.contains("error: cancelled"), "{said}");
    assert!(said.contains("--resume kept.safetensors"), "{said}");
    let picture = image::open(root.join("a-stage0.png")).expect("the base picture");
    assert_eq!((picture.width(), picture.height()), (128, 128));
    assert!(!root.join("a.png").exists());
}

#[test]
fn a_full_disk_is_an_error_without_leftovers() {
    let root = folder("full");
    // The shell's limit on a file's size stands in for the disk's.
    let script = "trap '' XFSZ; ulimit -f 8; exec \"$0\" generate -p x -W 128 -H 128 --steps 2 \
        --restart-ratio 1 --stages 0 -s 1 -o a.png --save-latent a.safetensors";
    let output =
        Command::new("sh").args(["-c", script, PROGRAM]).current_dir(&root).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(
        text(&output).contains("cannot write") && text(&output).contains("has room"),
        "{}",
        text(&output)
    );
    let left: Vec<_> = std::fs::read_dir(&root).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}
