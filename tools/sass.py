#!/usr/bin/env python3
"""What nvcc makes of the CUDA kernels: facts read from the machine code, never a timing.

    tools/sass.py [--arch 75,80,86,89,90,100,120] [--only gemm,conv] [--build DIR] [--jobs N] [--json FILE]

Compiles every cuda/*.cu for every architecture that a release has it for, warnings being errors, and reads the code for sm_75,
sm_80 and sm_90: registers, stack, spills, the hot loop's share of multiply-adds, tensor instructions. Main loops are printed, the
facts of every kernel written to FILE (kernels.json in DIR, if not said). Shared memory is what the compiler knows of: kernels
that are given theirs at launch (shared_memory() of cuda/launch.cuh) show none, and warps are counted by registers alone.
Exits with 1 where a bar is not held:

* no kernel spills registers or keeps anything in local memory;
* the 128 x 128 product in float32: at least 85 % of its main loop's instructions are FFMA, 20 for each LDS.128;
* tensor-core products, from sm_80 on: HMMA, loads from shared memory and LDGSTS (asynchronous copies);
* machine code for all architectures, compressed as in a released wheel: at most 7 MB, so that the wheel stays below 12.

Where nvcc or cuobjdump (pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm) is missing it says so and exits with 0.
"""

import argparse
import ast
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig

ROOT = pathlib.Path(__file__).resolve().parents[1]
RELEASE = (75, 80, 86, 89, 90, 100, 120)
# In a release the code of these files for sm_80 serves sm_86 and sm_89, too (cmake/cuda.cmake).
LARGE, SERVED = ("gemm", "conv", "gibbs", "lstm", "depthwise", "loss", "norm", "lstm_norm"), (86, 89)
READ = (75, 80, 90)
MOST_BYTES = 7_000_000  # a wheel has 3 MB for CPUs, CUDA's runtime, and a tenth more for PTX
FLAGS = ["-std=c++17", "-O3", "-fmad=false", "-Icsrc", "-Icuda", "-Werror", "all-warnings", "-Xptxas", "-v"]
# Peak float32 multiply-adds as FLOP/s, tensor-core TF32 without sparsity, bytes/s: NVIDIA's data sheets.
CARDS = {"T4": (8.1e12, None, 320e9), "A100": (19.5e12, 156e12, 1555e9), "H100 SXM": (67e12, 494e12, 3350e9)}
PRODUCTS = ((512, 512, 512), (1024, 1024, 1024), (4096, 4096, 4096), (8192, 8192, 8192), (128, 512, 784), (64, 4096, 4096))

INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,6})\*/\s+(?:@!?U?P[T0-9]+\s+)?([A-Z][A-Z0-9_]*)((?:\.[A-Za-z0-9_]+)*)\s*([^;]*);")
LARGE_TILE = re.compile(r"product<CudaCores<2, 2, 2, 4\b")
TENSOR_TILE = re.compile(r".*TensorCores<")
FUNCTION = re.compile(r"^\s*Function : (\S+)", re.M)
PTXAS = re.compile(
    r"Function properties for (\S+)\n\s*(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads\n"
    r"ptxas info\s*: Used (\d+) registers(?:.*? (\d+) bytes smem)?"
)


def tool(name):
    """Path of a program of the CUDA toolkit: on the path, or of a package installed by pip; None if there is none."""
    folders = [pathlib.Path(sysconfig.get_path("purelib")) / "nvidia" / f / "bin" for f in ("cu13", "cu12", "cuda_nvcc")]
    found = shutil.which(name)
    return found or next((str(f / name) for f in folders if (f / name).exists()), None)


def newest_source():
    headers = [ROOT / "csrc" / name for name in ("kernels.h", "formulas.h", "philox.h", "cells.h")]
    files = [*(ROOT / "cuda").glob("*.cu*"), *headers]
    return max(f.stat().st_mtime for f in files)


