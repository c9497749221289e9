//! The crate as another program uses it: a guest on its device, watched and stopped by its callbacks.

use std::path::{Path, PathBuf};

use scalediff::gpu::wgpu;
use scalediff::scalediff::{Latents, StageAttention};
use scalediff::{
    Engine, Error, ErrorKind, Event, GpuOptions, LoadOptions, Metadata, Picture, Pipeline,
    Progress, Reached, Request, Result, StageResult, embedded,
};

fn pipeline(engine: &Engine, keep_loaded: bool) -> Pipeline {
    let options = LoadOptions { keep_loaded, ..LoadOptions::default() };
    Pipeline::load(engine, &embedded::tiny_sdxl(), options).unwrap()
}

/// Both families through the same facade: a doubling, cropped, on demand twice the same.
#[test]
fn every_embedded_model_makes_a_picture() {
    let engine = own();
    for name in ["tiny-sdxl", "tiny-flux"] {
        let files = embedded::by_name(name).unwrap();
        let mut pipeline = Pipeline::load(&engine, &files, LoadOptions::default()).unwrap();
        let mut make = |request: &Request| pipeline.generate(request, &mut ()).unwrap().image();
        let image = make(&request(1));
        assert_eq!((image.width, image.height), (100, 60), "{name}");
        assert!(image.rgb == make(&request(1)).rgb, "{name}: another picture of the same seed");
        assert!(image.rgb != make(&request(2)).rgb, "{name}: the same picture of another seed");
        let full = Request { attention: StageAttention::Full, ..request(1) };
        assert!(image.rgb != make(&full).rgb, "{name}: patches that see everything");
        assert_eq!(pipeline.describe(&request(1)).unwrap().model, name);
    }
    assert!(embedded::by_name("tiny").is_none());
}

fn own() -> Engine {
    Engine::open(GpuOptions::default()).unwrap()
}

/// Two steps, one doubling, a size that is cropped.
fn request(seed: u64) -> Request {
    Request {
        prompt: "a red ball on sand under a day sky".into(),
        width: Some(100),
        height: Some(60),
        steps: Some(2),
        restart_ratio: Some(0.5),
        stages: Some(1),
        seed,
        ..Request::default()
    }
}

/// A device as a host opens it, with plain wgpu.
fn host_device() -> (wgpu::Adapter, wgpu::Device, wgpu::Queue) {
    let descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    let instance = wgpu::Instance::new(descriptor);
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::VULKAN));
    let adapter = adapters.into_iter().next().expect("a Vulkan device: run tools/vulkan");
    let descriptor = Engine::device_descriptor(&adapter);
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).unwrap();
    (adapter, device, queue)
}

#[test]
fn a_guest_on_a_host_device_leaves_the_picture_there() {
    let (adapter, device, queue) = host_device();
    let engine = Engine::from_device(&adapter, device.clone(), queue.clone()).unwrap();
    let mut pipeline = pipeline(&engine, false);
    let picture = pipeline.generate(&request(1), &mut ()).unwrap();
    let left = pipeline.generate_on_device(&request(1), &mut ()).unwrap();
    drop((pipeline, engine));

    // The host reads the buffer itself, by what the documentation says of it.
    let [(buffer, range)] = &left.tensor.bands[..] else { panic!("one band") };
    let size = range.end - range.start;
    let staging = device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size,
        usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
        mapped_at_creation: false,
    });
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    encoder.copy_buffer_to_buffer(buffer, range.start, &staging, 0, size);
    queue.submit([encoder.finish()]);
    staging.slice(..).map_async(wgpu::MapMode::Read, |_| {});
    device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
    let bytes = staging.slice(..).get_mapped_range().unwrap();
    let pixel = |x: u32, y: u32| -> [f32; 4] {
        let at = (left.top + y) * left.tensor.shape.width + left.left + x;
        let lane = |c: usize| {
            let from = at as usize * 16 + c * 4;
            f32::from_le_bytes(bytes[from..from + 4].try_into().unwrap())
        };
        [lane(0), lane(1), lane(2), lane(3)]
    };
    assert_eq!((left.width, left.height), (100, 60));
    for (x, y) in [(0, 0), (99, 0), (0, 59), (50, 30), (99, 59)] {
        let at = (y * 100 + x) as usize * 3;
        let [r, g, b, w] = pixel(x, y);
        assert_eq!(([r, g, b], w), (picture.values[at..at + 3].try_into().unwrap(), 0.0));
    }
}

