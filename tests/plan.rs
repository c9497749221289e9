//! Null ring: what full-size SDXL and FLUX.1-dev need, from their configs alone.

use std::path::Path;

use scalediff::error::{ErrorKind, Result};
use scalediff::gpu::{Caps, Limits};
use scalediff::pipeline::{Phase, Precision, Request, plan};
use scalediff::scalediff::StageAttention;
use scalediff::weights::ModelFiles;

fn sdxl(limits: &str, request: Request) -> Vec<Phase> {
    try_sdxl(limits, request).unwrap()
}

fn try_sdxl(limits: &str, request: Request) -> Result<Vec<Phase>> {
    try_model("sdxl-base-1.0", limits, request)
}

fn flux(limits: &str, request: Request) -> Vec<Phase> {
    try_model("flux-1-dev", limits, request).unwrap()
}

fn try_model(name: &str, limits: &str, request: Request) -> Result<Vec<Phase>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/configs").join(name);
    let limits = Limits::WEBGPU.replaced_by(limits).unwrap();
    let files = ModelFiles::open(&folder).unwrap();
    plan(&files, Precision::F16, &Caps { limits, ..Caps::FLOOR }, &request)
}

/// TFLOP of one U-Net forward of one sample, the last stage.
fn unet_tflop(phases: &[Phase]) -> f64 {
    let p = phases.iter().rfind(|p| p.name.contains("denoise")).unwrap();
    p.flops as f64 / f64::from(p.branches) / 1e12
}

/// Known totals: the sums over all layers by hand, 2 per multiply-add.
#[test]
fn the_work_of_full_size_sdxl_is_what_its_layers_add_up_to() {
    for (side, full, want) in [
        (1024, false, 6.76),
        (2048, false, 26.9),
        (2048, true, 35.9),
        (4096, false, 107.4),
        (4096, true, 287.8),
    ] {
        let request = Request {
            width: Some(side),
            height: Some(side),
            attention: if full { StageAttention::Full } else { StageAttention::Patches },
            ..Request::default()
        };
        let got = unet_tflop(&sdxl("webgpu", request));
        assert!((got / want - 1.0).abs() < 0.03, "{side}, full {full}: {got} TFLOP, not {want}");
    }
}

#[test]
fn a_4096_picture_fits_eight_gibibytes() {
    for limits in ["webgpu", "binding=2147483647,buffer=4294967295"] {
        for p in sdxl(limits, Request::default()) {
            let peak = p.peak_bytes() as f64 / f64::from(1 << 30);
            assert!(peak < 7.5, "{limits}: {} takes {peak:.2} GiB", p.name);
        }
    }
}

#[test]
fn steps_outside_the_guidances_range_have_one_branch() {
    let request = Request { width: Some(2048), height: Some(2048), ..Request::default() };
    let request = Request { guidance_stop: Some(0.8), ..request };
    // 50 steps of which the second stage runs the last 20.
    let phases = sdxl("webgpu", request);
    let steps: Vec<(u64, u32)> = phases
        .iter()
        .filter(|p| p.name.contains("denoise"))
        .map(|p| (p.replays, p.branches))
        .collect();
    assert_eq!(steps, [(40, 2), (10, 1), (10, 2), (10, 1)]);
    let work = |note: bool| {
        let of =
            |p: &&Phase| p.name.contains("denoise 2048") && p.name.contains("unguided") == note;
        phases.iter().find(of).unwrap().flops as f64
    };
    assert!((work(false) / work(true) - 2.0).abs() < 1e-3);
}

#[test]
fn every_op_of_a_4096_picture_fits_every_profile_of_limits() {
    for limits in ["webgpu", "binding=2147483647,buffer=2147483647", "binding=128MiB,buffer=2GiB"] {
        let profile = Limits::WEBGPU.replaced_by(limits).unwrap();
        let phases = sdxl(limits, Request::default());
        // Next to the weights of a text encoder, in slabs of about 64 MiB, its activations are small.
        let text = phases.iter().find(|p| !p.name.starts_with("stage")).unwrap();
        assert!(text.weight_bytes > 64 << 20 && text.largest_buffer > 60 << 20, "{}", text.name);
        assert_eq!(phases.iter().filter(|p| p.name.starts_with("stage")).count(), 8);
        for p in &phases {
            assert!(p.largest_binding <= profile.binding_bytes, "{limits}: {}", p.name);
            assert!(p.largest_buffer <= profile.buffer_bytes, "{limits}: {}", p.name);
            assert!(p.live_bytes <= p.activation_bytes, "{limits}: {}", p.name);
        }
        // The U-Net: 2.57 billion weights in f16, and what the official code was seen to need.
        let unet = phases.iter().rfind(|p| p.name.contains("denoise")).unwrap();
        assert!((4.7..4.9).contains(&(unet.weight_bytes as f64 / (1u64 << 30) as f64)));
        assert!(unet.peak_bytes() < 12 << 30, "{limits}: {}", unet.peak_bytes());
    }
}

