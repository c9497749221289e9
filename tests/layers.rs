//! Null ring: invariants of the source tree, read from the files themselves.

use std::fs;
use std::path::{Path, PathBuf};

/// The modules of the crate from the bottom up; those of one line may not see each other. A module
/// may use what stands above it here.
const LAYERS: &[&[&str]] = &[
    &["error"],
    &["files", "tensor"],
    &["shader"],
    &["gpu"],
    &["graph"],
    &["kernels"],
    &["reference", "weights"],
    &["nn"],
    &["models"],
    &["sampling"],
    &["scalediff"],
    &["embedded"],
    &["pipeline"],
    &["bench", "verify"],
    &["cli"],
    &["main"],
];

/// What may see `reference`: the engine must not share code with what judges it.
const SEE_REFERENCE: &[&str] = &["reference", "bench"];

/// What `reference` may see, for the same reason.
const REFERENCE_SEES: &[&str] = &["tensor", "kernels", "reference"];

struct Source {
    /// Path below `src`, with slashes.
    path: String,
    /// The module of the crate it belongs to; empty for `lib.rs`.
    module: String,
    /// The text without comments and without unit tests.
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    below(&root, &mut files);
    files.sort();
    files
        .into_iter()
        .map(|file| {
            let path = file.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
            let module = path.split('/').next().unwrap().trim_end_matches(".rs");
            let module = if module == "lib" { "" } else { module }.to_string();
            Source { path, module, code: code_of(&fs::read_to_string(&file).unwrap()) }
        })
        .collect()
}

fn below(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            below(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// Drops line comments and everything from `#[cfg(test)]` on, which house style keeps last.
fn code_of(text: &str) -> String {
    text.lines()
        .take_while(|line| line.trim() != "#[cfg(test)]")
        .map(|line| if line.trim_start().starts_with("//") { "" } else { line })
        .map(|line| line.split(" // ").next().unwrap_or(line))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The first path segments after `crate::`, including those of `use crate::{a::…, b::…}`.
fn modules_used(source: &Source) -> Vec<String> {
    let name = |text: &str| -> String {
        text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let start = if source.module == "main" { "scalediff::" } else { "crate::" };
    let mut used = Vec::new();
    for (at, _) in source.code.match_indices(start) {
        // `super::scalediff::` and the like name modules, not the crate.
        if at > 0 && source.code[..at].ends_with([':', '_']) {
            continue;
        }
        let rest = &source.code[at + start.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            used.push(name(rest));
            continue;
        };
        let mut depth = 0;
        let mut item = String::new();
        for c in group.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    used.push(name(item.trim()));
                    item.clear();
                    continue;
                }
                _ => {}
            }
            item.push(c);
        }
        used.push(name(item.trim()));
    }
    used.retain(|m| !m.is_empty());
    used
}

fn rank(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

#[test]
fn the_reader_of_imports_sees_groups_and_paths() {
    let code = "use crate::error::Result;\nuse crate::{gpu::Gpu, tensor::{A, B}};\nlet x = crate::nn::f();";
    let source = Source { path: String::new(), module: "models".into(), code: code_of(code) };
    assert_eq!(modules_used(&source), ["error", "gpu", "tensor", "nn"]);
}

#[test]
fn modules_use_only_what_lies_below_them() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|s| !s.module.is_empty()) {
        let own = rank(&source.module)
            .unwrap_or_else(|| panic!("src/{}: add the module to LAYERS", source.path));
        for used in modules_used(source) {
            let Some(other) = rank(&used) else { continue };
            let allowed = if source.module == "reference" {
                REFERENCE_SEES.contains(&used.as_str())
            } else {
                let judged =
                    used == "reference" && !SEE_REFERENCE.contains(&source.module.as_str());
                used == source.module || (other < own && !judged)
            };
            if !allowed {
                wrong.push(format!("src/{} uses {used}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "against the order of layers:\n{}", wrong.join("\n"));
}

/// Fails for files whose code contains one of `words` although `may` does not list them.
fn only(words: &[&str], may: impl Fn(&Source) -> bool, rule: &str) {
    let wrong: Vec<String> = sources()
        .iter()
        .filter(|s| !may(s))
        .flat_map(|s| {
            s.code
                .lines()
                .enumerate()
                .filter(|(_, line)| words.iter().any(|w| line.contains(w)))
                .map(|(i, line)| format!("src/{}:{}: {}", s.path, i + 1, line.trim()))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(wrong.is_empty(), "{rule}:\n{}", wrong.join("\n"));
}

#[test]
fn wgpu_is_named_only_by_the_device_and_the_plan() {
    only(
        // Not the extension of WGSL whose name begins so.
        &["wgpu::", "use wgpu", "wgpu as"],
        |s| s.module == "gpu" || ["graph/plan.rs", "graph/replay.rs"].contains(&s.path.as_str()),
        "only src/gpu and src/graph/{plan,replay}.rs name wgpu",
    );
}

#[test]
fn vulkan_is_named_only_where_memory_is_shared() {
    only(
        &["ash::vk", "ash::Device", "use ash"],
        |s| s.path == "gpu/alias.rs",
        "only src/gpu/alias.rs names ash",
    );
}

#[test]
fn only_weights_opens_checkpoints() {
    only(
        &["safetensors::", "SafeTensors", "SafeTensorError"],
        // Recorded cases are safetensors files too; the program's own model is bytes in memory.
        |s| ["weights", "verify", "embedded"].contains(&s.module.as_str()),
        "checkpoints are opened by src/weights",
    );
}

#[test]
fn only_the_command_line_prints() {
    only(
        &["println!", "eprintln!", "print!(", "eprint!(", "dbg!("],
        |s| s.module == "cli" || s.module == "main",
        "the library does not print",
    );
}

#[test]
fn shaders_stand_only_in_their_folder() {
    only(
        &["@compute", "@group(", "var<storage"],
        |s| s.path == "shader/compose.rs",
        "WGSL in Rust",
    );
    for source in sources() {
        assert!(!source.code.contains("@compute"), "src/{}: a shader", source.path);
    }
}

#[test]
fn no_source_names_an_absolute_path() {
    let words = ["\"/home", "\"/root", "\"/tmp", "\"/usr", "\"/opt", "\"/etc", "C:\\\\"];
    only(&words, |_| false, "paths come from the user or the system");
}

#[test]
fn no_source_panics_on_purpose() {
    only(&["todo!(", "unimplemented!(", "panic!("], |_| false, "return an error instead");
}
