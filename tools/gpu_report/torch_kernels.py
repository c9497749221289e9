"""Times torch's own kernels on the cases of `scalediff bench`, on data of the same kind.

    python tools/gpu_report/torch_kernels.py OURS.jsonl OUT.jsonl

Reads what `scalediff bench --json` wrote, runs each case that it knows in torch (f16, eager, channels last for
convolutions), and writes one JSON object per case: seconds by CUDA events (median of 20) and the operations, which must
agree with ours. On a machine without CUDA it runs the smaller ones on the processor, to try the script.
"""

import json
import statistics
import sys
import time

import torch
from torch.nn import functional as F

CUDA = torch.cuda.is_available()
DEVICE, TYPE = ("cuda", torch.float16) if CUDA else ("cpu", torch.float32)
MOST_FLOPS = 1e16 if CUDA else 3e10
CHANNELS_LAST = torch.channels_last


def normal(*shape):
    return torch.randn(*shape, device=DEVICE, dtype=TYPE)


def linear(rows, k, n, tail=None):
    x, b = normal(rows, k), normal(2 * n if tail == "geglu" else n)
    w = normal(len(b), k) / k**0.5
    other = normal(rows, n)

    def run():
        y = F.linear(x, w, None if tail == "none" else b)
        if tail == "residual":
            return y + other
        if tail == "geglu":
            a, gate = y.chunk(2, -1)
            return a * F.gelu(gate)
        return F.gelu(y, approximate="tanh") if tail == "gelu_tanh" else y

    return run, 2 * rows * k * len(b)


def conv(items, side, c, n, joined=0, stride=1, doubled=False):
    x = normal(items, c, side, side).to(memory_format=CHANNELS_LAST)
    other = normal(items, joined, side, side).to(memory_format=CHANNELS_LAST) if joined else None
    w, b = (normal(n, c + joined, 3, 3) / (9 * (c + joined)) ** 0.5).to(memory_format=CHANNELS_LAST), normal(n)

    def run():
        y = x if other is None else torch.cat([x, other], 1)
        y = F.interpolate(y, scale_factor=2.0) if doubled else y
        return F.conv2d(y, w, b, stride, 1)

    out = side * 2 if doubled else side // stride
    return run, 2 * items * out * out * n * 9 * (c + joined)


def attend(items, lq, lk, heads, dim):
    q, k, v = (normal(items, heads, length, dim) for length in (lq, lk, lk))
    return lambda: F.scaled_dot_product_attention(q, k, v), 4 * items * heads * lq * lk * dim


