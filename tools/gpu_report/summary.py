"""Puts the results in a folder of `tools/gpu_report/run` together: report.json and report.md.

    python tools/gpu_report/summary.py FOLDER
"""

import datetime
import json
import sys
from pathlib import Path


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def kernel_rows(ours, torch):
    theirs = {c["case"]: c["seconds"] for c in torch}
    for c in ours:
        if c["status"] != "measured":
            continue
        peak = c["device"]["peak_units"] if "=coop" in c["variant"] else c["device"]["peak_flops"]
        rate, other = c["flops"] / c["seconds"], theirs.get(c["case"])
        yield {"case": c["case"], "ms": 1e3 * c["seconds"], "tflops": rate / 1e12, "of_peak": rate / peak,
               "gbs": c["bytes"] / c["seconds"] / 1e9, "of_copy": c["bytes"] / c["seconds"] / c["device"]["peak_bytes"],
               "torch_ms": other and 1e3 * other, "of_torch": other and other / c["seconds"], "error": c["error"]}


def main(folder):
    folder = Path(folder)
    ours, cascade = lines(folder / "kernels.jsonl"), lines(folder / "cascade.jsonl")
    model = json.loads((folder / "torch_model.json").read_text()) if (folder / "torch_model.json").exists() else {}
    device = ours[0]["device"] if ours else {}
    rows = list(kernel_rows(ours, lines(folder / "torch_kernels.jsonl")))
    verify = {p.stem: p.read_text().strip().splitlines()[-1:] for p in sorted(folder.glob("verify-*.txt"))}
    report = {"date": str(datetime.date.today()), "device": device, "kernels": rows, "cascade": cascade,
              "torch_model": model, "verify": verify}
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n")

    percent = lambda share: "" if share is None else f"{100 * share:.0f} %"
    number = lambda value: "" if value is None else f"{value:.3f}"
    md = [f"{device.get('adapter')}, {device.get('driver')}, {report['date']}. Peaks by microbenchmark: "
          f"{device.get('peak_flops', 0) / 1e12:.1f} TFLOP/s f32, {(device.get('peak_units') or 0) / 1e12:.0f} TFLOP/s on "
          f"matrix units, {device.get('peak_bytes', 0) / 1e12:.2f} TB/s copied. torch {model.get('torch')}.", "",
          "| kernel | ms | TFLOP/s | of peak | GB/s | of copy | torch ms | of torch's speed |",
          "|---|---|---|---|---|---|---|---|"]
    md += [f"| {r['case']} | {r['ms']:.3f} | {r['tflops']:.1f} | {percent(r['of_peak'])} | {r['gbs']:.0f} | "
           f"{percent(r['of_copy'])} | {number(r['torch_ms'])} | {percent(r['of_torch'])} |" for r in rows]
    md += ["", "| torch, f16 | seconds | error against f32 |", "|---|---|---|"]
    md += [f"| {name} | {r['f16_seconds']:.4f} | {r['f16_error']:.1e} |" for name, r in model.items() if isinstance(r, dict)]
    md += ["", "| here, f16 | step s | decode s | encode s |", "|---|---|---|---|"]
    md += [f"| {s['width']}×{s['height']} | {s['step']:.4f} | {s['decoding']:.2f} | {s['encoding']:.2f} |"
           for c in cascade for s in c["stages"]]
    md += ["", *(f"- `{name}`: {' '.join(last)}" for name, last in verify.items())]
    (folder / "report.md").write_text("\n".join(md) + "\n")
    print("\n".join(md))


if __name__ == "__main__":
    main(sys.argv[1])
