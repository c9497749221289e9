//! Prompts and requests: any text, any number.

use scalediff::gpu::Caps;
use scalediff::pipeline::{flux_ids, plan, tokenize};
use scalediff::scalediff::Mask;
use scalediff::{Metadata, Precision, Request, embedded};

use crate::Judge;

/// Text of `bytes` bytes from the characters of `range`.
fn text(range: std::ops::RangeInclusive<u32>, bytes: usize) -> String {
    let mut text = String::new();
    for c in range.filter_map(char::from_u32).cycle() {
        if text.len() + c.len_utf8() > bytes {
            break;
        }
        text.push(c);
    }
    text
}

#[test]
fn prompts_of_every_plane_and_of_any_length() {
    let mut judge = Judge::default();
    let files = embedded::tiny_sdxl();
    let mut prompts: Vec<(String, String)> = (0..17u32)
        .map(|plane| {
            (format!("plane {plane}"), text(plane << 16..=(plane << 16 | 0xffff), 100_000))
        })
        .collect();
    for (what, one) in [
        ("nothing", ""),
        ("spaces", " "),
        ("zeros", "\0"),
        ("line ends", "\r\n"),
        ("one letter", "a"),
        ("a word", "word "),
        ("end tokens", "<|endoftext|>"),
        ("half end tokens", "<|endoftext"),
        ("apostrophes", "'s't're"),
        ("combining marks", "e\u{301}\u{302}"),
        ("marks on nothing", "\u{301}"),
        ("right to left", "\u{202e}שלום"),
        ("joined emoji", "👩\u{200d}👩\u{200d}👧"),
        ("Hangul parts", "\u{1100}\u{1161}\u{11a8}"),
        ("widest decomposition", "\u{fdfa}"),
        ("dotted capitals", "İ"),
        ("digits", "0123456789"),
        ("byte order marks", "\u{feff}"),
        ("non-characters", "\u{ffff}\u{1fffe}"),
        ("weights", "((a:1.3), [b|c])"),
    ] {
        let long = if one.is_empty() { String::new() } else { one.repeat(100_000 / one.len()) };
        prompts.push((what.to_owned(), one.to_owned()));
        prompts.push((format!("{what}, long"), long));
    }
    for (what, prompt) in &prompts {
        judge.right(what, || {
            let ids = tokenize(&files, prompt)?;
            assert_eq!((ids.first.len(), ids.second.len()), (77, 77));
            let [clip, t5] = flux_ids(&embedded::tiny_flux(), prompt, 32)?;
            assert_eq!((clip.len(), t5.len()), (77, 32));
            Ok(())
        });
    }
    judge.refused("10 MB", "prompt", || tokenize(&files, &"a ".repeat(5_000_000)));
    judge.verdict("prompts", 55);
}

#[test]
fn requests_with_numbers_out_of_range() {
    let mut judge = Judge::default();
    let files = embedded::tiny_sdxl();
    let planned = |request: &Request| plan(&files, Precision::F16, &Caps::FLOOR, request);
    let sides = [0, 1, 7, 64, 16_384, 16_385, 100_000, u32::MAX];
    for (width, height) in sides.iter().flat_map(|w| sides.iter().map(move |h| (*w, *h))) {
        let request = Request { width: Some(width), height: Some(height), ..Request::default() };
        let what = format!("{width}×{height}");
        let inside = |side: u32| (1..=16_384).contains(&side);
        match (inside(width) && inside(height), width.max(height) > 64) {
            (false, _) => judge.refused(&what, "out of range", || planned(&request)),
            (true, false) => judge.right(&what, || planned(&request)),
            (true, true) => judge.any(&what, || planned(&request)),
        }
    }
    let floats = [
        0.0,
        -0.0,
        -1.0,
        1e-300,
        1.0,
        1.0 + 1e-9,
        1e300,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
    ];
    let small = || Request { width: Some(100), height: Some(60), ..Request::default() };
    for v in floats {
        let some = Some(v);
        let requests = [
            ("restart_ratio", Request { restart_ratio: some, ..small() }),
            ("scale_factor", Request { scale_factor: some, ..small() }),
            ("cutoff", Request { filter: Some(Mask::Ideal), filter_cutoff: some, ..small() }),
            ("cutoff alone", Request { filter_cutoff: some, ..small() }),
            ("guidance_start", Request { guidance_start: some, ..small() }),
            ("guidance_stop", Request { guidance_stop: some, ..small() }),
            ("cfg_scale", Request { cfg_scale: Some(v as f32), ..small() }),
        ];
        for (what, request) in requests {
            judge.any(&format!("{what} {v}"), || planned(&request));
        }
    }
    for stages in [0, 6, 7, 31, 32, 63, u32::MAX] {
        let request = Request { stages: Some(stages), ..small() };
        judge.any(&format!("{stages} stages"), || planned(&request));
    }
    for steps in [0, 1, 2, 1000, 1001, usize::MAX] {
        let request = Request { steps: Some(steps), ..small() };
        judge.any(&format!("{steps} steps"), || planned(&request));
    }
    judge.verdict("requests", 140);
}

#[test]
fn metadata_that_is_not_ours() {
    let mut judge = Judge::default();
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for json in [
        "",
        "{}",
        "[]",
        "null",
        "3",
        "\"text\"",
        "{\"version\":1}",
        "{\"request\":{}}",
        &deep,
        "\u{0}",
        r#"{"version":"9","model":"m","precision":"f16","device":"d","sampler":"euler","karras":false,"stages":[],"request":{"magic":1}}"#,
        r#"{"version":"9","model":"m","precision":"f8","device":"d","sampler":"euler","karras":false,"stages":[],"request":{}}"#,
        r#"{"version":"9","model":"m","precision":"f16","device":"d","sampler":"euler","karras":false,"stages":[],"request":{"width":-1}}"#,
        r#"{"version":"9","model":"m","precision":"f16","device":"d","sampler":"euler","karras":false,"stages":[],"request":{"seed":1e99}}"#,
        r#"{"version":"9","model":"m","precision":"f16","device":"d","sampler":"euler","karras":false,"stages":[],"request":{"seed":1},"request":{}}"#,
    ] {
        judge.refused(&format!("metadata {json:.40}"), "metadata", || Metadata::from_json(json));
    }
    judge.verdict("metadata", 15);
}