def windows(side, window):
    """First token of each block's window along an axis, and the block's size."""
    block = window // 2
    return [min(max(i * block - window // 4, 0), side - window) for i in range(side // block)], block


def npa(items, side, window, heads, dim):
    """Blocks of queries that see their windows: keys and values are gathered, then one batched attention."""
    q, k, v = (normal(items, heads, side, side, dim) for _ in range(3))
    starts, block = windows(side, window)
    n = len(starts)
    at = (torch.tensor(starts, device=DEVICE)[:, None] + torch.arange(window, device=DEVICE)).flatten()

    def gather(t):
        t = t.index_select(2, at).index_select(3, at).view(items, heads, n, window, n, window, dim)
        return t.permute(0, 2, 4, 1, 3, 5, 6).reshape(items * n * n, heads, window * window, dim)

    def run():
        own = q.view(items, heads, n, block, n, block, dim).permute(0, 2, 4, 1, 3, 5, 6)
        y = F.scaled_dot_product_attention(own.reshape(items * n * n, heads, block * block, dim), gather(k), gather(v))
        y = y.view(items, n, n, heads, block, block, dim).permute(0, 3, 1, 4, 2, 5, 6)
        return y.reshape(items, heads, side, side, dim)

    return run, 4 * items * heads * side * side * window * window * dim


def group_norm(items, side, c):
    x = normal(items, c, side, side).to(memory_format=CHANNELS_LAST)
    w, b = normal(c), normal(c)
    return lambda: F.silu(F.group_norm(x, 32, w, b)), 0


CASES = {
    "matmul/square_8192": lambda: linear(8192, 8192, 8192, "none"),
    "matmul/flux_1024_qk": lambda: linear(4096, 3072, 6144),
    "matmul/flux_1024_up": lambda: linear(4096, 3072, 12288, "gelu_tanh"),
    "matmul/flux_1024_down": lambda: linear(4096, 12288, 3072, "residual"),
    "matmul/sdxl_1024_q_640": lambda: linear(8192, 640, 640, "none"),
    "matmul/sdxl_1024_geglu_640": lambda: linear(8192, 640, 2560, "geglu"),
    "matmul/sdxl_1024_ff_down_640": lambda: linear(8192, 2560, 640, "residual"),
    "matmul/sdxl_1024_q_1280": lambda: linear(2048, 1280, 1280, "none"),
    "matmul/sdxl_1024_geglu_1280": lambda: linear(2048, 1280, 5120, "geglu"),
    "matmul/sdxl_1024_ff_down_1280": lambda: linear(2048, 5120, 1280, "residual"),
    "matmul/sdxl_2048_geglu_640": lambda: linear(32768, 640, 2560, "geglu"),
    "matmul/sdxl_4096_geglu_640": lambda: linear(131072, 640, 2560, "geglu"),
    "conv2d/sdxl_1024_res_320": lambda: conv(2, 128, 320, 320),
    "conv2d/sdxl_1024_res_640": lambda: conv(2, 64, 640, 640),
    "conv2d/sdxl_1024_res_1280": lambda: conv(2, 32, 1280, 1280),
    "conv2d/sdxl_1024_res_joined_1280": lambda: conv(2, 32, 1280, 1280, joined=1280),
    "conv2d/sdxl_1024_down_320": lambda: conv(2, 128, 320, 320, stride=2),
    "conv2d/sdxl_1024_up_640": lambda: conv(2, 64, 640, 640, doubled=True),
    "conv2d/sdxl_1024_vae_512": lambda: conv(1, 128, 512, 512),
    "conv2d/sdxl_1024_vae_256": lambda: conv(1, 512, 256, 256),
    "conv2d/sdxl_1024_vae_128": lambda: conv(1, 1024, 128, 128),
    "conv2d/sdxl_2048_res_320": lambda: conv(2, 256, 320, 320),
    "conv2d/sdxl_4096_res_320": lambda: conv(2, 512, 320, 320),
    "attention/sdxl_1024_self_640": lambda: attend(2, 4096, 4096, 10, 64),
    "attention/sdxl_1024_self_1280": lambda: attend(2, 1024, 1024, 20, 64),
    "attention/sdxl_1024_cross_640": lambda: attend(2, 4096, 77, 10, 64),
    "attention/sdxl_1024_cross_1280": lambda: attend(2, 1024, 77, 20, 64),
    "attention/sdxl_1024_vae_mid": lambda: attend(1, 16384, 16384, 1, 512),
    "attention/sdxl_2048_full_640": lambda: attend(2, 16384, 16384, 10, 64),
    "attention/sdxl_2048_npa_640": lambda: npa(2, 128, 64, 10, 64),
    "attention/sdxl_2048_npa_1280": lambda: npa(2, 64, 32, 20, 64),
    "attention/sdxl_4096_full_640": lambda: attend(2, 65536, 65536, 10, 64),
    "attention/sdxl_4096_npa_640": lambda: npa(2, 256, 64, 10, 64),
    "attention/sdxl_4096_npa_1280": lambda: npa(2, 128, 32, 20, 64),
    "group_norm/sdxl_1024_norm_320": lambda: group_norm(2, 128, 320),
    "group_norm/sdxl_2048_norm_320": lambda: group_norm(2, 256, 320),
    "group_norm/sdxl_4096_norm_320": lambda: group_norm(2, 512, 320),
}


def seconds(run):
    """Median of 20 groups of calls, each long enough for the clock."""
    if not CUDA:
        run()
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    times, calls = [], 1
    for i in range(23):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(calls):
            run()
        end.record()
        end.synchronize()
        each = start.elapsed_time(end) / 1e3 / calls
        if i < 2:
            calls = min(max(int(5e-3 / each), 1), 200)
        else:
            times.append(each)
        if sum(times) * calls > 2:
            break
    return statistics.median(times)


def main(ours, out):
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    ours = [json.loads(line) for line in open(ours)]
    with open(out, "w") as file, torch.inference_mode():
        for case in ours:
            make = CASES.get(case["case"])
            if make is None or case["status"] != "measured" or case["flops"] > MOST_FLOPS:
                continue
            try:
                run, flops = make()
                if flops and abs(flops / case["flops"] - 1) > 0.01:
                    sys.exit(f"{case['case']}: {flops:.4g} operations here, {case['flops']:.4g} in ours")
                took = seconds(run)
            except torch.cuda.OutOfMemoryError as error:
                print(case["case"], "out of memory:", error)
                continue
            line = {"case": case["case"], "seconds": took, "ours": case["seconds"], "flops": case["flops"]}
            file.write(json.dumps(line) + "\n")
            file.flush()
            ratio = took / case["seconds"]
            print(f"{case['case']:40} torch {took * 1e3:9.3f} ms {flops / took / 1e12:7.1f} TFLOP/s  "
                  f"ours {case['seconds'] * 1e3:9.3f} ms  {100 * ratio:6.1f} % of torch's speed", flush=True)
            del run


if __name__ == "__main__":
    main(*sys.argv[1:3])
