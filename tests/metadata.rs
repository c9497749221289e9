//! What pictures say about themselves: readers of other programs understand it, and it replays.

use std::collections::HashMap;
use std::io::Cursor;

use proptest::prelude::*;
use regex::Regex;
use scalediff::pipeline::{StageSize, png};
use scalediff::sampling::Sampler;
use scalediff::scalediff::Mask;
use scalediff::{Image, Metadata, Precision, Request};

fn metadata(prompt: &str, negative: Option<&str>, model: &str) -> Metadata {
    let stage = |side: u32, steps| StageSize { width: side, height: side, steps };
    Metadata {
        version: "0.1.0".into(),
        model: model.into(),
        precision: Precision::F16,
        device: "a device".into(),
        sampler: Sampler::DpmPlusPlus2M,
        karras: true,
        stages: vec![stage(1024, 50), stage(2048, 20), stage(4096, 20)],
        request: Request {
            prompt: prompt.into(),
            negative_prompt: negative.map(Into::into),
            width: Some(4000),
            height: Some(4096),
            steps: Some(50),
            cfg_scale: Some(7.5),
            stages: Some(2),
            seed: u64::MAX,
            restart_ratio: Some(0.4),
            ..Request::default()
        },
    }
}

/// The reader of AUTOMATIC1111's web UI, after its `infotext_utils.py`: prompt, negative prompt, settings.
fn read_as_a1111(text: &str) -> (String, String, HashMap<String, String>) {
    let setting =
        Regex::new(r#"\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)"#).expect("a pattern");
    let mut lines: Vec<&str> = text.trim().split('\n').collect();
    let mut last = lines.pop().unwrap_or("");
    if setting.captures_iter(last).count() < 3 {
        lines.push(last);
        last = "";
    }
    let (mut prompt, mut negative) = (Vec::new(), Vec::new());
    let mut done = false;
    for line in lines {
        let mut line = line.trim();
        if let Some(rest) = line.strip_prefix("Negative prompt:") {
            (done, line) = (true, rest.trim());
        }
        if done { negative.push(line) } else { prompt.push(line) }
    }
    let value = |value: &str| match value.starts_with('"') && value.ends_with('"') {
        true => serde_json::from_str(value).unwrap_or_else(|_| value.to_owned()),
        false => value.to_owned(),
    };
    let settings = setting.captures_iter(last).map(|c| (c[1].to_owned(), value(&c[2]))).collect();
    (prompt.join("\n"), negative.join("\n"), settings)
}

#[test]
fn a1111_reads_what_we_write() {
    let model = r#"a model: "best", v2 \ final"#;
    let text = metadata("a house, red\non sand: day", Some("blurry, steps: 3"), model).parameters();
    let (prompt, negative, settings) = read_as_a1111(&text);
    assert_eq!(prompt, "a house, red\non sand: day");
    assert_eq!(negative, "blurry, steps: 3");
    let expected = [
        ("Steps", "50"),
        ("Sampler", "DPM++ 2M"),
        ("Schedule type", "Karras"),
        ("CFG scale", "7.5"),
        ("Seed", "18446744073709551615"),
        ("Size", "1024x1024"),
        ("Model", model),
        ("Denoising strength", "0.4"),
        ("RNG", "CPU"),
        ("Hires resize", "4000x4096"),
        ("Hires steps", "20"),
        ("Hires upscaler", "ScaleDiff"),
        ("Version", "scalediff 0.1.0"),
    ];
    for (key, value) in expected {
        assert_eq!(settings.get(key).map(String::as_str), Some(value), "{key} in\n{text}");
    }
    assert_eq!(settings.len(), expected.len(), "{text}");
    // The order in which A1111 itself writes them.
    let places: Vec<_> = expected.iter().map(|(key, _)| text.rfind(&format!("{key}: "))).collect();
    assert!(places.is_sorted(), "{text}");
}

#[test]
fn a_picture_without_doublings_has_no_second_pass() {
    let mut own = metadata("x", None, "m").of_stage(0, 1000, 1024);
    own.request.negative_prompt = Some(String::new());
    let (prompt, negative, settings) = read_as_a1111(&own.parameters());
    assert_eq!((prompt.as_str(), negative.as_str()), ("x", ""));
    assert_eq!(settings["Size"], "1000x1024");
    assert!(!settings.keys().any(|key| key.starts_with("Hires") || key.starts_with("Denoising")));
}

/// A picture with metadata, encoded and read again by this crate.
fn through_png(metadata: &Metadata) -> (Vec<u8>, Vec<(String, String)>) {
    let image = Image { width: 2, height: 1, rgb: vec![0, 1, 2, 3, 4, 5] };
    let bytes = image.encode_png(Some(metadata)).unwrap();
    let texts = png::texts(Cursor::new(&bytes)).unwrap();
    (bytes, texts)
}

#[test]
fn text_goes_into_the_chunk_that_can_hold_it() {
    let has = |bytes: &[u8], chunk: &[u8]| bytes.windows(4).any(|w| w == chunk);
    for (prompt, text, itxt) in [("plain", true, false), ("café", true, false), ("球", false, true)]
    {
        let (bytes, texts) = through_png(&metadata(prompt, None, "m"));
        assert_eq!((has(&bytes, b"tEXt"), has(&bytes, b"iTXt")), (text, itxt), "{prompt}");
        assert!(texts.iter().any(|(k, t)| k == "parameters" && t.starts_with(prompt)));
        // An independent reader sees the same pixels.
        let image = image::load_from_memory(&bytes).expect("a PNG").into_rgb8();
        assert_eq!(image.into_raw(), [0, 1, 2, 3, 4, 5]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Every request comes back as it was, to the last bit of its numbers.
    #[test]
    fn metadata_survives_the_file(
        prompt in any::<String>(),
        negative in any::<Option<String>>(),
        seed in any::<u64>(),
        scale in 0f32..1000.0,
        ratio in 0f64..1.0,
        cutoff in 0f64..1.0,
        flags in any::<[bool; 3]>(),
    ) {
        let mut own = metadata(&prompt, negative.as_deref(), "m");
        own.request.seed = seed;
        own.request.cfg_scale = Some(scale);
        own.request.restart_ratio = Some(ratio);
        own.request.filter = flags[0].then_some(Mask::Gaussian);
        own.request.filter_cutoff = Some(cutoff);
        own.request.jitter = Some(flags[1]);
        own.request.no_structure_guidance = flags[2];
        let (_, texts) = through_png(&own);
        let json = &texts.iter().find(|(keyword, _)| keyword == "scalediff").unwrap().1;
        prop_assert_eq!(Metadata::from_json(json).unwrap(), own);
    }
}
