//! Training-free high-resolution image generation on any GPU.
//!
//! `scalediff` runs a text-to-image diffusion model far above the size it was trained at, with the
//! method of *ScaleDiff* (NeurIPS 2025, arXiv 2510.25818), on wgpu (Vulkan, Metal, DX12) with every
//! kernel hand-written in WGSL. This page is the map; each module's own page goes on from here.
//!
//! # A picture from your program
//!
//! ```
//! # #[cfg(feature = "embedded")] fn main() -> scalediff::Result<()> {
//! use scalediff::{Engine, Event, GpuOptions, LoadOptions, Pipeline, Request, embedded};
//!
//! let engine = Engine::open(GpuOptions::default())?;
//! // The small model inside the crate; `ModelFiles::open(path)` takes a folder in diffusers layout.
//! let mut pipeline = Pipeline::load(&engine, &embedded::tiny_sdxl(), LoadOptions::default())?;
//! let request = Request {
//!     prompt: "a red ball on sand under a day sky".into(),
//!     width: Some(128),
//!     height: Some(128),
//!     steps: Some(2),
//!     ..Request::default()
//! };
//! let picture = pipeline.generate(&request, &mut |event| {
//!     if let Event::Sampling(share) = event {
//!         assert!(share <= 1.0); // draw a bar; to stop: Err(scalediff::Error::cancelled())
//!     }
//!     Ok(())
//! })?;
//! let image = picture.image();
//! assert_eq!((image.width, image.height, image.rgb.len()), (128, 128, 128 * 128 * 3));
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "embedded"))] fn main() {}
//! ```
//!
//! The library is a guest: it prints nothing, keeps no global state (messages go through the `log` crate), and
//! works on a device of yours with [`Engine::from_device`]. [`Pipeline::generate_on_device`] leaves the picture in
//! a wgpu buffer; wgpu itself is exported as [`gpu::wgpu`].
//!
//! # What happens to a prompt
//!
//! 1. [`pipeline`] opens a model folder ([`weights`]), tokenizes the prompt and runs the text
//!    encoders ([`models::text`]).
//! 2. [`scalediff::Cascade`] makes a picture at the base size, then doubles it as often as asked:
//!    latents and decoded picture are both enlarged, mixed (*latent frequency mixing*), re-noised, and
//!    denoised again with *neighborhood patch attention* while each step's clean prediction keeps the
//!    reference's low band (*structure guidance*). [`scalediff::StageAttention`] decides what a stage sees,
//!    [`models::windows`] what that is at each level of a network, and [`kernels::attention`] computes it.
//! 3. Every network pass is **recorded, planned, replayed**: a model's `forward` records ops on
//!    [`tensor::Tensor`] handles into a [`graph::Graph`]; [`graph::Plan`] finds lifetimes, shares
//!    buffers, cuts what exceeds a limit and builds bind groups once; a denoising step replays it.
//!
//! # Layers
//!
//! Each may use those before it, never those after; `tests/layers.rs` holds this.
//!
//! | layer | job |
//! |---|---|
//! | [`error`], [`files`], [`tensor`] | the one error type; files written whole; shapes, element types, handles |
//! | [`shader`] | the WGSL files, and the composer that joins a kernel with what its variant picks |
//! | [`gpu`] | devices and the [`Engine`] handle on one, their facts and measured tiles ([`gpu::Caps`]), pipelines, transfers |
//! | [`graph`] | record → plan → replay |
//! | [`kernels`] | one module per kernel: parameters, choice of variant, recording |
//! | [`mod@reference`] | the same kernels as plain loops, for tests and benches |
//! | [`weights`] | checkpoints: files, tensors, their way to the device |
//! | [`nn`], [`models`] | layers; networks that read like their papers |
//! | [`sampling`], [`scalediff`] | schedules and noise; the method, which knows no model family |
//! | [`pipeline`] | from a request to a picture |
//! | [`mod@bench`] | kernel calls as data, verified and timed; the fastest tiles of a device; whole cascades, timed |
//! | [`verify`], [`cli`] | recorded cases; the command line |
//!
//! # What holds everywhere
//!
//! * **One layout.** Activations are `[batch, height, width, channels]`, channels last: tokens are
//!   pixels without a transpose, and rows of a picture are contiguous. Rows are padded to whole
//!   vec4s with zeros.
//! * **Everything can be cut.** An op is cut by output rows (and columns, for weights) so that each
//!   binding fits the device; attention takes its keys in segments. A launch is a range of workgroup
//!   numbers, so it is also cut into short submissions; sums are never reordered by a cut.
//! * **Memory decides.** A graph of large tensors is [streamed](graph::Graph::stream): they lie in bands, and a chunk runs
//!   when one that needs it is due, so that a chain of convolutions holds a few lines of what it passes on.
//! * **Capabilities are facts.** A kernel's `choose` is a pure function of [`gpu::Caps`] and the
//!   problem. No subgroup size is assumed. A forced tier makes one machine test what others run.
//!   Matrix units are used only after they multiplied right at start.
//! * **f16 is storage.** Arithmetic, softmax and statistics are f32.
//! * **Only** `gpu` and the plan and replay of `graph` name wgpu, only `weights` opens checkpoints, only `cli` prints,
//!   and WGSL stands only under `shaders/`.
//!
//! # Adding a model family
//!
//! The network is a module of [`models`] that records its forward pass (as [`models::flux`]). A module of `pipeline`
//! (as `pipeline/flux`) gives it two faces: [`scalediff::Denoiser`], what the cascade needs of it, and `Family`, what
//! comes before: prompts, text encoders, schedule, defaults. A row in `pipeline/family.rs` picks it by the class that
//! `model_index.json` names. The cascade, mixing, guidance and progress stay as they are.
//!
//! # Adding a sampler
//!
//! A variant of [`sampling::Sampler`] with its names, its coefficients in `Schedule::step` (`sampling/sampler.rs`), the
//! class of diffusers in `sampling/config.rs`, its levels in `sampling/schedule.rs` where they differ, and a case in
//! `tools/goldens/host.py`, which `tests/host/sampling.rs` compares.
//!
//! # Adding a kernel
//!
//! One name, five places: `shaders/<family>/<name>.wgsl` (listed in `src/shader/sources.rs`),
//! `src/kernels/<name>.rs`, `src/reference/<name>.rs`, a case in
//! `tests/kernels/cases.rs` or a file below it (as a `bench::call::Call`), a row in `src/bench/cases.rs`.

pub mod bench;
pub mod cli;
#[cfg(feature = "embedded")]
pub mod embedded;
#[warn(missing_docs)]
pub mod error;
#[warn(missing_docs)]
pub mod files;
#[warn(missing_docs)]
pub mod gpu;
pub mod graph;
pub mod kernels;
pub mod models;
pub mod nn;
#[warn(missing_docs)]
pub mod pipeline;
pub mod reference;
#[warn(missing_docs)]
pub mod sampling;
pub mod scalediff;
pub mod shader;
pub mod tensor;
pub mod verify;
#[warn(missing_docs)]
pub mod weights;

pub use error::{Error, ErrorKind, Result};
pub use gpu::{Engine, GpuOptions};
pub use pipeline::{
    DevicePicture, Image, LoadOptions, Metadata, Picture, Pipeline, Precision, Reached, Request,
};
pub use scalediff::{Event, Mask, Progress, StageResult};
pub use weights::ModelFiles;