/// The last forward pass of the denoiser.
fn last(phases: &[Phase]) -> &Phase {
    phases.iter().rfind(|p| p.name.contains("denoise")).unwrap()
}

/// 2 per multiply-add: linear layers 56.2, 215 and 849 (256 tokens of text), and the attention of 57 blocks over the
/// whole picture, or over windows with each text query once to a window.
#[test]
fn the_work_of_flux_is_what_its_layers_add_up_to() {
    let blocks = 57.0 * 4.0 * 3072.0;
    let windowed = |pixels: f64, windows: f64, text: f64| {
        blocks * (pixels + windows * text) * (4096.0 + text) / 1e12
    };
    for (side, full, text, want) in [
        (1024, false, 256, 56.2 + 13.3),
        (1024, false, 512, 59.5 + 14.9),
        (2048, true, 256, 215.0 + 194.0),
        (2048, true, 512, 218.0 + 200.0),
        (4096, true, 512, 853.0 + 3056.0),
        (2048, false, 512, 218.0 + windowed(16384.0, 16.0, 512.0)),
        (4096, false, 256, 849.0 + windowed(65536.0, 64.0, 256.0)),
        (4096, false, 512, 853.0 + windowed(65536.0, 64.0, 512.0)),
    ] {
        let request = Request {
            width: Some(side),
            height: Some(side),
            attention: if full { StageAttention::Full } else { StageAttention::Patches },
            jitter: Some(false),
            max_sequence_length: Some(text),
            ..Request::default()
        };
        let got = last(&flux("binding=2147483647,buffer=2147483647", request)).flops as f64 / 1e12;
        assert!((got / want - 1.0).abs() < 0.03, "{side}, full {full}: {got} TFLOP, not {want}");
    }
}

#[test]
fn every_op_of_flux_at_4096_fits_every_profile_of_limits() {
    for limits in ["webgpu", "binding=2147483647,buffer=2147483647"] {
        let profile = Limits::WEBGPU.replaced_by(limits).unwrap();
        let request = Request { width: Some(4096), height: Some(4096), ..Request::default() };
        let phases = flux(limits, request);
        for p in &phases {
            assert!(p.largest_binding <= profile.binding_bytes, "{limits}: {}", p.name);
            assert!(p.largest_buffer <= profile.buffer_bytes, "{limits}: {}", p.name);
        }
        let denoise = last(&phases);
        // 11.9 billion weights in f16.
        assert!((denoise.weight_bytes as f64 / 2.0 / 11_901_408_320.0 - 1.0).abs() < 1e-3);
        assert!(denoise.peak_bytes() < 34 << 30, "{limits}: {}", denoise.peak_bytes());
    }
}

/// Grids whose blocks do not begin where chunks of work do, with and without shifted patches.
#[test]
fn any_size_can_be_cut_to_the_least_bindings() {
    for (width, height) in
        [(3840, 2160), (2160, 3840), (4000, 4000), (4032, 4032), (5000, 3000), (6000, 4000)]
    {
        let size = Request { width: Some(width), height: Some(height), ..Request::default() };
        try_sdxl("webgpu", size.clone()).unwrap();
        for jitter in [false, true] {
            for seed in 0..3 {
                flux("webgpu", Request { jitter: Some(jitter), seed, ..size.clone() });
            }
        }
    }
}

#[test]
fn a_weight_beyond_the_buffer_limit_is_an_error_that_names_it() {
    let error = try_sdxl("buffer=4MiB", Request::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    let text = error.to_string();
    assert!(text.contains("weight") && text.contains("buffer limit is 4194304"), "{text}");
}

#[test]
fn what_cannot_fit_is_an_error_that_names_the_op() {
    let error = try_sdxl("binding=64KiB", Request::default()).unwrap_err();
    assert!(error.to_string().contains("text_encoder"), "{error}");
    assert!(error.hint().is_some());
}
