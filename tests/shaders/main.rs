//! Null ring: every shader in every variant, checked by naga alone, for devices that this machine
//! does not have.

mod every;

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use every::{FAMILIES, Family};
use naga::back::{hlsl, msl, spv};
use naga::valid::{Capabilities, ModuleInfo, SubgroupOperationSet, ValidationFlags, Validator};
use naga::{AddressSpace, Module, Scalar, ShaderStage, TypeInner};
use scalediff::gpu::{Caps, Coop, DeviceClass, Limits, Tier, TileKind, Tiles};
use scalediff::graph::{Graph, Op, split};
use scalediff::kernels::tiles;
use scalediff::shader::{SOURCES, Sources, compose};

const PARAM_BYTES: u32 = 64;
const MOST_LINES: usize = 300;

/// Devices that stand for all: each class at each tier, subgroups of 4 to 32, and limits so low that
/// attention cuts its keys.
fn devices() -> Vec<Caps> {
    let mut all = Vec::new();
    let coop = |side, subgroup, scalars| Some(Coop { side, subgroup, scalars });
    for (class, subgroup_min, int64, coop) in [
        (DeviceClass::Cpu, 4, true, None),
        (DeviceClass::Cpu, 8, true, coop(8, 8, false)),
        (DeviceClass::Cpu, 8, false, None),
        (DeviceClass::Integrated, 32, false, coop(8, 32, true)),
        (DeviceClass::Discrete, 32, false, coop(16, 32, false)),
        (DeviceClass::Discrete, 64, false, coop(16, 64, false)),
        // A software device whose units are forced.
        (DeviceClass::Discrete, 8, false, coop(8, 8, false)),
    ] {
        for tier in Tier::ALL {
            let caps = Caps {
                class,
                f16: true,
                subgroups: true,
                int64,
                texels: class == DeviceClass::Cpu && int64,
                subgroup_min,
                coop,
                limits: Limits { workgroup_bytes: 32 << 10, ..Limits::WEBGPU },
                tiles: Tiles::NONE,
            };
            all.push(caps.clamped(tier));
        }
    }
    // Subgroups without f16, as SwiftShader has them.
    all.push(Caps { subgroups: true, subgroup_min: 4, ..Caps::FLOOR });
    let narrow = Limits { binding_bytes: 64 << 10, ..Limits::WEBGPU };
    all.extend(all.clone().into_iter().map(|caps| Caps { limits: narrow, ..caps }));
    all
}

/// What wgpu lets a device with these facts compile.
fn capabilities(caps: &Caps) -> Capabilities {
    let mut allowed = Capabilities::IMMEDIATES | Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    allowed.set(Capabilities::SHADER_FLOAT16, caps.f16);
    allowed.set(Capabilities::SUBGROUP, caps.subgroups);
    allowed.set(Capabilities::SHADER_INT64, caps.int64);
    allowed.set(Capabilities::COOPERATIVE_MATRIX, caps.coop.is_some());
    allowed
}

fn validate(module: &Module, caps: &Caps) -> Result<ModuleInfo, String> {
    let mut validator = Validator::new(ValidationFlags::all(), capabilities(caps));
    if caps.subgroups {
        validator
            .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
            .subgroup_operations(SubgroupOperationSet::all());
    }
    validator.validate(module).map_err(|e| format!("{:?}", e.into_inner()))
}

/// Limits that every device keeps, and parameters that agree with the host's.
fn check_resources(
    module: &Module,
    caps: &Caps,
    param_bytes: usize,
    has_matrices: bool,
) -> Result<(), String> {
    let [entry] = module.entry_points.as_slice() else {
        return Err("expected one entry point".into());
    };
    let invocations: u32 = entry.workgroup_size.iter().product();
    if entry.name != "main"
        || entry.stage != ShaderStage::Compute
        || invocations > caps.limits.invocations
    {
        return Err(format!("entry point {} of {invocations} invocations", entry.name));
    }
    let size = |ty| module.types[ty].inner.size(module.to_ctx());
    let globals = |space: AddressSpace| {
        module
            .global_variables
            .iter()
            .map(|(_, g)| g)
            .filter(move |g| std::mem::discriminant(&g.space) == std::mem::discriminant(&space))
    };
    let shared: u32 =
        globals(AddressSpace::WorkGroup).map(|g| size(g.ty).next_multiple_of(16)).sum();
    // Matrices are loaded at multiples of 16 bytes, and drivers pack variables.
    if let Some(odd) =
        globals(AddressSpace::WorkGroup).find(|g| has_matrices && size(g.ty) % 16 != 0)
    {
        return Err(format!("{:?} takes {} bytes of workgroup memory", odd.name, size(odd.ty)));
    }
    if shared > caps.limits.workgroup_bytes {
        return Err(format!("{shared} bytes of workgroup memory"));
    }
    let storage = globals(AddressSpace::Storage { access: Default::default() }).count() as u32;
    if storage > caps.limits.storage_buffers {
        return Err(format!("{storage} storage buffers"));
    }
    let textures = globals(AddressSpace::Handle).count() as u32;
    if textures > Caps::MOST_READ {
        return Err(format!("{textures} textures"));
    }
    let params: Vec<_> = globals(AddressSpace::Immediate).collect();
    let [params] = params.as_slice() else {
        return Err("expected one block of parameters".into());
    };
    let TypeInner::Struct { members, span } = &module.types[params.ty].inner else {
        return Err("parameters are no struct".into());
    };
    let first = &members[0];
    let is_u32 = module.types[first.ty].inner == TypeInner::Scalar(Scalar::U32);
    if first.name.as_deref() != Some("first_group") || first.offset != 0 || !is_u32 {
        return Err("parameters do not start with first_group: u32".into());
    }
    if *span > PARAM_BYTES || *span as usize != param_bytes {
        return Err(format!("parameters of {span} bytes, the host's have {param_bytes}"));
    }
    Ok(())
}