def compile_one(nvcc, source, arch, folder, newest):
    """(compiler's output, or None if it failed; path of the machine code)."""
    code, log = folder / f"{source.stem}.{arch}.cubin", folder / f"{source.stem}.{arch}.log"
    if code.exists() and log.exists() and code.stat().st_mtime > newest:
        return log.read_text(), code
    command = [nvcc, *FLAGS, "-cubin", f"-arch=sm_{arch}", str(source.relative_to(ROOT)), "-o", str(code)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        print(f"{source.name}, sm_{arch}: nvcc failed\n{done.stdout}{done.stderr}", file=sys.stderr)
        return None, code
    log.write_text(done.stdout + done.stderr)
    return log.read_text(), code


def loops(instructions):
    """(first, last) index of the instructions of every loop: what a branch backwards encloses."""
    index = {address: i for i, (address, *_) in enumerate(instructions)}
    found = []
    for i, (address, name, _, operands) in enumerate(instructions):
        target = re.search(r"0x([0-9a-f]+)", operands) if name == "BRA" else None
        if target and int(target.group(1), 16) < address:
            found.append((index.get(int(target.group(1), 16), 0), i))
    return found


def hot_loop(instructions):
    """The instructions of the innermost loop with the most multiply-adds; empty if no loop has any."""
    def weight(span):
        worth = {"FFMA": 1, "FFMA2": 2, "HMMA": 64}
        return sum(worth.get(name, 0) for _, name, *_ in instructions[span[0] : span[1] + 1])

    spans = sorted(((weight(s), s) for s in loops(instructions)), key=lambda w: (-w[0], w[1][1] - w[1][0]))
    if not spans or not spans[0][0]:
        return []
    most, best = spans[0]
    for w, (first, last) in spans:  # a loop inside that does the main part of the work
        if w * 2 > most and first >= best[0] and last <= best[1] and last - first < best[1] - best[0]:
            best = (first, last)
    return instructions[best[0] : best[1] + 1]


def describe(text):
    """Facts of one kernel's machine code."""
    instructions = [(int(a, 16), name, suffix, operands) for a, name, suffix, operands in INSTRUCTION.findall(text)]
    loop = hot_loop(instructions)
    names = [name for _, name, *_ in instructions]
    inside = [name for _, name, *_ in loop if name != "NOP"]
    wide = sum(name == "LDS" and ".128" in suffix for _, name, suffix, _ in loop)
    narrow = sum(name == "LDS" and ".128" not in suffix for _, name, suffix, _ in loop)
    ffma = inside.count("FFMA") + 2 * inside.count("FFMA2")
    share = (inside.count("FFMA") + inside.count("FFMA2")) / len(inside) if inside else 0.0
    return {
        "instructions": len(instructions), "local": sum(n in ("LDL", "STL") for n in names),
        "loop": len(inside), "ffma": ffma, "share": share,
        "lds128": wide, "lds": narrow, "hmma": names.count("HMMA"), "ldsm": names.count("LDSM"),
        "ldgsts": names.count("LDGSTS"),
    }  # fmt: skip


def demangled(names):
    if shutil.which("c++filt") is None or not names:
        return dict(zip(names, names))
    text = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    short = [re.sub(r"fastdl::|\(anonymous namespace\)::|^void ", "", line).split("(")[0] for line in text.splitlines()]
    return dict(zip(names, short))


def read(cuobjdump, log, code, arch):
    """{mangled name: facts} of a file's kernels."""
    facts = {}
    for name, stack, stores, loads, registers, shared in PTXAS.findall(log):
        facts[name] = {"registers": int(registers), "stack": int(stack), "spills": int(stores) + int(loads),
                       "shared": int(shared or 0), "warps": occupancy(int(registers), arch)}  # fmt: skip
    text = subprocess.run([cuobjdump, "-sass", code], capture_output=True, text=True, check=True).stdout
    parts = FUNCTION.split(text)[1:]
    for name, body in zip(parts[::2], parts[1::2]):
        facts.setdefault(name, {}).update(describe(body))
    return {name: f for name, f in facts.items() if "instructions" in f}


def occupancy(registers, arch, threads=256):
    """Warps of an SM by registers alone (65,536 of them, given out in eights a thread), in blocks of so many threads."""
    most = 32 if arch == 75 else 48 if arch in (86, 89, 120) else 64
    return min(most, 65536 // ((registers + 7) // 8 * 8 * threads) * threads // 32)


def faults(name, arch, f):
    """Bars that a kernel does not hold, in words."""
    found = []
    if "registers" not in f:
        found.append("ptxas says nothing of its registers and spills")
    if f.get("spills") or f["local"] or f.get("stack"):
        found.append(f"{f.get('spills', 0)} bytes spilled, {f.get('stack', 0)} of stack, {f['local']} local accesses")
    if LARGE_TILE.match(name) and "Gather" not in name:
        if f["share"] < 0.85:
            found.append(f"FFMA are {f['share']:.1%} of the main loop; expected at least 85 %")
        # A few narrow loads of places are no part of the tile's traffic.
        if f["lds128"] == 0 or f["ffma"] < 20 * f["lds128"] or f["lds"] * 50 > f["ffma"]:
            found.append(f"{f['ffma']} FFMA for {f['lds128']} LDS.128 and {f['lds']} LDS; expected 20 for each LDS.128")
    if TENSOR_TILE.match(name) and arch >= 80:
        for what, have in (("HMMA", f["hmma"]), ("LDGSTS", f["ldgsts"]), ("LDSM or LDS", f["ldsm"] + f["lds128"] + f["lds"])):
            if not have:
                found.append(f"no {what}")
    return found


def unseen(names, arch):
    """Kinds of products that none of gemm.cu's kernels is by its name: their bars would hold for want of a kernel."""
    kinds = {"large tile in float32": LARGE_TILE, **({"tensor-core tile": TENSOR_TILE} if arch >= 80 else {})}
    missing = [kind for kind, pattern in kinds.items() if not any(pattern.match(name) for name in names)]
    return [f"no kernel has the name of the {kind} (or c++filt is missing)" for kind in missing]


def architectures(source, archs):
    """Those of `archs` that a release compiles a file for."""
    return [a for a in archs if not (source.stem in LARGE and a in SERVED)]


def packed_bytes(sources, archs, folder):
    """{stem: bytes of a file's machine code for all architectures, compressed as a released wheel's}; None without fatbinary."""
    fatbinary, sizes = tool("fatbinary"), {}
    if fatbinary is None:
        return None
    for source in sources:
        packed = folder / f"{source.stem}.fatbin"
        images = [f"--image3=kind=elf,sm={a},file={folder / f'{source.stem}.{a}.cubin'}"
                  for a in architectures(source, archs)]  # fmt: skip
        done = subprocess.run([fatbinary, f"--create={packed}", "-64", "--compress-mode=size", *images], capture_output=True)
        if done.returncode:  # of a toolkit that does not compress so
            return None
        sizes[source.stem] = packed.stat().st_size
    return sizes


def shapes():
    """{shape that benchmarks/gpu.py measures: (operations, floats)}; every operand is read once and the result written once."""
    found = {f"{m}x{n}x{k}": (2 * m * n * k, m * k + k * n + m * n) for m, n, k in PRODUCTS}
    lines = ast.parse((ROOT / "benchmarks" / "gpu.py").read_text()).body
    table = next(a.value for a in lines if isinstance(a, ast.Assign) and getattr(a.targets[0], "id", "") == "CONVOLUTIONS")
    for name, n, y, c, f, r, stride, pad, groups in ast.literal_eval(table):
        out = n * ((y + 2 * pad - r) // stride + 1) ** 2 * f
        found[f"{name} {r}x{r}"] = 2 * out * r * r * c // groups, n * y * y * c + r * r * c // groups * f + out
    return found


def bounds():
    print("\nRoofline, microseconds: bound, not measurement (operands read once, result written once, no product saved)")
    print(f"{'':30}" + "".join(f"{card + ' fp32':>16}{card + ' tf32':>16}" for card in CARDS))
    for shape, (operations, floats) in shapes().items():
        line = f"{shape:30}"
        for fp32, tf32, bandwidth in CARDS.values():
            memory = 4 * floats / bandwidth
            line += "".join(f"{max(operations / peak, memory) * 1e6:16.1f}" if peak else f"{'-':>16}" for peak in (fp32, tf32))
        print(line)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default=",".join(map(str, RELEASE)))
    parser.add_argument("--only", default="", help="stems of files, with commas between")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build" / "sass")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    nvcc, cuobjdump = tool("nvcc"), tool("cuobjdump")
    if nvcc is None:
        print("no nvcc: the CUDA kernels were not compiled and their machine code not looked at")
        return 0
    args.build.mkdir(parents=True, exist_ok=True)
    archs = [int(a) for a in args.arch.split(",")]
    wanted = args.only.split(",") if args.only else None
    sources = [s for s in sorted((ROOT / "cuda").glob("*.cu")) if wanted is None or s.stem in wanted]
    newest, wrong, report = newest_source(), [], {}
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        # The largest first, so that the last one is not waited for alone.
        order = sorted(((s, a) for s in sources for a in architectures(s, archs)), key=lambda x: -x[0].stat().st_size)
        running = {pool.submit(compile_one, nvcc, s, a, args.build, newest): (s, a) for s, a in order}
        for job in concurrent.futures.as_completed(running):
            source, arch = running[job]
            log, code = job.result()
            if log is None:
                wrong.append(f"{source.name}, sm_{arch}: does not compile without warnings")
            elif arch in READ and cuobjdump:
                report[source.stem, arch] = read(cuobjdump, log, code, arch)
    print(f"{len(sources)} files compiled for {', '.join(f'sm_{a}' for a in archs)}" + ("" if wrong else ", without a warning"))
    if cuobjdump is None:
        print("no cuobjdump (pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm): the machine code was not looked at")
    names = demangled(sorted({n for kernels in report.values() for n in kernels}))
    print(f"\n{'main loops':96}{'arch':>5}{'regs':>5}{'warps':>6}{'FFMA':>7}{'/LDS.128':>9}{'HMMA':>6}{'LDSM':>6}{'LDGSTS':>7}")
    count = {}
    for (stem, arch), kernels in sorted(report.items()):
        if stem == "gemm":
            wrong += [f"gemm.cu, sm_{arch}: {fault}" for fault in unseen([names[n] for n in kernels], arch)]
        for mangled, f in sorted(kernels.items()):
            name = names[mangled]
            count[arch] = count.get(arch, 0) + 1
            wrong += [f"{stem}.cu, sm_{arch}, {name}: {fault}" for fault in faults(name, arch, f)]
            if f["ffma"] >= 64 or f["hmma"]:
                ratio = f"{f['ffma'] / f['lds128']:9.1f}" if f["lds128"] and f["ffma"] >= 64 else f"{'':9}"
                share = f"{f['share']:7.1%}" if f["ffma"] else f"{'':7}"
                print(f"{stem + ': ' + name:96.96}{arch:5}{f.get('registers', 0):5}{f.get('warps', 0):6}"
                      f"{share}{ratio}{f['hmma']:6}{f['ldsm']:6}{f['ldgsts']:7}")  # fmt: skip
    print(", ".join(f"{n} kernels on sm_{a}" for a, n in sorted(count.items())))
    bounds()
    packed = packed_bytes(sources, archs, args.build) if not any("compile" in w for w in wrong) else None
    if packed:
        total = sum(packed.values())
        largest = ", ".join(f"{stem} {size / 1e6:.2f}" for stem, size in sorted(packed.items(), key=lambda x: -x[1])[:6])
        print(f"\nmachine code for {len(archs)} architectures, compressed: {total / 1e6:.2f} MB (MB of {largest}, ...)")
        if total > MOST_BYTES:
            wrong.append(f"machine code takes {total / 1e6:.2f} MB; expected at most {MOST_BYTES / 1e6:.2f}")
    facts = {f"{s} sm_{a}": {names[n]: f for n, f in k.items()} for (s, a), k in sorted(report.items())}
    (args.json or args.build / "kernels.json").write_text(json.dumps(facts, indent=1) + "\n")
    print("\n" + "\n".join(wrong) if wrong else "\nall bars held")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
