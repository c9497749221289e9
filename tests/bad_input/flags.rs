//! Command lines, as a person types them.

use std::process::Command;
use std::time::Instant;

use crate::{LIMIT, folder};

/// Runs the program in `root`; panics unless it ends with one of `codes` and says why.
fn run(root: &std::path::Path, args: &[&str], codes: &[i32]) {
    let start = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_scalediff"))
        .args(args)
        .current_dir(root)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    let code = output.status.code().unwrap_or(-1);
    let shown: Vec<String> = args.iter().map(|arg| arg.chars().take(40).collect()).collect();
    assert!(codes.contains(&code), "{shown:?}: {code}\n{text}");
    assert!(!text.contains("panicked"), "{shown:?}\n{text}");
    assert!(
        code == 0 || text.contains("error") || text.contains("Usage"),
        "{shown:?}: no error\n{text}"
    );
    assert!(text.len() < 10_000, "{shown:?}: {} bytes of errors", text.len());
    assert!(start.elapsed() < LIMIT, "{shown:?}: {:?}", start.elapsed());
}

const USAGE: &[i32] = &[64];

#[test]
fn command_lines_that_cannot_be_carried_out() {
    let root = folder("flags");
    std::fs::write(root.join("text.txt"), "text").unwrap();
    std::fs::write(root.join("half.png"), b"\x89PNG\r\n\x1a\n").unwrap();
    let mut count = 0;
    let mut judged = |args: &[&str], codes: &[i32]| {
        run(&root, args, codes);
        count += 1;
    };
    // Not a command line at all.
    for args in [
        &[""][..],
        &["-"],
        &["--"],
        &["-p"],
        &["generate"],
        &["generate", "-p"],
        &["generate", "--prompt"],
        &["plan", "-p", "x"],
        &["devices", "now"],
        &["verify"],
        &["metadata"],
        &["metadata", "a", "b"],
        &["generate", "-p", "x", "y"],
        &["generate", "-p", "x", "-p", "y"],
        &["generate", "-p=x", "--seed"],
        &["généré"],
        &["\u{1F600}"],
        &["generate", "--\u{202e}"],
    ] {
        judged(args, USAGE);
    }
    // One flag with one bad value.
    for (flag, values) in [
        ("-W", &["0", "-1", "1.5", "x", "", "100000", "4294967296", "1e3", "0x10", "٣"][..]),
        ("-H", &["0", "100000"]),
        ("--steps", &["0", "-1", "1001", "x", "18446744073709551616"]),
        ("--cfg-scale", &["nan", "-1", "inf", "x", "1e39"]),
        ("--stages", &["7", "-1", "4294967295", "x"]),
        ("--restart-ratio", &["0", "-0.1", "1.1", "nan", "x"]),
        ("--scale-factor", &["0", "-1", "1.1", "nan"]),
        ("--filter", &["", "fft", "FFT-IDEAL"]),
        ("--filter-cutoff", &["0.1", "x"]),
        ("--guidance-start", &["-1", "2", "nan"]),
        ("--guidance-stop", &["-1", "2", "nan"]),
        ("--sampling-method", &["", "magic", "euler karras karras"]),
        ("--scheduler", &["", "magic"]),
        ("--rng", &["", "gpu"]),
        ("--attention", &["", "magic"]),
        ("-s", &["x", "9223372036854775808", "1.5"]),
        ("-b", &["0", "-1", "10000", "x"]),
        (
            "-o",
            &["", ".", "..", "no/such/a.png", "a.jpg", "a.safetensors", "/dev/null", "/", "\u{0}"],
        ),
        ("--precision", &["", "f8", "F16"]),
        ("--tier", &["", "magic"]),
        (
            "--limits",
            &["magic", "binding", "binding=", "binding=x", "binding=-1", "storage=0", "groups=0"],
        ),
    ] {
        for value in values.iter().filter(|value| !value.contains('\0')) {
            judged(&["generate", "-p", "x", flag, value], USAGE);
        }
    }
    // Files and devices that are not there or not what they should be.
    for args in [
        &["-m", "no-such"][..],
        &["-m", "text.txt"],
        &["-m", "."],
        &["-m", ""],
        &["--device", "magic"],
        &["--device", "4294967296"],
        &["--config-from-metadata", "no-such.png"],
        &["--config-from-metadata", "text.txt"],
        &["--config-from-metadata", "half.png"],
        &["--resume", "text.txt"],
    ] {
        judged(&[&["generate", "-p", "x"], args].concat(), &[1, 64]);
    }
    for args in [
        &["metadata", "text.txt"][..],
        &["metadata", "half.png"],
        &["metadata", "no-such"],
        &["metadata", "."],
        &["generate", "--config-from-metadata", "half.png"],
        &["generate", "--resume", "no-such.safetensors"],
        &["generate", "-p", "x", "--save-latent", "no/such/a.safetensors"],
        &["generate", "-p", "x", "--save-latent", "."],
    ] {
        judged(args, &[1, 64]);
    }
    for args in [&["verify", "no-such"][..], &["verify", "text.txt"], &["verify", "."]] {
        judged(args, &[2]);
    }
    println!("flags: {count} command lines");
    assert!(count >= 120, "{count}");
}

/// The smallest and the oddest pictures are right, not refused.
#[test]
fn odd_sizes_are_made() {
    let root = folder("sizes");
    for (width, height) in [(1, 1), (7, 1), (1, 7), (7, 7), (9, 130)] {
        let (w, h, name) = (width.to_string(), height.to_string(), format!("{width}x{height}.png"));
        let flags = ["--steps", "1", "--restart-ratio", "1", "-s", "1", "-o", &name];
        run(&root, &[&["generate", "-p", "x", "-W", &w, "-H", &h][..], &flags].concat(), &[0]);
        let picture = image::open(root.join(&name)).expect("a picture");
        assert_eq!((picture.width(), picture.height()), (width, height));
    }
}