/// Writes a module with matrix operations into the folder that `SCALEDIFF_SPIRV` names, for a validator that knows them:
/// see `tools/coop`.
fn keep(words: &[u32]) -> Result<(), String> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let Ok(folder) = std::env::var("SCALEDIFF_SPIRV") else { return Ok(()) };
    let name = format!("{}.spv", COUNT.fetch_add(1, Ordering::Relaxed));
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    fs::write(Path::new(&folder).join(name), bytes).map_err(|e| e.to_string())
}

/// Writes the module for Vulkan, Metal and DX12, as wgpu does.
fn translate(
    module: &Module,
    info: &ModuleInfo,
    caps: &Caps,
    has_matrices: bool,
) -> Result<(), String> {
    let lang_version = if caps.subgroups { (1, 3) } else { (1, 0) };
    let options = spv::Options { lang_version, ..Default::default() };
    let words = spv::write_vec(module, info, &options, None).map_err(|e| format!("SPIR-V: {e}"))?;
    if has_matrices {
        keep(&words)?;
    }

    let options = msl::Options { lang_version: (2, 4), ..Default::default() };
    let (metal, translated) = msl::write_string(module, info, &options, &Default::default())
        .map_err(|e| format!("MSL: {e}"))?;
    for name in translated.entry_point_names {
        name.map_err(|e| format!("MSL: {e}"))?;
    }

    if words.is_empty() || metal.is_empty() {
        return Err("an empty translation".into());
    }
    if has_matrices {
        // HLSL has no cooperative matrices, so DX12 devices offer none.
        return Ok(());
    }
    let options = hlsl::Options {
        shader_model: hlsl::ShaderModel::V6_2,
        fake_missing_bindings: true,
        immediates_target: Some(hlsl::BindTarget::default()),
        special_constants_binding: Some(hlsl::BindTarget { space: 1, ..Default::default() }),
        ..Default::default()
    };
    let pipeline = hlsl::PipelineOptions::default();
    let mut direct = String::new();
    hlsl::Writer::new(&mut direct, &options, &pipeline)
        .write(module, info, None)
        .map_err(|e| format!("HLSL: {e}"))?;
    if direct.is_empty() {
        return Err("an empty translation".into());
    }
    Ok(())
}

/// One variant: its bindings, its module, and what becomes of that.
fn check(graph: &Graph, op: &Op, caps: &Caps) {
    let label = format!("{}{} on {caps:?}", op.spec.name, op.variant);
    let composed = compose(&Sources::default(), op.spec, &op.variant)
        .unwrap_or_else(|e| panic!("{label}: {e}"));
    assert_eq!(composed.bindings.len(), op.operands.len(), "{label}: operands and bindings");
    let module = naga::front::wgsl::parse_str(&composed.wgsl).unwrap_or_else(|e| {
        let line = e.location(&composed.wgsl).map_or(0, |l| l.line_number as usize);
        panic!("{label}: {}: {e}", composed.origin(line))
    });
    // One chunk, whatever its bindings, is enough for the size of the parameters.
    let none = Limits { binding_bytes: u64::MAX, buffer_bytes: u64::MAX, ..Limits::WEBGPU };
    let chunks = split(graph, op, &none).unwrap_or_else(|e| panic!("{label}: {e}"));
    let launch = (op.launch)(&chunks[0]);
    validate(&module, caps)
        .and_then(|info| translate(&module, &info, caps, op.variant.needs_coop()))
        .and_then(|()| {
            let has_matrices = op.variant.needs_coop();
            check_resources(&module, caps, launch.params().len(), has_matrices)
        })
        .unwrap_or_else(|e| panic!("{label}: {e}"));
}