#[test]
fn a_host_device_without_immediates_is_refused() {
    let (adapter, ..) = host_device();
    let (device, queue) =
        pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default())).unwrap();
    let error = Engine::from_device(&adapter, device, queue).err().expect("an error");
    assert_eq!(error.kind(), ErrorKind::Device);
    assert!(error.to_string().contains("immediates"), "{error}");
}

#[test]
fn what_is_kept_loaded_changes_no_picture() {
    let engine = own();
    let (mut fresh, mut kept) = (pipeline(&engine, false), pipeline(&engine, true));
    for seed in [3, 4] {
        let [a, b] = [&mut fresh, &mut kept].map(|p| p.generate(&request(seed), &mut ()).unwrap());
        assert_eq!(a, b);
    }
}

/// Stops at the n-th event and remembers what it saw.
struct Stopper {
    left: usize,
    seen: Vec<Event>,
}

impl Progress for Stopper {
    fn event(&mut self, event: Event) -> Result<()> {
        self.seen.push(event);
        self.left = self.left.checked_sub(1).ok_or_else(Error::cancelled)?;
        Ok(())
    }
}

#[test]
fn a_callback_stops_the_work_anywhere_and_the_pipeline_goes_on() {
    let engine = own();
    let mut pipeline = pipeline(&engine, true);
    let whole = pipeline.generate(&request(5), &mut ()).unwrap();
    let mut all = Stopper { left: usize::MAX, seen: Vec::new() };
    pipeline.generate(&request(5), &mut all).unwrap();
    let reaches_last_stage =
        |seen: &[Event]| seen.iter().any(|e| matches!(e, Event::Stage { stage: 1, .. }));
    assert!(reaches_last_stage(&all.seen));
    let mut stopped_late = false;
    for left in (0..all.seen.len() - 1).step_by(3) {
        let mut stopper = Stopper { left, seen: Vec::new() };
        match pipeline.generate(&request(5), &mut stopper) {
            // Submissions, and with them events, become fewer while the engine learns how fast the device is.
            Ok(picture) => {
                assert!(stopper.seen.len() <= left && picture == whole, "{left}: no stop")
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Cancelled);
                assert_eq!(stopper.seen.len(), left + 1, "nothing happens after the error");
                stopped_late |= reaches_last_stage(&stopper.seen);
            }
        }
    }
    assert!(stopped_late);
    assert_eq!(pipeline.generate(&request(5), &mut ()).unwrap(), whole);
}

/// Collects every stage.
#[derive(Default)]
struct Stages(Vec<(Latents, Option<Picture>)>);

impl Progress for Stages {
    fn event(&mut self, _: Event) -> Result<()> {
        Ok(())
    }

    fn latents(&mut self, stage: u32, latents: &Latents) -> Result<()> {
        assert_eq!(stage as usize, self.0.len());
        self.0.push((latents.clone(), None));
        Ok(())
    }

    fn stage(&mut self, result: &StageResult) -> Result<()> {
        let (latents, picture) = self.0.last_mut().unwrap();
        assert_eq!(*latents, result.latents);
        *picture = Some(Picture::of(result));
        Ok(())
    }
}

#[test]
fn every_stage_is_handed_out_as_it_is_made() {
    let mut stages = Stages::default();
    let last = pipeline(&own(), false).generate(&request(6), &mut stages).unwrap();
    let sizes: Vec<_> =
        stages.0.iter().flat_map(|(_, p)| p.as_ref().map(|p| (p.width, p.height))).collect();
    assert_eq!(sizes, [(50, 30), (100, 60)]);
    assert_eq!(stages.0[1].1.as_ref(), Some(&last));
}

