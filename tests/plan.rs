//! Null ring: what full-size SDXL needs, from its configs alone.

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
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/configs/sdxl-base-1.0");
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