/// Checks all variants of a family on all devices; returns how many there are.
fn check_family(name: &str) -> usize {
    let family: Family = FAMILIES.iter().find(|(n, _)| *n == name).unwrap().1;
    let mut seen = HashSet::new();
    for caps in devices() {
        let graph = every::record(family, &caps);
        for op in every::distinct(graph.ops()) {
            let enabled = (caps.f16, caps.subgroups, caps.int64);
            if !seen.insert((op.spec.name, op.variant.clone(), enabled)) {
                continue;
            }
            check(&graph, op, &caps);
        }
    }
    seen.len()
}

macro_rules! families {
    ($($test:ident $name:literal;)*) => {$(
        #[test]
        fn $test() {
            let count = check_family($name);
            println!("{}: {count} modules", $name);
        }
    )*};
}
families! {
    every_matmul_validates_at_its_tier_and_translates "matmul";
    every_conv2d_validates_at_its_tier_and_translates "conv2d";
    every_attention_validates_at_its_tier_and_translates "attention";
    every_joint_attention_validates_at_its_tier_and_translates "joint";
    every_norm_validates_at_its_tier_and_translates "norms";
    every_pointwise_kernel_validates_at_its_tier_and_translates "pointwise";
}

/// Variants checked of each tile.
const OF_EACH_TILE: usize = 12;

/// Every tile that `scalediff tune` may find, on each device that knows it.
#[test]
fn every_tile_validates_and_translates() {
    let mut seen = HashSet::new();
    let whole = |caps: &Caps| caps.limits.binding_bytes == Limits::WEBGPU.binding_bytes;
    for own in devices().into_iter().filter(whole) {
        for kind in TileKind::ALL {
            let name = match kind {
                TileKind::Matmul | TileKind::MatmulSmall => "matmul",
                TileKind::Conv2d | TileKind::Conv2dSmall => "conv2d",
                TileKind::Attention | TileKind::AttentionWide => "attention",
            };
            let family = FAMILIES.iter().find(|(n, _)| *n == name).unwrap().1;
            for tile in tiles(&own, kind) {
                // Room for the largest.
                let limits = Limits { workgroup_bytes: 64 << 10, invocations: 1024, ..own.limits };
                let tiles = Tiles::NONE.with(kind, Some(tile));
                let caps = Caps { tiles, limits, ..own.clone() };
                let graph = every::record(family, &caps);
                every::distinct(graph.ops())
                    .into_iter()
                    .filter(|op| seen.insert((op.spec.name, op.variant.clone(), caps.f16)))
                    .take(OF_EACH_TILE)
                    .for_each(|op| check(&graph, op, &caps));
            }
        }
    }
    assert!(seen.len() > 200, "{} variants", seen.len());
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders")
}

fn files_below(folder: &Path, prefix: &str, out: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type().unwrap().is_dir() {
            files_below(&entry.path(), &format!("{name}/"), out);
        } else if name.ends_with(".wgsl") {
            out.insert(name);
        }
    }
}

#[test]
fn the_list_of_sources_is_the_folder() {
    let mut files = BTreeSet::new();
    files_below(&folder(), "", &mut files);
    let listed: BTreeSet<String> = SOURCES.iter().map(|(p, _)| (*p).to_string()).collect();
    assert_eq!(listed.len(), SOURCES.len(), "a file is listed twice in src/shader/sources.rs");
    let missing: Vec<_> = files.symmetric_difference(&listed).collect();
    assert!(missing.is_empty(), "src/shader/sources.rs and shaders/ differ in {missing:?}");
}

#[test]
fn every_file_opens_with_what_it_computes_and_is_short() {
    for (path, text) in SOURCES {
        assert!(text.starts_with("// "), "shaders/{path}: no header comment");
        let lines = text.lines().count();
        assert!(lines <= MOST_LINES, "shaders/{path}: {lines} lines, at most {MOST_LINES}");
    }
}

#[test]
fn no_file_is_dead() {
    let mut used = BTreeSet::new();
    for caps in devices() {
        for (_, family) in FAMILIES {
            let graph = every::record(*family, &caps);
            for op in every::distinct(graph.ops()) {
                let composed = compose(&Sources::default(), op.spec, &op.variant).unwrap();
                used.extend((1..=composed.wgsl.lines().count()).map(|line| {
                    let origin = composed.origin(line);
                    origin.split(':').next().unwrap_or("").to_string()
                }));
            }
        }
    }
    let dead: Vec<_> = SOURCES
        .iter()
        .map(|(path, _)| format!("shaders/{path}"))
        // Microbenchmarks are recorded by src/bench alone, the check of matrix units by src/gpu.
        .filter(|path| !path.starts_with("shaders/bench/") && !path.starts_with("shaders/check/"))
        .filter(|path| !used.contains(path))
        .collect();
    assert!(dead.is_empty(), "no variant of any kernel uses {dead:?}");
}