#[test]
fn a_lost_device_ends_the_work_with_an_error() {
    let (adapter, device, queue) = host_device();
    let engine = Engine::from_device(&adapter, device.clone(), queue).unwrap();
    let mut pipeline = pipeline(&engine, false);
    let error = pipeline.generate(&request(7), &mut |event: Event| {
        if matches!(event, Event::Sampling(_)) {
            device.destroy();
        }
        Ok(())
    });
    let error = error.expect_err("a device that is gone");
    assert_eq!(error.kind(), ErrorKind::Device, "{error:?}");
}

/// Keeps what is reached in a file, as the command line does.
struct Keeper(Reached, PathBuf);

impl Progress for Keeper {
    fn event(&mut self, _: Event) -> Result<()> {
        Ok(())
    }

    fn latents(&mut self, stage: u32, latents: &Latents) -> Result<()> {
        self.0.add(stage, latents);
        self.0.write(&self.1)
    }
}

#[test]
fn what_is_kept_loaded_stays_so_after_an_error() {
    #[derive(Default)]
    struct Loads(Vec<&'static str>, bool);
    impl Progress for Loads {
        fn event(&mut self, event: Event) -> Result<()> {
            match event {
                Event::Loading(what) => self.0.push(what),
                Event::Decoding(_) if self.1 => return Err(Error::cancelled()),
                _ => {}
            }
            Ok(())
        }
    }
    let mut pipeline = pipeline(&own(), true);
    let mut loads = Loads(Vec::new(), true);
    let error = pipeline.generate(&request(8), &mut loads).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(loads.0.contains(&"autoencoder"), "{:?}", loads.0);
    let mut loads = Loads::default();
    pipeline.generate(&request(8), &mut loads).unwrap();
    assert!(!loads.0.contains(&"autoencoder"), "{:?}", loads.0);
}

#[test]
fn a_run_goes_on_from_any_stage() {
    let engine = own();
    let mut pipeline = pipeline(&engine, true);
    let metadata = pipeline.describe(&request(8)).unwrap();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("reached.safetensors");
    let _ = std::fs::remove_file(&path);
    assert_eq!(Reached::read(&path).unwrap(), None);
    let mut keeper = Keeper(Reached::new(metadata.clone()), path.clone());
    let whole = pipeline.generate(&request(8), &mut keeper).unwrap();

    let all = Reached::read(&path).unwrap().expect("a file");
    assert!(all == keeper.0, "the file holds what was added");
    let (stage, latents) = all.last().unwrap().expect("a stage");
    assert_eq!((stage, latents.height, latents.width, latents.channels), (1, 8, 14, 4));
    let mut base = Stages::default();
    pipeline.generate(&request(8), &mut base).unwrap();
    let mut first = Reached::new(metadata.clone());
    first.add(0, &base.0[0].0);
    for reached in [&first, &all] {
        assert!(pipeline.resume(&request(8), reached, &mut ()).unwrap() == whole);
    }

    assert_eq!(first.made_elsewhere(&metadata), None);
    let elsewhere = Metadata { device: "another".into(), ..metadata.clone() };
    assert!(first.made_elsewhere(&elsewhere).unwrap().contains("another"));
    let earlier = Metadata { version: "0.0.1".into(), ..metadata };
    assert!(Reached::new(earlier).check(&elsewhere).is_ok(), "neither is refused");

    let error = pipeline.resume(&request(9), &first, &mut ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.to_string().contains("seed is 8 there, 9 here"), "{error}");
    let mut small = Latents { height: 1, ..base.0[0].0.clone() };
    small.values.truncate((small.width * small.channels) as usize);
    first.add(0, &small);
    let error = pipeline.resume(&request(8), &first, &mut ()).unwrap_err();
    assert!(error.to_string().contains("7×1 with 4 channels, expected 7×4"), "{error}");
}

#[test]
fn pipelines_may_move_to_other_threads() {
    fn send<T: Send>() {}
    send::<Pipeline>();
    send::<Engine>();
    send::<Picture>();
}
