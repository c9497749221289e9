fn main() {
    use scalediff::{gpu::*, pipeline::Precision, verify};
    let args: Vec<String> = std::env::args().collect();
    let precision = if args[2] == "f32" { Precision::F32 } else { Precision::F16 };
    let tier = args.get(3).filter(|s| *s != "-").map(|t| t.parse().unwrap());
    let gpu = Gpu::open(&GpuOptions {
        tier,
        limits: args.get(4).cloned(),
        shader_checks: args.len() > 5,
        ..Default::default()
    })
    .unwrap();
    println!("{:?}", gpu.facts());
    verify::verify_folder(
        &gpu,
        std::path::Path::new(&args[1]),
        precision,
        &mut |o| match &o.result {
            Ok(c) => {
                for c in c {
                    println!(
                        "{} {:18} {:12} {:.3e} / {:.0e}",
                        if c.passed() { "ok  " } else { "FAIL" },
                        o.name,
                        c.output,
                        c.error,
                        c.tolerance
                    )
                }
            }
            Err(e) => println!("ERR  {} {:?}", o.name, e),
        },
    )
    .unwrap();
}
